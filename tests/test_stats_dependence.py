"""Quantiles of dependent series: the correlation time is the known one, intervals cover, and doubt is said."""

from __future__ import annotations

import math

import numpy as np
import pytest

from costkit.stats import quantile_interval
from costkit.stats.dependence import (
    Steady,
    correlation_time,
    drift,
    needed,
    ranks,
    steady_quantile,
    steady_share,
)
from tests.loadtests.queues import runs, truth

Floats = np.ndarray


def autoregressive(correlation: float, rows: int, repeats: int, seed: int) -> Floats:
    """Series whose neighbours have this correlation; shape (repeats, rows), normal, variance 1."""
    rng = np.random.default_rng(seed)
    level = rng.normal(size=repeats)
    found = np.empty((rows, repeats))
    for at in range(rows):
        level = correlation * level + math.sqrt(1 - correlation**2) * rng.normal(size=repeats)
        found[at] = level
    return found.T


def holds(one: Steady | None, true: float) -> bool:
    return one is not None and one.interval is not None and one.interval[0] <= true <= one.interval[1]


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8])
def test_the_correlation_time_is_the_known_one(correlation: float) -> None:
    """For autoregressive series it is near (1 + r) / (1 - r), and its upper end lies above that 9 of 10 times."""
    true = (1 + correlation) / (1 - correlation)
    made = autoregressive(correlation, 4000, 200, seed=1)
    found = np.array([correlation_time(row) for row in made])
    upper = np.array([correlation_time(row, upper=True) for row in made])
    assert abs(np.median(found) / true - 1) < 0.15
    assert np.mean(upper >= true) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("q", [0.5, 0.95])
def test_intervals_cover(correlation: float, q: float) -> None:
    """A nominal 95% interval covers the quantile of autoregressive series in at least 93% of 200 seeded ones."""
    true = {0.5: 0.0, 0.95: 1.6449}[q]
    made = autoregressive(correlation, 2000, 200, seed=2)
    found = [steady_quantile(row, q) for row in made]
    assert np.mean([one.trusted for one in found]) > 0.95
    assert np.mean([holds(one, true) for one in found]) >= 0.93


def test_it_is_needed() -> None:
    """The interval that takes neighbours as independent covers far less."""
    made = autoregressive(0.8, 2000, 200, seed=2)
    plain = [quantile_interval(row, 0.95) for row in made]
    assert np.mean([one is not None and one[0] <= 1.6449 <= one[1] for one in plain]) < 0.8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("utilisation", "metric", "least_shown", "least_covered"),
    [(0.3, "ttft", 0.97, 0.94), (0.3, "e2e", 0.97, 0.94), (0.6, "ttft", 0.6, 0.88), (0.6, "e2e", 0.95, 0.94)],
)
def test_queues_are_covered(
    utilisation: float, metric: str, least_shown: float, least_covered: float
) -> None:
    """Up to 60% utilisation most runs of 1,000 requests get an interval, and it covers the steady-state p95."""
    true = truth(utilisation, metric)
    found = [steady_quantile(row, 0.95) for row in getattr(runs(utilisation, 1000, 150, seed=3), metric)]
    shown = [one for one in found if one.trusted]
    assert len(shown) >= least_shown * 150
    assert np.mean([holds(one, true) for one in shown]) >= least_covered


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["ttft", "e2e"])
def test_near_saturation_little_is_claimed(metric: str) -> None:
    """At 90% utilisation hardly a run of 1,000 requests gets an interval: fewer than 1 in 10 claim something false."""
    true = truth(0.9, metric)
    found = [steady_quantile(row, 0.95) for row in getattr(runs(0.9, 1000, 200, seed=4), metric)]
    assert np.mean([one.trusted and not holds(one, true) for one in found]) < 0.1
    plain = [quantile_interval(row, 0.95) for row in runs(0.9, 1000, 200, seed=4).e2e]
    assert np.mean([one is not None and one[0] <= truth(0.9, "e2e") <= one[1] for one in plain]) < 0.3


@pytest.mark.slow
def test_drift_is_seen_and_not_imagined() -> None:
    """A level that rises by half a standard deviation is called a drift; of steady series few are."""
    steady = autoregressive(0.5, 2000, 300, seed=5)
    assert np.mean([steady_quantile(row, 0.95).drifts for row in steady]) <= 0.03
    rising = steady[:100] + np.linspace(0, 1.0, 2000)
    assert np.mean([drift(row) > 2.6 for row in rising]) > 0.95
    assert np.mean([drift(-row) < -2.6 for row in rising]) > 0.95


def test_too_few_have_no_interval() -> None:
    """Below 72 values a p95 has no interval, and a dependent series needs more of them."""
    noise = np.random.default_rng(0).normal(size=71)
    assert steady_quantile(noise, 0.95).interval is None
    assert [needed(q) for q in (0.5, 0.9, 0.95, 0.99)] == [6, 36, 72, 368]
    walk = np.cumsum(np.random.default_rng(1).normal(size=1000))
    found = steady_quantile(walk, 0.95)
    assert found.n == 1000 and found.n_eff < 72 and not found.trusted


def test_constants_ties_and_failures() -> None:
    """A constant has an interval of no width; equal values share a rank; what never came is the largest."""
    assert steady_quantile([0.5] * 100, 0.95).interval == (0.5, 0.5)
    assert ranks([3.0, 3.0, 1.0, 3.0]).tolist() == [2.0, 2.0, 0.0, 2.0]
    assert drift([1.0] * 50) == 0.0 and drift([1.0, 2.0]) == 0.0
    rng = np.random.default_rng(0)
    failing = np.where(rng.random(500) < 0.1, np.inf, rng.random(500))
    assert steady_quantile(failing, 0.95).value == math.inf


def test_shares_are_covered() -> None:
    """The one-sided limits of the share over a level are each wrong in about 5% of dependent series, not in more."""
    made = autoregressive(0.5, 1000, 300, seed=6)
    found = [steady_share(row, row > 1.6449, sides=1).interval for row in made]
    assert np.mean([one is not None and one[1] < 0.05 for one in found]) <= 0.06
    assert np.mean([one is not None and one[0] > 0.05 for one in found]) <= 0.06


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [[1.0, 2.0]]])
def test_what_is_no_series_is_refused(values: list[float]) -> None:
    """No values, one that is not a number, or two rows are refused by name; so is a mark for each value missing."""
    with pytest.raises(ValueError, match="values"):
        steady_quantile(values, 0.95)
    with pytest.raises(ValueError, match="over"):
        steady_share([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="q="):
        needed(1.0)
