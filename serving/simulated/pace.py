"""The server's own time: it stands still while the server is frozen, and wakes what is due.

Deadlines are in server time, the seconds of the loop's clock less those that the server was frozen; so a freeze moves
everything after it and nothing before it. One heap and one timer of the loop serve all requests: a loop's own timers
cost several times as much, and at 25,000 chunks a second that is most of a core.
"""

from __future__ import annotations

import asyncio
import heapq
from bisect import bisect_right
from collections.abc import Callable

__all__ = ["Pace"]

Alarm = list[Callable[[], None] | None]


class Pace:
    """Server time and its alarms; of a running event loop.

    >>> async def shown() -> list[float]:
    ...     pace = Pace(asyncio.get_running_loop())
    ...     began, frozen = pace.now(), pace.freeze(0.02)
    ...     await asyncio.sleep(0.01)
    ...     return [round(pace.now() - began, 2), round(pace.wall(began + 1.0) - began, 2)]
    >>> asyncio.run(shown())
    [0.0, 1.02]
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._alarms: list[tuple[float, int, Alarm]] = []
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None
        self._armed = float("inf")
        # Freeze i begins at server time _starts[i]; before it _lost[i] seconds had been lost, after it _lost[i + 1].
        self._starts: list[float] = []
        self._lost: list[float] = [0.0]
        self._thaw = 0.0

    @property
    def frozen(self) -> bool:
        """Whether the server stands still."""
        return self._loop.time() < self._thaw

    def now(self) -> float:
        """The server time."""
        return self.at_wall(self._loop.time())

    def at_wall(self, wall: float) -> float:
        """The server time at a time of the loop's clock, not of the future."""
        for i in range(len(self._starts) - 1, -1, -1):
            if wall >= self._starts[i] + self._lost[i]:
                return max(self._starts[i], wall - self._lost[i + 1])
        return wall

    def wall(self, due: float) -> float:
        """The time of the loop's clock at which it is ``due`` in server time, by the freezes so far."""
        return due + self._lost[bisect_right(self._starts, due)] if self._starts else due

    def freeze(self, seconds: float) -> float:
        """Stand still for so long from now on, or from the end of a freeze that lasts; returns when it ends."""
        if self.frozen:
            self._lost[-1] += seconds
            self._thaw += seconds
        else:
            self._starts.append(self.now())
            self._lost.append(self._lost[-1] + seconds)
            self._thaw = self._loop.time() + seconds
        self._arm(anew=True)
        return self._thaw

    def at(self, due: float, wake: Callable[[], None]) -> Alarm:
        """Call ``wake`` when it is ``due`` (server time), never before; give what is returned to ``cancel``."""
        alarm: Alarm = [wake]
        self._count += 1
        heapq.heappush(self._alarms, (due, self._count, alarm))
        if due < self._armed:
            self._arm()
        return alarm

    def cancel(self, alarm: Alarm) -> None:
        """Never wake this one."""
        alarm[0] = None

    def _arm(self, anew: bool = False) -> None:
        """Set the loop's one timer to the earliest alarm."""
        if not self._alarms:
            self._armed = float("inf")
            return
        due = self._alarms[0][0]
        if due == self._armed and not anew:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._armed = due
        self._timer = self._loop.call_at(max(self.wall(due), self._thaw), self._ring)

    def _ring(self) -> None:
        """Wake all that are due by now; what they ask for while they are awake is armed once, at the end."""
        self._timer, self._armed = None, float("-inf")
        try:
            now, thaw, alarms = self.now(), self._thaw, self._alarms
            # What wakes may freeze the server: then the rest waits.
            while alarms and alarms[0][0] <= now and thaw == self._thaw:
                alarm = heapq.heappop(alarms)[2]
                # Emptied, for who holds the alarm is often what it wakes: a cycle to be collected.
                wake, alarm[0] = alarm[0], None
                if wake is not None:
                    wake()
        finally:
            self._armed = float("inf")
            self._arm()
