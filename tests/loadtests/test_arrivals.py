"""Arrivals: the process that was asked for, the same for every number of workers."""

from __future__ import annotations

import math
from itertools import islice, pairwise, takewhile
from typing import cast

import numpy as np
import pytest

from loadtests.arrivals import (
    Kind,
    Plan,
    Stage,
    arrivals,
    dealt,
    expected,
    parse_seconds,
    parse_stages,
)
from loadtests.process import gamma_cdf, kolmogorov

STEADY = (Stage(50, 50),)
CHANGING = (Stage(5, 5, 20), Stage(5, 80, 30), Stage(0, 0, 5), Stage(80, 0, 20), Stage(0, 40, 10))


def times(plan: Plan, seconds: float = math.inf) -> np.ndarray:
    return np.array([at for _, at in takewhile(lambda one: one[1] < seconds, arrivals(plan))])


@pytest.mark.parametrize("burstiness", [0.1, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("stages", [STEADY, CHANGING], ids=["steady", "changing"])
def test_gaps_have_their_law(stages: tuple[Stage, ...], burstiness: float) -> None:
    """In expected requests, gaps have the gamma law and do not depend on each other, at a steady or changing rate."""
    plan = Plan(stages, "gamma", burstiness, seed=3)
    found = np.diff(expected(plan, times(plan, 60.0)))
    least = float(gamma_cdf(1e-6, burstiness))  # shorter gaps are lost in the digits of the times
    assert kolmogorov(gamma_cdf(found, burstiness), least) > 1e-3
    ranks = found.argsort().argsort()
    assert abs(np.corrcoef(ranks[:-1], ranks[1:])[0, 1]) < 4 / math.sqrt(found.size)


def test_counts_are_poisson() -> None:
    """Over 3,000 seeds the counts in windows of a ramp are Poisson with the rate's own integral as mean."""
    plans = [Plan((Stage(2, 20, 3),), seed=seed) for seed in range(3000)]
    counts = np.array([np.histogram(times(plan), bins=[0, 1, 2, 3])[0] for plan in plans])
    means = np.diff(expected(plans[0], [0, 1, 2, 3]))
    assert np.allclose(means, [5, 11, 17])
    assert np.all(np.abs(counts.mean(axis=0) - means) < 4 * np.sqrt(means / 3000))
    assert np.all(np.abs(counts.var(axis=0) / means - 1) < 4 * math.sqrt(2 / 3000 + 1 / (3000 * 5)))
    assert np.all(np.abs(np.corrcoef(counts.T) - np.eye(3)) < 4 / math.sqrt(3000))


@pytest.mark.parametrize(("kind", "burstiness"), [("poisson", 1.0), ("gamma", 0.1), ("constant", 1.0)])
def test_the_rate_holds_from_the_first_second(kind: Kind, burstiness: float) -> None:
    """The first half second expects as many requests as any other: nothing is wound up, even where arrivals burst."""
    counts = [times(Plan((Stage(9, 9),), kind, burstiness, seed), 0.5).size for seed in range(3000)]
    assert abs(np.mean(counts) - 4.5) < 4 * np.std(counts) / math.sqrt(3000) + 1e-9


def test_constant_arrivals_are_even() -> None:
    """Constant arrivals are 1 / rate apart, and where the rate changes one expected request apart."""
    steady = times(Plan(STEADY, "constant"), 60)
    assert steady.size == 3000 and np.allclose(np.diff(steady), 0.02)
    changing = Plan(CHANGING, "constant")
    assert np.allclose(np.diff(expected(changing, times(changing))), 1, atol=1e-6)


@pytest.mark.parametrize("kind", ["poisson", "gamma", "constant"])
@pytest.mark.parametrize("parts", [1, 2, 7])
def test_workers_share_one_process(kind: Kind, parts: int) -> None:
    """The shares of any number of workers add up to the very same requests, each in one share."""
    plan = Plan(CHANGING, kind, 0.5 if kind == "gamma" else 1.0, seed=5)
    whole = list(arrivals(plan))
    shares = [list(arrivals(plan, part=part, parts=parts)) for part in range(parts)]
    assert sorted(one for share in shares for one in share) == whole
    assert [number for number, _ in whole] == list(range(len(whole)))
    assert all(a[1] <= b[1] for a, b in pairwise(whole))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert list(dealt([at for _, at in whole], part=0, parts=parts)) == shares[0]


def test_a_pause_has_no_requests() -> None:
    """A stage at rate 0 sends nothing, and the plan ends when its stages do."""
    found = times(Plan(CHANGING, seed=1))
    assert not np.any((found > 50) & (found < 55)) and found.max() < 85
    assert np.sum(found > 75) > 100


def test_seeds_differ_and_repeat() -> None:
    """A seed gives the same times again, another seed other ones."""
    first = list(islice(arrivals(Plan(STEADY, seed=1)), 5000))
    assert first == list(islice(arrivals(Plan(STEADY, seed=1)), 5000))
    assert first[0] != next(arrivals(Plan(STEADY, seed=2)))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "''"),
        ("10", "'10'"),
        ("10@", "'10@'"),
        ("10@30s,x@5s", "'x@5s'"),
        ("10@0s", "0 seconds"),
        ("-5@3s", "'-5@3s'"),
        ("10@5d", "5d"),
        ("1e9@5s", "'1e9@5s'"),
        ("9999999@5s", "requests a second"),
    ],
)
def test_bad_stages_are_named(text: str, named: str) -> None:
    """A stage that is none is refused with its own text and what to write instead."""
    with pytest.raises(ValueError, match="stage") as caught:
        parse_stages(text)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Plan(()), "rate over 0"),
        (lambda: Plan((Stage(0, 0, 9),)), "rate over 0"),
        (lambda: Plan(STEADY, burstiness=0.5), "gamma"),
        (lambda: Plan(STEADY, "gamma", burstiness=0), "burstiness"),
        (lambda: Plan(STEADY, "gamma", burstiness=math.nan), "burstiness"),
        (lambda: Plan(STEADY, cast(Kind, "fractal")), "'fractal'"),
        (lambda: Plan((Stage(5, 5), Stage(5, 5, 9))), "last stage"),
        (lambda: Stage(1, 5), "ramp"),
        (lambda: Stage(math.nan, math.nan), "rate"),
        (lambda: arrivals(Plan(STEADY), part=2, parts=2), "part"),
        (lambda: dealt([], part=-1, parts=1), "part"),
        (lambda: parse_seconds("soon"), "'soon'"),
    ],
)
def test_impossible_plans_are_refused(make: object, named: str) -> None:
    """What cannot be sent is refused with the argument's name, before anything is."""
    assert callable(make)
    with pytest.raises(ValueError, match=named):
        make()
