"""One process's share of a run: its part of the plan, from a moment that all processes agree on.

What a master tells its workers is plain values (:class:`Part`): on one machine the moment is on the monotonic clock
that all processes share, on others it is so many seconds after the word arrives.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from loadtests.arrivals import arrivals, dealt
from loadtests.dispatch import Dispatcher
from loadtests.options import Settings
from loadtests.preflight import client_of
from loadtests.pricing import Pricing
from loadtests.sample import Sample
from loadtests.traffic import Traffic

__all__ = ["Part", "dispatcher_of", "length_of", "machine"]


@dataclass(frozen=True, slots=True)
class Part:
    """Part ``number`` of ``parts``, beginning at ``start`` (monotonic) or ``lead`` seconds from now; None: no end."""

    number: int
    parts: int
    start: float
    lead: float
    machine: str
    seconds: float | None

    def as_message(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @staticmethod
    def of_message(told: Mapping[str, Any]) -> Part:
        """What :meth:`as_message` made."""
        return Part(**{name: told[name] for name in Part.__slots__})

    def begin(self) -> float:
        """The start on this machine's monotonic clock."""
        return self.start if self.machine == machine() else time.monotonic() + self.lead


def machine() -> str:
    """What processes with one monotonic clock have in common: the boot of their machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return platform.node()


def length_of(settings: Settings, traffic: Traffic, run_time: float | None) -> float | None:
    """How many seconds a run sends; None: until it is told to stop."""
    if traffic.times is not None:
        whole = traffic.times[-1] + 0.001  # the last one is to be sent too
    else:
        assert settings.plan is not None
        whole = settings.plan.seconds
    whole = min(whole, run_time or math.inf)
    return None if math.isinf(whole) else whole


def dispatcher_of(
    settings: Settings,
    traffic: Traffic,
    host: str,
    part: Part,
    *,
    record: Callable[[Sample], None],
    done: Callable[[], None],
) -> Dispatcher:
    """What will send one part; not begun. Raises ValueError for an address or a key that is none."""
    if traffic.times is not None:
        times = dealt(traffic.times, part=part.number, parts=part.parts)
    else:
        assert settings.plan is not None
        times = arrivals(settings.plan, part=part.number, parts=part.parts)
    if part.seconds is not None:
        end = part.seconds
        times = takewhile(lambda one: one[1] < end, times)
    pricing = Pricing(settings.prices)
    pricing.known(settings.model.name)  # reads the table of prices now, not while the first answer waits
    return Dispatcher(
        client_of(settings, host),
        traffic,
        times,
        part.begin(),
        pricing,
        record,
        done,
        most=settings.most_in_flight,
        worker=part.number,
    )
