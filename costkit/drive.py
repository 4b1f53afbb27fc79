"""Thin drivers of the flow: sync, async, sync stream, async stream.

A driver performs what the flow asks for and sends the result back; it decides nothing. Whatever interrupts it
(cancellation, Ctrl-C, a stream left by its reader), the flow is still told, the flight is landed and the row
written.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from . import codec
from .flight import Flight, Flights, Tail
from .flow import Abandoned, Call, Done, Flow, Join, Keep, Land, Lead, Left, Lookup, Lost, Write
from .ledger import Ledger
from .session import Session
from .store import Store

__all__ = ["Ports", "run_async", "run_async_stream", "run_stream", "run_sync"]

# Longer than the ledger waits for a lock; a writer silent for so long is in trouble.
_LEDGER_PATIENCE = 30.0


class Ports:
    """What the drivers perform effects on: the store, the ledger, the flights of this process."""

    def __init__(self, store: Store, ledger: Ledger, warn: Callable[[str], None]) -> None:
        self.store, self.ledger, self.warn = store, ledger, warn
        self.flights = Flights()
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self.unrecorded = 0

    def join(self, key: str, session: Session, owner: object) -> Flight | Lead | Lost:
        """Lead a new flight, or get the one under way."""
        return self.flights.join(key, session.request.epoch, session, owner)

    def write(self, effect: Write) -> Future[None] | None:
        """Queue the rows; ledger trouble without a budget is an answer and a counted warning."""
        try:
            return self.ledger.write(effect.query, effect.attempts, durable=effect.durable)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the answer is there and paid for
            self.trouble(exc)
            return None

    def trouble(self, error: BaseException | None) -> None:
        """Say that a row was not written. Rows that the ledger itself gave up are counted there."""
        if error is not None:
            self.unrecorded += isinstance(error, TimeoutError)
            self.warn(
                f"the ledger could not be written ({type(error).__name__}: {error}); calls go on, unrecorded "
                "(rows of a locked ledger are written once it is free)"
            )

    def pool(self) -> ThreadPoolExecutor:
        """Two threads for what would block an event loop."""
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(2, thread_name_prefix="costkit-io")
            return self._pool

    def after_fork(self) -> None:
        """The child has none of the parent's threads."""
        self.flights.after_fork()
        self._lock, self._pool = threading.Lock(), None

    def close(self) -> None:
        """Wait for writes under way."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)
            self._pool = None

    def perform(self, effect: Lookup | Keep | Land | Write, session: Session) -> Any:
        """Any effect but Call and Join, in this thread."""
        if isinstance(effect, Lookup):
            return self.store.get(session.scope_id, effect.key, session.request.wall)
        if isinstance(effect, Write):
            future = self.write(effect)
            if future is not None:
                try:
                    self.trouble(future.exception(timeout=_LEDGER_PATIENCE))
                except TimeoutError as exc:
                    self.trouble(exc)
        elif isinstance(effect, Keep):
            self.store.set(session.scope_id, effect.key, effect.entry)
        else:
            self.flights.land(effect, session.request.epoch, session)
            if effect.why is not None:
                session.warn(f"{session.request.name}: its answers cannot be stored ({effect.why})")
        return None

    def abort(self, flow: Flow, session: Session) -> None:
        """Leave nothing held, whatever happened."""
        flow.close()
        if session.flight is not None and session.request.key is not None:
            land = Land(session.request.key, None, None, gone=True)
            self.flights.land(land, session.request.epoch, session)


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
                reply = ports.join(effect.key, session, (threading.get_ident(), None))
                if isinstance(reply, Flight):
                    reply = _follow(reply)
            else:
                reply = ports.perform(effect, session)
    except StopIteration as stop:
        done: Done = stop.value
        return done
    finally:
        ports.abort(flow, session)


def _follow(flight: Flight) -> Any:
    try:
        flight.wait(None)
    except BaseException as exc:  # noqa: BLE001 - Ctrl-C: the flow is told, and raises it
        return Left(exc)
    return flight.result()


class _Async:
    """Performs blocking effects beside the loop; a cancellation is kept until the flow has ended."""

    def __init__(self, ports: Ports, session: Session) -> None:
        self.ports, self.session = ports, session
        self.cancelled: asyncio.CancelledError | None = None
        self.closed = False  # a coroutine that is being closed may not wait for anything

    async def perform(self, effect: Lookup | Keep | Land | Write) -> Any:
        """Any effect but Call and Join."""
        if isinstance(effect, Keep):
            store, scope = self.ports.store, self.session.scope_id
            pool = self.ports.pool()
            await self._beside(pool.submit(store.set, scope, effect.key, effect.entry))
            return None
        if isinstance(effect, Write):
            future = self.ports.write(effect)
            if future is not None:
                await self._beside(future)
                if future.done():
                    self.ports.trouble(future.exception())
            return None
        return self.ports.perform(effect, self.session)

    async def _beside(self, future: Future[Any]) -> None:
        if self.cancelled is not None or self.closed:
            return
        waiter = asyncio.ensure_future(_settled(future))
        try:
            await asyncio.shield(waiter)
        except asyncio.CancelledError as exc:
            self.cancelled = exc

    def ended(self, done: Done) -> Done:
        """The end of the flow, with the cancellation that came while it was being written down."""
        if self.cancelled is not None and done.error is None:
            return replace(done, error=self.cancelled)
        return done


async def _settled(future: Future[Any]) -> None:
    with contextlib.suppress(Exception):
        await asyncio.wrap_future(future)


async def run_async(flow: Flow, ports: Ports, session: Session, invoke: Callable[[], Awaitable[Any]]) -> Done:
    """Drive a coroutine function's call."""
    io = _Async(ports, session)
    reply: Any = None
    try:
        while True:
            effect = flow.send(reply)
            if isinstance(effect, Call):
                with session.spending():
                    try:
                        value = await invoke()
                    except Exception as exc:  # noqa: BLE001 - the user's own: recorded, then raised unchanged
                        reply = session.raised(exc)
                    except BaseException as exc:  # noqa: BLE001
                        reply = session.abandoned(exc)
                        io.closed = isinstance(exc, GeneratorExit)
                    else:
                        reply = session.returned(value)
            elif isinstance(effect, Join):
                reply = ports.join(effect.key, session, (threading.get_ident(), asyncio.current_task()))
                if isinstance(reply, Flight):
                    reply = await _follow_async(reply)
            else:
                reply = await io.perform(effect)
    except StopIteration as stop:
        done: Done = stop.value
        return io.ended(done)
    finally:
        ports.abort(flow, session)


async def _follow_async(flight: Flight) -> Any:
    try:
        await flight.wait_async(None)
    except BaseException as exc:  # noqa: BLE001 - cancelled: the flow is told, and raises it
        return Left(exc)
    return flight.result()


class _Reading:
    """The user's stream while it is read; ``result`` tells how it ended."""

    def __init__(self, session: Session) -> None:
        self.session = session
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
            self.result = self.session.returned(self._kept, self._ttft, self._seen)
        except Exception as exc:  # noqa: BLE001 - the user's own: recorded, then raised unchanged
            self.result = self.session.raised(exc, self._seen, self._ttft)
        finally:
            await source.aclose()

    def _reads_on(self) -> None:
        if self.session.flight is not None:
            self.session.flight.held = None

    def _saw(self, chunk: Any) -> Any:
        if self._ttft is None:
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
                reply = ports.join(effect.key, session, (threading.get_ident(), None))
                if not isinstance(reply, Flight):
                    continue
                part = tail = Tail(reply, session.elapsed)
                source = tail.chunks()
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
        for chunk in done.value[passed:]:
            session.give(chunk)
            yield chunk
    finish(done)


async def run_async_stream(
    flow: Flow,
    ports: Ports,
    session: Session,
    invoke: Callable[[], AsyncGenerator[Any, Any]],
    finish: Callable[[Done], None],
) -> AsyncGenerator[Any, None]:
    """Drive an async generator function's call: yields its chunks; ``finish`` is told how it ended."""
    io = _Async(ports, session)
    reply: Any = None
    passed = 0
    try:
        while True:
            effect = flow.send(reply)
            if isinstance(effect, Call):
                reading = _Reading(session)
                part: _Reading | Tail = reading
                source = reading.chunks_async(invoke)
            elif isinstance(effect, Join):
                reply = ports.join(effect.key, session, (threading.get_ident(), asyncio.current_task()))
                if not isinstance(reply, Flight):
                    continue
                part = tail = Tail(reply, session.elapsed)
                source = tail.chunks_async()
            else:
                reply = await io.perform(effect)
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
        for chunk in done.value[passed:]:
            session.give(chunk)
            yield chunk
    finish(done)
