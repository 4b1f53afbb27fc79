"""Intervals for one look at a sample of fixed size: for shares, quantiles and means.

Sources: Wilson, JASA 22 (1927), and Clopper and Pearson, Biometrika 26 (1934), for shares; the binomial
order-statistic interval for quantiles (David and Nagaraja, Order Statistics, 3rd ed., section 7.1); the paired
percentile bootstrap (Efron and Tibshirani, 1993, chapter 13). All of them take requests as independent; under
queueing, neighbours are not, and the intervals are too short. Whoever looks again and again needs
:mod:`costkit.stats.sequences` instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Values",
    "binomial_limits",
    "bootstrap_change",
    "bootstrap_mean",
    "quantile",
    "quantile_interval",
    "wilson",
]

Values = NDArray[np.float64]
_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
# log(k!) less Stirling's formula, where its series is not yet exact
_SMALL = np.array(
    [0.0] + [math.lgamma(k + 1) - (k + 0.5) * math.log(k) + k - _HALF_LOG_2PI for k in range(1, 16)]
)


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
    if not 0 < q < 1:
        raise ValueError(f"quantile_interval(q={q}): needs 0 < q < 1, such as .95")
    if n == 0:
        return None
    first, probabilities = _binomial(n, q)
    cdf = np.cumsum(probabilities)
    tail = (1 - confidence) / 2
    low = first + int(np.searchsorted(cdf, tail, side="right"))
    high = first + int(np.searchsorted(cdf, 1 - tail, side="left")) + 1
    if low < 1 or high > n:
        return None
    return float(ordered[low - 1]), float(ordered[high - 1])


def binomial_limits(k: int, n: int, confidence: float = 0.95, *, sides: int = 2) -> tuple[float, float]:
    """Exact (Clopper-Pearson) limits for a share of which ``k`` of ``n`` were seen; (0, 1) when n is 0.

    Args:
        k: how many were seen.
        n: of how many.
        confidence: at least .5, below 1.
        sides: 2, both limits hold together with ``confidence``; 1, each of the two alone does.

    Raises:
        ValueError: an argument is outside its range.

    >>> low, high = binomial_limits(0, 59, sides=1)
    >>> low, round(high, 4)
    (0.0, 0.0495)
    """
    if not 0 <= k <= n:
        raise ValueError(f"binomial_limits(k={k}, n={n}): needs 0 <= k <= n")
    if not 0.5 <= confidence < 1:
        raise ValueError(f"binomial_limits(confidence={confidence}): needs .5 <= confidence < 1, such as .95")
    if sides not in {1, 2}:
        raise ValueError(f"binomial_limits(sides={sides}): needs 1 or 2")
    if n == 0:
        return 0.0, 1.0
    tail = (1 - confidence) / sides
    if k == n:
        return tail ** (1 / n), 1.0
    if k == 0:
        return 0.0, -math.expm1(math.log(tail) / n)
    return _lower_limit(k, n, tail), 1 - _lower_limit(n - k, n, tail)


def _lower_limit(k: int, n: int, tail: float) -> float:
    """The share p with P(Binomial(n, p) >= k) = tail, for 0 < k < n and tail <= .5.

    The log of that tail is concave in log p, so Newton's method comes from any start, and from below once there.
    """
    wanted, log_p = math.log(tail), math.log(k / n)
    for _ in range(100):
        p = math.exp(log_p)
        # Terms fall at least as fast as a normal density does: past ten standard deviations nothing is left.
        terms = min(n - k, 60 + math.ceil(10 * math.sqrt(n * p * (1 - p))))
        i = np.arange(terms)
        ratios = (n - k - i) / (k + 1 + i) * (p / (1 - p))
        total = 1 + float(np.cumprod(ratios).sum())
        log_tail = float(_log_binomial(np.array([k]), n, p)[0]) + math.log(total)
        step = (wanted - log_tail) * total / k
        log_p += step
        if abs(step) < 1e-14:
            break
    return math.exp(log_p)


def _binomial(n: int, p: float) -> tuple[int, Values]:
    """The first count within ten standard deviations of the mean, and the probabilities from there on."""
    reach = 60 + 10 * math.sqrt(n * p * (1 - p))
    first, last = max(0, math.floor(n * p - reach)), min(n, math.ceil(n * p + reach))
    return first, np.exp(_log_binomial(np.arange(first, last + 1), n, p))


def _log_binomial(k: NDArray[np.int64], n: int, p: float) -> Values:
    """Log of the probability of ``k`` of ``n``, by Loader's saddle point (2000): no digits lost at large n."""
    inner = np.clip(k, 1, max(1, n - 1))
    rest = n - inner
    logs = (
        _stirling_error(np.array([n]))
        - _stirling_error(inner)
        - _stirling_error(rest)
        - _deviance(inner, n * p)
        - _deviance(rest, n * (1 - p))
        - _HALF_LOG_2PI
        + 0.5 * np.log(n / (inner * np.maximum(rest, 1.0)))
    )
    logs = np.where(k == 0, n * math.log1p(-p), logs)
    return np.where(k == n, n * math.log(p), logs)


def _stirling_error(k: NDArray[np.int64]) -> Values:
    """log(k!) less Stirling's formula."""
    x = np.maximum(k, 16).astype(float)
    y = 1 / (x * x)
    series = (1 / 12 - (1 / 360 - (1 / 1260 - (1 / 1680 - y / 1188) * y) * y) * y) / x
    return np.where(k < 16, _SMALL[np.clip(k, 0, 15)], series)


def _deviance(k: NDArray[np.int64], mean: float) -> Values:
    """k log(k / mean) + mean - k, without cancellation where k is near the mean."""
    away = k - mean
    v = away / (k + mean)
    w = np.where(np.abs(v) < 0.1, v, 0.0)
    series = np.zeros_like(v)
    for j in range(10, 0, -1):
        series = (series + 1 / (2 * j + 1)) * w * w
    near = away * w + 2 * k * w * series
    return np.where(np.abs(v) < 0.1, near, k * np.log(np.maximum(k, 1) / mean) - away)


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
