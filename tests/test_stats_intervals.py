"""costkit.stats.intervals: the intervals cover what they say they cover."""

from __future__ import annotations

import time

import numpy as np
import pytest

from costkit.stats import (
    binomial_limits,
    bootstrap_change,
    bootstrap_mean,
    quantile,
    quantile_interval,
    wilson,
)

# k, n, confidence, sides, and the quantiles that Clopper and Pearson's limits are: tail of Beta(k, n - k + 1) below,
# tail of Beta(k + 1, n - k) above, tail = (1 - confidence) / sides; from scipy 1.16's beta.ppf and beta.isf.
LIMITS = [
    (1, 10, 0.95, 2, 0.0025285785444617865, 0.4450161170281954),
    (5, 10, 0.95, 2, 0.18708602844739855, 0.8129139715526015),
    (3, 59, 0.9, 1, 0.018824099769345893, 0.10973746487039558),
    (9, 10, 0.99, 2, 0.4557129431003132, 0.9994988714245354),
    (20, 1000, 0.95, 2, 0.01225826797240633, 0.03072003268260911),
    (999, 1000, 0.95, 1, 0.9952650064245002, 0.999948708021091),
    (50, 100000, 0.999, 2, 0.00029950682392102977, 0.0007780386845618489),
    (500000, 1000000, 0.95, 2, 0.49901951919531184, 0.5009804808046882),
    (3, 1000000, 0.95, 2, 6.186725501906402e-07, 8.767247788067677e-06),
    (999997, 1000000, 0.9, 1, 0.9999933192292271, 0.999998897934177),
]


@pytest.mark.parametrize(("share", "n"), [(0.5, 30), (0.9, 100), (0.05, 200)])
def test_wilson_covers_the_true_share(share: float, n: int) -> None:
    """Over 4,000 seeded repeats the 95 % interval holds the true share in 92.5 % to 98 % of them."""
    rng = np.random.default_rng(1)
    held = 0
    for k in rng.binomial(n, share, 4000):
        low, high = wilson(int(k), n)
        held += low <= share <= high
    assert 0.925 <= held / 4000 <= 0.98


def test_wilson_refuses_impossible_counts() -> None:
    """More right than asked is an error, nothing asked is the whole range."""
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="right=3"):
        wilson(3, 2)


@pytest.mark.parametrize(("q", "n"), [(0.5, 40), (0.95, 100), (0.95, 1000)])
def test_quantile_interval_covers_the_true_quantile(q: float, n: int) -> None:
    """Over 3,000 seeded repeats of exponential values the interval holds the quantile at least 94 % of the time."""
    rng = np.random.default_rng(2)
    truth = -np.log(1 - q)
    held = 0
    for values in rng.exponential(size=(3000, n)):
        interval = quantile_interval(values, q)
        assert interval is not None
        held += interval[0] <= truth <= interval[1]
    assert held / 3000 >= 0.94


def test_quantile_interval_is_none_below_its_sample_size() -> None:
    """A p95 has no two-sided 95 % interval from 71 values, and has one from 72."""
    assert quantile_interval(range(71), 0.95) is None
    assert quantile_interval(range(72), 0.95) is not None


def test_quantile_is_a_value_that_was_seen() -> None:
    """No interpolation: the p95 of 20 values is the 19th."""
    assert quantile(range(1, 21), 0.95) == 19
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


def test_bootstrap_mean_covers_and_is_seeded() -> None:
    """Over 300 seeded repeats the 95 % interval holds the mean in 90 % or more, and repeats itself exactly."""
    rng = np.random.default_rng(3)
    held = 0
    for values in rng.gamma(2.0, size=(300, 80)):
        low, high = bootstrap_mean(values, repeats=600)
        held += low <= 2.0 <= high
    assert held / 300 >= 0.90
    assert bootstrap_mean([1.0, 2.0, 4.0]) == bootstrap_mean([1.0, 2.0, 4.0])
    with pytest.raises(ValueError, match="no values"):
        bootstrap_mean([])


def test_a_paired_change_is_found_and_covered() -> None:
    """Over 200 seeded repeats of pairs that differ by a factor around .8, the interval holds -.2 in 90 % or more."""
    rng = np.random.default_rng(4)
    held = 0
    for _ in range(200):
        before = rng.gamma(2.0, size=120)
        after = before * rng.uniform(0.7, 0.9, size=120)
        _, interval = bootstrap_change(before, after, lambda v: float(v.mean()), repeats=300)
        assert interval is not None
        held += interval[0] <= -0.2 <= interval[1]
    assert held / 200 >= 0.90


def test_a_change_needs_pairs() -> None:
    """Unpaired values are refused, and fewer than 72 pairs give no interval."""
    with pytest.raises(ValueError, match="pairs"):
        bootstrap_change([1.0], [1.0, 2.0], lambda v: float(v.mean()))
    assert bootstrap_change([2.0] * 71, [1.0] * 71, lambda v: float(v.mean())) == (-0.5, None)


@pytest.mark.parametrize("case", LIMITS, ids=lambda case: f"{case[0]}-of-{case[1]}")
def test_binomial_limits_are_the_exact_ones(case: tuple[int, int, float, int, float, float]) -> None:
    """The limits agree with tabled beta quantiles to 1e-12, and the small ones to 1e-9 of themselves."""
    k, n, confidence, sides, low, high = case
    found = binomial_limits(k, n, confidence, sides=sides)
    assert found == pytest.approx((low, high), abs=1e-12, rel=1e-9)


@pytest.mark.parametrize("n", [1, 2, 59, 1000, 10**6])
def test_binomial_limits_at_the_edges(n: int) -> None:
    """None or all seen: 1 - tail^(1/n) and tail^(1/n); limits mirror each other; nothing asked is the whole range."""
    none = binomial_limits(0, n, sides=1)
    assert none == pytest.approx((0.0, 1 - 0.05 ** (1 / n)), rel=1e-9)
    every = binomial_limits(n, n, sides=1)
    assert every == pytest.approx((0.05 ** (1 / n), 1.0), rel=1e-12)
    few, many = binomial_limits(n // 3, n), binomial_limits(n - n // 3, n)
    assert (few[0], few[1]) == pytest.approx((1 - many[1], 1 - many[0]), abs=1e-12)
    assert binomial_limits(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("share", "n"), [(0.01, 300), (0.05, 100), (0.5, 1000)])
def test_binomial_limits_cover_whatever_the_share(share: float, n: int) -> None:
    """Each side misses the true share with probability at most 2.5 %, summed over all counts, and not far less."""
    rng = np.random.default_rng(5)
    counts = rng.binomial(n, share, 20_000)
    limits = {int(k): binomial_limits(int(k), n) for k in np.unique(counts)}
    lows, highs = np.array([limits[int(k)] for k in counts]).T
    for missed in ((share < lows).mean(), (share > highs).mean()):
        assert missed <= 0.025 + 3.1 * np.sqrt(0.025 * 0.975 / 20_000)
    assert (lows <= share).mean() + (highs >= share).mean() < 2 - 0.01


@pytest.mark.parametrize(
    ("arguments", "named"),
    [((3, 2), "k=3"), ((-1, 2), "k=-1"), ((1, 2, 0.4), "confidence"), ((1, 2, 1.0), "confidence")],
)
def test_binomial_limits_refuse_what_makes_no_sense(arguments: tuple[int, int], named: str) -> None:
    """Counts and confidences outside their range are errors that name the argument."""
    with pytest.raises(ValueError, match=named):
        binomial_limits(*arguments)
    with pytest.raises(ValueError, match="sides"):
        binomial_limits(1, 2, sides=3)
    with pytest.raises(ValueError, match="q=1"):
        quantile_interval([1.0], 1.0)


def test_a_million_rows_are_quick() -> None:
    """The interval for a p95 of a million sorted values takes less than half a second, and is the exact one."""
    values = np.arange(1_000_000.0)
    start = time.process_time()
    interval = quantile_interval(values, 0.95)
    assert time.process_time() - start < 0.5
    assert interval == (949_571.0, 950_427.0)
