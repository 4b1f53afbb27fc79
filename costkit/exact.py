"""The exact tier: the stored answer to the identical call; identical calls in flight share one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .errors import ConfigError
from .usage import COMPLETE

__all__ = ["Exact", "exact", "seconds"]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


@dataclass(frozen=True, slots=True)
class Exact:
    """Settings of the exact tier; made by :func:`exact`. Durations are seconds."""

    ttl: float | None
    epochs: tuple[str, ...]
    admit: Callable[[Any], bool] | None
    stale: float = 0.0
    negative: float = 0.0
    wait: float = 60.0

    kind: str = "exact"
    lossless: bool = True

    @property
    def life(self) -> float | None:
        """How long an answer may be served at all, stale or not."""
        return None if self.ttl is None else self.ttl + self.stale

    def admits(self, value: Any, finish: str | None) -> bool:
        """Whether an answer may be stored: the user's ``admit`` decides, else a whole answer is asked for."""
        if self.admit is not None:
            return bool(self.admit(value))
        return value is not None and (finish is None or finish.lower() in COMPLETE)


def exact(
    *,
    ttl: float | str | None = None,
    epoch: str | tuple[str, ...] = (),
    admit: Callable[[Any], bool] | None = None,
    stale: float | str | None = None,
    negative: float | str | None = None,
    wait: float | str = 60.0,
) -> Exact:
    """Serve the stored answer to an identical call; identical calls in flight share one, in every process.

    Args:
        ttl: how long an answer may be served, from the moment it was made (reading it does not extend it):
            seconds, or text such as "90s", "15m", "12h", "1d", "2w". None: until it is evicted or its epoch
            is bumped.
        epoch: names of counters; ``kit.bump(name)`` turns every answer stored under one into a miss, in O(1).
        admit: called with the answer, says whether it may be stored. The default stores what is complete: not
            None, and not cut off, filtered or refused by its provider's finish reason.
        stale: for so long after its ttl an answer is still served at once, while **one** call in the background,
            over all processes, makes a new one (stale-while-revalidate, RFC 5861).
        negative: for so long after a call failed, identical calls raise :class:`RecentFailure` instead of asking
            again. Only the exception's class is remembered. Off by default.
        wait: the longest that a call waits for another's answer to the identical call before it asks itself.

    Raises:
        ConfigError: a duration is none, stale comes without ttl, epoch is no name, admit no function.

    >>> exact(ttl="1d").ttl
    86400.0
    """
    epochs = (epoch,) if isinstance(epoch, str) else epoch
    if not isinstance(epochs, (tuple, list)) or not all(isinstance(name, str) for name in epochs):
        raise ConfigError(
            f'exact(epoch=...): {epoch!r:.80} is no name; say epoch="handbook", or a tuple of names'
        )
    if admit is not None and not callable(admit):
        raise ConfigError(
            "exact(admit=...): give a function that is called with the answer and returns True or False"
        )
    if stale is not None and ttl is None:
        raise ConfigError('exact(stale=...): what never expires is never stale; say ttl="1h" as well')
    return Exact(
        ttl=None if ttl is None else seconds(ttl, "exact(ttl=...)"),
        epochs=tuple(epochs),
        admit=admit,
        stale=0.0 if stale is None else seconds(stale, "exact(stale=...)"),
        negative=0.0 if negative is None else seconds(negative, "exact(negative=...)"),
        wait=seconds(wait, "exact(wait=...)"),
    )


def seconds(value: float | str, what: str) -> float:
    """A duration in seconds from a number or text such as "15m".

    >>> seconds("15m", "ttl")
    900.0
    """
    if isinstance(value, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhdw])\s*", value)
        duration = float(found[1]) * _UNITS[found[2]] if found else 0.0
    else:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        duration = float(value) if number else 0.0
    if not 0 < duration < float("inf"):
        raise ConfigError(
            f'{what}: {value!r} is not a duration; say seconds, or text such as "15m", "12h", "1d"'
        )
    return duration
