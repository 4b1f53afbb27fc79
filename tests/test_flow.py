"""The flow of one call, stepped by hand: no I/O, a virtual clock."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from costkit.call import Attempt, Cost
from costkit.effects import Abandoned, Claimed, Done, Keep, Land, Lead, Raised, Request
from costkit.exact import exact
from costkit.store import Entry, Moment
from tests.flows import REQUEST, WALL, Clock, Stepper, ended, entry, returned, run, spent, spent_of, written


def test_hit() -> None:
    """A fresh entry is looked up, recorded as a free row, and served with what it would have cost."""
    clock = Clock()
    step = Stepper(clock=clock)
    clock.now = 100.25
    step.send(entry())
    step.send(None)
    assert step.names == "Lookup Write"
    write = written(step)
    assert not write.durable and write.attempts == ()
    row = write.query
    assert (row.saved_by, row.provider_cost, row.counterfactual_cost, row.latency) == ("exact", 0, 40, 0.25)
    assert ended(step) == Done("answer", Cost(counterfactual=40), 0.25, "exact")


def test_miss() -> None:
    """A miss leads, looks again, calls, stores, lands and only then writes its durable row."""
    step = run(None, Lead(), Claimed(), None, returned(), None, None, None)
    assert step.names == "Lookup Join Claim Lookup Call Keep Land Write"
    keep, land = step.effects[5], step.effects[6]
    assert isinstance(keep, Keep) and isinstance(land, Land)
    assert keep.entry is land.entry and land.error is None and not land.gone
    assert (keep.entry.at, keep.entry.life, keep.entry.cost) == (WALL, 3600, 40)
    assert written(step).durable and written(step).attempts == spent_of(step)
    assert ended(step).value == "answer" and ended(step).saving is None
    assert ended(step).cost == Cost(provider=40, counterfactual=40)


def test_nested_money_is_in_the_cost_and_not_in_the_row() -> None:
    """What wrapped calls inside spent is in this call's cost and entry, but its row holds its own attempts
    alone."""
    nested = Cost(provider=5, counterfactual=100, overhead=1, unknown=1, estimated=True)
    step = run(None, Lead(), Claimed(), None, returned(own=(), nested=nested), None, None, None)
    assert ended(step).cost == nested
    row = written(step).query
    assert (row.provider_cost, row.counterfactual_cost, row.unknown_costs) == (0, 0, 0) and not written(
        step
    ).durable
    keep = step.effects[5]
    assert isinstance(keep, Keep) and keep.entry.cost is None


def test_unknown_cost_is_unknown() -> None:
    """An attempt without a known cost makes the counterfactual NULL, here and in later hits."""
    step = run(None, Lead(), Claimed(), None, returned(own=spent(None)), None, None, None)
    assert ended(step).cost == Cost(unknown=1)
    assert written(step).query.counterfactual_cost is None and written(step).query.unknown_costs == 1
    keep = step.effects[5]
    assert isinstance(keep, Keep)
    hit = run(keep.entry, None)
    assert written(hit).query.counterfactual_cost is None and ended(hit).cost == Cost(unknown=1)


def test_the_function_raised() -> None:
    """The function's own error lands the flight with it, is recorded with what it cost, and nothing is
    stored."""
    error = ValueError("x")
    step = run(None, Lead(), Claimed(), None, Raised(error, spent(), Cost(), 0.5), None, None)
    assert step.names == "Lookup Join Claim Lookup Call Land Write"
    land = step.effects[5]
    assert isinstance(land, Land) and land.error is error and land.entry is None and not land.gone
    assert ended(step).error is error and ended(step).cost.provider == 40
    assert (written(step).query.error, written(step).query.complete) == ("ValueError", True)


def test_abandoned() -> None:
    """A cancelled leader lands as gone, is recorded incomplete, billed, and nothing is stored."""
    error = GeneratorExit()
    step = run(None, Lead(), Claimed(), None, Abandoned(error, spent(), Cost(), 0.5), None, None)
    assert step.names == "Lookup Join Claim Lookup Call Land Write"
    land = step.effects[5]
    assert isinstance(land, Land) and land.gone and land.error is None and land.entry is None
    assert not written(step).query.complete and ended(step).error is error and written(step).durable


def test_not_storable() -> None:
    """An answer that would not come back is returned, not stored, and not shared."""
    value = object()
    step = run(None, Lead(), Claimed(), None, returned(value), None, None)
    assert step.names == "Lookup Join Claim Lookup Call Land Write" and ended(step).value is value
    land = step.effects[5]
    assert isinstance(land, Land) and (land.entry, land.error, land.gone) == (None, None, False)


@pytest.mark.parametrize(
    ("value", "own"), [(None, spent()), ("cut", spent(finish="length")), ("no", spent(finish="refusal"))]
)
def test_not_admitted(value: Any, own: tuple[Attempt, ...]) -> None:
    """An incomplete answer is not stored, but those who waited for it get it."""
    step = run(None, Lead(), Claimed(), None, returned(value, own), None, None)
    assert step.names == "Lookup Join Claim Lookup Call Land Write"
    land = step.effects[5]
    assert isinstance(land, Land) and land.entry is not None and land.entry.value() == value


def test_an_admit_that_raises_loses_no_money() -> None:
    """The user's admit is the user's code: its error is raised, after the spend is recorded and the flight
    ended."""
    step = run(
        None,
        Lead(),
        Claimed(),
        None,
        returned(),
        None,
        None,
        request=replace(REQUEST, exact=exact(admit=lambda v: v.nope)),
    )
    assert step.names == "Lookup Join Claim Lookup Call Land Write"
    assert isinstance(ended(step).error, AttributeError) and ended(step).cost.provider == 40
    assert written(step).query.provider_cost == 40 and written(step).query.error == "AttributeError"
    land = step.effects[5]
    assert isinstance(land, Land) and land.error is ended(step).error


@pytest.mark.parametrize(
    "stale",
    [
        entry(life=10.0),
        entry(at=WALL + 1000),
        entry(epoch="kb=1"),
        entry(stream=True),
        entry(payload=b"?"),
    ],
    ids=["expired", "future", "epoch", "stream", "unreadable"],
)
def test_what_may_not_be_served_is_a_miss(stale: Entry) -> None:
    """Expired, from the future, of another epoch, a stream for a call, or unreadable: the call is made,
    once."""
    step = run(stale, Lead(), Claimed(), stale, returned(), None, None, None)
    assert step.names == "Lookup Join Claim Lookup Call Keep Land Write" and ended(step).saving is None


def test_epoch_goes_into_the_entry() -> None:
    """The answer is stored under the epoch in which its call began."""
    step = run(
        None, Lead(), Claimed(), None, returned(), None, None, None, request=replace(REQUEST, epoch="kb=3")
    )
    keep = step.effects[5]
    assert isinstance(keep, Keep) and keep.entry.epoch == "kb=3"
    assert run(keep.entry, None, request=replace(REQUEST, epoch="kb=3")).names == "Lookup Write"


@pytest.mark.parametrize("request_", [replace(REQUEST, exact=None), replace(REQUEST, key=None)])
def test_without_a_saving_the_call_is_only_recorded(request_: Request) -> None:
    """No saving, or no key: call and record, nothing else."""
    step = run(returned(), None, request=request_)
    assert step.names == "Call Write" and ended(step).value == "answer"


def test_text_only_when_asked() -> None:
    """Request and response text are in the row only where the request says how to make them."""
    assert written(run(entry(), None)).query.response is None
    asked = replace(REQUEST, text=lambda value: ("q", str(value)))
    row = written(run(entry(), None, request=asked)).query
    assert (row.request, row.response) == ("q", "answer")


def test_ttft_of_a_replayed_stream_is_its_latency() -> None:
    """A stream served from the store has its first chunk when it is looked up."""
    clock = Clock()
    step = Stepper(replace(REQUEST, stream=True), clock)
    clock.now = 100.125
    step.send(entry(["a"], stream=True))
    step.send(None)
    assert ended(step).ttft == 0.125 == written(step).query.ttft


def test_a_clock_set_back_makes_nothing_young() -> None:
    """Within one boot the monotonic clock ages an entry although the wall clock was set back."""
    one = entry(at=WALL, mono=50.0, boot="b", life=3600.0)
    assert not one.usable(Moment(WALL - 200, 50.0 + 3600, "b"), "")
    assert one.usable(Moment(WALL - 200, 50.0 + 3600, "other"), "") and one.usable(
        Moment(WALL, 60.0, "b"), ""
    )
    assert not one.usable(Moment(WALL + 86400, 60.0, "b"), "")
