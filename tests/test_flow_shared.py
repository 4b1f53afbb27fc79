"""A flow that waits for another's answer, stepped by hand: in this process, and of another one."""

from __future__ import annotations

from dataclasses import replace

from costkit.call import Cost
from costkit.effects import Claim, Claimed, Land, Landed, Lead, Left, Lost, Pause, Taken, Whole
from costkit.exact import exact
from tests.flows import REQUEST, ended, entry, returned, run, written


def test_stored_between_look_up_and_lead() -> None:
    """A leader that finds the entry after all lands it for its followers and serves it; no call."""
    step = run(None, Lead(), Claimed(), entry(), None, None)
    assert step.names == "Lookup Join Claim Lookup Land Write" and ended(step).saving == "exact"
    land = step.effects[4]
    assert isinstance(land, Land) and land.entry == entry()


def test_coalesced() -> None:
    """A follower of an answered flight is served its entry, free, as coalesced."""
    step = run(None, Landed(entry(["a"])), None)
    assert step.names == "Lookup Join Write"
    assert (ended(step).value, ended(step).saving) == (["a"], "coalesced")
    assert written(step).query.counterfactual_cost == 40 and written(step).query.provider_cost == 0


def test_leader_failed_once() -> None:
    """After one failed leader a follower joins again and may lead."""
    step = run(None, Lost(ValueError("x")), Lead(), Claimed(), None, returned(), None, None, None)
    assert (
        step.names == "Lookup Join Join Claim Lookup Call Keep Land Write" and ended(step).value == "answer"
    )


def test_leader_failed_twice() -> None:
    """After the second failed leader a follower gets that failure, unchanged, without a call."""
    error = ValueError("second")
    step = run(None, Lost(ValueError("first")), Lost(error), None)
    assert step.names == "Lookup Join Join Write" and ended(step).error is error
    row = written(step).query
    assert (row.error, row.complete, row.counterfactual_cost) == ("ValueError", True, 0)


def test_a_leader_that_went_away_is_no_failure() -> None:
    """Cancelled leaders are replaced any number of times."""
    step = run(None, Lost(), Lost(), Lost(), Lead(), Claimed(), None, returned(), None, None, None)
    assert step.names.count("Join") == 4 and ended(step).value == "answer"


def test_a_follower_that_emitted_chunks_gets_the_error() -> None:
    """A stream's follower that has passed chunks on cannot start over: the first error is its own."""
    error = ValueError("x")
    step = run(None, Lost(error, emitted=True), None, request=replace(REQUEST, stream=True))
    assert step.names == "Lookup Join Write" and ended(step).error is error


def test_an_answer_that_cannot_be_shared() -> None:
    """A follower of an answer that cannot be stored calls by itself and leads nothing."""
    step = run(None, Lost(alone=True), returned(object()), None)
    assert step.names == "Lookup Join Call Write" and ended(step).saving is None


def test_a_stream_passed_on_whole() -> None:
    """A follower that has passed on a whole stream that cannot be stored is done, its saving unknown."""
    step = run(None, Whole(("a", "b"), 0.5), None, request=replace(REQUEST, stream=True))
    assert step.names == "Lookup Join Write" and ended(step).value == ["a", "b"]
    assert (ended(step).saving, ended(step).ttft, ended(step).cost) == ("coalesced", 0.5, Cost(unknown=1))


def test_a_follower_that_left() -> None:
    """A cancelled follower is recorded as incomplete, free, with its own error."""
    error = KeyboardInterrupt()
    step = run(None, Left(error), None)
    assert step.names == "Lookup Join Write" and ended(step).error is error
    row = written(step).query
    assert (row.complete, row.saved_by, row.error) == (False, None, "KeyboardInterrupt")


def test_an_unreadable_landing_is_joined_again() -> None:
    """A follower that cannot read what its leader landed joins again."""
    step = run(None, Landed(entry(payload=b"?")), Lead(), Claimed(), None, returned(), None, None, None)
    assert step.names == "Lookup Join Join Claim Lookup Call Keep Land Write"


def test_the_answer_of_another_process() -> None:
    """While another process has the claim the flow pauses, looks again each time, and serves what appears."""
    step = run(
        None, Lead(), Taken(160.0), None, None, Taken(160.0), None, None, Taken(160.0), entry(), None, None
    )
    assert step.names == "Lookup Join Claim Lookup Pause Claim Lookup Pause Claim Lookup Land Write"
    pauses = [effect.seconds for effect in step.effects if isinstance(effect, Pause)]
    assert 0 < pauses[0] < pauses[1] <= 0.1
    assert (ended(step).value, ended(step).saving) == ("answer", "coalesced")


def test_a_claim_that_comes_free() -> None:
    """When the other process is gone without an answer, this one makes the call."""
    step = run(None, Lead(), Taken(160.0), None, None, Claimed(), None, returned(), None, None, None)
    assert step.names == "Lookup Join Claim Lookup Pause Claim Lookup Call Keep Land Write"


def test_cancelled_while_another_process_answers() -> None:
    """A cancelled waiter lands its flight as gone, so that a follower goes on, and is recorded as incomplete."""
    error = KeyboardInterrupt()
    step = run(None, Lead(), Taken(160.0), None, Left(error), None, None)
    assert step.names == "Lookup Join Claim Lookup Pause Land Write" and ended(step).error is error
    land = step.effects[5]
    assert isinstance(land, Land) and land.gone and not written(step).query.complete


def test_the_claim_lasts_as_long_as_others_wait() -> None:
    """The claim's patience is what ``exact(wait=...)`` says."""
    step = run(None, Lead(), request=replace(REQUEST, exact=exact(wait="5s")))
    claim = step.effects[-1]
    assert isinstance(claim, Claim) and claim.patience == 5.0
