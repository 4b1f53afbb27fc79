"""Effects performed beside an event loop, for the async drivers: nothing that blocks runs in it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from . import prices, tokens
from .effects import (
    Abandoned,
    Call,
    Claim,
    Done,
    Effect,
    Join,
    Judge,
    Keep,
    Left,
    Lookup,
    Pause,
    Reserve,
    Seek,
    Write,
)  # fmt: skip
from .flight import Flight
from .ports import LEDGER_PATIENCE, Plain, Ports
from .session import Session

__all__ = ["Beside"]

_INTERRUPTIBLE = (Join, Claim, Pause, Reserve, Call)


class Beside:
    """Performs blocking effects beside the loop; a cancellation is kept until the flow has ended."""

    def __init__(self, ports: Ports, session: Session) -> None:
        self.ports, self.session = ports, session
        self.cancelled: BaseException | None = None
        self.closed = False  # a coroutine that is being closed may not wait for anything
        self._loads: list[Future[None]] = []
        self._asked: Future[Any] | None = None  # the judge

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
        if isinstance(effect, Judge) and self._asked is not None:
            self.ports.judged_later(self._asked, effect, self.session)  # the loop waits for nobody
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
            await self._beside(ports.pool().submit(ports.keep, effect, session))
        elif isinstance(effect, Seek) and (self.closed or self.cancelled is not None):
            return None  # nobody waits for the answer
        elif isinstance(effect, Judge) and self.closed:
            return ports.perform(effect, session)
        elif isinstance(effect, (Seek, Judge)):
            self._asked = ports.pool("meaning").submit(ports.perform, effect, session)
            return await self._apart(self._asked)
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


async def _follow_async(flight: Flight) -> Any:
    try:
        await flight.wait_async(None, flight.left())
    except BaseException as exc:  # noqa: BLE001 - cancelled: the flow is told, and raises it
        return Left(exc)
    return flight.result()
