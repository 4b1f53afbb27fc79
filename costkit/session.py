"""One call under way: what it spends, and who called it.

The ContextVar ``current`` carries the innermost wrapped call, so that nested calls find their parent and
:func:`record` finds the call it belongs to.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from . import tokens
from .call import Attempt, Cost, Usage, new_id
from .effects import Abandoned, Done, Raised, Request, Returned
from .errors import ConfigError, UnknownPrice, UsageError
from .flight import Flight
from .lease import Lease
from .plan import Plan
from .prices import Priced, Prices
from .reserve import Reservation
from .store import Moment
from .tokens import Ratio
from .usage import COMPLETE, Seen, read_response, read_stream
from .usage.fields import fields_of

if TYPE_CHECKING:
    from .semantic.pool import Sought

__all__ = ["Session", "current", "in_reference", "record", "reference", "texts"]


class Session:
    """The state of one call: its request, its arguments, the attempts made so far."""

    def __init__(
        self,
        request: Request,
        plan: Plan,
        *,
        scope_id: str,
        arguments: Mapping[str, Any],
        prices: Prices,
        warn: Callable[[str], None],
        parent: Session | None = None,
        home: object = None,
        reservation: Reservation | None = None,
        scope: Mapping[str, Any] | None = None,
        learned: Callable[[str, str], Ratio | None] = lambda name, model: None,
    ) -> None:
        self.request, self.plan, self.scope_id, self.arguments = request, plan, scope_id, arguments
        self.model, self.provider, self.prices, self.warn = (
            plan.model_of(arguments),
            plan.provider,
            prices,
            warn,
        )
        self.parent, self.home, self.scope = parent, home, scope
        self.reservation = Reservation(request.id) if reservation is None else reservation
        self.flight: Flight | None = None
        self.waited: Flight | None = None
        self.lease: Lease | None = None
        self.learned = learned
        self.attempts: list[Attempt] = []
        self.nested: list[Cost] = []
        self.free = False
        self.ended = False
        self.kept = False  # its answer was stored
        self.fruitless = False
        self._reported = False
        self.sought: Sought | None = None  # what was found of calls that mean the same
        self._lossy = False  # a call inside was answered by a lossy saving
        self._ends: dict[str, str | None] = {}  # how nested calls ended, by function: a retry makes up for it
        self._recorded = False
        self._by_hand = False
        # Objects whose spending is counted already; held, so that no other object gets their id.
        self._known: dict[int, Any] = {}
        self._answers: set[str] = set()  # the same by their provider's id, for what an SDK makes of them
        self._called, self._process = request.started, os.getpid()

    def again(self, moment: Moment) -> Session:
        """The same call once more, in the background, on its own account: windowed budgets and each call's cap hold."""
        call_id, label = new_id(), self.request.name
        allowed = self.reservation.allowance.renewed(self.plan.budget, label)
        request = replace(
            self.request, id=call_id, parent_id=None, root_id=call_id, role="refresh", started=time.perf_counter(),
            now=moment, reserves=self.request.reserves or bool(allowed),
        )  # fmt: skip
        return Session(
            request, self.plan, scope_id=self.scope_id, arguments=self.arguments, prices=self.prices, warn=self.warn,
            home=self.home, reservation=Reservation(call_id, allowed, moment.wall), scope=self.scope,
            learned=self.learned,
        )  # fmt: skip

    @property
    def audited(self) -> bool:
        """Whether this call, or one around it, is made to check a lossy saving: inside, none may answer."""
        own = self.sought is not None and self.sought.audits
        return own or (self.parent is not None and self.parent.audited)

    def inside(self, key: str) -> bool:
        """Whether a call with this key is among the callers of this one."""
        caller = self.parent
        while caller is not None:
            if caller.request.key == key:
                return True
            caller = caller.parent
        return False

    @property
    def inherited(self) -> bool:
        """Whether this process was forked inside the call, which its parent goes on with."""
        return os.getpid() != self._process

    def elapsed(self) -> float:
        """Seconds since the caller called."""
        return time.perf_counter() - self.request.started

    @contextmanager
    def spending(self) -> Iterator[None]:
        """While the user's function runs: it is the current call."""
        token = current.set(self)
        try:
            yield
        finally:
            with suppress(
                ValueError
            ):  # a coroutine collected with its loop is closed in somebody else's context
                current.reset(token)

    def returned(
        self, value: Any, ttft: float | None = None, chunks: list[Any] | None = None
    ) -> Returned | Raised:
        """The function returned ``value``; for a stream copies of its ``chunks``."""
        self._observe(value if chunks is None else chunks)
        if not (self.attempts or self.nested or self.free):
            self._add(Seen(self.model, self.provider, None, None, None), "reference")
        self.ended = True
        if self.request.role == "refresh" and self._changed():
            error = ConfigError("the call's arguments were changed while it was refreshed")
            return Raised(error, tuple(self.attempts), self._nested(), self._latency(), ttft)
        return Returned(
            value, tuple(self.attempts), self._nested(), self._latency(), ttft, self._cut(), self._lossy
        )

    def _changed(self) -> bool:
        """Whether the caller went on with a list or dict of his and changed it, so that it was sent as changed."""
        try:
            return self.plan.digest(self.scope, self.arguments) != self.request.key
        except Exception:  # noqa: BLE001 - what has no key now, by costkit's rules or the user's own function
            return True

    def raised(self, error: Exception, chunks: list[Any] | None = None, ttft: float | None = None) -> Raised:
        """The function raised its own exception, perhaps after some chunks."""
        if chunks:
            self._observe(chunks)
        if not (self.attempts or self.nested or self.free):
            seen = Seen(self.model, self.provider, None, None, None)
            self._add(seen, "reference", error=type(error).__name__, free=_refused_by_provider(error))
        self.ended = True
        return Raised(error, tuple(self.attempts), self._nested(), self._latency(), ttft)

    def abandoned(
        self, error: BaseException, chunks: list[Any] | None = None, ttft: float | None = None
    ) -> Abandoned:
        """Cancelled, interrupted, or left by its reader; what was received is billed as estimated."""
        self._observe(chunks or [], partial=True)
        if not (self.attempts or self.nested or self.free):
            seen = Seen(self.model, self.provider, None, None, None)
            self._add(seen, "reference", error=type(error).__name__)
        self.ended = True
        return Abandoned(error, tuple(self.attempts), self._nested(), self._latency(), ttft)

    def note(self, response: Any, seen: Seen) -> None:
        """An attempt the function told us of."""
        if self.ended:
            self.warn(
                f"{self.request.name}: costkit.record() came after the call had ended; it is not counted"
            )
            return
        self._recorded = True
        self._by_hand = self._by_hand or response is None
        self._known[id(response)] = response
        self._add(seen, "reference")

    def give(self, thing: Any) -> None:
        """The caller's call gets ``thing`` from this one, which has counted it: not to be counted there too."""
        if self.parent is not None and not isinstance(thing, (str, bytes, type(None))):
            self.parent._known[id(thing)] = thing

    def counted(self, thing: Any, answer: object = None) -> None:
        """``thing`` was made of an answer that a call inside this one has counted, known by the id ``answer``."""
        self._known[id(thing)] = thing
        if isinstance(answer, str):
            self._answers.add(answer)

    def _is_counted(self, thing: Any) -> bool:
        if id(thing) in self._known or not self._answers:
            return id(thing) in self._known
        told = fields_of(thing) or {}
        inner = fields_of(told.get("message")) or fields_of(told.get("response")) or told
        answer = inner.get("id")
        return isinstance(answer, str) and answer in self._answers

    def tells(self, chunk: Any) -> bool:
        """Whether the chunk is part of the answer, and not only the head of its response."""
        return self.plan.reads is None or self.plan.reads(chunk) is not None

    def report(self, done: Done) -> None:
        """Tell the caller's call, if there is one, what this one cost, returned, and whether it was whole."""
        if self.parent is None or self._reported:
            return
        self._reported = True
        self.parent.nested.append(done.cost)
        self.parent._lossy = self.parent._lossy or self._lossy or done.lossy
        if not self.request.stream:
            self.give(done.value)
        failed = isinstance(done.error, Exception)
        self.parent._ends[self.request.name] = "error" if failed else self._cut()

    def refreshed(self, done: Done) -> None:
        """How this call in the background ended: with no new answer, the next one should not follow at once."""
        self.fruitless = done.error is not None or (self.ended and not self.kept)

    def _cut(self) -> str | None:
        """The finish of this call's last attempt or of a nested call, where it gave no whole answer."""
        own = next((a.finish for a in reversed(self.attempts) if a.finish is not None), None)
        ends = (end for end in (own, *self._ends.values()) if end is not None)
        return next((end for end in ends if end.lower() not in COMPLETE), None)

    def _observe(self, value: Any, partial: bool = False) -> None:
        if self.request.stream:
            if self._recorded:
                return
            value = [chunk for chunk in value if not self._is_counted(chunk)]
        elif self._by_hand or self._is_counted(value):
            return
        if self.plan.reads is not None:
            read = self.plan.reads
            value = (
                [body for chunk in value if (body := read(chunk)) is not None]
                if self.request.stream
                else read(value)
            )
        try:
            if self.request.stream:
                seen = read_stream(value, provider=self.provider)
                # Text made of what calls inside this one said, or by a rule, is paid for there or not at all.
                own = partial and not (self.nested or self.free)
                if seen is None and own and value and all(isinstance(c, str) for c in value):
                    seen = Seen(self.model, self.provider, None, None, "".join(value))
                elif seen is not None and seen.finish is None:
                    seen = replace(seen, finish="incomplete")
            else:
                seen = read_response(value, provider=self.provider)
        except Exception as exc:  # noqa: BLE001 - the answer is paid for, whatever it is made of
            told = exc if isinstance(exc, UsageError) else f"its usage cannot be read ({type(exc).__name__})"
            self.warn(f"{self.request.name}: {told}; the answer is kept, its cost is unknown")
            seen = Seen(self.model, self.provider, None, None, None)
        if seen is not None:
            self._add(seen, "reference")

    def _add(self, seen: Seen, role: str, error: str | None = None, free: bool = False) -> None:
        usage = seen.usage
        if usage is None and seen.text is not None:
            usage = self._estimate(seen)
        model = seen.model or self.model
        provider = seen.provider or self.provider
        # What the provider says it billed counts fees that no token tells.
        priced = None if seen.cost is not None else self._price(usage, model, provider, seen.tier)
        cost = seen.cost if priced is None else priced.cost
        self.attempts.append(
            Attempt(
                role,
                model,
                provider,
                usage,
                0 if cost is None and free else cost,
                price_id=None if priced is None else priced.price_id,
                finish=seen.finish,
                latency=self._latency(),
                error=error,
                snapshot=None if priced is None else priced.snapshot,
            )
        )

    def _price(
        self, usage: Usage | None, model: str | None, provider: str | None, tier: Mapping[str, str] | None
    ) -> Priced | None:
        if usage is None or model is None:
            return None
        failure: UnknownPrice | None = None
        names = [model] if self.model in (None, model) else [model, self.model]
        for name in names:
            try:
                return self.prices.price(usage, model=name, provider=provider, context=tier)
            except UnknownPrice as exc:
                failure = exc
        self.warn(f"{self.request.name}: {failure}")
        return None

    def _estimate(self, seen: Seen) -> Usage | None:
        model = seen.model or self.model
        if model is None:
            return None
        try:
            sent = tokens.count_arguments(self.arguments, model=model)
            received = tokens.count(seen.text or "", model=model)
        except Exception:  # noqa: BLE001 - the answer is paid for: a count that fails is a missing one
            return None
        ratio = self.learned(self.request.name, self.model or model)
        sent = sent if ratio is None else round(sent * ratio.mean)
        return Usage(in_fresh=sent, out_text=received, state="estimated")

    def _nested(self) -> Cost:
        parts = self.nested
        return Cost(
            provider=sum(c.provider for c in parts),
            counterfactual=sum(c.counterfactual for c in parts),
            overhead=sum(c.overhead for c in parts),
            unknown=sum(c.unknown for c in parts),
            estimated=any(c.estimated for c in parts),
        )

    def _latency(self) -> float:
        return time.perf_counter() - self._called


_NOT_REACHED = (
    "APIConnectionError",
    "ConnectError",
    "ConnectTimeout",
)  # of SDKs, and of the HTTP library below


def _refused_by_provider(error: Exception) -> bool:
    """Whether the provider answered with an error, or was not reached at all: neither is billed. A timeout may be."""
    status = getattr(error, "status_code", None)
    if type(status) is int:
        return 400 <= status < 600
    return isinstance(error, ConnectionError) or type(error).__name__ in _NOT_REACHED


def texts(arguments: Mapping[str, Any]) -> Callable[[Any], tuple[str | None, str | None]]:
    """For ``Request.text``: what was asked and what was answered, for a person to read."""

    def text(value: Any) -> tuple[str | None, str | None]:
        return _as_text(dict(arguments)), None if value is None else _as_text(value)

    return text


def _as_text(value: Any) -> str:
    """The call is made and paid for: whatever has no text must not cost the answer."""
    try:
        text = value if isinstance(value, str) else json.dumps(value, default=str)
        return text.encode("utf-8", "replace").decode()
    except Exception:  # noqa: BLE001 - a user's own __str__, a key that JSON lacks, a value that holds itself
        return f"<{type(value).__name__}>"


current: ContextVar[Session | None] = ContextVar("costkit_current", default=None)
_reference: ContextVar[bool] = ContextVar("costkit_reference", default=False)


@contextmanager
def reference() -> Iterator[None]:
    """Inside, every saving of every kit is off: calls are made, recorded as ``reference``, and not stored.

    >>> with reference():
    ...     in_reference()
    True
    """
    token = _reference.set(True)
    try:
        yield
    finally:
        _reference.reset(token)


def in_reference() -> bool:
    """Whether :func:`reference` is in force here."""
    return _reference.get()


def record(
    response: Any = None,
    *,
    model: str | None = None,
    provider: str | None = None,
    usage: Usage | None = None,
    prompt: str | Sequence[Mapping[str, Any]] | None = None,
    completion: str | None = None,
    free: bool = False,
) -> None:
    """Tell costkit what a call cost, from inside a wrapped function that hides its provider's response.

    Call it once per attempt, retries included. Give the provider's ``response`` (an SDK object or its dict,
    or the list of a stream's chunks), or a ``usage``, or ``prompt`` and ``completion`` text to be counted
    (estimated). ``free=True`` says that this call spent nothing (a rule answered, say); a call that tells
    nothing is one of unknown cost. After a ``usage`` or texts the returned value is not read as well. Usage
    numbers that contradict each other are recorded as missing, with a warning: the answer is paid for. Outside
    a wrapped call it does nothing; after its end it warns.

    Raises:
        TypeError: nothing to record, or a response that is no provider's.
    """
    session = current.get()
    if session is None:
        return
    if free:
        session.free = True
        return
    try:
        if usage is not None:
            seen: Seen | None = Seen(model, provider, usage, None, None)
        elif prompt is not None and completion is not None and model is not None:
            seen = Seen(model, provider, tokens.estimate(model, prompt, completion), None, None)
        else:
            read = read_stream if isinstance(response, list) else read_response
            seen = read(response, provider=provider)
    except UsageError as exc:
        session.warn(f"{session.request.name}: {exc}; the answer is kept, its cost is unknown")
        seen = Seen(model or session.model, provider, None, None, None)
    if seen is None:
        raise TypeError(
            "costkit.record(response): not a provider's response; pass the SDK's object, or "
            "usage=costkit.Usage(...), or model=, prompt= and completion=, or free=True"
        )
    if model is not None and seen.model != model:
        seen = replace(seen, model=model)
    session.note(response, seen)
