"""The vectors of one scope and namespace in memory, and the search among them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from costkit.index.graph import Graph, Growing
from costkit.index.rows import Row, Vectors
from costkit.index.sieve import Sieve, dots

__all__ = ["NOTHING", "Found", "Snapshot", "Space"]

T = TypeVar("T", bound=np.generic)

_LEAST = 8  # rows that there is room for at first
_ROW_BYTES = 600  # what a row takes beside its vector, about
_NOWHERE = np.float32(-2.0)  # below every cosine
_SIEVED = 4096  # rows from which on the sieve is worth its while (tests/benchmarks/lookup.py)
_SEEDS = 64  # rows compared in full to know how near the k-th nearest is at least


@dataclass(frozen=True, slots=True)
class Found:
    """The nearest rows, best first, and their cosine similarities (float32, shape (k,))."""

    rows: tuple[Row, ...]
    similarities: Vectors

    @property
    def keys(self) -> tuple[str, ...]:
        """The exact tier's keys of the rows."""
        return tuple(row.key for row in self.rows)


NOTHING = Found((), np.empty(0, np.float32))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a search looks at, without a lock: a place, once filled, never holds another key's vector."""

    matrix: Vectors
    expires: npt.NDArray[np.float64]
    epochs: npt.NDArray[np.int32]
    rows: Sequence[Row | None]
    epoch: int
    sieve: Sieve | None
    graph: Graph | None = None

    def nearest(self, vector: Vectors, k: int, now: float) -> Found:
        """The ``k`` rows of greatest cosine that are alive; fewer where there are fewer."""
        k = min(k, len(self.matrix))
        named = None if self.graph is None else self._named(self.graph, vector, k, now)
        if named is not None:
            return self._best(dots(self.matrix[named], vector), k, named)
        gone = (self.expires <= now) | (self.epochs != self.epoch)
        places = None if self.sieve is None else self._sieved(self.sieve, vector, k, gone)
        if places is None:
            near = dots(self.matrix, vector)
            near[gone] = _NOWHERE
            return self._best(near, k, None)
        return self._best(dots(self.matrix[places], vector), k, places)

    def _sieved(
        self, sieve: Sieve, vector: Vectors, k: int, gone: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.int64] | None:
        """Where the ``k`` nearest must be; None where that would be nearly everywhere."""
        limit = sieve.at_most(vector)
        limit[gone] = _NOWHERE
        seeds = _seeds(limit)
        if len(seeds) < k:
            places = np.flatnonzero(~gone)
        else:
            least = np.partition(dots(self.matrix[seeds], vector), -k)[-k]
            places = np.flatnonzero(limit >= least)
        return places if len(places) <= len(limit) // 8 else None

    def _named(self, graph: Graph, vector: Vectors, k: int, now: float) -> npt.NDArray[np.int64] | None:
        """Where the ``k`` nearest are, by the graph; None where too few that it names are alive."""
        named = graph.near(vector, k)
        named = named[(self.expires[named] > now) & (self.epochs[named] == self.epoch)]
        if len(named) < k:
            return None
        least = np.partition(dots(self.matrix[named], vector), -k)[-k]
        alive = (self.expires[graph.size :] > now) & (self.epochs[graph.size :] == self.epoch)
        more = alive & (dots(self.matrix[graph.size :], vector) >= least)
        return np.concatenate([named, np.flatnonzero(more) + graph.size])

    def _best(self, near: Vectors, k: int, places: npt.NDArray[np.int64] | None) -> Found:
        rows: list[Row] = []
        best: list[np.float32] = []
        # A few passes for the largest are faster than a partition, and keep ties in order of age.
        for _ in range(min(k, len(near))):
            place = int(near.argmax())
            similarity = near[place]
            if not similarity > _NOWHERE:
                break
            near[place] = _NOWHERE
            row = self.rows[place if places is None else int(places[place])]
            if row is not None:
                rows.append(row)
                best.append(similarity)
        return Found(tuple(rows), np.array(best, np.float32))


class Space:
    """Grows by doubling. Not safe between threads by itself; its snapshots are."""

    def __init__(self, dimension: int) -> None:
        self.version = -1  # the database's when it was last read; -1: never
        self.last = 0  # all rows up to this number are known
        self.cut = 0  # all rows up to this number are gone
        self.counted = 0  # bytes, when they were last counted
        self._matrix = np.empty((0, dimension), np.float32)
        self._expires = np.empty(0, np.float64)
        self._epochs = np.empty(0, np.int32)
        self._numbers = np.empty(0, np.int64)
        self._rows: list[Row | None] = []
        self._places: dict[str, int] = {}
        self._epoch_of: dict[str, int] = {}
        self._sieve: Sieve | None = None
        self._growing = Growing()

    def __len__(self) -> int:
        return len(self._places)

    @property
    def bytes(self) -> int:
        """Memory held, about."""
        sieve = 0 if self._sieve is None else self._sieve.along.nbytes
        rows = len(self._rows) * _ROW_BYTES
        return self._matrix.nbytes + sieve + self._growing.bytes + rows + 4096

    def count(self) -> int:
        """Memory held, about; the sieve and the graph, where they are worth their while, are made first."""
        self._growing.tend(self._matrix, len(self._rows))
        if self._sieve is None and len(self._rows) >= _SIEVED:
            self._sieve = Sieve.over(self._matrix, len(self._rows))
        self.counted = self.bytes
        return self.counted

    def snapshot(self, epoch: str) -> Snapshot | None:
        """What there is now in this epoch; None: nothing."""
        number, size = self._epoch_of.get(epoch), len(self._rows)
        if number is None or not size:
            return None
        sieve = None if self._sieve is None else self._sieve.until(size)
        return Snapshot(
            self._matrix[:size], self._expires[:size], self._epochs[:size], self._rows, number, sieve,
            self._growing.now(size),
        )  # fmt: skip

    def put(self, numbers: Sequence[int], rows: Sequence[Row], vectors: Vectors) -> None:
        """Add rows with different keys, in place of those with the same key. Numbers ascend."""
        self.reserve(len(rows))
        changed = []
        for at, row in enumerate(rows):
            place = self._places.get(row.key)
            if place is not None and np.array_equal(self._matrix[place], vectors[at]):
                self._fill(slice(place, place + 1), numbers[at : at + 1], [row])
                self._rows[place] = row
            else:
                self.drop(row.key)
                changed.append(at)
        first = len(self._rows)
        places = slice(first, first + len(changed))
        chosen, vectors = [rows[at] for at in changed], vectors[changed]
        self._matrix[places] = vectors
        self._fill(places, [numbers[at] for at in changed], chosen)
        if self._sieve is not None:
            self._sieve.fill(places, vectors)
        self._rows += chosen
        self._places.update((row.key, place) for place, row in enumerate(chosen, first))

    def drop(self, key: str) -> None:
        """Take a row out."""
        place = self._places.pop(key, None)
        if place is not None:
            self._expires[place] = -math.inf
            self._rows[place] = None

    def drop_until(self, number: int) -> None:
        """Take out every row up to this number."""
        for place in np.flatnonzero(self._numbers[: len(self._rows)] <= number).tolist():
            row = self._rows[place]
            if row is not None:
                self.drop(row.key)
        self.cut = number

    def _fill(self, places: slice, numbers: Sequence[int], rows: Sequence[Row]) -> None:
        self._numbers[places] = numbers
        self._epochs[places] = [self._epoch(row.epoch) for row in rows]
        self._expires[places] = [math.inf if row.expires is None else row.expires for row in rows]

    def _epoch(self, epoch: str) -> int:
        return self._epoch_of.setdefault(epoch, len(self._epoch_of))

    def reserve(self, more: int) -> None:
        """Room for more rows; where many are dead, only those alive are taken along.

        Always into new arrays: searches under way go on with the old ones.
        """
        size, alive = len(self._rows), len(self._places)
        if size + more <= len(self._matrix):
            return
        keep = np.arange(size)
        if alive < 0.75 * size:
            keep = np.array(sorted(self._places.values()), np.int64)
            self._growing.renumber()
        room = max(_LEAST, 2 * len(keep), len(keep) + more)
        self._matrix = _moved(self._matrix, keep, room)
        self._expires = _moved(self._expires, keep, room)
        self._epochs = _moved(self._epochs, keep, room)
        self._numbers = _moved(self._numbers, keep, room)
        self._rows = [self._rows[place] for place in keep.tolist()]
        self._places = {row.key: place for place, row in enumerate(self._rows) if row is not None}
        self._sieve = None


def _seeds(limit: Vectors) -> npt.NDArray[np.int64]:
    """Rows that may be near, the best of each part; rows stored one after the other, often alike, lie in several."""
    rows = len(limit) // _SEEDS
    parts = limit[: rows * _SEEDS].reshape(rows, _SEEDS)
    best: npt.NDArray[np.int64] = parts.argmax(axis=0) * _SEEDS + np.arange(_SEEDS)
    return best[limit[best] > _NOWHERE]


def _moved(old: npt.NDArray[T], keep: npt.NDArray[np.int64], room: int) -> npt.NDArray[T]:
    new = np.empty((room, *old.shape[1:]), old.dtype)
    new[: len(keep)] = old[keep]
    return new
