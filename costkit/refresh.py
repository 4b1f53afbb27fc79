"""Calls in the background that replace stale answers."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from .flow import Flow, flow
from .session import Session
from .store import Moment

__all__ = ["Refreshes"]

# Seconds in which a key whose refresh failed is not refreshed again: stale answers go on being served meanwhile.
REST = 5.0
_MOST = 10_000


class Refreshes:
    """At most one refresh of a key at a time in this process, and none soon after one that failed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under: set[str] = set()
        self._rest: dict[str, float] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    def in_thread(self, session: Session, run: Callable[[Session, Flow], Any]) -> None:
        """Make the call again in a thread, in a copy of the caller's context."""
        if not self._begins(session):
            return
        again = session.again(self._now(session))
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(4, thread_name_prefix="costkit-refresh")
            context = contextvars.copy_context()
            running = self._pool.submit(context.run, run, again, flow(again.request, time.perf_counter))
        running.add_done_callback(lambda future: self._ended(session, again, _failure(future)))

    def as_task(self, session: Session, run: Callable[[Session, Flow], Coroutine[Any, Any, Any]]) -> None:
        """Make the call again in a task of this loop."""
        if not self._begins(session):
            return
        again = session.again(self._now(session))
        task = asyncio.get_running_loop().create_task(run(again, flow(again.request, time.perf_counter)))
        self._tasks.add(task)

        def ended(done: asyncio.Task[Any]) -> None:
            self._tasks.discard(done)
            self._ended(session, again, done.cancelled() or done.exception() is not None)

        task.add_done_callback(ended)

    def close(self) -> None:
        """Wait for the refreshes in threads; they are paid for."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)
            self._pool = None

    def _now(self, session: Session) -> Moment:
        return Moment(time.time(), time.monotonic(), session.request.now.boot)

    def _begins(self, session: Session) -> bool:
        key = session.request.key or ""
        with self._lock:
            if key in self._under or time.monotonic() < self._rest.get(key, 0.0):
                return False
            self._under.add(key)
            return True

    def _ended(self, session: Session, again: Session, failed: bool) -> None:
        key = session.request.key or ""
        with self._lock:
            self._under.discard(key)
            self._rest.pop(key, None)
            if failed or again.failed:
                if len(self._rest) >= _MOST:
                    self._rest.clear()
                self._rest[key] = time.monotonic() + REST


def _failure(future: Future[Any]) -> bool:
    return future.cancelled() or future.exception() is not None
