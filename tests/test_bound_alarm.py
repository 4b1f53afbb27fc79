"""The alarm of costkit.bound.gate: how soon it takes the permission back, and how rarely for nothing."""

from __future__ import annotations

import numpy as np
import pytest

from costkit.bound import PER_HIT, PER_REQUEST, Bound, Gate, Passage
from costkit.bound.gate import _es
from tests.alarms import alarms
from tests.false_alarms import most

REQUEST, HIT, STRICT = Bound(0.01, PER_REQUEST), Bound(0.05, PER_HIT), Bound(0.02, PER_HIT)
# Each with a share of requests that would be served.
GATES = [(REQUEST, 0.15), (HIT, 0.35), (STRICT, 0.2)]


def at_the_bound(bound: Bound, hits: float) -> float:
    """How many of the answers served are wrong where the bound is met exactly."""
    return bound.max_error / hits if bound.per == PER_REQUEST else bound.max_error


@pytest.mark.parametrize(("bound", "hits"), GATES)
@pytest.mark.parametrize("times", [0.5, 1.0])
def test_false_demotions_are_rare(bound: Bound, hits: float, times: float) -> None:
    """Of 400 runs of 5,500 requests at half the bound, and at it, at most 5% are demoted."""
    before = times * at_the_bound(bound, hits)
    out = alarms(bound, hits=hits, before=before, requests=5500, runs=400, seed=1)
    assert np.isfinite(out.at).mean() <= (0.05 if times == 1.0 else 0.02)
    assert out.dense.mean() < (0.2 if times == 1.0 else 0.05), "audits for nothing take the place of hits"


@pytest.mark.soak
@pytest.mark.parametrize(("bound", "hits"), GATES)
def test_false_demotions_are_as_rare_as_promised(bound: Bound, hits: float) -> None:
    """Of 2,000 runs at the bound at most one look in arl ends in a false alarm: 5,500 of 100,000."""
    out = alarms(bound, hits=hits, before=at_the_bound(bound, hits), requests=5500, runs=2000, seed=2)
    assert np.isfinite(out.at).mean() <= most(5500 / bound.arl, 2000)


@pytest.mark.parametrize(("bound", "hits"), GATES)
def test_a_change_is_found(bound: Bound, hits: float) -> None:
    """When half of the answers change, nine gates in ten are off within 40 audited hits and 120 wrong answers."""
    half = 0.5 * at_the_bound(bound, hits)
    out = alarms(bound, hits=hits, before=half, after=0.5, change=1500, requests=4500, runs=400, seed=3)
    found = out.found(1500)
    assert found.mean() > 0.98
    assert np.quantile(out.audits[found], 0.9) <= 40
    assert np.quantile(out.wrong[found], 0.9) <= 120


@pytest.mark.parametrize(("bound", "hits"), GATES)
def test_wrong_answers_before_demotion_are_foretold(bound: Bound, hits: float) -> None:
    """What a gate says to expect is within a factor of 2 of the mean of simulated changes from a flawless past."""
    gate = Gate(bound, [0.0, 1.0])
    for _ in range(1500 if bound.per == PER_REQUEST else int(1500 * hits)):
        gate._detector(None).look(_es(0.0, bound.max_error))
    said = gate._wrong_before_alarm(hits)
    out = alarms(bound, hits=hits, before=0.0, after=0.5, change=1500, requests=4500, runs=400, seed=4)
    seen = float(out.wrong[out.found(1500)].mean())
    assert said / 2 <= seen <= said * 2, (said, seen)


def test_where_no_alarm_can_go_off_it_says_so() -> None:
    """With a bound of 60% half of the answers wrong are no news, and no number of them is foretold."""
    assert Gate(Bound(0.6), [0.0, 1.0])._wrong_before_alarm(0.5) == float("inf")


def test_many_alarms_are_the_real_one() -> None:
    """Fed the same losses, a real gate is demoted at the request at which the simulation's is."""
    rng, gate = np.random.default_rng(5), Gate(HIT, [0.0, 1.0])
    request = 0
    levels, bets = np.zeros(4), np.array([0.003, 0.01, 0.03, 0.1])
    for request in range(3000):
        audited = bool(rng.random() < gate.suspicion)
        chance, wrong = gate.suspicion, bool(rng.random() < (0.01 if request < 500 else 0.5))
        kind = "audit" if audited else "served"
        made = Passage(kind, 0, 0.01, (1.0, 4.0), chance, gate.generation)  # type: ignore[arg-type]
        demoted = gate.see(made, wrong if audited else None)
        levels = (levels + 1) * (1 + bets * ((wrong / chance if audited else 0.0) / HIT.max_error - 1))
        assert demoted == (levels.mean() >= HIT.arl), request
        if demoted:
            break
    assert gate.generation == 1 and request > 500
    assert gate.ladder.level == 0 and gate.ladder.requests == 0
