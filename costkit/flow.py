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
from .ledger import Evidence
from .store import Entry
from .written import entry_of, failure_of, row, total

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
                done = yield from _serve(
                    request,
                    joined.entry,
                    "coalesced",
                    clock,
                    joined.ttft,
                    sought=_audited(sought),
                    lossy=joined.lossy,
                )
                if done is not None:
                    return done
            continue
        if isinstance(joined, Whole):
            return (yield from _pass_on(request, joined, clock, sought))
        if isinstance(joined, Left):
            return (yield from _fail(request, joined.error, clock, left=True, sought=sought))
        if joined.alone:
            return (yield from _run(request, exact, None, clock, sought))
        lost += joined.error is not None
        if joined.error is not None and (joined.emitted or lost >= MAX_LOST or exact.negative):
            return (yield from _fail(request, joined.error, clock, sought=sought))


def _lead(
    request: Request, exact: Exact, key: str, clock: Callable[[], float], sought: Sought | None
) -> Flow:
    """Lead in this process; then wait for the answer of another one, or make the call as the only one of all."""
    pause, saving, since = FIRST_PAUSE, "exact", clock()
    while True:
        claim = yield Claim(key, exact.wait)
        if isinstance(claim, Left):
            yield Land(key, None, None, gone=True)
            return (yield from _fail(request, claim.error, clock, left=True, sought=sought))
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
            return (yield from _fail(request, left.error, clock, left=True, sought=sought))
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
            sought: Sought | None = None
            if request.meaning:
                sought = yield Seek()
            return (yield from _run(request, exact, key, clock, sought))
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
        return (yield from _remember(request, exact, entry, clock, leading=leading, sought=sought))
    try:
        value = entry.value()
    except codec.Unreadable:
        return None
    stale = _is_stale(request, exact, entry)
    if leading:
        yield Land(key, entry, None)
    if stale:
        yield Refresh()
    saved_by = "stale" if stale else saving
    return (yield from _answer(request, value, entry, saved_by, clock, sought=_audited(sought)))


def _remember(
    request: Request,
    exact: Exact,
    entry: Entry,
    clock: Callable[[], float],
    *,
    leading: bool,
    sought: Sought | None,
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
    return (yield from _fail(request, error, clock, sought=sought))


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
    query = row(request, value, saved_by=saving, latency=latency, counterfactual=entry.cost, ttft=ttft)
    # Another call has answered what was to be audited: its answer decides.
    evidence = yield from _label(request, sought, value, clock, reference=not lossy and saving != "stale")
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
            return (
                yield from _fail(request, reply.error, clock, left=isinstance(reply, Left), sought=sought)
            )
        held = reply.amount
    result = yield Call()
    own: tuple[Attempt, ...] = result.own
    spent = total(own, result.nested)
    entry, value, why = None, None, None
    error: BaseException | None = None
    if isinstance(result, Returned):
        value = result.value
        if exact is not None and key is not None:
            try:
                entry, admitted = entry_of(request, exact, result, spent)
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
    latency, evidence = clock() - request.started, (yield from _told(request, sought, result, clock))
    paid = total(own, Cost())
    query = row(
        request, value, latency=latency, ttft=result.ttft, provider=paid.provider, unknown=paid.unknown,
        counterfactual=None if paid.unknown else paid.provider, complete=not left,
        error=None if error is None else type(error).__name__, reserved=held,
    )  # fmt: skip
    # Of a call that is not known in full all that was held counts as spent, or what is known where that is more.
    actual = max(held or 0, paid.provider) if paid.unknown else paid.provider
    durable = bool(own) or held is not None or (evidence is not None and evidence.kind != "none")
    yield Write(query, own, durable, held is not None, actual, evidence)
    return Done(value, spent, latency, None, error, result.ttft)


def _told(
    request: Request, sought: Sought | None, result: Returned | Raised | Abandoned, clock: Callable[[], float]
) -> Generator[Effect, Any, Evidence | None]:
    """What the gate's candidate turned out to be; only a whole answer of the reference path tells."""
    if request.role == "refresh":
        return None
    if isinstance(result, Returned) and result.whole:
        return (yield from _label(request, sought, result.value, clock, reference=not result.lossy))
    return (yield from _label(request, _audited(sought), None, clock, reference=False))


def _label(
    request: Request, sought: Sought | None, value: Any, clock: Callable[[], float], *, reference: bool
) -> Generator[Effect, Any, Evidence | None]:
    """The row for the gate, with the judge's word where ``value`` is an answer of the reference path."""
    if sought is None:
        return None
    wrong = None
    if not reference:
        sought = sought.unlabelled()
    elif sought.passage.labelled:
        wrong = yield Judge(sought, value)
    # Dated when it is written, by a clock that does not jump: the label of a long call is not late.
    return sought.evidence(request.id, request.now.wall + clock() - request.started, wrong)


def _audited(sought: Sought | None) -> Sought | None:
    """What was drawn for an audit leaves a row however its call ends; anything else only with an answer of its own."""
    return sought if sought is not None and sought.audits else None


def _keep_failure(request: Request, exact: Exact, key: str, result: Raised) -> Generator[Effect, Any, None]:
    found: Entry | None = yield Lookup(key, fresh=True)
    # Somebody who did not wait so long may have stored the answer meanwhile.
    if found is None or found.failed or not _servable(request, exact, found):
        yield Keep(key, failure_of(request, exact, result))


def _pass_on(request: Request, whole: Whole, clock: Callable[[], float], sought: Sought | None) -> Flow:
    value, latency = list(whole.chunks), clock() - request.started
    query = row(request, value, saved_by="coalesced", latency=latency, counterfactual=None, ttft=whole.ttft)
    evidence = yield from _label(request, _audited(sought), value, clock, reference=not whole.lossy)
    yield Write(query, (), evidence is not None, evidence=evidence)
    return Done(value, Cost(unknown=1), latency, "coalesced", ttft=whole.ttft, lossy=whole.lossy)


def _fail(
    request: Request,
    error: BaseException,
    clock: Callable[[], float],
    left: bool = False,
    *,
    sought: Sought | None = None,
) -> Flow:
    latency, name = clock() - request.started, type(error).__name__
    query = row(request, None, latency=latency, counterfactual=0, complete=not left, error=name)
    evidence = yield from _label(request, _audited(sought), None, clock, reference=False)
    yield Write(query, (), evidence is not None, evidence=evidence)
    return Done(None, Cost(), latency, None, error)
