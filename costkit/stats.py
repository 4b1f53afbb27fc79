"""Intervals that hold at any sample size: for shares, quantiles and means.

Sources: Wilson, JASA 22 (1927), for shares; the binomial order-statistic interval for quantiles (David and Nagaraja,
Order Statistics, 3rd ed., section 7.1); the paired percentile bootstrap (Efron and Tibshirani, 1993, chapter 13).
All of them take requests as independent; under queueing, neighbours are not, and the intervals are too short.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Values", "bootstrap_change", "bootstrap_mean", "quantile", "quantile_interval", "wilson"]

Values = NDArray[np.float64]


def wilson(right: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval for a share; (0, 1) when there is nothing to count.

    >>> low, high = wilson(8, 10)
    >>> round(low, 2), round(high, 2)
    (0.49, 0.94)
    """
    if not 0 <= right <= total:
        raise ValueError(f"wilson(right={right}, total={total}): needs 0 <= right <= total")
    if total == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share, n = right / total, float(total)
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def quantile(values: ArrayLike, q: float) -> float:
    """The smallest value that at least a share ``q`` of the values do not exceed (no interpolation).

    >>> quantile([1.0, 2.0, 3.0, 4.0], 0.5)
    2.0
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    if ordered.size == 0:
        raise ValueError("quantile(values): no values")
    return float(ordered[max(0, math.ceil(q * ordered.size - 1e-9) - 1)])


def quantile_interval(values: ArrayLike, q: float, confidence: float = 0.95) -> tuple[float, float] | None:
    """Order-statistic interval for a quantile; None when there are too few values for one (p95: fewer than 72).

    >>> quantile_interval(range(100), 0.5)
    (39.0, 60.0)
    >>> quantile_interval(range(50), 0.95) is None
    True
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    n = ordered.size
    if n == 0:
        return None
    cdf = np.cumsum(_binomial(n, q))
    tail = (1 - confidence) / 2
    low = int(np.searchsorted(cdf, tail, side="right"))
    high = int(np.searchsorted(cdf, 1 - tail, side="left")) + 1
    if low < 1 or high > n:
        return None
    return float(ordered[low - 1]), float(ordered[high - 1])


def _binomial(n: int, p: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    k = np.arange(n + 1)
    log_choose = math.lgamma(n + 1) - np.array([math.lgamma(i + 1) + math.lgamma(n - i + 1) for i in k])
    logs: np.ndarray[tuple[int], np.dtype[np.float64]] = (
        log_choose + k * math.log(p) + (n - k) * math.log1p(-p)
    )
    return np.exp(logs)


def bootstrap_mean(
    values: Sequence[float] | ArrayLike, *, confidence: float = 0.95, repeats: int = 4000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval for a mean (give differences for a paired one); seeded.

    >>> low, high = bootstrap_mean([1.0, 1.0, 1.0])
    >>> (low, high)
    (1.0, 1.0)
    """
    data = np.asarray(values, dtype=float)
    if data.size == 0:
        raise ValueError("bootstrap_mean(values): no values")
    rng = np.random.default_rng(seed)
    means = np.array([data[rng.integers(0, data.size, data.size)].mean() for _ in range(repeats)])
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def bootstrap_change(
    before: ArrayLike,
    after: ArrayLike,
    statistic: Callable[[Values], float],
    *,
    confidence: float = 0.95,
    repeats: int = 2000,
    seed: int = 0,
) -> tuple[float, tuple[float, float] | None]:
    """Relative change of a statistic between paired values, and its percentile bootstrap interval; seeded.

    Pairs are drawn together, so what both measurements share cancels out. None for an interval from fewer than 72
    pairs, below which a p95 has none.

    >>> change, interval = bootstrap_change([2.0] * 80, [1.0] * 80, lambda v: float(v.mean()))
    >>> change, interval
    (-0.5, (-0.5, -0.5))
    """
    one, two = np.asarray(before, dtype=float), np.asarray(after, dtype=float)
    if one.size == 0 or one.shape != two.shape:
        raise ValueError("bootstrap_change(before, after): needs pairs, the same number on both sides")
    base = statistic(one)
    change = statistic(two) / base - 1 if base else 0.0
    if one.size < 72:
        return change, None
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(repeats):
        chosen = rng.integers(0, one.size, one.size)
        base = statistic(one[chosen])
        drawn.append(statistic(two[chosen]) / base - 1 if base else 0.0)
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return change, (float(low), float(high))
