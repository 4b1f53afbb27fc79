"""No fork while one of our threads is inside SQLite.

A child inherits the locks that SQLite keeps for the whole process; one that another thread holds at that moment is
never let go, and the child's first use of SQLite would wait for ever. So a fork waits until our threads are out, at
most ``PATIENCE`` seconds (a thread may be waiting for another process's lock on the database).

>>> with inside:
...     pass
"""

from __future__ import annotations

import os
import threading
from types import TracebackType

__all__ = ["PATIENCE", "inside"]

PATIENCE = 1.0


class _Inside:
    """Entered by each thread around its use of SQLite; not to be nested."""

    def __init__(self) -> None:
        self._threads = 0
        self._closing = False
        self._changed = threading.Condition(threading.Lock())

    def __enter__(self) -> None:
        with self._changed:
            if self._closing:
                self._changed.wait_for(lambda: not self._closing, PATIENCE)
            self._threads += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        with self._changed:
            self._threads -= 1
            if self._closing:
                self._changed.notify_all()

    def before_fork(self) -> None:
        self._changed.acquire()
        self._closing = True
        self._changed.wait_for(lambda: self._threads == 0, PATIENCE)

    def after_in_parent(self) -> None:
        self._closing = False
        self._changed.notify_all()
        self._changed.release()

    def after_in_child(self) -> None:
        self.__init__()  # type: ignore[misc]


inside = _Inside()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=inside.before_fork,
        after_in_parent=inside.after_in_parent,
        after_in_child=inside.after_in_child,
    )
