"""One call as a generator that decides and does no I/O.

:func:`flow` yields effects and is sent their results; `drive.py` performs them, sync or async, whole or
streamed, and tests step it by hand. The order is: look up, join the flight of identical calls, call, store,
land the flight, record.

    effect    sent back                              what it asks for
    Lookup    Entry | None                           the stored entry, if any
    Join      Lead | Landed | Whole | Lost | Left    lead the flight of this key, or wait for its leader
    Call      Returned | Raised | Abandoned          run the user's function
    Keep      None                                   store the entry
    Land      None                                   end the flight: followers get the entry or the error
    Write     None                                   the rows for the ledger
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from . import codec
from .call import Attempt, Cost
from .exact import Exact
from .ledger import Query
from .store import Entry

__all__ = [
    "Abandoned", "Call", "Done", "Effect", "Join", "Keep", "Land", "Landed", "Lead", "Left", "Lookup", "Lost",
    "Raised", "Request", "Returned", "Whole", "Write", "flow",
]  # fmt: skip

# A waiter whose second leader has failed gets that failure: with n waiters on a broken upstream that is three
# calls, not n, and no waiter's delay is more than three calls long.
MAX_LOST = 2


@dataclass(frozen=True, slots=True)
class Lookup:
    key: str


@dataclass(frozen=True, slots=True)
class Join:
    key: str


@dataclass(frozen=True, slots=True)
class Call:
    pass


@dataclass(frozen=True, slots=True)
class Keep:
    key: str
    entry: Entry


@dataclass(frozen=True, slots=True)
class Land:
    """``gone``: the leader was cancelled, so a follower should take over. ``why`` the answer cannot be stored."""

    key: str
    entry: Entry | None
    error: BaseException | None
    gone: bool = False
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Write:
    query: Query
    attempts: tuple[Attempt, ...]
    durable: bool


Effect = Lookup | Join | Call | Keep | Land | Write


@dataclass(frozen=True, slots=True)
class Lead:
    """This call leads: it must end with Land."""


@dataclass(frozen=True, slots=True)
class Landed:
    """The leader answered."""

    entry: Entry
    ttft: float | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """The leader failed (``error``), or went away, or its answer cannot be shared (``alone``).

    ``emitted``: this follower has passed chunks on already, so it cannot start over.
    """

    error: BaseException | None = None
    emitted: bool = False
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Whole:
    """The leader's stream ended well and this follower passed all of it on, but it cannot be stored."""

    chunks: tuple[Any, ...]
    ttft: float | None = None


@dataclass(frozen=True, slots=True)
class Left:
    """This follower was cancelled, interrupted or left while it waited."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class Returned:
    """The function's value (for a stream the list of its chunks), and what it spent.

    ``own`` are this call's attempts, ``nested`` the money of wrapped calls inside it, ``cut`` the finish of a
    model's answer inside that was not whole.
    """

    value: Any
    own: tuple[Attempt, ...]
    nested: Cost
    latency: float
    ttft: float | None = None
    cut: str | None = None


@dataclass(frozen=True, slots=True)
class Raised:
    """The function's own exception."""

    error: Exception
    own: tuple[Attempt, ...]
    nested: Cost
    latency: float
    ttft: float | None = None


@dataclass(frozen=True, slots=True)
class Abandoned:
    """Cancelled, interrupted, or a stream left before its end."""

    error: BaseException
    own: tuple[Attempt, ...]
    nested: Cost
    latency: float
    ttft: float | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """Everything about one call that is known before it runs. ``key`` is None where no saving may act."""

    id: str
    parent_id: str | None
    root_id: str
    name: str
    version: str
    scope: str | None
    key: str | None
    exact: Exact | None
    epoch: str
    stream: bool
    started: float
    wall: float
    role: str = "call"
    text: Callable[[Any], tuple[str | None, str | None]] | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """How a call ended: with a value, or with ``error`` to be raised."""

    value: Any
    cost: Cost
    latency: float
    saving: str | None
    error: BaseException | None = None
    ttft: float | None = None


Flow = Generator[Effect, Any, Done]


def flow(request: Request, clock: Callable[[], float]) -> Flow:
    """Run one call to its end. ``clock`` is monotonic, in seconds, and the only thing read from outside."""
    if request.exact is None or request.key is None:
        return (yield from _run(request, request.exact, None, clock))
    hit = yield from _look(request, request.key, clock)
    if hit is not None:
        return hit
    lost = 0
    while True:
        joined = yield Join(request.key)
        if isinstance(joined, Lead):
            break
        if isinstance(joined, Landed):
            done = yield from _serve(request, joined.entry, "coalesced", clock, joined.ttft)
            if done is not None:
                return done
            continue
        if isinstance(joined, Whole):
            return (yield from _pass_on(request, joined, clock))
        if isinstance(joined, Left):
            return (yield from _fail(request, joined.error, clock, left=True))
        if joined.alone:
            return (yield from _run(request, request.exact, None, clock))
        lost += joined.error is not None
        if joined.error is not None and (joined.emitted or lost >= MAX_LOST):
            return (yield from _fail(request, joined.error, clock))
    return (yield from _lead(request, request.exact, request.key, clock))


def _lead(request: Request, exact: Exact, key: str, clock: Callable[[], float]) -> Flow:
    # Whoever led before may have stored the answer between our look-up and our lead.
    hit = yield from _look(request, key, clock, leading=True)
    if hit is not None:
        return hit
    return (yield from _run(request, exact, key, clock))


def _look(
    request: Request, key: str, clock: Callable[[], float], leading: bool = False
) -> Generator[Effect, Any, Done | None]:
    entry: Entry | None = yield Lookup(key)
    if entry is None or entry.stream != request.stream or not entry.fresh(request.wall, request.epoch):
        return None
    ttl = None if request.exact is None else request.exact.ttl
    if ttl is not None and request.wall >= entry.at + ttl:
        return None  # made under a longer ttl than now holds
    try:
        value = entry.value()
    except codec.Unreadable:
        return None
    if leading:
        yield Land(key, entry, None)
    return (yield from _answer(request, value, entry, "exact", clock))


def _serve(
    request: Request, entry: Entry, saving: str, clock: Callable[[], float], ttft: float | None
) -> Generator[Effect, Any, Done | None]:
    try:
        value = entry.value()
    except codec.Unreadable:
        return None
    return (yield from _answer(request, value, entry, saving, clock, ttft=ttft))


def _answer(
    request: Request,
    value: Any,
    entry: Entry,
    saving: str,
    clock: Callable[[], float],
    *,
    ttft: float | None = None,
) -> Flow:
    latency = clock() - request.started
    if request.stream and ttft is None:
        ttft = latency
    query = _row(request, value, saved_by=saving, latency=latency, counterfactual=entry.cost, ttft=ttft)
    yield Write(query, (), False)
    cost = Cost(counterfactual=entry.cost or 0, unknown=int(entry.cost is None))
    return Done(value, cost, latency, saving, ttft=ttft)


def _run(request: Request, exact: Exact | None, key: str | None, clock: Callable[[], float]) -> Flow:
    result = yield Call()
    own: tuple[Attempt, ...] = result.own
    spent = _total(own, result.nested)
    entry, value, why = None, None, None
    error: BaseException | None = None
    if not isinstance(result, Returned):
        error = result.error
    else:
        value = result.value
        if exact is not None and key is not None:
            try:
                entry, admitted = _entry(request, exact, result, spent)
            except codec.NotStorable as exc:
                why, admitted = str(exc), False
            except Exception as exc:  # noqa: BLE001 - the user's admit: recorded, then raised
                error, value, admitted = exc, None, False
            if entry is not None and admitted:
                yield Keep(key, entry)
    gone = isinstance(result, Abandoned)
    if key is not None:
        yield Land(key, entry, None if gone else error, gone, why)
    latency = clock() - request.started
    paid = _total(own, Cost())
    query = _row(
        request, value, latency=latency, ttft=result.ttft, provider=paid.provider, unknown=paid.unknown,
        counterfactual=None if paid.unknown else paid.provider, complete=not gone,
        error=None if error is None else type(error).__name__,
    )  # fmt: skip
    yield Write(query, own, bool(own))
    return Done(value, spent, latency, None, error, result.ttft)


def _pass_on(request: Request, whole: Whole, clock: Callable[[], float]) -> Flow:
    value, latency = list(whole.chunks), clock() - request.started
    query = _row(request, value, saved_by="coalesced", latency=latency, counterfactual=None, ttft=whole.ttft)
    yield Write(query, (), False)
    return Done(value, Cost(unknown=1), latency, "coalesced", ttft=whole.ttft)


def _fail(request: Request, error: BaseException, clock: Callable[[], float], left: bool = False) -> Flow:
    latency = clock() - request.started
    name = type(error).__name__
    yield Write(
        _row(request, None, latency=latency, counterfactual=0, complete=not left, error=name), (), False
    )
    return Done(None, Cost(), latency, None, error)


def _entry(request: Request, exact: Exact, result: Returned, spent: Cost) -> tuple[Entry, bool]:
    finish = result.cut or next((a.finish for a in reversed(result.own) if a.finish is not None), None)
    admitted = exact.admits(result.value, finish)
    return Entry(
        payload=codec.encode(result.value),
        at=request.wall,
        expires=None if exact.ttl is None else request.wall + exact.ttl,
        cost=None if spent.unknown else spent.counterfactual,
        latency=result.latency,
        stream=request.stream,
        epoch=request.epoch,
    ), admitted


def _total(own: tuple[Attempt, ...], nested: Cost) -> Cost:
    paid = sum(a.cost for a in own if a.cost is not None)
    return Cost(
        provider=nested.provider + paid,
        counterfactual=nested.counterfactual + paid,
        overhead=nested.overhead,
        unknown=nested.unknown + sum(a.cost is None for a in own),
        estimated=nested.estimated or any(a.usage_state == "estimated" for a in own),
    )


def _row(
    request: Request, value: Any, *, latency: float, counterfactual: int | None, provider: int = 0,
    unknown: int = 0,
    saved_by: str | None = None, ttft: float | None = None, complete: bool = True, error: str | None = None,
) -> Query:  # fmt: skip
    asked, answered = (None, None) if request.text is None else request.text(value)
    return Query(
        id=request.id, parent_id=request.parent_id, root_id=request.root_id, name=request.name,
        version=request.version, scope=request.scope, key=request.key, at=request.wall, latency=latency,
        ttft=ttft,
        saved_by=saved_by, role=request.role, provider_cost=provider, counterfactual_cost=counterfactual,
        unknown_costs=unknown, complete=complete, error=error, request=asked, response=answered,
    )  # fmt: skip
