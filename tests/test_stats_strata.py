"""costkit.stats.strata: the risk of a set of strata is refuted only where it is false."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costkit.bound.risk import PER_REQUEST, Bound
from costkit.stats.strata import Strata
from tests.false_alarms import REPEATS, most
from tests.ladders import Floats, Ladders

LIMIT = 0.02
SHARES = np.array([0.3, 0.2, 0.15, 0.1, 0.1, 0.1])
FULL, AUDITED = 1.0, 0.05

# Rates of the first three strata whose weighted sum is the limit, and how often each stratum is labelled.
EXACTLY = {
    "all in one, in full": ((LIMIT / 0.3, 0.0, 0.0), (FULL, FULL, FULL)),
    "all in one, audited": ((LIMIT / 0.3, 0.0, 0.0), (AUDITED, FULL, FULL)),
    "all in the last": ((0.0, 0.0, LIMIT / 0.15), (AUDITED, AUDITED, FULL)),
    "spread": ((0.02, 0.025, 0.06), (AUDITED, AUDITED, FULL)),
}


def refuted(rates: Floats, chances: Floats, steps: int, seed: int, factor: float = 1.0) -> Floats:
    """Of each of 2,000 runs, the most evidence there ever is against the limit, looked at after every ten requests."""
    rng, runs = np.random.default_rng(seed), Ladders(Bound(LIMIT, PER_REQUEST), REPEATS)
    shares = np.broadcast_to(SHARES, (REPEATS, 6))
    highest = np.full(REPEATS, -math.inf)
    for _ in range(steps):
        labels = rng.binomial(rng.multinomial(10, [*SHARES, 1 - SHARES.sum()], REPEATS)[:, :6], chances)
        runs.see(labels, rng.binomial(labels, rates))
        highest = np.maximum(highest, runs.log_e(shares, 3, np.full(REPEATS, LIMIT)) * factor)
    return highest


@pytest.mark.parametrize("case", EXACTLY)
@pytest.mark.parametrize("steps", [100, pytest.param(500, marks=pytest.mark.soak)])
def test_a_risk_at_the_limit_is_rarely_refuted(case: str, steps: int) -> None:
    """Looked at for 1,000 (5,000) requests, the evidence reaches 20 in at most 5% of runs, 5 in at most 20%."""
    rates, chances = (np.array([*some, 0.5, 0.5, 0.5]) for some in EXACTLY[case])
    highest = refuted(rates, chances, steps, seed=1)
    for alpha in (0.05, 0.2):
        share = float((highest >= -math.log(alpha)).mean())
        assert share <= most(alpha), f"{share:.4f} at alpha {alpha}"


def test_the_simulation_catches_evidence_that_is_overstated() -> None:
    """With three times the log evidence the same runs fail, so the simulation can."""
    rates, chances = (np.array([*some, 0.5, 0.5, 0.5]) for some in EXACTLY["all in one, in full"])
    assert (refuted(rates, chances, 100, seed=1, factor=3.0) >= math.log(20)).mean() > most(0.05)


def test_every_label_counts_one_at_a_time() -> None:
    """The real thing, looked at after every single label of 40 in 2,000 runs of two strata: at most 5% refute."""
    rng = np.random.default_rng(2)
    shares, rates, false = [0.4, 0.2], (0.05, 0.1), 0
    limit = sum(share * rate for share, rate in zip(shares, rates, strict=True))
    for _ in range(REPEATS):
        strata = Strata([0.03, 0.1])
        which, coins = rng.integers(0, 2, 40), rng.random(40)
        for stratum, coin in zip(which.tolist(), coins.tolist(), strict=True):
            strata.see(stratum, coin < rates[stratum])
            if strata.log_e(shares, 2, limit)[0] >= math.log(20):
                false += 1
                break
    assert false / REPEATS <= most(0.05)


def test_how_many_labels_a_proof_takes() -> None:
    """A risk of a quarter of the limit is proved in the median within 3 times the labels a flawless run would need."""
    rng, needed = np.random.default_rng(3), []
    flawless = math.log(0.05) / math.log1p(-0.05)
    for _ in range(60):
        strata, labels = Strata([0.02]), 0
        while strata.log_e([1.0], 1, 0.05)[0] < math.log(20) and labels < 2000:
            labels += 1
            strata.see(0, rng.random() < 0.0125)
        needed.append(labels)
    assert np.median(needed) <= 3 * flawless


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=2, max_size=3),
    weights=st.lists(st.floats(0.02, 0.5), min_size=3, max_size=3),
    part=st.floats(0.02, 0.98),
)
def test_the_least_refuted_rates_are_found(
    counts: list[tuple[int, int]], weights: list[float], part: float
) -> None:
    """No rates on a fine grid that have the risk fit the labels better than those found, nor the found much better."""
    shares = weights[: len(counts)]
    limit = part * sum(shares)
    strata = Strata([0.05] * len(counts))
    strata.labels = [wrong + right for wrong, right in counts]
    strata.wrong = [wrong for wrong, _ in counts]
    log_e, _ = strata.log_e(shares, len(counts), limit)
    ours = strata._log_mixture(len(counts)) - log_e
    best = _best_on_grid(counts, shares, limit)
    assert ours >= best - 1e-9, "harder to refute than the truth is safe; easier is not"
    slack = (0.1, 0.02) if len(counts) == 2 else (1.0, 0.1)  # how fine the grid is
    assert ours <= best + slack[0] + slack[1] * abs(best)


def _best_on_grid(counts: list[tuple[int, int]], shares: list[float], limit: float) -> float:
    size = 2000 if len(counts) == 2 else 60
    best, grid = -math.inf, [number / size for number in range(size + 1)]
    for first in itertools.product(grid, repeat=len(counts) - 1):
        rest = (limit - sum(s * r for s, r in zip(shares, first, strict=False))) / shares[-1]
        wrong, right = counts[-1]
        # The last rate is what is left, or better where its labels want more.
        last = max(rest, wrong / (wrong + right) if wrong + right else 1.0, 0.0)
        if last <= 1:
            fit = sum(_fit(*one, rate) for one, rate in zip(counts, (*first, last), strict=True))
            best = max(best, fit)
    return best


def _fit(wrong: int, right: int, rate: float) -> float:
    if (wrong and rate <= 0) or (right and rate >= 1):
        return -math.inf
    return (wrong * math.log(rate) if wrong else 0.0) + (right * math.log1p(-rate) if right else 0.0)


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 300)), min_size=3, max_size=3),
    confidence=st.sampled_from([0.8, 0.95, 0.99]),
)
def test_the_bound_is_where_the_evidence_reaches_what_is_asked(
    counts: list[tuple[int, int]], confidence: float
) -> None:
    """A risk a little above the bound is refuted, one a little below is not, and it lies above the risk seen."""
    strata, shares = Strata([0.01, 0.05, 0.1]), [0.5, 0.2, 0.1]
    strata.labels = [wrong + right for wrong, right in counts]
    strata.wrong = [wrong for wrong, _ in counts]
    bound, asked = strata.bound(shares, 3, confidence), -math.log1p(-confidence)
    assert 0 < bound <= 0.8
    if bound < 0.8:
        assert strata.log_e(shares, 3, bound * 1.001)[0] >= asked
    assert strata.log_e(shares, 3, bound * 0.999)[0] <= asked + 1e-6
    seen = sum(s * w / (w + r) for s, (w, r) in zip(shares, counts, strict=True) if w + r)
    assert bound >= min(seen, 0.8) * 0.999
    assert strata.bound(shares, 3, 0.999) >= bound


@pytest.mark.parametrize(
    ("labels", "wrong", "least", "most_"),
    [
        ((0, 0), (0, 0), 0.6, 0.6001),
        ((1_000_000, 1_000_000), (0, 0), 0.0, 2e-5),
        ((1_000_000, 1_000_000), (1_000_000, 1_000_000), 0.59, 0.6001),
        ((1_000_000, 0), (10_000, 0), 0.204, 0.2055),
        ((5, 3), (5, 3), 0.5, 0.6001),
    ],
)
def test_the_ends_of_what_can_be_counted(
    labels: tuple[int, int], wrong: tuple[int, int], least: float, most_: float
) -> None:
    """No labels, a million, all right, all wrong, a stratum never seen: finite, and where it must be."""
    strata = Strata([0.01, 0.1])
    strata.labels, strata.wrong = list(labels), list(wrong)
    assert least <= strata.bound([0.4, 0.2], 2, 0.95) <= most_
    for limit in (1e-9, 0.01, 0.3, 0.6 - 1e-12):
        assert not math.isnan(strata.log_e([0.4, 0.2], 2, limit)[0])


def test_a_risk_that_no_rates_have_is_refuted_at_once() -> None:
    """Strata with fewer calls than the limit cannot pass it, nor can no stratum at all."""
    strata = Strata([0.01, 0.1])
    assert strata.log_e([0.004, 0.005], 2, 0.01)[0] == math.inf
    assert strata.log_e([0.5, 0.5], 0, 0.01)[0] == math.inf


def test_a_copy_stays_as_it_was() -> None:
    """Labels seen later do not reach a copy, nor the other way round."""
    strata = Strata([0.01, 0.1])
    strata.see(0, wrong=True)
    copied = strata.copy()
    strata.see(0, wrong=False)
    copied.see(1, wrong=True)
    assert (strata.labels, strata.wrong) == ([2, 0], [1, 0])
    assert (copied.labels, copied.wrong) == ([1, 1], [1, 1])


@pytest.mark.parametrize("expected", [[], [0.0], [1.0], [0.1, math.nan], [-0.1]])
def test_expected_rates_are_rates(expected: list[float]) -> None:
    """None, 0, 1, below 0, not a number: refused, by name."""
    with pytest.raises(ValueError, match="expected"):
        Strata(expected)


def test_rates_are_drawn_towards_what_was_expected() -> None:
    """With no label a rate is the one expected, with many the one seen."""
    strata = Strata([0.02, 0.2])
    assert strata.rates() == [0.02, 0.2]
    for number in range(999):
        strata.see(0, wrong=number % 10 == 0)
    assert strata.rates()[0] == pytest.approx(0.1, abs=0.001)
