"""Where the nearest of very many rows probably are: a graph of neighbours (HNSW), by the usearch library.

The graph names candidates, no more: similarities are computed from the rows themselves, and rows that it does not hold
yet are all compared. What can be lost is a neighbour, not the truth of what is said of one: hardly any for questions
near stored ones (tests/benchmarks/lookup.py), up to a quarter for those far from all of them. It lives in memory only,
made of rows whose seals were checked: a forged file could lead native code astray.

Source: Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using Hierarchical Navigable
Small World graphs", https://arxiv.org/abs/1603.09320
"""

from __future__ import annotations

import functools
import math
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from costkit.index.rows import Vectors

__all__ = ["LEAST", "Graph", "Growing", "grown"]

LEAST = 50_000  # rows below which the exact search takes less than a millisecond (tests/benchmarks/lookup.py)
_TAIL, _TAIL_SHARE = 2048, 32  # rows that are compared one by one before the graph takes them in
_BATCH = 256
_WIDER = 4  # candidates for each neighbour that is asked for: some of them are dead, or of another epoch


@dataclass(frozen=True, slots=True)
class Graph:
    """Over the first ``size`` rows of a matrix. Never changed once it is made, so searches need no lock."""

    index: Any
    size: int

    def near(self, vector: Vectors, count: int) -> npt.NDArray[np.int64]:
        """Rows among which the ``count`` nearest probably are, ascending, shape (at most 4 * count,)."""
        keys = self.index.search(vector, min(self.size, _WIDER * count), threads=1).keys
        return np.sort(keys.astype(np.int64))

    @property
    def bytes(self) -> int:
        """Memory held, about."""
        return int(self.index.memory_usage)


def grown(graph: Graph | None, matrix: Vectors, size: int) -> Graph | None:
    """The graph over the first ``size`` rows of a matrix, from one over fewer of them; None without the library."""
    library = _usearch()
    if library is None:
        return None
    first = 0 if graph is None else graph.size
    made = (
        library.Index(ndim=matrix.shape[1], metric="ip", dtype="f16") if graph is None else graph.index.copy()
    )
    for start in range(first, size, _BATCH):
        rows = np.arange(start, min(size, start + _BATCH))
        made.add(rows, matrix[rows], threads=1)
    return Graph(made, size)


class Growing:
    """The graph of rows that become more. It is made beside the searches, which are exact until there is one."""

    def __init__(self) -> None:
        self._numbering = 0
        self._made: tuple[int, Graph | None] = (0, None)
        self._thread: threading.Thread | None = None
        self._failed = False

    @property
    def bytes(self) -> int:
        """Memory held, about."""
        graph = self._made[1]
        return 0 if graph is None else graph.bytes

    def now(self, size: int) -> Graph | None:
        """The graph, if there is one over some of the first ``size`` rows."""
        numbering, graph = self._made
        return graph if graph is not None and numbering == self._numbering and graph.size <= size else None

    def renumber(self) -> None:
        """Rows have other numbers now: what was made, or is being made, is of no use."""
        self._numbering += 1
        self._made = self._numbering, None

    def tend(self, matrix: Vectors, size: int) -> None:
        """Have rows taken in, once there are enough. What the first ``size`` rows hold must not change any more."""
        if size < LEAST or self._failed or _usearch() is None:
            return
        graph = self.now(size)
        waiting = size if graph is None else size - graph.size
        if waiting <= max(_TAIL, size // _TAIL_SHARE) or (
            self._thread is not None and self._thread.is_alive()
        ):
            return
        job = self._numbering, graph, matrix, size
        self._thread = threading.Thread(target=self._grow, args=job, name="costkit-index", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # no thread to be had, as at the interpreter's end
            self._thread = None

    def wait(self, seconds: float = math.inf) -> None:
        """Until the graph that is being made is there."""
        thread = self._thread
        if thread is not None:
            thread.join(None if math.isinf(seconds) else seconds)

    def _grow(self, numbering: int, graph: Graph | None, matrix: Vectors, size: int) -> None:
        try:
            made = grown(graph, matrix, size)
        except Exception:  # noqa: BLE001 - the exact search goes on, whatever native code ran into
            self._failed = True
            return
        # One assignment: a search, or a renumbering, sees it before or after.
        self._made = numbering, made


@functools.cache
def _usearch() -> Any | None:
    try:
        from usearch import index
    except ImportError:
        return None
    return index
