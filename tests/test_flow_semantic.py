"""The flow with a semantic tier, stepped by hand: when it seeks, serves, judges, and what it writes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from costkit.bound import Passage
from costkit.call import Attempt, Cost
from costkit.effects import (
    Abandoned,
    Claimed,
    Judge,
    Keep,
    Land,
    Landed,
    Lead,
    Left,
    Lost,
    Raised,
    Returned,
    Taken,
    Whole,
)  # fmt: skip
from costkit.exact import exact
from costkit.semantic.features import Profile
from costkit.semantic.pool import Sought
from costkit.store import Entry
from tests.flows import REQUEST, WALL, Clock, Stepper, ended, entry, returned, run, spent, written

MEANT = replace(REQUEST, meaning=True)


def sought(kind: Any = "declined", candidate: Entry | None = None) -> Sought:
    candidate = entry("stored") if candidate is None and kind != "none" else candidate
    chance = 0.05 if kind in ("audit", "served") else 1.0
    passage = Passage(kind, None if kind == "none" else 0, 0.1, (1.0,), chance)
    return Sought(
        "gate", passage, "scope", "space", np.ones(1, np.float32), Profile((), ()), "q",
        None if candidate is None else "k2", candidate,
    )  # fmt: skip


def evidence(step: Stepper) -> tuple[str, bool | None] | None:
    row = written(step).evidence
    return None if row is None else (row.kind, row.wrong)


def kept(step: Stepper) -> Keep:
    (found,) = (e for e in step.effects if isinstance(e, Keep))
    return found


def test_an_exact_hit_does_not_seek() -> None:
    """The identical call's answer comes first: no encoder, no gate, no evidence."""
    step = run(entry(), None, request=MEANT)
    assert step.names == "Lookup Write" and evidence(step) is None and not ended(step).lossy


def test_served() -> None:
    """A candidate that the gate lets through is the answer: no flight, no claim, no money; evidence with the row."""
    step = run(None, sought("served"), None, request=MEANT)
    assert step.names == "Lookup Seek Write"
    done = ended(step)
    assert (done.value, done.saving, done.cost, done.lossy) == (
        "stored",
        "semantic",
        Cost(counterfactual=40),
        True,
    )
    assert evidence(step) == ("served", None) and not written(step).durable
    assert written(step).query.saved_by == "semantic"


@pytest.mark.parametrize("kind", ["declined", "audit"])
@pytest.mark.parametrize("wrong", [True, False, None])
def test_labelled(kind: str, wrong: bool | None) -> None:
    """A candidate not served is judged after the flight has landed, and its row is durable with the label."""
    step = run(
        None, sought(kind), Lead(), Claimed(), None, returned(), None, None, wrong, None, request=MEANT
    )
    assert step.names == "Lookup Seek Join Claim Lookup Call Keep Land Judge Write"
    assert evidence(step) == (kind, wrong) and written(step).durable
    assert kept(step).sought is not None and ended(step).value == "answer"
    judged = step.effects[8]
    assert isinstance(judged, Judge) and judged.value == "answer"


def test_no_candidate() -> None:
    """Without a candidate nothing is judged, and the row says that there was none."""
    step = run(None, sought("none"), Lead(), Claimed(), None, returned(), None, None, None, request=MEANT)
    assert step.names == "Lookup Seek Join Claim Lookup Call Keep Land Write"
    assert evidence(step) == ("none", None)


def test_nothing_to_seek_by() -> None:
    """A call without a text to go by leaves no evidence and admits nothing."""
    step = run(None, None, Lead(), Claimed(), None, returned(), None, None, None, request=MEANT)
    assert evidence(step) is None and kept(step).sought is None


def test_unreadable() -> None:
    """A candidate that cannot be read is none: the call is made, and its answer admitted."""
    broken = sought("served", replace(entry(), payload=b"?"))
    step = run(None, broken, Lead(), Claimed(), None, returned(), None, None, None, request=MEANT)
    assert evidence(step) == ("none", None) and kept(step).sought is not None
    assert ended(step).saving is None


@pytest.mark.parametrize(
    "result",
    [
        Raised(ValueError("x"), spent(), Cost(), 0.5),
        Abandoned(GeneratorExit(), spent(), Cost(), 0.5),
        returned(own=spent(finish="length")),
        replace(returned(), cut="length"),
        replace(returned(), lossy=True),
    ],
    ids=["raised", "abandoned", "cut off", "cut off inside", "lossy inside"],
)
@pytest.mark.parametrize("admit", [None, lambda value: True])
def test_no_reference_no_label(result: Any, admit: Any) -> None:
    """What is no whole answer of the reference path labels nothing, and stands for nothing; an audit says that."""
    request = replace(MEANT, exact=exact(admit=admit))
    step = Stepper(request)
    for reply in (None, sought("audit"), Lead(), Claimed(), None, result):
        step.send(reply)
    while step.done is None:
        step.send(None)
    assert "Judge" not in step.names and evidence(step) == ("unanswered", None) and written(step).durable
    assert all(keep.sought is None for keep in step.effects if isinstance(keep, Keep))
    land = next(e for e in step.effects if isinstance(e, Land))
    assert land.lossy == (isinstance(result, Returned) and result.lossy)


def test_an_admit_that_raises_does_not_change_the_label() -> None:
    """The answer that the function gave is the reference, though its caller gets the error of exact(admit=)."""

    def admit(value: Any) -> bool:
        raise KeyError(value)

    request = replace(MEANT, exact=exact(admit=admit))
    step = run(None, sought("audit"), Lead(), Claimed(), None, returned(), None, False, None, request=request)
    judged = next(e for e in step.effects if isinstance(e, Judge))
    assert judged.value == "answer" and evidence(step) == ("audit", False)
    assert isinstance(ended(step).error, KeyError)


def test_a_follower_of_an_audit() -> None:
    """An audited call that another one answers is judged by that answer; a declined one leaves nothing."""
    step = run(None, sought("audit"), Landed(entry("theirs")), True, None, request=MEANT)
    assert step.names == "Lookup Seek Join Judge Write" and evidence(step) == ("audit", True)
    assert ended(step).value == "theirs" and written(step).durable
    step = run(None, sought("declined"), Landed(entry("theirs")), None, request=MEANT)
    assert step.names == "Lookup Seek Join Write" and evidence(step) is None


def test_an_audit_that_another_process_answers() -> None:
    """The same where the answer comes from another process, by way of the store."""
    step = run(
        None, sought("audit"), Lead(), Taken(0.0), None, None, Claimed(), entry("theirs"), None, False, None,
        request=MEANT,
    )  # fmt: skip
    assert step.names == "Lookup Seek Join Claim Lookup Pause Claim Lookup Land Judge Write"
    assert evidence(step) == ("audit", False)


@pytest.mark.parametrize(
    "joined",
    [Landed(entry(), lossy=True), Whole(("a",), lossy=True), Landed(entry()), Whole(("a",))],
    ids=str,
)
def test_lossy_answers_stay_lossy_for_followers(joined: Landed | Whole) -> None:
    """What a lossy saving had a part in is told of to every follower, and judges no audit."""
    request = replace(MEANT, stream=isinstance(joined, Whole))
    step = run(None, sought("audit" if joined.lossy else "declined"), joined, None, request=request)
    assert ended(step).lossy == joined.lossy
    assert evidence(step) == (("unanswered", None) if joined.lossy else None)


def test_an_audit_that_follows_a_stream() -> None:
    """An audited call that reads another one's stream to its end is judged by that."""
    request = replace(MEANT, stream=True)
    step = run(None, sought("audit"), Whole(("a",)), True, None, request=request)
    assert step.names == "Lookup Seek Join Judge Write" and evidence(step) == ("audit", True)


def test_a_lossy_answer_inside_labels_nothing() -> None:
    """A declined call that a lossy saving answered inside is counted, and nobody is asked how good it was."""
    lossy = replace(returned(), lossy=True)
    for kind, written_as in (("declined", "unlabelled"), ("none", "none")):
        step = run(None, sought(kind), Lead(), Claimed(), None, lossy, None, None, request=MEANT)
        assert "Judge" not in step.names and evidence(step) == (written_as, None)


def test_evidence_is_dated_when_it_is_written() -> None:
    """The row of a call of eleven minutes tells of its end: its label is not late."""
    clock = Clock()
    step = Stepper(MEANT, clock)
    before: list[Any] = [None, sought("audit"), Lead(), Claimed(), None]
    after: list[Any] = [returned(), None, None, False, None]
    for reply in before:
        step.send(reply)
    clock.now += 660.0
    for reply in after:
        step.send(reply)
    row = written(step).evidence
    assert row is not None and row.at == WALL + 660.0 and written(step).query.at == WALL


def test_left_while_it_waits() -> None:
    """A call that is cancelled before it is made leaves no evidence but that an audit went unanswered."""
    step = run(None, sought("audit"), Left(GeneratorExit()), None, request=MEANT)
    assert step.names == "Lookup Seek Join Write" and evidence(step) == ("unanswered", None)
    step = run(None, sought("declined"), Left(GeneratorExit()), None, request=MEANT)
    assert step.names == "Lookup Seek Join Write" and evidence(step) is None


def test_alone() -> None:
    """A call that cannot share its flight is made, judged, and stored nowhere."""
    step = run(None, sought("audit"), Lost(alone=True), returned(), False, None, request=MEANT)
    assert step.names == "Lookup Seek Join Call Judge Write" and evidence(step) == ("audit", False)


def test_a_refresh_passes_no_gate() -> None:
    """The call in the background that renews a stale answer is admitted again, and leaves no evidence."""
    request = replace(MEANT, role="refresh", exact=exact(ttl=10, stale=1000))
    found = sought("none")
    step = run(Lead(), Claimed(), entry(ttl=1.0), found, returned(), None, None, None, request=request)
    assert step.names == "Join Claim Lookup Seek Call Keep Land Write" and evidence(step) is None
    assert kept(step).sought is found


def test_unknown_cost() -> None:
    """A served answer whose call cost nobody knows saves an unknown sum, not nothing."""
    step = run(None, sought("served", entry(cost=None)), None, request=MEANT)
    assert ended(step).cost == Cost(unknown=1) and written(step).query.counterfactual_cost is None
    assert written(step).attempts == () and isinstance(spent()[0], Attempt)
