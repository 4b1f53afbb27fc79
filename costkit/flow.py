"""One call as a generator that decides and does no I/O.

:func:`flow` yields effects (`effects.py`) and is sent their results; `drive.py` performs them, sync or async, whole or
streamed, and tests step it by hand. The order is: look up, seek, join the flight of identical calls in this process,
claim the key among processes, reserve money, call, store, land the flight and give the claim back, judge, record and
settle. Where the identical call is not stored, one that means the same may be, if the gate lets it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from . import codec
from .call import Attempt, Cost
from .effects import (
    Abandoned,
    Call,
    Claim,
    Claimed,
    Done,
    Effect,
    Held,
    Join,
    Judge,
    Keep,
    Land,
    Landed,
    Lead,
    Left,
    Lookup,
    Pause,
    Raised,
    Refresh,
    Request,
    Reserve,
    Returned,
    Seek,
    Whole,
    Write,
)  # fmt: skip
from .errors import BudgetExceeded, BudgetUnavailable, ConfigError, RecentFailure
from .exact import Exact
from .ledger import Evidence, Query
from .store import Entry

if TYPE_CHECKING:
    from .semantic.pool import Sought

__all__ = ["Flow", "flow"]

# A waiter whose second leader has failed gets that failure: with n waiters on a broken upstream that is three
# calls, not n, and no waiter's delay is more than three calls long.
MAX_LOST = 2

# Seconds between two looks at a call that another process makes: short at first, for answers come soon or late.
FIRST_PAUSE, LAST_PAUSE = 0.005, 0.1

# Raised inside a call, these are its caller's own: an identical call may have the money, or the scope, that it lacked.
_CALLERS_OWN = (BudgetExceeded, BudgetUnavailable, ConfigError)

Flow = Generator[Effect, Any, Done]


def flow(request: Request, clock: Callable[[], float]) -> Flow:
    """Run one call to its end. ``clock`` is monotonic, in seconds, and the only thing read from outside."""
    exact, key = request.exact, request.key
    if exact is None or key is None:
        return (yield from _run(request, exact, None, clock))
    if request.role == "refresh":
        return (yield from _renew(request, exact, key, clock))
    hit = yield from _look(request, exact, key, clock)
    if hit is not None:
        return hit
    sought: Sought | None = None
    if request.meaning:
        sought = yield Seek()
        if sought is not None and sought.serves:
            done = yield from _serve(request, sought.entry, "semantic", clock, sought=sought)
            if done is not None:
                return done
            sought = sought.unserved()
    lost = 0
    while True:
        joined = yield Join(key)
        if isinstance(joined, Lead):
            return (yield from _lead(request, exact, key, clock, sought))
        if isinstance(joined, Landed):
            if not _too_old(request, exact, joined.entry):
                audited = sought if sought is not None and sought.audits and not joined.lossy else None
                done = yield from _serve(
                    request, joined.entry, "coalesced", clock, joined.ttft, sought=audited, lossy=joined.lossy
                )
                if done is not None:
                    return done
            continue
        if isinstance(joined, Whole):
            return (yield from _pass_on(request, joined, clock))
        if isinstance(joined, Left):
            return (yield from _fail(request, joined.error, clock, left=True))
        if joined.alone:
            return (yield from _run(request, exact, None, clock, sought))
        lost += joined.error is not None
        if joined.error is not None and (joined.emitted or lost >= MAX_LOST or exact.negative):
            return (yield from _fail(request, joined.error, clock))


def _lead(
    request: Request, exact: Exact, key: str, clock: Callable[[], float], sought: Sought | None
) -> Flow:
    """Lead in this process; then wait for the answer of another one, or make the call as the only one of all."""
    pause, saving, since = FIRST_PAUSE, "exact", clock()
    while True:
        claim = yield Claim(key, exact.wait)
        if isinstance(claim, Left):
            yield Land(key, None, None, gone=True)
            return (yield from _fail(request, claim.error, clock, left=True))
        # Whoever led before may have stored the answer between our look-up and our claim.
        hit = yield from _look(request, exact, key, clock, saving=saving, leading=True, sought=sought)
        if hit is not None:
            return hit
        # Holders that hang one after the other, or whose deadline nobody can read, must not be waited for without end.
        if isinstance(claim, Claimed) or clock() - since >= exact.wait:
            return (yield from _run(request, exact, key, clock, sought))
        left = yield Pause(pause)
        if isinstance(left, Left):
            yield Land(key, None, None, gone=True)
            return (yield from _fail(request, left.error, clock, left=True))
        pause, saving = min(pause * 1.5, LAST_PAUSE), "coalesced"


def _renew(request: Request, exact: Exact, key: str, clock: Callable[[], float]) -> Flow:
    """The call in the background that replaces a stale answer, unless somebody makes it already."""
    joined = yield Join(key, wait=False)
    if isinstance(joined, Lead):
        claim = yield Claim(key, exact.wait)
        if isinstance(claim, Left):
            yield Land(key, None, None, gone=True)
            return Done(None, Cost(), clock() - request.started, None, claim.error)
        entry: Entry | None = yield Lookup(key, fresh=True)
        stale = entry is None or not _servable(request, exact, entry) or _is_stale(request, exact, entry)
        if isinstance(claim, Claimed) and stale:
            return (yield from _run(request, exact, key, clock))
        yield Land(key, None, None, gone=True)
    return Done(None, Cost(), clock() - request.started, None)


def _servable(request: Request, exact: Exact, entry: Entry) -> bool:
    # An entry may have been made under a longer ttl than now holds.
    if entry.stream != request.stream or not entry.usable(request.now, request.epoch):
        return False
    return exact.life is None or entry.age(request.now) < exact.life


def _too_old(request: Request, exact: Exact, entry: Entry) -> bool:
    # A leader that asked long ago may share what it found stored; for those who asked later it may be too old.
    return exact.life is not None and entry.age(request.now) - entry.latency >= exact.life


def _is_stale(request: Request, exact: Exact, entry: Entry) -> bool:
    return exact.ttl is not None and entry.age(request.now) >= exact.ttl


def _look(
    request: Request,
    exact: Exact,
    key: str,
    clock: Callable[[], float],
    *,
    saving: str = "exact",
    leading: bool = False,
    sought: Sought | None = None,
) -> Generator[Effect, Any, Done | None]:
    entry: Entry | None = yield Lookup(key, fresh=leading)
    if entry is None or not _servable(request, exact, entry):
        return None
    if entry.failed:
        return (yield from _remember(request, exact, entry, clock, leading))
    try:
        value = entry.value()
    except codec.Unreadable:
        return None
    stale = _is_stale(request, exact, entry)
    if leading:
        yield Land(key, entry, None)
    if stale:
        yield Refresh()
    audited = sought if sought is not None and sought.audits and not stale else None
    return (yield from _answer(request, value, entry, "stale" if stale else saving, clock, sought=audited))


def _remember(
    request: Request, exact: Exact, entry: Entry, clock: Callable[[], float], leading: bool
) -> Generator[Effect, Any, Done | None]:
    """A call that failed a moment ago is not made again."""
    age = max(0.0, entry.age(request.now))
    if age >= exact.negative:
        return None
    error = RecentFailure(
        f"{request.name}: the identical call failed {age:.1f} s ago ({entry.failed}); it is made again "
        f"{exact.negative - age:.1f} s from now, as exact(negative=...) says"
    )
    if leading and request.key is not None:
        # The followers see for themselves: for those who asked later it may be forgotten.
        yield Land(request.key, None, None, gone=True)
    return (yield from _fail(request, error, clock))


def _serve(
    request: Request,
    entry: Entry | None,
    saving: str,
    clock: Callable[[], float],
    ttft: float | None = None,
    *,
    sought: Sought | None = None,
    lossy: bool = False,
) -> Generator[Effect, Any, Done | None]:
    if entry is None:
        return None
    try:
        value = entry.value()
    except codec.Unreadable:
        return None
    return (yield from _answer(request, value, entry, saving, clock, ttft=ttft, sought=sought, lossy=lossy))


def _answer(
    request: Request,
    value: Any,
    entry: Entry,
    saving: str,
    clock: Callable[[], float],
    *,
    ttft: float | None = None,
    sought: Sought | None = None,
    lossy: bool = False,
) -> Flow:
    latency = clock() - request.started
    if request.stream and ttft is None:
        ttft = latency
    query = _row(request, value, saved_by=saving, latency=latency, counterfactual=entry.cost, ttft=ttft)
    evidence = None
    if sought is not None:
        # Another call has answered what was to be audited: its answer decides.
        wrong = (yield Judge(sought, value)) if sought.audits else None
        evidence = sought.evidence(request.id, request.now.wall, wrong)
    yield Write(query, (), sought is not None and sought.audits, evidence=evidence)
    cost = Cost(counterfactual=entry.cost or 0, unknown=int(entry.cost is None))
    return Done(value, cost, latency, saving, ttft=ttft, lossy=lossy or saving == "semantic")


def _run(
    request: Request,
    exact: Exact | None,
    key: str | None,
    clock: Callable[[], float],
    sought: Sought | None = None,
) -> Flow:
    """Make the call, with ``key`` as the leader of its flight."""
    held: int | None = None
    if request.reserves:
        reply = yield Reserve()
        if not isinstance(reply, Held):
            if key is not None:
                yield Land(key, None, None, gone=True)
            return (yield from _fail(request, reply.error, clock, left=isinstance(reply, Left)))
        held = reply.amount
    result = yield Call()
    own: tuple[Attempt, ...] = result.own
    spent = _total(own, result.nested)
    entry, value, why = None, None, None
    error: BaseException | None = None
    if isinstance(result, Returned):
        value = result.value
        if exact is not None and key is not None:
            try:
                entry, admitted = _entry(request, exact, result, spent)
            except codec.NotStorable as exc:
                why, admitted = str(exc), False
            except Exception as exc:  # noqa: BLE001 - the user's admit: recorded, then raised
                error, value, admitted = exc, None, False
            if entry is not None and admitted:
                yield Keep(key, entry, value, sought if result.whole else None)
    else:
        error = result.error
        # A refresh that failed leaves the stale answer in its place.
        private = isinstance(error, _CALLERS_OWN)
        remember = exact is not None and exact.negative and request.role != "refresh" and not private
        if isinstance(result, Raised) and exact is not None and remember and key is not None:
            yield from _keep_failure(request, exact, key, result)
    left, lossy = isinstance(result, Abandoned), isinstance(result, Returned) and result.lossy
    gone = left or isinstance(error, _CALLERS_OWN)
    if key is not None:
        yield Land(key, entry, None if gone else error, gone, why, lossy)
    latency, evidence = clock() - request.started, (yield from _label(request, sought, result))
    paid = _total(own, Cost())
    query = _row(
        request, value, latency=latency, ttft=result.ttft, provider=paid.provider, unknown=paid.unknown,
        counterfactual=None if paid.unknown else paid.provider, complete=not left,
        error=None if error is None else type(error).__name__, reserved=held,
    )  # fmt: skip
    # Of a call that is not known in full all that was held counts as spent, or what is known where that is more.
    actual = max(held or 0, paid.provider) if paid.unknown else paid.provider
    durable = bool(own) or held is not None or (evidence is not None and evidence.kind != "none")
    yield Write(query, own, durable, held is not None, actual, evidence)
    return Done(value, spent, latency, None, error, result.ttft)


def _label(
    request: Request, sought: Sought | None, result: Returned | Raised | Abandoned
) -> Generator[Effect, Any, Evidence | None]:
    """What the gate's candidate turned out to be; only a whole answer of the reference path tells."""
    if sought is None or not isinstance(result, Returned) or result.lossy or not result.whole:
        return None
    wrong = (yield Judge(sought, result.value)) if sought.passage.labelled else None
    return sought.evidence(request.id, request.now.wall, wrong)


def _keep_failure(request: Request, exact: Exact, key: str, result: Raised) -> Generator[Effect, Any, None]:
    found: Entry | None = yield Lookup(key, fresh=True)
    # Somebody who did not wait so long may have stored the answer meanwhile.
    if found is None or found.failed or not _servable(request, exact, found):
        yield Keep(key, _failure(request, exact, result))


def _pass_on(request: Request, whole: Whole, clock: Callable[[], float]) -> Flow:
    value, latency = list(whole.chunks), clock() - request.started
    query = _row(request, value, saved_by="coalesced", latency=latency, counterfactual=None, ttft=whole.ttft)
    yield Write(query, (), False)
    return Done(value, Cost(unknown=1), latency, "coalesced", ttft=whole.ttft, lossy=whole.lossy)


def _fail(request: Request, error: BaseException, clock: Callable[[], float], left: bool = False) -> Flow:
    latency = clock() - request.started
    name = type(error).__name__
    yield Write(
        _row(request, None, latency=latency, counterfactual=0, complete=not left, error=name), (), False
    )
    return Done(None, Cost(), latency, None, error)


def _entry(request: Request, exact: Exact, result: Returned, spent: Cost) -> tuple[Entry, bool]:
    admitted = exact.admits(result.value, result.finish) and not result.lossy
    return Entry(
        payload=codec.encode(result.value),
        at=request.now.wall,
        ttl=exact.ttl,
        life=exact.life,
        cost=None if spent.unknown else spent.counterfactual,
        latency=result.latency,
        stream=request.stream,
        epoch=request.epoch,
        mono=request.now.mono,
        boot=request.now.boot,
    ), admitted


def _failure(request: Request, exact: Exact, result: Raised) -> Entry:
    """That the call failed, from now on: it may have taken longer to fail than this is to be remembered."""
    took = result.latency
    return Entry(
        payload=b"",
        at=request.now.wall + took,
        ttl=exact.negative,
        life=exact.negative,
        latency=took,
        stream=request.stream,
        epoch=request.epoch,
        failed=type(result.error).__name__,
        mono=request.now.mono + took,
        boot=request.now.boot,
    )


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
    reserved: int | None = None,
) -> Query:  # fmt: skip
    asked, answered = (None, None) if request.text is None else request.text(value)
    return Query(
        id=request.id, parent_id=request.parent_id, root_id=request.root_id, name=request.name,
        version=request.version, scope=request.scope, key=request.key, at=request.now.wall, latency=latency,
        ttft=ttft,
        saved_by=saved_by, role=request.role, provider_cost=provider, counterfactual_cost=counterfactual,
        unknown_costs=unknown, complete=complete, error=error, reserved=reserved, request=asked, response=answered,
    )  # fmt: skip
