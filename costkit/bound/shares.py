"""The last requests by rung of the ladder: how many calls a level would serve now.

A new fit of the score moves candidates from one rung to another at once, so the last requests are scored again with it:
the rungs as they are now, over the requests as they were lately.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["LONG", "SHORT", "Shares"]

# Requests whose rungs say what the shares are: the last ones, that follow a change, and more of them, for less noise.
SHORT, LONG = 600, 4_800


class Shares:
    """Of the last requests, those with a candidate on each rung.

    Args:
        rungs: of the ladder; a candidate beyond the last one has the number ``rungs``.

    >>> shares = Shares(2)
    >>> for rung in (0, 0, 1, None):
    ...     shares.passed(rung, None)
    >>> shares.short()
    [0.5, 0.25]
    """

    def __init__(self, rungs: int) -> None:
        self.requests = 0
        self._rungs = rungs
        self._slots = np.full(LONG, rungs + 1, dtype=np.int64)
        self._features: NDArray[np.float64] | None = None
        self._known = np.zeros(LONG, dtype=bool)
        self._counts = {SHORT: [0] * (rungs + 2), LONG: [0] * (rungs + 2)}

    def passed(self, rung: int | None, features: Sequence[float] | None) -> None:
        """One request more; without ``features`` it stays on its rung."""
        slot = self._rungs + 1 if rung is None else rung
        at = self.requests % LONG
        for size, counts in self._counts.items():
            if self.requests >= size:
                counts[self._slots[(self.requests - size) % LONG]] -= 1
            counts[slot] += 1
        self._slots[at], self._known[at] = slot, False
        if features is not None:
            if self._features is None:
                self._features = np.zeros((LONG, len(features)))
            if len(features) == self._features.shape[1]:
                self._features[at], self._known[at] = features, True
        self.requests += 1

    def rescore(self, rungs_of: Callable[[NDArray[np.float64]], NDArray[np.int64]]) -> None:
        """The score has changed: ``rungs_of`` features, shape (n, width), are the rungs now, shape (n,)."""
        if self._features is None or not self._known.any():
            return
        self._slots[self._known] = rungs_of(self._features[self._known])
        newest = (self.requests - 1 - np.arange(min(self.requests, LONG))) % LONG
        for size in self._counts:
            found = np.bincount(self._slots[newest[:size]], minlength=self._rungs + 2)
            self._counts[size] = [int(count) for count in found]

    def short(self) -> list[float]:
        """Over the last 600 requests."""
        return self._over(SHORT)

    def long(self) -> list[float]:
        """Over the last 4,800."""
        return self._over(LONG)

    def _over(self, size: int) -> list[float]:
        seen = max(1, min(self.requests, size))
        return [count / seen for count in self._counts[size][: self._rungs]]
