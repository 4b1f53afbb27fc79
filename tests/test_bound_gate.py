"""costkit.bound.gate: what is served, what is audited, what labels change, and how rarely that breaks the bound."""

from __future__ import annotations

import numpy as np
import pytest

from costkit.bound import PER_HIT, PER_REQUEST, Bound, Gate, Passage
from tests.false_alarms import most
from tests.worlds import WORLDS, live

REQUEST, HIT = Bound(0.02, PER_REQUEST), Bound(0.05, PER_HIT)
SURE, DOUBTFUL = (1.0, 9.0), (1.0, -9.0)


def opened(bound: Bound = HIT, labels: int = 400) -> Gate:
    """A gate whose first rung is open, after candidates that were all right."""
    gate = Gate(bound, [0.0, 1.0])
    for _ in range(labels):
        gate.see(Passage("declined", 0, 0.0001, SURE), wrong=False)
    assert gate.ladder.level > 0
    return gate


def audit(gate: Gate, *, wrong: bool, scope: str | None = None, chance: float = 0.05) -> bool:
    made = Passage("audit", 0, 0.0001, SURE, chance, gate.generation, scope)
    return gate.see(made, wrong)


def test_in_shadow_every_candidate_is_declined_and_labelled() -> None:
    """Whatever the coin, nothing is served and no call without a candidate is labelled."""
    gate = Gate(HIT, [0.0, 1.0])
    for coin in (0.0, 0.5, 0.999999):
        passage = gate.decide(SURE, coin=coin)
        assert (passage.kind, passage.rung, passage.labelled) == ("declined", 0, True)
        assert gate.decide(None, coin=coin).kind == "none"


def test_an_open_gate_audits_at_the_floor_and_serves_the_rest() -> None:
    """A coin below .05 makes an audit, any other serves; a doubtful or a vetoed candidate is declined."""
    gate = opened()
    kinds = [gate.decide(SURE, coin=coin).kind for coin in (0.0, 0.0499, 0.05, 0.9999)]
    assert kinds == ["audit", "audit", "served", "served"]
    assert gate.decide(SURE, coin=0.5).chance == 0.05
    assert gate.decide(DOUBTFUL, coin=0.5).kind == "declined"
    vetoed = gate.decide(SURE, coin=0.5, veto=True)
    assert (vetoed.kind, vetoed.rung) == ("declined", len(gate.ladder.edges))


def test_how_often_it_audits_is_what_it_says() -> None:
    """Of 20,000 decisions the share audited is the chance that each of them carries."""
    gate, rng = opened(), np.random.default_rng(1)
    made = [gate.decide(SURE, coin=coin) for coin in rng.random(20_000).tolist()]
    audits = sum(passage.kind == "audit" for passage in made)
    assert audits / 20_000 == pytest.approx(made[0].chance, abs=0.005)


def test_a_vetoed_candidate_is_not_moved_by_a_new_score() -> None:
    """What stands beyond the ladder by a veto stays there under a new score; what its risk put there need not."""
    gate = Gate(HIT, [0.0, 1.0])
    beyond = len(gate.ladder.edges)
    for number in range(100):
        gate.see(Passage("declined", beyond, 0.0001 if number % 2 else 0.9, SURE))
    gate.ladder.rescore(gate.score)
    assert gate.ladder.shares()[0] == pytest.approx(0.5)


def test_what_an_older_generation_decided_changes_nothing() -> None:
    """Passages and labels decided before a demotion are counted as calls and leave level, score and alarm alone."""
    gate = opened()
    while not audit(gate, wrong=True):
        pass
    requests, labels = gate.ladder.requests, gate.labels
    old = Passage("audit", 0, 0.0001, SURE, 0.05, generation=0)
    assert not gate.see(old, wrong=True) and not gate.label(old, wrong=True)
    assert (gate.generation, gate.ladder.requests, gate.labels) == (1, requests, labels)


def test_after_a_demotion_nothing_is_served_before_fresh_proof() -> None:
    """Off at once, open again by new labels alone, and as many as the first time."""
    gate = opened()
    while not audit(gate, wrong=True):
        pass
    assert gate.generation == 1
    assert gate.decide(SURE, coin=0.9).kind == "declined"
    labels = 0
    while not gate.ladder.level and labels < 400:
        labels += 1
        gate.see(Passage("declined", 0, 0.0001, SURE, generation=1), wrong=False)
    assert 59 <= labels < 400, "fewer labels without error prove no 5%"


def test_the_alarm_of_a_scope_closes_that_scope_alone() -> None:
    """With one tenant's answers all wrong among many right ones that tenant is declined, and the others are served."""
    gate = opened(labels=2000)
    for number in range(4000):
        wrong = number % 100 == 0
        features, scope = ((1.0, 3.0), "bad") if wrong else (SURE, "good")
        gate.see(Passage("audit", 0, 0.0001, features, 1.0, gate.generation, scope), wrong)
        if gate.closed:
            break
    assert gate.closed == {"bad"} and gate.generation == 0
    assert gate.decide(SURE, coin=0.9, scope="bad").kind == "declined"
    assert gate.decide(SURE, coin=0.9, scope="good").kind == "served"
    assert gate.decide(SURE, coin=0.9).kind == "served"
    worst = gate.standing().groups[0]
    assert worst[0] == "bad" and worst[1] == worst[2]


def test_one_pair_proves_nothing_however_often_it_comes() -> None:
    """400 right labels of one question and one answer are one label; of as many pairs they open the gate."""
    once, many = Gate(HIT, [0.0, 1.0]), Gate(HIT, [0.0, 1.0])
    for number in range(400):
        for gate, pair in ((once, "one"), (many, f"pair {number}")):
            made = gate.decide(SURE, coin=0.0, pair=pair)
            gate.see(made, wrong=False)
    assert (once.ladder.level, once.labels) == (0, 1) and many.ladder.level
    for _ in range(20):
        once.label(Passage("declined", 0, 0.0001, SURE, pair="one"), wrong=True)
    assert once.labels == 21, "where it is wrong each time counts"


def test_the_alarm_of_a_tag_closes_that_tag_alone() -> None:
    """Wrong answers under one tag, of every tenant, close that tag; a rehearsed row's tag is none."""
    gate = opened(labels=2000)
    gate.see(Passage("rehearsed", 0, 0.0001, SURE, tag="row 1"), wrong=False)
    for number in range(4000):
        wrong, scope = number % 100 == 0, f"t{number % 7}"
        features, tag = ((1.0, 3.0), "bad") if wrong else (SURE, "good")
        gate.see(Passage("audit", 0, 0.0001, features, 1.0, gate.generation, scope, tag), wrong)
        if gate.closed:
            break
    assert gate.closed == {"bad"} and gate.generation == 0
    assert gate.decide(SURE, coin=0.9, scope="t1", tag="bad").kind == "declined"
    assert gate.decide(SURE, coin=0.9, scope="t1", tag="good").kind == "served"
    assert "row 1" not in {name for name, _, _ in gate.standing().groups}


def test_per_request_a_scope_is_judged_per_request() -> None:
    """A tenant with 5% wrong hits and few hits keeps a bound of 2% of requests: its alarm stays quiet for 5,500."""
    rng = np.random.default_rng(2)
    closed = 0
    for _ in range(20):
        gate = opened(REQUEST)
        for coin in rng.random(5500).tolist():
            hit = coin < 0.25
            made = Passage("audit" if hit else "declined", 0, 0.01, SURE, 1.0, gate.generation, "tenant")
            if hit:
                gate.see(made, wrong=coin < 0.25 * 0.05)
            else:
                gate.see(made)
        closed += bool(gate.closed) or gate.generation > 0
    assert closed <= 1


def test_scopes_beyond_the_thousandth_have_no_record_and_known_ones_go_on() -> None:
    """The first thousand are counted however many come, the others share the alarm of all."""
    gate = opened()
    for number in range(1100):
        audit(gate, wrong=False, scope=f"tenant {number}", chance=1.0)
    audit(gate, wrong=False, scope="tenant 5", chance=1.0)
    scopes = {name: audits for name, audits, _ in gate.standing().groups}
    assert len(scopes) == 1000 and scopes["tenant 5"] == 2
    assert len(gate._detectors) <= 1001


def test_the_running_mean_holds_what_was_served_wrong() -> None:
    """After 3,000 hits, 2% of them wrong, audited at 5% or more, the interval holds 2% and is under .5 wide."""
    rng, gate = np.random.default_rng(3), opened()
    for coin in rng.random(3000).tolist():
        passage = gate.decide(SURE, coin=coin)
        gate.see(passage, bool(rng.random() < 0.02) if passage.labelled else None)
    low, high = gate.standing().running
    assert low <= 0.02 <= high < 0.5


def test_two_folds_of_the_same_passages_are_the_same() -> None:
    """Asked in between or not, two gates that saw the same have the same level, score, counts and alarm."""
    rng, asked, silent = np.random.default_rng(4), Gate(REQUEST, [0.0, 1.0]), Gate(REQUEST, [0.0, 1.0])
    for x, coin, luck in rng.random((1500, 3)).tolist():
        passage = asked.decide((1.0, 8 * x - 1), coin=coin)
        wrong = luck < 0.3 * (1 - x) if passage.labelled else None
        asked.see(passage, wrong)
        silent.see(passage, wrong)
    assert asked.standing() == silent.standing()
    assert asked.ladder.worth == silent.ladder.worth
    assert (asked.score._weights == silent.score._weights).all()


@pytest.mark.parametrize("world", ["constant", "much noise"])
def test_a_gate_keeps_its_bound_in_an_unkind_world(world: str) -> None:
    """Of 40 gates whose score knows nothing, or takes noise for news, at most 6 ever have a risk above the bound."""
    over = sum(live(world, REQUEST, requests=700, seed=seed).excess > 1 for seed in range(40))
    assert over <= 6


@pytest.mark.soak
@pytest.mark.parametrize("bound", [REQUEST, HIT])
@pytest.mark.parametrize("world", WORLDS)
def test_a_gate_keeps_its_bound_in_every_world(world: str, bound: Bound) -> None:
    """Of 100 gates of 1,000 requests at most 5% ever have a level whose true risk, by the score as it is, is above."""
    over = sum(live(world, bound, requests=1000, seed=seed).excess > 1 + 1e-9 for seed in range(100))
    assert over / 100 <= most(0.05, 100)
