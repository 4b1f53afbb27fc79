"""Intervals over time: the moving-block bootstrap, for rows whose neighbours are alike.

Source: Künsch, The jackknife and the bootstrap for general stationary observations, Annals of Statistics 17 (1989).
Whole stretches of the series are drawn, so that what binds neighbours stays in them. Their length is the cube root of
the number of rows, the order that is best for a variance (Hall, Horowitz and Jing, Biometrika 82, 1995), times three:
too long costs a little width, too short makes intervals that are false. Simulated on 2,000 rows, a nominal 95%
interval covers 94% where rows are independent and 90% where neighbours have a correlation of .8
(tests/test_stats_blocks.py). A trend over the whole series is not sampling error, and not covered.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["block_length", "block_mean", "block_statistic"]

_LEAST = 30  # rows for an interval at all


def block_length(rows: int) -> int:
    """How many rows one block has.

    >>> block_length(1000)
    30
    """
    return max(1, min(rows, 3 * round(math.cbrt(rows))))


def block_mean(
    values: ArrayLike, *, confidence: float = 0.95, repeats: int = 2000, seed: int = 0
) -> tuple[float, float] | None:
    """Percentile interval for the mean of a series in its order; None for fewer than 30 values. Seeded.

    >>> block_mean([1.0] * 40)
    (1.0, 1.0)
    """
    data = np.asarray(values, dtype=float)
    if data.size < _LEAST:
        return None
    length = block_length(data.size)
    # A block that runs past the end goes on at the beginning, so that every row is drawn as often as any other.
    sums = np.convolve(np.concatenate([data, data[: length - 1]]), np.ones(length), "valid")
    rng = np.random.default_rng(seed)
    blocks = math.ceil(data.size / length)
    means = np.array([sums[rng.integers(0, data.size, blocks)].sum() for _ in range(repeats)])
    low, high = np.quantile(means / (blocks * length), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def block_statistic(
    size: int,
    statistic: Callable[[NDArray[np.int64]], float],
    *,
    confidence: float = 0.95,
    repeats: int = 400,
    seed: int = 0,
) -> tuple[float, float] | None:
    """The same for any statistic: it is called with the numbers of the rows drawn. None for fewer than 30 rows.

    >>> import numpy as np
    >>> waits = np.arange(100.0)
    >>> block_statistic(100, lambda rows: float(waits[rows].max())) is not None
    True
    """
    if size < _LEAST:
        return None
    length = block_length(size)
    rng = np.random.default_rng(seed)
    reach, found = np.arange(length), []
    for _ in range(repeats):
        starts = rng.integers(0, size, math.ceil(size / length))
        found.append(statistic((starts[:, None] + reach).ravel()[:size] % size))
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
