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

# Seconds in which a key whose refresh brought nothing is not refreshed again: stale answers are served meanwhile.
REST = 5.0
_MOST = 10_000


class Refreshes:
    """At most one refresh of a key at a time in this process, and none soon after one that failed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under: dict[str, float] = {}  # until when: a loop that runs no more may have the refresh in it
        self._rest: dict[str, float] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    def in_thread(self, session: Session, run: Callable[[Session, Flow], Any]) -> None:
        """Make the call again in a thread, in a copy of the caller's context."""
        if not self._begins(session):
            return
        again, context = session.again(self._now(session)), contextvars.copy_context()
        try:
            with self._lock:
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(4, thread_name_prefix="costkit-refresh")
                running = self._pool.submit(context.run, run, again, flow(again.request, time.perf_counter))
        except (
            RuntimeError
        ):  # the interpreter or the kit is about to end: the stale answer is served all the same
            self._ended(session, again, failed=True)
            return
        # Not under the lock: of a refresh that is over already the callback runs here.
        running.add_done_callback(lambda future: self._ended(session, again, _failure(future)))

    def as_task(self, session: Session, run: Callable[[Session, Flow], Coroutine[Any, Any, Any]]) -> None:
        """Make the call again in a task of this loop."""
        if not self._begins(session):
            return
        again = session.again(self._now(session))
        task = asyncio.get_running_loop().create_task(run(again, flow(again.request, time.perf_counter)))
        with self._lock:
            # What a dead loop's refresh holds is given back when it is let go.
            dead = {old for old in self._tasks if old.get_loop().is_closed()}
            self._tasks = self._tasks - dead | {task}

        def ended(done: asyncio.Task[Any]) -> None:
            with self._lock:
                self._tasks.discard(done)
            self._ended(session, again, done.cancelled() or done.exception() is not None)

        task.add_done_callback(ended)

    def close(self) -> None:
        """Wait for the refreshes under way in threads, which are paid for; those that wait for a thread are dropped."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)

    def _now(self, session: Session) -> Moment:
        return Moment(time.time(), time.monotonic(), session.request.now.boot)

    def _begins(self, session: Session) -> bool:
        key, now, exact = session.request.key or "", time.monotonic(), session.request.exact
        with self._lock:
            if now < max(self._under.get(key, 0.0), self._rest.get(key, 0.0)):
                return False
            self._under[key] = now + (0.0 if exact is None else exact.wait)
            return True

    def _ended(self, session: Session, again: Session, failed: bool) -> None:
        key = session.request.key or ""
        with self._lock:
            self._under.pop(key, None)
            self._rest.pop(key, None)
            if failed or again.fruitless:
                if len(self._rest) >= _MOST:
                    self._rest.clear()
                self._rest[key] = time.monotonic() + REST


def _failure(future: Future[Any]) -> bool:
    return future.cancelled() or future.exception() is not None
