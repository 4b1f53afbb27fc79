"""Which vectors could be among the nearest, told without comparing them in full.

With axes Q of length 1 at right angles, x·y = Qx·Qy + (the rest of x)·(the rest of y),
and by Cauchy and Schwarz the second part is at most the product of the rests' lengths. A short dot product thus says
how near a row can be at most, and only rows that could be among the nearest are compared in full: nothing is missed.
The axes are those along which the vectors reach farthest (principal components); they bear on speed alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from costkit.index.rows import Vectors

__all__ = ["Sieve", "dots"]

_AXES = 5  # one axis for so many dimensions
_SAMPLE = 5000
_ROUNDS = 4
_BLOCK = 9216  # numbers; OpenBLAS starts threads from here on (interface/gemv.c)
_ROUNDING = 1e-5  # more than what float32 loses of a squared length of 1


@dataclass(frozen=True, slots=True)
class Sieve:
    """``axes`` (a, dimension); of each row its part along them, ``along`` (n, a), and the length of its ``rest``."""

    axes: Vectors
    along: Vectors
    rest: Vectors

    @classmethod
    def over(cls, matrix: Vectors, size: int) -> Sieve:
        """For the first ``size`` rows of a matrix, with room for all."""
        sample = matrix[np.linspace(0, size - 1, min(size, _SAMPLE), dtype=np.int64)]
        axes = _principal(sample, max(1, matrix.shape[1] // _AXES))
        sieve = cls(axes, np.empty((len(matrix), len(axes)), np.float32), np.empty(len(matrix), np.float32))
        sieve.fill(slice(0, size), matrix[:size])
        return sieve

    def fill(self, places: slice, vectors: Vectors) -> None:
        """Take in the vectors that stand in these rows now."""
        along = vectors @ self.axes.T
        self.along[places], self.rest[places] = along, _rest(vectors, along)

    def until(self, size: int) -> Sieve:
        """The first ``size`` rows."""
        return Sieve(self.axes, self.along[:size], self.rest[:size])

    def at_most(self, vector: Vectors) -> Vectors:
        """What the cosine of each row cannot exceed, float32, shape (n,)."""
        along = dots(self.axes, vector)
        limit = dots(self.along, along)
        np.add(limit, self.rest * _rest(vector[None, :], along[None, :])[0], out=limit)
        return limit


def _principal(sample: Vectors, count: int) -> Vectors:
    """Axes at right angles, shape (count, dimension), nearly the principal ones (subspace iteration)."""
    axes = np.random.default_rng(0).standard_normal((count, sample.shape[1]))
    for _ in range(_ROUNDS):
        axes = _at_right_angles(((sample @ axes.astype(np.float32).T).T @ sample).astype(np.float64))
    return axes.astype(np.float32)


def _at_right_angles(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Gram and Schmidt, twice; a row that hangs on those before it becomes zero, which is no axis and does no harm.

    LAPACK's QR waits for all its threads at each of many small steps: seconds, where the cores are busy.
    """
    axes = np.zeros_like(rows)
    for at, row in enumerate(rows):
        length = np.sqrt(np.einsum("i,i", row, row))
        for _ in range(2):
            row = row - np.einsum("i,ij->j", np.einsum("ij,j->i", axes[:at], row), axes[:at])  # noqa: PLW2901
        rest = np.sqrt(np.einsum("i,i", row, row))
        if rest > 1e-6 * length:
            axes[at] = row / rest
    return axes


def dots(matrix: Vectors, vector: Vectors) -> Vectors:
    """``matrix @ vector``, in blocks so small that the linear algebra starts no threads.

    Where other work keeps the cores busy, a product of a tenth of a millisecond waits many for its threads to be run.
    """
    size, dimension = matrix.shape
    rows = max(1, _BLOCK // dimension)
    whole = size // rows * rows
    products = np.empty(size, np.float32)
    blocks = matrix[:whole].reshape(-1, rows, dimension)
    np.matmul(blocks, vector, out=products[:whole].reshape(-1, rows))
    np.einsum("ij,j->i", matrix[whole:], vector, out=products[whole:])
    return products


def _rest(vectors: Vectors, along: Vectors) -> Vectors:
    squares = np.einsum("ij,ij->i", vectors, vectors) - np.einsum("ij,ij->i", along, along)
    return np.asarray(np.sqrt(np.maximum(squares, 0) + _ROUNDING), dtype=np.float32)
