"""Audits that get no answer: an outage is no evidence, and failing does not hide wrong answers."""

from __future__ import annotations

import pytest

from costkit.bound import Bound, Gate
from tests.outages import SURE, Run, traffic

HIT = Bound(0.05)
SEEDS = range(8)


def outage(request: int, wrong: bool) -> float:
    return 1.0 if 500 <= request < 900 else 0.0


def test_an_outage_demotes_nothing() -> None:
    """Of 8 good gates none is demoted by 400 calls that all fail; each serves some 60 more, then none, then again."""
    for seed in SEEDS:
        during = traffic(HIT, lambda request: 0.01, outage, requests=900, change=500, seed=seed)
        assert during.gate.silent and during.served < 250 and during.gate.generation == 0
        after = traffic(HIT, lambda request: 0.01, outage, requests=1200, change=900, seed=seed)
        standing = after.gate.standing()
        assert after.gate.generation == 0 and not after.gate.silent and after.served > 200
        assert standing.lost_audits == 0 and standing.unanswered >= 3
        assert standing.running[0] <= 0.01 <= standing.running[1]


def test_wrong_answers_after_an_outage_are_found() -> None:
    """What turned wrong while the provider was down is found by the audits after it."""
    found = [
        traffic(HIT, lambda request: 0.5 if request >= 700 else 0.005, outage, requests=1800, change=900, seed=seed)
        for seed in SEEDS
    ]  # fmt: skip
    assert all(not run.gate.ladder.level or run.gate.generation for run in found)
    assert sorted(run.wrong for run in found)[len(found) // 2] < 120


@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
def test_failing_for_being_wrong_hides_nothing(share: float) -> None:
    """Calls that fail just where the stored answer is wrong: the gate is demoted, serves less, or falls silent."""

    def run(seed: int) -> Run:
        return traffic(
            HIT,
            lambda request: share if request >= 500 else 0.005,
            lambda request, wrong: float(wrong and request >= 500),
            requests=2500,
            change=500,
            seed=seed,
        )

    runs = [run(seed) for seed in SEEDS]
    assert all(run.gate.silent or run.gate.generation or not run.gate.ladder.level for run in runs)
    assert sorted(run.wrong for run in runs)[len(runs) // 2] < 150


def test_failures_now_and_then_set_off_no_alarm() -> None:
    """Of 8 good gates whose calls fail once in a hundred none is demoted, and together they serve half of all calls."""
    runs = [
        traffic(HIT, lambda request: 0.005, lambda request, wrong: 0.01, requests=2000, change=0, seed=seed)
        for seed in SEEDS
    ]
    assert all(run.gate.generation == 0 for run in runs)
    assert sum(run.served for run in runs) > 0.5 * 2000 * len(runs)
    assert sum(run.gate.lost_audits for run in runs) > 0


def test_it_serves_again_after_twenty_answers() -> None:
    """A silent gate audits with certainty; one failure more starts the twenty anew."""
    from dataclasses import replace

    gate = Gate(HIT, [0.0, 1.0])
    for _ in range(600):
        gate.see(gate.decide(SURE, coin=0.5), False)
    for _ in range(3):
        gate.see(replace(gate.decide(SURE, coin=0.0), kind="unanswered"))
    for answered in (19, 20):
        for _ in range(answered):
            passage = gate.decide(SURE, coin=0.999)
            assert (passage.kind, passage.chance) == ("audit", 1.0)
            gate.see(passage, False)
        if answered == 19:
            gate.see(replace(gate.decide(SURE, coin=0.999), kind="unanswered"))
    assert gate.decide(SURE, coin=0.999).kind == "served"
    assert (gate.counts["unanswered"], gate.lost_audits, gate.wrong_audits) == (4, 0, 0)
