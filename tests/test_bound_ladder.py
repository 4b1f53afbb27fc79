"""costkit.bound.ladder: how far up the evidence lets a gate serve, and how rarely that is too far."""

from __future__ import annotations

import random

import numpy as np
import pytest
from numpy.typing import NDArray

from costkit.bound.ladder import Ladder, rungs_of
from costkit.bound.risk import PER_HIT, PER_REQUEST, Bound
from costkit.bound.score import Score
from tests.false_alarms import most
from tests.ladders import STEP, Floats, Ladders, run

REQUEST, HIT = Bound(0.02, PER_REQUEST), Bound(0.05, PER_HIT)
SHARES = (0.15, 0.1, 0.1, 0.1, 0.1, 0.1)

# Rates whose risk is the bound exactly, somewhere: in the first rung alone; spread over the first three; in the second,
# which is audited once the first is served; and of hits in all rungs, in two of them, beyond a good first one.
AT_THE_BOUND = {
    "first": (REQUEST, (0.02 / 0.15, 0.3, 0.4, 0.5, 0.6, 0.7)),
    "spread": (REQUEST, (0.02, 0.05, 0.12, 0.5, 0.6, 0.7)),
    "audited": (REQUEST, (0.05, 0.125, 0.01, 0.5, 0.6, 0.7)),
    "hits: all": (HIT, (0.05,) * 6),
    "hits: first and third": (HIT, (0.05, 0.05, 0.05, 0.2, 0.6, 0.7)),
    "hits: second and third": (HIT, (0.02, 0.095, 0.05, 0.2, 0.6, 0.7)),
}


def steady(shares: tuple[float, ...], requests: int) -> Floats:
    return np.tile(np.array(shares), (requests // STEP, 1))


def doubling(shares: tuple[float, ...], requests: int) -> Floats:
    """As a cache fills: every rung's share is twice as large in the end."""
    return np.array(shares) * np.linspace(1, 2, requests // STEP)[:, None]


def check(false: NDArray[np.bool_], bound: Bound) -> float:
    share = float(false.mean())
    assert share <= most(1 - bound.confidence, len(false)), f"{share:.4f} of runs served above the bound"
    return share


@pytest.mark.parametrize("per", [PER_REQUEST, PER_HIT])
def test_many_ladders_are_the_real_one(per: str) -> None:
    """The arrays of the simulations give the evidence and the level of the real ladder, at 200 random states."""
    rng, rand = np.random.default_rng(1), random.Random(1)
    bound = Bound(0.03, per)  # type: ignore[arg-type]
    many, real = Ladders(bound, 200), [Ladder(bound) for _ in range(200)]
    for number, ladder in enumerate(real):
        sizes = rng.integers(0, 400, 6) * (rng.random(6) < 0.9)
        wrong = rng.binomial(sizes, np.array(ladder.edges) * rng.uniform(0, 1.2))
        ladder.strata.labels, ladder.strata.wrong = sizes.tolist(), wrong.tolist()
        many.labels[number], many.wrong[number] = sizes, wrong
        for _ in range(900):
            ladder.passed(rand.choice([None, None, 0, 1, 2, 3, 4, 5, 6]))
        ladder.climb()
    short = np.array([ladder.shares() for ladder in real])
    long = np.array([ladder._shares.long() for ladder in real])
    many.climb(short, long)
    assert many.level.tolist() == [ladder.level for ladder in real]
    assert set(many.level) > {0, 1}, "states that all end on one level compare nothing"
    for upto in (1, 3, 6):
        ours = many.log_e(short, upto, many.limit(short, upto))
        theirs = [
            ladder.strata.log_e(ladder.shares(), upto, ladder.limit(ladder.shares(), upto))[0]
            for ladder in real
        ]
        assert ours == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize("case", ["first", "audited", "hits: all", "hits: second and third"])
def test_a_risk_at_the_bound_is_not_served(case: str) -> None:
    """Of 2,000 runs of 600 requests, looked at every ten, at most 5% ever serves at a risk of the bound."""
    bound, rates = AT_THE_BOUND[case]
    out = run(bound, steady(SHARES, 600), np.array(rates), seed=1, runs=2000, dense=True)
    check(out.false, bound)


@pytest.mark.soak
@pytest.mark.parametrize("case", AT_THE_BOUND)
def test_nor_in_the_long_run(case: str) -> None:
    """The same for 5,000 requests, steady and while the shares double."""
    bound, rates = AT_THE_BOUND[case]
    for shares in (steady(SHARES, 5000), doubling(tuple(s / 2 for s in SHARES), 5000)):
        check(run(bound, shares, np.array(rates), seed=2, runs=2000, dense=True).false, bound)


@pytest.mark.soak
@pytest.mark.parametrize(
    "rates",
    [(0.1, 0.1, 0.14, 0.2, 0.3, 0.4), (0.166, 0.1, 0.1, 0.1, 0.1, 0.1), (0.05, 0.07, 0.14, 0.2, 0.3, 0.4)],
)
def test_two_rungs_pass_the_bound_while_shares_double(rates: tuple[float, ...]) -> None:
    """The lowest level too risky moves down as shares double: all such levels together keep the promise."""
    shares = doubling((0.06, 0.05, 0.05, 0.05, 0.05, 0.05), 5000)
    check(run(REQUEST, shares, np.array(rates), seed=3, runs=2000, dense=True).false, REQUEST)


@pytest.mark.soak
@pytest.mark.parametrize("times", [1.0, 1.05, 1.1])
def test_shares_are_known_well_enough(times: float) -> None:
    """By true shares, not those seen lately, a risk of 1 to 1.1 times the bound is served in at most 5% of runs."""
    rates = np.array([0.02 * times / 0.15, 0.3, 0.4, 0.5, 0.6, 0.7])
    out = run(REQUEST, steady(SHARES, 5000), rates, seed=1, runs=2000)
    check(out.excess >= 1 - 1e-9, REQUEST)


def test_the_simulation_catches_a_ladder_that_asks_for_too_little() -> None:
    """With a third of the evidence the same runs fail, so the simulation can."""
    bound = Bound(0.02, PER_REQUEST, confidence=1 - 0.05 ** (1 / 3))
    rates = np.array(AT_THE_BOUND["first"][1])
    out = run(bound, steady(SHARES, 600), rates, seed=1, runs=2000, dense=True)
    assert out.false.mean() > most(0.05)


def test_it_opens_and_serves() -> None:
    """Rungs as they are expected open within 300 requests in the median, serve over 15%, and keep the bound."""
    rates = np.array([0.01, 0.02, 0.04, 0.08, 0.12, 0.2])
    out = run(REQUEST, steady(SHARES, 2000), rates, seed=4, runs=100, dense=True)
    assert np.median(out.opened) <= 300
    assert out.served.mean() / 2000 > 0.15
    assert (out.wrong / 2000 <= 0.02).mean() > 0.95


def test_rungs_lie_from_half_the_bound_up() -> None:
    """A candidate stands on the first rung whose edge is not below its risk; beyond the last it is never served."""
    ladder = Ladder(REQUEST)
    assert ladder.edges == rungs_of(REQUEST) == (0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
    assert [ladder.rung(risk) for risk in (0.0, 0.01, 0.0100001, 0.32, 0.33, 1.0)] == [0, 0, 1, 5, 6, 6]
    assert max(rungs_of(Bound(0.9))) <= 0.5


def test_nothing_is_served_before_sixty_requests_nor_without_labels() -> None:
    """Neither a thousand labels without requests nor a thousand requests without labels open anything."""
    labelled, asked = Ladder(REQUEST), Ladder(REQUEST)
    for _ in range(1000):
        labelled.label(0, wrong=False)
        asked.passed(0)
    for _ in range(59):
        labelled.passed(0)
    labelled.climb()
    asked.climb()
    assert (labelled.level, asked.level) == (0, 0)
    labelled.passed(0)
    labelled.climb()
    assert labelled.level > 0


def test_a_new_score_moves_the_last_requests() -> None:
    """After a fit that moves every candidate one rung up, shares and level are those of the rungs as they are now."""
    ladder, score = Ladder(REQUEST), Score([0.0, 1.0])
    for _ in range(700):
        ladder.passed(0, (1.0, 6.0))
        ladder.label(0, wrong=False)
    ladder.passed(6)
    ladder.climb()
    assert ladder.level >= 1 and ladder.shares()[0] > 0.99
    score._weights = np.array([0.0, 0.6])
    ladder.rescore(score)
    ladder.climb()
    assert ladder.shares()[:3] == [0.0, 0.0, pytest.approx(599 / 600)]
    assert ladder.level == 0, "no label was ever seen on the rung where all candidates are now"


def test_what_is_missing_is_foretold() -> None:
    """Labels that come at the likely rates open the next level within twice the number foretold, and not at a tenth."""
    ladder = Ladder(REQUEST)
    for number in range(400):
        ladder.passed(0 if number % 2 else None)
    for number in range(60):
        ladder.label(0, wrong=number == 30)
    ladder.climb()
    more = ladder.labels_to(1, ladder.shares())
    assert ladder.level == 0 and more is not None
    taken = 0
    while not ladder.level and taken < 2 * more:
        taken += 1
        ladder.label(0, wrong=taken % 60 == 0)
        ladder.climb()
    assert ladder.level and taken > more / 10


def test_a_rung_too_risky_is_waited_for_in_vain() -> None:
    """Where the rates seen so far are above the bound no number of labels is foretold, and nothing is certified."""
    ladder = Ladder(REQUEST)
    for number in range(400):
        ladder.passed(0)
        ladder.label(0, wrong=number % 20 == 0)
    ladder.climb()
    assert ladder.level == 0 and ladder.certified() is None
    assert ladder.labels_to(1, ladder.shares()) is None


def test_what_is_certified_is_no_more_than_the_bound() -> None:
    """Each of 60 or more open ladders prints a risk within its bound, above the rate seen, mostly below the bound."""
    rng = np.random.default_rng(5)
    for bound in (REQUEST, HIT):
        opened = below = 0
        for _ in range(50):
            ladder = Ladder(bound)
            for _ in range(900):
                ladder.passed(0 if rng.random() < 0.4 else None)
            wrong = rng.random(360) < bound.max_error / 4
            for one in wrong:
                ladder.label(0, bool(one))
            ladder.climb()
            risk = ladder.certified()
            if risk is not None:
                opened += 1
                seen = wrong.mean() * (0.35 if bound is REQUEST else 1.0)
                assert seen < risk <= bound.max_error
                below += risk < bound.max_error
        assert opened > 30 and below > opened / 2
