"""Flights: a call under way that identical calls of this process wait for, or tail chunk by chunk.

Followers of a flight that failed all move on to **one** successor, however late each of them wakes: n waiters
on a broken upstream cost two more calls at most, not n.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from typing import Any, Protocol

from . import codec
from .effects import Land, Landed, Lead, Left, Lost, Whole
from .errors import StreamLost

__all__ = ["Flight", "Flights", "Member", "Tail"]

# Seconds that a stream's followers wait for a reader that does not read on, perhaps because it waits for them.
PATIENCE = 30.0


class Member(Protocol):
    """What the flights need of a call: the flight it leads, the one it waited for last, and who called it."""

    flight: Flight | None
    waited: Flight | None

    def inside(self, key: str) -> bool: ...


class Flight:
    """A call being made that identical calls wait for; streams are tailed chunk by chunk."""

    def __init__(self, owner: object, patience: float) -> None:
        self.owner, self._patience = owner, patience
        self._deadline = time.monotonic() + patience
        self.chunks: list[Any] = []
        self.landed: Land | None = None
        self.successor: Flight | None = None
        self.held: float | None = None  # since when the leader's reader has asked for no further chunk
        self._condition = threading.Condition()
        self._listeners: list[Callable[[], None]] = []

    def emit(self, chunk: Any) -> None:
        """Leader: pass one chunk on to the followers."""
        with self._condition:
            self.chunks.append(chunk)
            self.held = time.monotonic()
            self._deadline = self.held + self._patience
        self._tell()

    def held_for(self) -> float:
        """Seconds since the leader's reader asked for a chunk; 0 while the leader works on one."""
        held = self.held
        return 0.0 if held is None else time.monotonic() - held

    def left(self) -> float:
        """Seconds that followers wait yet; a stream's leader earns more with every chunk."""
        return max(0.0, self._deadline - time.monotonic())

    def overdue(self) -> bool:
        """Whether its followers wait no longer: the next one leads."""
        return self.landed is None and self.left() == 0.0

    def land(self, land: Land) -> None:
        """Leader: the flight is over."""
        with self._condition:
            self.landed = land
        self._tell()

    def _tell(self) -> None:
        with self._condition:
            self._condition.notify_all()
            listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener()

    def wait(self, seen: int | None, timeout: float | None = None) -> None:
        """Block until the flight has landed or, with ``seen``, has more chunks than that, or for ``timeout``."""
        with self._condition:
            self._condition.wait_for(lambda: self._ready(seen), timeout)

    async def wait_async(self, seen: int | None, timeout: float | None = None) -> None:
        """The same without blocking the event loop."""
        loop = asyncio.get_running_loop()
        while True:
            woken: asyncio.Future[None] = loop.create_future()
            with self._condition:
                if self._ready(seen):
                    return
                self._listeners.append(_waker(loop, woken))
            try:
                await asyncio.wait_for(woken, timeout)
            except TimeoutError:
                return

    def _ready(self, seen: int | None) -> bool:
        return self.landed is not None or (seen is not None and len(self.chunks) > seen)

    def result(self, emitted: bool = False, ttft: float | None = None) -> Landed | Lost | Whole:
        """What a follower is told once the flight has landed, or is overdue."""
        land = self.landed
        if land is None:
            late = StreamLost("the identical stream this one followed has stalled; call again")
            return Lost(late if emitted else None, emitted)
        if land.entry is not None:
            return Landed(land.entry, ttft, land.lossy)
        if land.error is None and not land.gone:
            return Whole(tuple(self.chunks), ttft, land.lossy) if emitted else Lost(alone=True)
        error = land.error
        if error is None and emitted:
            error = StreamLost("the identical stream this one followed was left before its end; call again")
        return Lost(error, emitted)


def _waker(loop: asyncio.AbstractEventLoop, woken: asyncio.Future[None]) -> Callable[[], None]:
    def resolve() -> None:
        if not woken.done():
            woken.set_result(None)

    def wake() -> None:
        # The follower's loop may have been closed while it waited; then nobody is left to wake.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(resolve)

    return wake


class Flights:
    """The flights of this process, by key and epoch: an answer begun before a bump is not shared after it."""

    def __init__(self) -> None:
        self._flights: dict[tuple[str, str], Flight] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._flights)

    def join(
        self, key: str, epoch: str, member: Member, owner: object, *, patience: float = 60.0
    ) -> Flight | Lead | Lost:
        """Lead a new flight, or get the one to wait for; one that waits for this very caller is passed by.

        Nobody waits for a flight longer than its leader's ``patience`` in seconds: one of the followers leads then.
        """
        if member.inside(key):
            return Lost(alone=True)
        before = member.waited
        with self._lock:
            flight = None if before is None else before.successor
            while flight is not None and flight.overdue():
                flight = flight.successor
            if flight is None:
                flight = self._flights.get((key, epoch))
            leads = flight is None or flight.overdue()
            if flight is None or leads:
                flight = self._flights[key, epoch] = Flight(owner, patience)
            # A stream that was overdue may go on after all, and is not its own successor.
            if before is not None and before is not flight and (before.successor is None or leads):
                before.successor = flight
        if leads:
            member.flight = flight
            return Lead()
        if flight.owner == owner and flight.landed is None:
            return Lost(alone=True)
        member.waited = flight
        return flight

    def land(self, land: Land, epoch: str, member: Member) -> None:
        """End the flight that this member leads, if it leads one."""
        flight, member.flight = member.flight, None
        if flight is None:
            return
        with self._lock:
            if self._flights.get((land.key, epoch)) is flight:
                del self._flights[land.key, epoch]
        flight.land(land)

    def after_fork(self) -> None:
        """The child leads none of its parent's flights."""
        self._flights, self._lock = {}, threading.Lock()


class Tail:
    """A follower of a stream: copies of the chunks as the leader gets them; ``result`` tells how it ended.

    A stream of objects that cannot be copied is not followed: the result is then Lost, alone.
    """

    def __init__(
        self, flight: Flight, elapsed: Callable[[], float], tells: Callable[[Any], bool] = lambda chunk: True
    ) -> None:
        self.flight, self._elapsed, self._tells = flight, elapsed, tells
        self.passed = 0
        self.result: Landed | Lost | Whole | Left | None = None
        self._ttft: float | None = None

    def chunks(self) -> Generator[Any, None, None]:
        """The chunks, each as soon as the leader has it."""
        while not self._over():
            self.flight.wait(self.passed, min(PATIENCE, self.flight.left()))
            yield from self._ready()

    async def chunks_async(self) -> AsyncGenerator[Any, None]:
        """The same without blocking the event loop."""
        while not self._over():
            await self.flight.wait_async(self.passed, min(PATIENCE, self.flight.left()))
            for chunk in self._ready():
                yield chunk

    def left(self, error: BaseException) -> None:
        """Cancelled, or the reader went away."""
        self.result = Left(error)

    def _over(self) -> bool:
        flight = self.flight
        if self.result is None and flight.landed is not None and self.passed == len(flight.chunks):
            self.result = flight.result(self.passed > 0, self._ttft)
        elif self.result is None and self.passed == len(flight.chunks) and flight.held_for() >= PATIENCE:
            error = StreamLost("the identical stream this one followed is not read on; call again")
            self.result = Lost(error, emitted=True)
        elif self.result is None and self.passed == len(flight.chunks) and flight.overdue():
            self.result = flight.result(self.passed > 0)
        return self.result is not None

    def _ready(self) -> Iterator[Any]:
        while self.passed < len(self.flight.chunks):
            chunk = self.flight.chunks[self.passed]
            try:
                chunk = codec.decode(codec.encode(chunk))
            except (codec.NotStorable, codec.Unreadable):
                if self.passed == 0:
                    self.result = Lost(alone=True)
                    return
            if self._ttft is None and self._tells(chunk):
                self._ttft = self._elapsed()
            self.passed += 1
            yield chunk
