"""A slow judge at work in the background: audits first, and no answer older than it may be."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from costkit import codec

if TYPE_CHECKING:
    from costkit.semantic.pool import Sought

__all__ = ["Judging"]

# Threads that ask the judge, and answers of each kind that wait for it at most.
_THREADS, _MOST_WAITING = 4, 1_000

# Seconds that an audit may wait (fewer than after which its label counts as lost), and any other label. Past that an
# audit counts as wrong; the label of what was not served is left out before the judge is asked, whatever it would be.
_AUDIT_WAITS, _OTHER_WAITS = 300.0, 60.0


@dataclass(frozen=True, slots=True)
class _Asked:
    sought: Sought
    value: Any
    query_id: str
    stream: bool
    since: float


class Judging:
    """The answers that wait for one function's judge.

    Args:
        judge: whether a candidate was wrong by this answer, of a stream or not.
        tell: writes the label of the query with this id down; None: there will be none.
    """

    def __init__(
        self, judge: Callable[[Sought, Any, bool], bool], tell: Callable[[Sought, str, bool | None], None]
    ) -> None:
        self._judge, self._tell = judge, tell
        self._threads: ThreadPoolExecutor | None = None
        self.after_fork()

    def ask(self, sought: Sought, value: Any, *, query_id: str, stream: bool) -> bool:
        """Have it judged; False: too many wait already."""
        asked = _Asked(sought, _snapshot(value), query_id, stream, time.monotonic())
        with self._lock:
            queue = self._audits if sought.audits else self._others
            if len(queue) >= _MOST_WAITING:
                return False
            if self._threads is None:
                self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="costkit-judge")
            self._threads.submit(self._next)
            queue.append(asked)
            return True

    def close(self) -> None:
        """Wait for the judge."""
        with self._lock:
            threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=True)

    def after_fork(self) -> None:
        """Nothing waits: a child has none of its parent's threads, and its labels are the parent's."""
        self._lock, self._threads = threading.Lock(), None
        self._audits, self._others = deque[_Asked](), deque[_Asked]()

    def _next(self) -> None:
        with self._lock:
            asked = (self._audits or self._others).popleft()
        audits = asked.sought.audits
        wrong: bool | None = True
        try:
            if time.monotonic() - asked.since < (_AUDIT_WAITS if audits else _OTHER_WAITS):
                wrong = self._judge(asked.sought, asked.value, asked.stream)
            elif not audits:
                wrong = None
        finally:  # whatever a judge raises, SystemExit among it: a label that does not come is wrong
            self._tell(asked.sought, asked.query_id, wrong)


def _snapshot(value: Any) -> Any:
    """The answer as it is now: its caller may change it while it waits for the judge."""
    try:
        return codec.decode(codec.encode(value))
    except (codec.NotStorable, codec.Unreadable):
        return value
