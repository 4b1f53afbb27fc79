"""For each question of a stream the nearest ones before it, found once for every rule and threshold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .rows import Ints

__all__ = ["Floats", "Near", "near"]

Floats = npt.NDArray[np.float32]

_BLOCK = 256


@dataclass(frozen=True, slots=True)
class Near:
    """``order[t]`` are the up to k questions before t that are nearest to it, nearest first; -1 where there are fewer.

    ``cosine[t]`` are their similarities, and ``vectors`` those of the whole stream, for what lies further.
    """

    order: Ints
    cosine: Floats
    vectors: Floats

    def all_before(self, t: int) -> Floats:
        """The similarity of question ``t`` to each one before it."""
        before: Floats = self.vectors[:t] @ self.vectors[t]
        return before

    def walk(self, t: int) -> Iterator[tuple[int, float]]:
        """Every question before ``t``, nearest first, with its similarity."""
        seen = set()
        for j, cosine in zip(self.order[t].tolist(), self.cosine[t].tolist(), strict=True):
            if j < 0:
                return
            seen.add(j)
            yield j, cosine
        before = self.all_before(t)
        for j in np.argsort(-before, kind="stable").tolist():
            if j not in seen:
                yield j, float(before[j])


def near(vectors: Floats, k: int = 64) -> Near:
    """The nearest earlier neighbours of each of n unit vectors, shape (n, d).

    >>> found = near(np.eye(2, dtype=np.float32)[[0, 1, 0]], k=2)
    >>> found.order.tolist()
    [[-1, -1], [0, -1], [0, 1]]
    """
    n = len(vectors)
    order = np.full((n, k), -1, dtype=np.int64)
    cosine = np.full((n, k), -np.inf, dtype=np.float32)
    for start in range(0, n, _BLOCK):
        block = np.arange(start, min(n, start + _BLOCK))
        table = vectors[block] @ vectors[: block[-1] + 1].T
        table[np.arange(table.shape[1])[None, :] >= block[:, None]] = -np.inf
        kept = min(k, table.shape[1])
        top = np.argpartition(-table, kept - 1, axis=1)[:, :kept]
        of = np.take_along_axis(table, top, axis=1)
        by = np.lexsort((top, -of), axis=1)
        top, of = np.take_along_axis(top, by, axis=1), np.take_along_axis(of, by, axis=1)
        order[block, :kept] = np.where(np.isfinite(of), top, -1)
        cosine[block, :kept] = of
    return Near(order, cosine, vectors)
