"""One call under way: what it spends, and who called it.

The ContextVar ``current`` carries the innermost wrapped call, so that nested calls find their parent and
:func:`record` finds the call it belongs to.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from . import tokens
from .call import Attempt, Cost, Usage
from .errors import UnknownPrice, UsageError
from .flight import Flight
from .flow import Abandoned, Done, Raised, Request, Returned
from .prices import Prices
from .usage import COMPLETE, Seen, read_response, read_stream

__all__ = ["Session", "current", "in_reference", "record", "reference"]


class Session:
    """The state of one call: its request, its arguments, the attempts made so far."""

    def __init__(
        self,
        request: Request,
        *,
        scope_id: str,
        arguments: Mapping[str, Any],
        model: str | None,
        provider: str | None,
        prices: Prices,
        warn: Callable[[str], None],
        parent: Session | None,
        home: object = None,
    ) -> None:
        self.request, self.scope_id, self.arguments = request, scope_id, arguments
        self.model, self.provider, self.prices, self.warn = model, provider, prices, warn
        self.parent, self.home = parent, home
        self.flight: Flight | None = None
        self.waited: Flight | None = None
        self.attempts: list[Attempt] = []
        self.nested: list[Cost] = []
        self.free = False
        self.ended = False
        self._ends: dict[str, str | None] = {}  # how nested calls ended, by function: a retry makes up for it
        self._recorded = False
        self._by_hand = False
        # Objects whose spending is counted already; held, so that no other object gets their id.
        self._known: dict[int, Any] = {}
        self._called = request.started

    def inside(self, key: str) -> bool:
        """Whether a call with this key is among the callers of this one."""
        caller = self.parent
        while caller is not None:
            if caller.request.key == key:
                return True
            caller = caller.parent
        return False

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
            current.reset(token)

    def returned(self, value: Any, ttft: float | None = None, chunks: list[Any] | None = None) -> Returned:
        """The function returned ``value``; for a stream copies of its ``chunks``."""
        self._observe(value if chunks is None else chunks)
        if not (self.attempts or self.nested or self.free):
            self._add(Seen(self.model, self.provider, None, None, None), "reference")
        self.ended = True
        return Returned(value, tuple(self.attempts), self._nested(), self._latency(), ttft, self._cut())

    def raised(self, error: Exception, chunks: list[Any] | None = None, ttft: float | None = None) -> Raised:
        """The function raised its own exception, perhaps after some chunks."""
        if chunks:
            self._observe(chunks)
        if not (self.attempts or self.nested or self.free):
            seen = Seen(self.model, self.provider, None, None, None)
            self._add(seen, "reference", error=type(error).__name__)
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

    def report(self, done: Done) -> None:
        """Tell the caller's call, if there is one, what this one cost, returned, and whether it was whole."""
        if self.parent is None:
            return
        self.parent.nested.append(done.cost)
        if not self.request.stream:
            self.give(done.value)
        failed = isinstance(done.error, Exception)
        self.parent._ends[self.request.name] = "error" if failed else self._cut()

    def _cut(self) -> str | None:
        """The finish of this call's last attempt or of a nested call, where it gave no whole answer."""
        own = next((a.finish for a in reversed(self.attempts) if a.finish is not None), None)
        ends = (end for end in (own, *self._ends.values()) if end is not None)
        return next((end for end in ends if end.lower() not in COMPLETE), None)

    def _observe(self, value: Any, partial: bool = False) -> None:
        if self.request.stream:
            if self._recorded:
                return
            value = [chunk for chunk in value if id(chunk) not in self._known]
        elif self._by_hand or id(value) in self._known:
            return
        try:
            if self.request.stream:
                seen = read_stream(value, provider=self.provider)
                if seen is None and partial and value and all(isinstance(c, str) for c in value):
                    seen = Seen(self.model, self.provider, None, None, "".join(value))
                elif seen is not None and seen.finish is None:
                    seen = replace(seen, finish="incomplete")
            else:
                seen = read_response(value, provider=self.provider)
        except UsageError as exc:
            self.warn(f"{self.request.name}: {exc}; the answer is kept, its cost is unknown")
            seen = Seen(self.model, self.provider, None, None, None)
        if seen is not None:
            self._add(seen, "reference")

    def _add(self, seen: Seen, role: str, error: str | None = None) -> None:
        usage = seen.usage
        if usage is None and seen.text is not None:
            usage = self._estimate(seen)
        model = seen.model or self.model
        provider = seen.provider or self.provider
        cost, price_id = self._price(usage, model, provider, seen.tier)
        self.attempts.append(
            Attempt(role, model, provider, usage, cost, price_id, seen.finish, self._latency(), error=error)
        )

    def _price(
        self, usage: Usage | None, model: str | None, provider: str | None, tier: Mapping[str, str] | None
    ) -> tuple[int | None, str | None]:
        if usage is None or model is None:
            return None, None
        failure: UnknownPrice | None = None
        names = [model] if self.model in (None, model) else [model, self.model]
        for name in names:
            try:
                priced = self.prices.price(usage, model=name, provider=provider, context=tier)
            except UnknownPrice as exc:
                failure = exc
                continue
            return priced.cost, priced.price_id
        self.warn(f"{self.request.name}: {failure}")
        return None, None

    def _estimate(self, seen: Seen) -> Usage | None:
        model = seen.model or self.model
        prompt = self.arguments.get("messages", self.arguments.get("prompt"))
        if prompt is None:
            prompt = "\n".join(v for v in self.arguments.values() if isinstance(v, str))
        if model is None or not isinstance(prompt, (str, list, tuple)):
            return None
        try:
            return tokens.estimate(model, prompt, seen.text or "")
        except Exception:  # noqa: BLE001 - the answer is paid for: a count that fails is a missing one
            return None

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
