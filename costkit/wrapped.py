"""What the decorator makes of a function: the same kind of callable, with ``.outcome``."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterator,
    Mapping,
)
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from . import effects
from . import flow as flows
from .call import Outcome
from .drive import run_async, run_async_stream, run_stream, run_sync
from .plan import Plan
from .ports import Ports
from .session import Session

__all__ = [
    "AsyncCall",
    "AsyncStreamCall",
    "AsyncStreamOutcome",
    "Decorator",
    "StreamCall",
    "StreamOutcome",
    "SyncCall",
]

P = ParamSpec("P")
P2 = ParamSpec("P2")
R = TypeVar("R")
Y = TypeVar("Y")


class Owner(Protocol):
    """What the wrappers need of a Kit."""

    _ports: Ports

    def _begin(self, plan: Plan, arguments: Mapping[str, Any]) -> Session: ...
    def _finish(self, session: Session, done: effects.Done) -> None: ...
    def _outcome(self, session: Session, done: effects.Done) -> Outcome[Any]: ...


class _Wrapper:
    """What the four kinds share: identity of the function, binding as a method, starting a call."""

    def __init__(self, owner: Owner, plan: Plan) -> None:
        functools.update_wrapper(cast(Any, self), plan.fn)
        self._owner, self._plan = owner, plan
        self._bound: tuple[Any, ...] = ()
        self.__signature__ = plan.signature
        # inspect.iscoroutinefunction and its like accept what carries a function's own marks.
        for mark in ("__code__", "__defaults__", "__kwdefaults__"):
            if hasattr(plan.fn, mark):
                setattr(self, mark, getattr(plan.fn, mark))

    def __repr__(self) -> str:
        return f"<costkit call {self._plan.name}>"

    def _method(self, obj: Any) -> Any:
        if obj is None or self._bound:
            return self
        method = object.__new__(type(self))
        method.__dict__.update(self.__dict__)
        method._bound = (obj,)
        method.__signature__ = self._plan.method_signature
        return method

    def _start(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[Session, Callable[[], Any], flows.Flow]:
        if self._bound:
            args = self._bound + args
        session = self._owner._begin(self._plan, self._plan.bind(args, kwargs))
        return session, functools.partial(self._plan.fn, *args, **kwargs), flows.flow(session.request, _clock)


_clock = time.perf_counter


class SyncCall(_Wrapper, Generic[P, R]):
    """A wrapped function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """As the function itself."""
        session, invoke, flow = self._start(args, kwargs)
        done = run_sync(flow, self._owner._ports, session, invoke)
        self._owner._finish(session, done)
        return cast(R, done.value)

    def outcome(self, *args: P.args, **kwargs: P.kwargs) -> Outcome[R]:
        """The same call, returning an :class:`costkit.Outcome`: value, cost, latency, saving, query_id."""
        session, invoke, flow = self._start(args, kwargs)
        done = run_sync(flow, self._owner._ports, session, invoke)
        self._owner._finish(session, done)
        return self._owner._outcome(session, done)

    @overload
    def __get__(self, obj: None, owner: type | None = None) -> SyncCall[P, R]: ...
    @overload
    def __get__(
        self: SyncCall[Concatenate[Any, P2], R], obj: object, owner: type | None = None
    ) -> SyncCall[P2, R]: ...
    def __get__(self, obj: Any, owner: type | None = None) -> Any:
        return self._method(obj)


class AsyncCall(_Wrapper, Generic[P, R]):
    """A wrapped coroutine function."""

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """As the function itself."""
        session, invoke, flow = self._start(args, kwargs)
        done = await run_async(flow, self._owner._ports, session, invoke)
        self._owner._finish(session, done)
        return cast(R, done.value)

    async def outcome(self, *args: P.args, **kwargs: P.kwargs) -> Outcome[R]:
        """The same call, returning an :class:`costkit.Outcome`: value, cost, latency, saving, query_id."""
        session, invoke, flow = self._start(args, kwargs)
        done = await run_async(flow, self._owner._ports, session, invoke)
        self._owner._finish(session, done)
        return self._owner._outcome(session, done)

    @overload
    def __get__(self, obj: None, owner: type | None = None) -> AsyncCall[P, R]: ...
    @overload
    def __get__(
        self: AsyncCall[Concatenate[Any, P2], R], obj: object, owner: type | None = None
    ) -> AsyncCall[P2, R]: ...
    def __get__(self, obj: Any, owner: type | None = None) -> Any:
        return self._method(obj)


class StreamOutcome(Generic[Y]):
    """An iterator over a stream's chunks whose ``outcome`` is set when the last one has been read."""

    def __init__(self) -> None:
        self._chunks: Generator[Y, None, None] | None = None
        self.outcome: Outcome[list[Y]] | None = None

    def __iter__(self) -> Iterator[Y]:
        return self

    def __next__(self) -> Y:
        assert self._chunks is not None
        return next(self._chunks)

    def close(self) -> None:
        """Leave the stream; it is recorded as incomplete and not stored."""
        if self._chunks is not None:
            self._chunks.close()


class StreamCall(_Wrapper, Generic[P, Y]):
    """A wrapped generator function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Iterator[Y]:
        """As the generator function itself; bad arguments are refused here, not at the first chunk."""
        return self._chunks(args, kwargs, None)

    def outcome(self, *args: P.args, **kwargs: P.kwargs) -> StreamOutcome[Y]:
        """The same stream, with its :class:`costkit.Outcome` as ``.outcome`` once it has ended."""
        told: StreamOutcome[Y] = StreamOutcome()
        told._chunks = self._chunks(args, kwargs, told)
        return told

    def _chunks(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], told: StreamOutcome[Y] | None
    ) -> Generator[Y, None, None]:
        session, invoke, flow = self._start(args, kwargs)

        def finish(done: effects.Done) -> None:
            self._owner._finish(session, done)
            if told is not None:
                told.outcome = self._owner._outcome(session, done)

        return run_stream(flow, self._owner._ports, session, invoke, finish)

    @overload
    def __get__(self, obj: None, owner: type | None = None) -> StreamCall[P, Y]: ...
    @overload
    def __get__(
        self: StreamCall[Concatenate[Any, P2], Y], obj: object, owner: type | None = None
    ) -> StreamCall[P2, Y]: ...
    def __get__(self, obj: Any, owner: type | None = None) -> Any:
        return self._method(obj)


class AsyncStreamOutcome(Generic[Y]):
    """An async iterator over a stream's chunks whose ``outcome`` is set when the last one has been read."""

    def __init__(self) -> None:
        self._chunks: AsyncGenerator[Y, None] | None = None
        self.outcome: Outcome[list[Y]] | None = None

    def __aiter__(self) -> AsyncIterator[Y]:
        return self

    async def __anext__(self) -> Y:
        assert self._chunks is not None
        return await anext(self._chunks)

    async def aclose(self) -> None:
        """Leave the stream; it is recorded as incomplete and not stored."""
        if self._chunks is not None:
            await self._chunks.aclose()


class AsyncStreamCall(_Wrapper, Generic[P, Y]):
    """A wrapped async generator function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[Y]:
        """As the async generator function itself; bad arguments are refused here."""
        return self._chunks(args, kwargs, None)

    def outcome(self, *args: P.args, **kwargs: P.kwargs) -> AsyncStreamOutcome[Y]:
        """The same stream, with its :class:`costkit.Outcome` as ``.outcome`` once it has ended."""
        told: AsyncStreamOutcome[Y] = AsyncStreamOutcome()
        told._chunks = self._chunks(args, kwargs, told)
        return told

    def _chunks(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], told: AsyncStreamOutcome[Y] | None
    ) -> AsyncGenerator[Y, None]:
        session, invoke, flow = self._start(args, kwargs)

        def finish(done: effects.Done) -> None:
            self._owner._finish(session, done)
            if told is not None:
                told.outcome = self._owner._outcome(session, done)

        return run_async_stream(flow, self._owner._ports, session, invoke, finish)

    @overload
    def __get__(self, obj: None, owner: type | None = None) -> AsyncStreamCall[P, Y]: ...
    @overload
    def __get__(
        self: AsyncStreamCall[Concatenate[Any, P2], Y], obj: object, owner: type | None = None
    ) -> AsyncStreamCall[P2, Y]: ...
    def __get__(self, obj: Any, owner: type | None = None) -> Any:
        return self._method(obj)


class Decorator:
    """What ``kit.call(...)`` returns; it keeps the kind, the signature and the types of the function."""

    def __init__(self, owner: Owner, plan: Callable[[Callable[..., Any]], Plan]) -> None:
        self._owner, self._plan = owner, plan

    @overload
    def __call__(  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload]
        self, fn: Callable[P, AsyncIterator[Y]], /
    ) -> AsyncStreamCall[P, Y]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload]
        self, fn: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncCall[P, R]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload]
        self, fn: Callable[P, Iterator[Y]], /
    ) -> StreamCall[P, Y]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> SyncCall[P, R]: ...
    def __call__(self, fn: Callable[..., Any], /) -> Any:
        plan = self._plan(fn)
        if inspect.isasyncgenfunction(fn):
            return AsyncStreamCall(self._owner, plan)
        if inspect.iscoroutinefunction(fn):
            return AsyncCall(self._owner, plan)
        if inspect.isgeneratorfunction(fn):
            return StreamCall(self._owner, plan)
        return SyncCall(self._owner, plan)
