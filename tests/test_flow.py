"""The flow, stepped by hand: no I/O, a virtual clock, and a seeded scheduler that interleaves many."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from costkit import codec
from costkit.call import Attempt, Cost, Usage
from costkit.effects import (
    Abandoned,
    Call,
    Claim,
    Claimed,
    Done,
    Effect,
    Held,
    Join,
    Keep,
    Land,
    Landed,
    Lead,
    Left,
    Lookup,
    Lost,
    Pause,
    Raised,
    Refused,
    Request,
    Returned,
    Taken,
    Whole,
    Write,
)  # fmt: skip
from costkit.errors import BudgetUnavailable, RecentFailure
from costkit.exact import exact
from costkit.flight import Flight, Flights
from costkit.flow import Flow, flow
from costkit.store import Entry, Moment

WALL = 1_700_000_000.0
REQUEST = Request(
    id="q1",
    parent_id=None,
    root_id="q1",
    name="app.ask",
    version="1",
    scope=None,
    key="k",
    exact=exact(ttl="1h"),
    epoch="",
    stream=False,
    started=100.0,
    now=Moment(WALL),
)


@dataclass
class Clock:
    """Time that passes only when told to."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def spent(cost: int | None = 40, finish: str | None = "stop") -> tuple[Attempt, ...]:
    return (Attempt("reference", "m", "openai", Usage(in_fresh=10, out_text=2), cost, finish=finish),)


def returned(
    value: Any = "answer", own: tuple[Attempt, ...] | None = None, nested: Cost | None = None
) -> Returned:
    return Returned(value, spent() if own is None else own, nested or Cost(), 0.5)


def entry(value: Any = "answer", **changes: Any) -> Entry:
    return replace(Entry(codec.encode(value), WALL - 10, 3600.0, 3600.0, 40, 0.5), **changes)


class Stepper:
    """Sends replies into a flow and keeps what it asked for."""

    def __init__(self, request: Request = REQUEST, clock: Callable[[], float] | None = None) -> None:
        self.flow: Flow = flow(request, clock or Clock())
        self.done: Done | None = None
        self.effects: list[Effect] = []
        self.send(None)

    def send(self, reply: Any) -> Effect | None:
        assert self.done is None
        try:
            self.effects.append(self.flow.send(reply))
            return self.effects[-1]
        except StopIteration as stop:
            self.done = stop.value
            return None

    @property
    def names(self) -> str:
        return " ".join(type(e).__name__ for e in self.effects)


def run(*replies: Any, request: Request = REQUEST, clock: Callable[[], float] | None = None) -> Stepper:
    step = Stepper(request, clock)
    for reply in replies:
        step.send(reply)
    return step


def written(step: Stepper) -> Write:
    (found,) = (e for e in step.effects if isinstance(e, Write))
    return found


def ended(step: Stepper) -> Done:
    assert step.done is not None, step.names
    return step.done


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


def spent_of(step: Stepper) -> tuple[Attempt, ...]:
    return written(step).attempts


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


def test_an_unreadable_landing_is_joined_again() -> None:
    """A follower that cannot read what its leader landed joins again."""
    step = run(None, Landed(entry(payload=b"?")), Lead(), Claimed(), None, returned(), None, None, None)
    assert step.names == "Lookup Join Join Claim Lookup Call Keep Land Write"


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


# --- between processes


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


# --- stale-while-revalidate

STALE = replace(REQUEST, exact=exact(ttl="1m", stale="1h"))


def test_a_stale_answer_is_served_at_once_and_refreshed() -> None:
    """Past its ttl and within stale, an answer is served as stale, and one refresh is asked for."""
    step = run(entry(at=WALL - 61), None, None, request=STALE)
    assert step.names == "Lookup Refresh Write" and ended(step).saving == "stale"
    assert written(step).query.saved_by == "stale" and written(step).query.counterfactual_cost == 40
    fresh = run(entry(at=WALL - 59), None, request=STALE)
    assert fresh.names == "Lookup Write" and ended(fresh).saving == "exact"
    gone = run(entry(at=WALL - 3660, life=9999.0), request=STALE)
    assert gone.names == "Lookup Join"


def test_a_refresh_makes_the_call_alone() -> None:
    """A refresh leads without waiting, sees that the entry is stale yet, and makes the call."""
    old = entry(at=WALL - 61)
    step = run(Lead(), Claimed(), old, returned(), None, None, None, request=replace(STALE, role="refresh"))
    assert step.names == "Join Claim Lookup Call Keep Land Write"
    join = step.effects[0]
    assert isinstance(join, Join) and not join.wait and written(step).query.role == "refresh"


@pytest.mark.parametrize(
    ("replies", "names"),
    [
        ((Lost(alone=True),), "Join"),
        ((Lead(), Taken(160.0), entry(at=WALL - 61), None), "Join Claim Lookup Land"),
        ((Lead(), Claimed(), entry(at=WALL - 1), None), "Join Claim Lookup Land"),
    ],
    ids=["in this process", "in another", "made meanwhile"],
)
def test_a_refresh_under_way_is_not_made_twice(replies: tuple[Any, ...], names: str) -> None:
    """A refresh that somebody makes, or has made, is not made again, and leaves no row."""
    step = run(*replies, request=replace(STALE, role="refresh"))
    assert step.names == names and ended(step).error is None


# --- negative entries

NEGATIVE = replace(REQUEST, exact=exact(negative="10s"))


def test_a_failure_is_remembered() -> None:
    """With ``negative`` a failure is stored by its class alone, from when it came, and lands for the waiters."""
    step = run(None, Lead(), Claimed(), None, Raised(ValueError("secret"), spent(), Cost(), 0.5), None, None, None,
               None, request=NEGATIVE)  # fmt: skip
    assert step.names == "Lookup Join Claim Lookup Call Lookup Keep Land Write"
    keep = step.effects[6]
    assert isinstance(keep, Keep) and keep.entry.failed == "ValueError" and keep.entry.payload == b""
    assert (keep.entry.at, keep.entry.life) == (WALL + 0.5, 10.0) and "secret" not in str(keep.entry)
    again = run(keep.entry, None, request=replace(NEGATIVE, now=Moment(WALL + 5)))
    assert again.names == "Lookup Write" and written(again).query.error == "RecentFailure"
    assert isinstance(ended(again).error, RecentFailure) and "4.5 s ago (ValueError)" in str(
        ended(again).error
    )
    late = run(keep.entry, request=replace(NEGATIVE, now=Moment(WALL + 11)))
    assert late.names == "Lookup Join"
    unasked = run(keep.entry, request=replace(REQUEST, now=Moment(WALL + 5)))
    assert unasked.names == "Lookup Join", "a call that does not remember failures makes the call"


def test_waiters_of_a_remembered_failure_get_it() -> None:
    """With ``negative`` the followers of a failed leader get its very exception, without a second call."""
    error = ValueError("x")
    step = run(None, Lost(error), None, request=NEGATIVE)
    assert step.names == "Lookup Join Write" and ended(step).error is error


# --- money is held before it is spent

BUDGETED = replace(REQUEST, reserves=True)


def test_money_is_held_before_the_call_and_settled_with_its_row() -> None:
    """What is held is asked for after the claim and before the call, and settled in the row's own effect."""
    step = run(None, Lead(), Claimed(), None, Held(100), returned(), None, None, None, request=BUDGETED)
    assert step.names == "Lookup Join Claim Lookup Reserve Call Keep Land Write"
    write = written(step)
    assert write.settles and write.actual == 40 and write.durable and write.query.reserved == 100
    hit = run(entry(), None, request=BUDGETED)
    assert hit.names == "Lookup Write" and not written(hit).settles and written(hit).query.reserved is None


@pytest.mark.parametrize(("own", "actual"), [((), 0), (spent(None), 100), ((*spent(130), *spent(None)), 130)])
def test_what_is_settled(own: tuple[Attempt, ...], actual: int | None) -> None:
    """A call that spent nothing settles at 0; one whose cost is not known settles at all that was held, or
    at what is known of it where that is more."""
    step = run(
        None, Lead(), Claimed(), None, Held(100), returned(own=own), None, None, None, request=BUDGETED
    )
    assert written(step).settles and written(step).actual == actual and written(step).durable


@pytest.mark.parametrize("reply", [Refused(BudgetUnavailable("x")), Left(KeyboardInterrupt())])
def test_refused_before_anything_is_spent(reply: Refused | Left) -> None:
    """A refused call is not made; its flight goes to a follower, who may have a budget of his own."""
    step = run(None, Lead(), Claimed(), None, reply, None, None, request=BUDGETED)
    assert step.names == "Lookup Join Claim Lookup Reserve Land Write" and ended(step).error is reply.error
    land = step.effects[5]
    assert isinstance(land, Land) and land.gone and land.error is None and not written(step).settles
    assert written(step).query.provider_cost == 0 and written(step).query.error == type(reply.error).__name__


def test_a_clock_set_back_makes_nothing_young() -> None:
    """Within one boot the monotonic clock ages an entry although the wall clock was set back."""
    one = entry(at=WALL, mono=50.0, boot="b", life=3600.0)
    assert not one.usable(Moment(WALL - 200, 50.0 + 3600, "b"), "")
    assert one.usable(Moment(WALL - 200, 50.0 + 3600, "other"), "") and one.usable(
        Moment(WALL, 60.0, "b"), ""
    )
    assert not one.usable(Moment(WALL + 86400, 60.0, "b"), "")


# --- many flows at once
# -------------------------------------------------------------------------------------------


@dataclass
class World:
    """A store, flights and an upstream with faults; every choice comes from one seed."""

    seed: int
    fail: float = 0.0
    cancel: float = 0.0
    lose: float = 0.0
    refuse: float = 0.0
    store: dict[str, Entry] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    flights: Flights = field(default_factory=Flights)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.clock = Clock()

    def chance(self, share: float) -> bool:
        return self.random.random() < share


@dataclass
class Flyer:
    """One call in the world; ``step`` moves it by one effect, or says that it must wait."""

    world: World
    number: int
    key: str
    flight: Flight | None = None
    waited: Flight | None = None
    done: Done | None = None
    led: int = 0
    landed: int = 0
    writes: int = 0
    waiting: bool = False
    calling: bool = False

    def __post_init__(self) -> None:
        request = replace(REQUEST, id=f"q{self.number}", key=self.key, exact=exact())
        self.flow = flow(request, self.world.clock)
        self.effect: Effect = next(self.flow)

    def inside(self, key: str) -> bool:
        return False

    @property
    def blocked(self) -> bool:
        return self.waiting and self.waited is not None and self.waited.landed is None

    def send(self, reply: Any) -> None:
        try:
            self.effect = self.flow.send(reply)
        except StopIteration as stop:
            self.done = stop.value

    def step(self) -> None:
        world, effect = self.world, self.effect
        world.clock.now += 0.001
        if isinstance(effect, Lookup):
            self.send(None if world.chance(world.lose) else world.store.get(effect.key))
        elif isinstance(effect, Join):
            self.join(effect)
        elif isinstance(effect, Call):
            self.call()
        elif isinstance(effect, Keep):
            if not world.chance(world.lose):
                world.store[effect.key] = effect.entry
            self.send(None)
        elif isinstance(effect, Land):
            self.landed += 1
            world.flights.land(effect, "", self)
            self.send(None)
        elif isinstance(effect, Claim):
            self.send(Claimed())
        else:
            self.writes += 1
            self.send(None)

    def join(self, effect: Join) -> None:
        if not self.waiting:
            joined = self.world.flights.join(effect.key, "", self, self.number)
            if not isinstance(joined, Flight):
                self.led += isinstance(joined, Lead)
                self.send(joined)
                return
            self.waiting = True
        if self.world.chance(self.world.cancel):
            self.waiting = False
            self.send(Left(KeyboardInterrupt()))
        elif not self.blocked and self.waited is not None:
            self.waiting = False
            self.send(self.waited.result())

    def call(self) -> None:
        world = self.world
        if not self.calling:  # the call takes at least one more step, so that others come in between
            self.calling = True
            world.calls[self.key] = world.calls.get(self.key, 0) + 1
            return
        if world.chance(world.cancel):
            self.send(Abandoned(KeyboardInterrupt(), spent(), Cost(), 0.1))
        elif world.chance(world.fail):
            self.send(Raised(ConnectionError(self.key), spent(), Cost(), 0.1))
        else:
            value: Any = object() if world.chance(world.refuse) else f"answer to {self.key}"
            self.send(returned(value))


def settle(world: World, flyers: list[Flyer], gather: bool = False) -> None:
    """Run all flows to their end in random order; with ``gather``, no call ends before everybody waits for
    it."""
    if gather:
        for flyer in flyers:
            for _ in range(10):
                if flyer.done is None and not (flyer.calling or flyer.waiting):
                    flyer.step()
    for _ in range(400 * len(flyers)):
        ready = [f for f in flyers if f.done is None and (not f.blocked or world.cancel)]
        if not ready:
            break
        world.random.choice(ready).step()
    assert all(f.done is not None for f in flyers), "a flow is stuck"


def check(world: World, flyers: list[Flyer]) -> None:
    """What must hold whatever happened."""
    assert len(world.flights) == 0
    for flyer in flyers:
        assert flyer.done is not None and flyer.flight is None and flyer.writes == 1
        assert flyer.landed == flyer.led <= 1
        if flyer.done.error is None and isinstance(flyer.done.value, str):
            assert flyer.done.value == f"answer to {flyer.key}"


@pytest.mark.parametrize("seed", range(60))
def test_one_call_per_cold_key_when_nothing_fails(seed: int) -> None:
    """However 60 calls of 5 keys interleave, each key is called once and everybody gets its answer."""
    world = World(seed)
    flyers = [Flyer(world, i, f"k{i % 5}") for i in range(60)]
    settle(world, flyers)
    check(world, flyers)
    assert world.calls == {f"k{i}": 1 for i in range(5)}
    assert all(f.done is not None and f.done.error is None for f in flyers)
    savings = [f.done.saving for f in flyers if f.done is not None]
    assert savings.count(None) == 5


@pytest.mark.parametrize("seed", range(60))
def test_a_failing_upstream_is_called_three_times_at_most(seed: int) -> None:
    """With 40 waiters on one key whose upstream always fails, at most three calls are made, and all get the
    error."""
    world = World(seed, fail=1.0)
    flyers = [Flyer(world, i, "k") for i in range(40)]
    settle(world, flyers, gather=True)
    check(world, flyers)
    assert 2 <= world.calls["k"] <= 3
    assert all(f.done is not None and isinstance(f.done.error, ConnectionError) for f in flyers)


@pytest.mark.parametrize("seed", range(200))
def test_nothing_is_held_under_faults(seed: int) -> None:
    """With failures, cancellations, a losing store and unstorable answers mixed at random, every flow ends,
    every lead lands once, every call has its row, and no answer reaches another key."""
    mix = random.Random(seed)
    world = World(
        seed,
        fail=mix.choice([0, 0.3, 0.9]),
        cancel=mix.choice([0, 0.02, 0.3]),
        lose=mix.choice([0, 0.3, 1.0]),
        refuse=mix.choice([0, 0.3]),
    )
    flyers = [Flyer(world, i, f"k{mix.randrange(4)}") for i in range(mix.randrange(2, 50))]
    settle(world, flyers, gather=mix.random() < 0.5)
    check(world, flyers)
