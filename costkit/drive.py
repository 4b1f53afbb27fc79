"""Thin drivers of the flow: sync, async, sync stream, async stream.

A driver performs what the flow asks for and sends the result back; it decides nothing. Whatever interrupts it
(cancellation, Ctrl-C, a stream left by its reader), the flow is still told, the flight is landed and the row
written.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any

from . import codec
from .beside import Beside
from .effects import (
    Abandoned,
    Call,
    Done,
    Join,
    Left,
    Refresh,
)  # fmt: skip
from .flight import Flight, Tail
from .flow import Flow
from .ports import Ports
from .session import Session

__all__ = ["run_async", "run_async_stream", "run_stream", "run_sync"]


def run_sync(flow: Flow, ports: Ports, session: Session, invoke: Callable[[], Any]) -> Done:
    """Drive a plain function's call."""
    reply: Any = None
    try:
        while True:
            effect = flow.send(reply)
            if isinstance(effect, Call):
                with session.spending():
                    try:
                        value = invoke()
                    except Exception as exc:  # noqa: BLE001 - the user's own: recorded, then raised unchanged
                        reply = session.raised(exc)
                    except BaseException as exc:  # noqa: BLE001
                        reply = session.abandoned(exc)
                    else:
                        reply = session.returned(value)
            elif isinstance(effect, Join):
                reply = ports.join(effect, session, (threading.get_ident(), None))
                if isinstance(reply, Flight):
                    reply = _follow(reply)
            elif isinstance(effect, Refresh):
                reply = None
                ports.refreshes.in_thread(
                    session, lambda again, anew: again.refreshed(run_sync(anew, ports, again, invoke))
                )
            else:
                reply = ports.perform(effect, session)
    except StopIteration as stop:
        done: Done = stop.value
        return done
    finally:
        ports.abort(flow, session)


def _follow(flight: Flight) -> Any:
    try:
        flight.wait(None, flight.left())
    except BaseException as exc:  # noqa: BLE001 - Ctrl-C: the flow is told, and raises it
        return Left(exc)
    return flight.result()


async def run_async(flow: Flow, ports: Ports, session: Session, invoke: Callable[[], Awaitable[Any]]) -> Done:
    """Drive a coroutine function's call."""
    io = Beside(ports, session)
    ports.flows.add(flow)
    reply: Any = None
    try:
        while True:
            effect = flow.send(reply)
            reply = io.told(effect)
            if reply is not None:
                continue
            if isinstance(effect, Call):
                io.preload()
                with session.spending():
                    try:
                        value = await invoke()
                        try:
                            await io.loaded()
                        except GeneratorExit as exc:
                            io.close(effect, exc)
                    except Exception as exc:  # noqa: BLE001 - the user's own: recorded, then raised unchanged
                        reply = session.raised(exc)
                    except BaseException as exc:  # noqa: BLE001
                        reply = session.abandoned(exc)
                        io.closed = isinstance(exc, GeneratorExit)
                    else:
                        reply = session.returned(value)
            elif isinstance(effect, Refresh):
                reply = None
                ports.refreshes.as_task(session, lambda again, anew: _refresh(anew, ports, again, invoke))
            else:
                try:
                    reply = await io.perform(effect)
                except GeneratorExit as exc:
                    reply = io.close(effect, exc)
    except StopIteration as stop:
        done: Done = stop.value
        if io.closed:
            session.report(done)  # the coroutine that would do it is closed as well
        return io.ended(done)
    finally:
        ports.abort(flow, session)


async def _refresh(flow: Flow, ports: Ports, again: Session, invoke: Callable[[], Awaitable[Any]]) -> None:
    again.refreshed(await run_async(flow, ports, again, invoke))


class _Reading:
    """The user's stream while it is read; ``result`` tells how it ended."""

    def __init__(self, session: Session, loaded: Callable[[], Awaitable[None]] | None = None) -> None:
        self.session, self._loaded = session, loaded
        self.passed = 0
        self.result: Any = None
        self._seen: list[Any] = []
        self._kept: list[Any] = []
        self._ttft: float | None = None

    def chunks(self, invoke: Callable[[], Generator[Any, Any, Any]]) -> Generator[Any, None, None]:
        """The chunks of a generator function."""
        with self.session.spending():
            source = invoke()
        try:
            while True:
                self._reads_on()
                with self.session.spending():
                    chunk = next(source)
                yield self._saw(chunk)
        except StopIteration:
            self.result = self.session.returned(self._kept, self._ttft, self._seen)
        except Exception as exc:  # noqa: BLE001 - the user's own: recorded, then raised unchanged
            self.result = self.session.raised(exc, self._seen, self._ttft)
        finally:
            source.close()

    async def chunks_async(self, invoke: Callable[[], AsyncGenerator[Any, Any]]) -> AsyncGenerator[Any, None]:
        """The chunks of an async generator function."""
        with self.session.spending():
            source = invoke()
        try:
            while True:
                self._reads_on()
                with self.session.spending():
                    chunk = await anext(source)
                yield self._saw(chunk)
        except StopAsyncIteration:
            if self._loaded is not None:
                await self._loaded()
            self.result = self.session.returned(self._kept, self._ttft, self._seen)
        except Exception as exc:  # noqa: BLE001 - the user's own: recorded, then raised unchanged
            self.result = self.session.raised(exc, self._seen, self._ttft)
        finally:
            await source.aclose()

    def _reads_on(self) -> None:
        if self.session.flight is not None:
            self.session.flight.held = None

    def _saw(self, chunk: Any) -> Any:
        if self._ttft is None and self.session.tells(chunk):
            self._ttft = self.session.elapsed()
        self._seen.append(chunk)
        kept = chunk
        if self.session.flight is not None:
            # What is stored and shared is a copy from before the reader could change the chunk.
            with contextlib.suppress(codec.NotStorable, codec.Unreadable):
                kept = codec.decode(codec.encode(chunk))
            self.session.flight.emit(kept)
        self._kept.append(kept)
        return chunk

    def left(self, error: BaseException) -> None:
        """Cancelled, or the reader went away."""
        if not isinstance(self.result, Abandoned):
            self.result = self.session.abandoned(error, self._seen, self._ttft)


def run_stream(
    flow: Flow,
    ports: Ports,
    session: Session,
    invoke: Callable[[], Generator[Any, Any, Any]],
    finish: Callable[[Done], None],
) -> Generator[Any, None, None]:
    """Drive a generator function's call: yields its chunks; ``finish`` is told how it ended."""
    reply: Any = None
    passed = 0
    try:
        while True:
            effect = flow.send(reply)
            if isinstance(effect, Call):
                reading = _Reading(session)
                part: _Reading | Tail = reading
                source = reading.chunks(invoke)
            elif isinstance(effect, Join):
                reply = ports.join(effect, session, (threading.get_ident(), None))
                if not isinstance(reply, Flight):
                    continue
                part = tail = Tail(reply, session.elapsed, session.tells)
                source = tail.chunks()
            elif isinstance(effect, Refresh):
                reply = None
                ports.refreshes.in_thread(
                    session,
                    lambda again, anew: deque(run_stream(anew, ports, again, invoke, again.refreshed), 0),
                )
                continue
            else:
                reply = ports.perform(effect, session)
                continue
            # No `yield from`: when the reader leaves, the flow must still be told.
            try:
                with contextlib.closing(source) as chunks:
                    for chunk in chunks:
                        session.give(chunk)
                        yield chunk
            except BaseException as exc:  # noqa: BLE001
                part.left(exc)
            reply, passed = part.result, part.passed
    except StopIteration as stop:
        done: Done = stop.value
    finally:
        ports.abort(flow, session)
    if done.saving is not None and done.error is None:
        session.report(done)  # a reader may leave before the end
        for chunk in done.value[passed:]:
            session.give(chunk)
            yield chunk
    finish(done)


async def _drain(chunks: AsyncGenerator[Any, None]) -> None:
    async for _ in chunks:
        pass


async def run_async_stream(
    flow: Flow,
    ports: Ports,
    session: Session,
    invoke: Callable[[], AsyncGenerator[Any, Any]],
    finish: Callable[[Done], None],
) -> AsyncGenerator[Any, None]:
    """Drive an async generator function's call: yields its chunks; ``finish`` is told how it ended."""
    io = Beside(ports, session)
    ports.flows.add(flow)
    reply: Any = None
    passed = 0
    try:
        while True:
            effect = flow.send(reply)
            reply = io.told(effect)
            if reply is not None:
                continue
            if isinstance(effect, Call):
                io.preload()
                reading = _Reading(session, io.loaded)
                part: _Reading | Tail = reading
                source = reading.chunks_async(invoke)
            elif isinstance(effect, Join):
                reply = io.join(effect)
                if not isinstance(reply, Flight):
                    continue
                part = tail = Tail(reply, session.elapsed, session.tells)
                source = tail.chunks_async()
            elif isinstance(effect, Refresh):
                reply = None
                ports.refreshes.as_task(
                    session,
                    lambda again, anew: _drain(run_async_stream(anew, ports, again, invoke, again.refreshed)),
                )
                continue
            else:
                try:
                    reply = await io.perform(effect)
                except GeneratorExit as exc:
                    reply = io.close(effect, exc)
                continue
            try:
                async with contextlib.aclosing(source) as chunks:
                    async for chunk in chunks:
                        session.give(chunk)
                        yield chunk
            except BaseException as exc:  # noqa: BLE001
                part.left(exc)
            reply, passed = part.result, part.passed
    except StopIteration as stop:
        done: Done = io.ended(stop.value)
    finally:
        ports.abort(flow, session)
    if done.saving is not None and done.error is None:
        session.report(done)  # a reader may leave before the end
        for chunk in done.value[passed:]:
            session.give(chunk)
            yield chunk
    finish(done)
