"""Thin drivers of the flow: sync, async, sync stream, async stream.

A driver performs what the flow asks for and sends the result back; it decides nothing. Whatever interrupts it
(cancellation, Ctrl-C, a stream left by its reader), the flow is still told, the flight is landed and the row
written.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from . import codec, prices, tokens
from .effects import (
    Abandoned,
    Call,
    Claim,
    Done,
    Effect,
    Join,
    Keep,
    Left,
    Lookup,
    Pause,
    Refresh,
    Reserve,
    Write,
)  # fmt: skip
from .flight import Flight, Tail
from .flow import Flow
from .ports import LEDGER_PATIENCE, Plain, Ports
from .session import Session

__all__ = ["run_async", "run_async_stream", "run_stream", "run_sync"]

_INTERRUPTIBLE = (Join, Claim, Pause, Reserve, Call)


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


class _Async:
    """Performs blocking effects beside the loop; a cancellation is kept until the flow has ended."""

    def __init__(self, ports: Ports, session: Session) -> None:
        self.ports, self.session = ports, session
        self.cancelled: BaseException | None = None
        self.closed = False  # a coroutine that is being closed may not wait for anything
        self._loads: list[Future[None]] = []

    def told(self, effect: Effect) -> Left | Abandoned | None:
        """The cancellation that came before this effect, where it can be told; the call is not made then."""
        if self.cancelled is None or not isinstance(effect, _INTERRUPTIBLE):
            return None
        error, self.cancelled = self.cancelled, None
        if not isinstance(effect, Call):
            return Left(error)
        self.session.free = True
        return self.session.abandoned(error)

    def close(self, effect: Effect, exc: GeneratorExit) -> Left | None:
        """Closed while this effect was performed: what the flow is told, which writes its row and ends.

        Only the outermost coroutine can go on then: every one that awaits gets a GeneratorExit of its own.
        """
        self.closed = True
        if isinstance(effect, (Join, Claim, Pause, Reserve)):
            return Left(exc)
        self.cancelled = exc
        return None

    def join(self, effect: Join) -> Any:
        """Lead a new flight, or get the one under way."""
        owner = (threading.get_ident(), asyncio.current_task())
        return self.ports.join(effect, self.session, owner)

    async def perform(self, effect: Plain | Join) -> Any:
        """Any effect but Call and Refresh; a stream follows in a way of its own."""
        ports, session = self.ports, self.session
        if isinstance(effect, Join):
            joined = self.join(effect)
            return await _follow_async(joined) if isinstance(joined, Flight) else joined
        if isinstance(effect, Keep):
            if self.closed and effect.entry.failed:
                return None  # nobody could look whether an answer is stored by now
            session.kept = True
            await self._beside(
                ports.pool().submit(ports.store.set, session.scope_id, effect.key, effect.entry)
            )
        elif isinstance(effect, Write):
            future = ports.write(effect, session)
            if future is not None:
                await self._beside(future)
                if future.done():
                    ports.trouble(future.exception())
        elif isinstance(effect, Pause):
            try:
                await asyncio.sleep(effect.seconds)
            except BaseException as exc:  # noqa: BLE001 - cancelled: the flow is told, and raises it
                return Left(exc)
        elif isinstance(effect, Reserve):
            return await self._reserve()
        elif isinstance(effect, Claim):
            return await self._claim(effect)
        elif isinstance(effect, Lookup):
            known = None if effect.fresh else ports.store.recent(effect.key, session.request.now.wall)
            return known or await self._apart(ports.pool().submit(ports.perform, effect, session))
        else:
            return ports.perform(effect, session)
        return None

    async def _claim(self, effect: Claim) -> Any:
        ports, session = self.ports, self.session
        claiming = ports.pool().submit(ports.claim, effect, session)
        try:
            return await self._apart(claiming)
        except BaseException:  # closed: what was or will be claimed is given back
            claiming.add_done_callback(lambda _: ports.unclaim(session))
            raise

    async def _apart(self, future: Future[Any]) -> Any:
        """What a thread of the pool does soon; a cancellation meanwhile is kept until the flow can be told."""
        while not future.done():
            try:
                await asyncio.shield(asyncio.ensure_future(_settled(future)))
            except asyncio.CancelledError as exc:
                self.cancelled = exc
        return future.result()

    async def _reserve(self) -> Any:
        ports, session = self.ports, self.session
        # The user's max_cost reads the caller's context, as it does in a plain call.
        needing = ports.pool().submit(contextvars.copy_context().run, ports.need, session)
        try:
            refused = await asyncio.wrap_future(needing)
            if refused is not None:
                return refused
            holding = ports.hold(session)
            if holding is not None:
                await asyncio.wait([asyncio.ensure_future(_settled(holding))], timeout=LEDGER_PATIENCE)
        except BaseException as exc:  # noqa: BLE001 - cancelled: what was or will be held is given back
            needing.add_done_callback(lambda _: ports.release(session))
            return Left(exc)
        return ports.held(session, holding, patience=0.0)

    async def _beside(self, future: Future[Any]) -> None:
        if self.cancelled is not None or self.closed:
            return
        waiter = asyncio.ensure_future(_settled(future))
        try:
            await asyncio.shield(waiter)
        except asyncio.CancelledError as exc:
            self.cancelled = exc

    def preload(self) -> None:
        """Load what the answer will be priced and counted with, beside the loop while the call is made."""
        self._loads = [self.ports.warm("prices", prices.warm)]
        if self.session.request.stream:
            self._loads.append(self.ports.warm("tokens", tokens.warm))

    async def loaded(self) -> None:
        """Wait for it, the first time."""
        for load in self._loads:
            if not load.done():
                await self._beside(load)

    def ended(self, done: Done) -> Done:
        """The end of the flow, with the cancellation that came while it was being written down."""
        if self.cancelled is not None and done.error is None:
            return replace(done, error=self.cancelled)
        return done


async def _settled(future: Future[Any]) -> None:
    # Shielded: a loop that ends cancels every task, and a job of the pool with the one that waits for it.
    with contextlib.suppress(Exception):
        await asyncio.shield(asyncio.wrap_future(future))


async def run_async(flow: Flow, ports: Ports, session: Session, invoke: Callable[[], Awaitable[Any]]) -> Done:
    """Drive a coroutine function's call."""
    io = _Async(ports, session)
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


async def _follow_async(flight: Flight) -> Any:
    try:
        await flight.wait_async(None, flight.left())
    except BaseException as exc:  # noqa: BLE001 - cancelled: the flow is told, and raises it
        return Left(exc)
    return flight.result()


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
    io = _Async(ports, session)
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
        for chunk in done.value[passed:]:
            session.give(chunk)
            yield chunk
    finish(done)
