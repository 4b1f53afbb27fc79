"""Are these the arrivals of a renewal process with gamma gaps? Tests of their law, at any burstiness.

All take times in expected requests (:func:`loadtests.arrivals.expected`), where the process has rate 1 whatever the
rate did in seconds. Constant and Poisson arrivals are its ends: gaps that do not vary, and gamma gaps of shape 1.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["dispersion", "gamma_cdf", "kolmogorov", "law_of_dispersion"]

Floats = NDArray[np.float64]
_TERMS = 500
_WINDOWS = 5_000


def gamma_cdf(values: ArrayLike, shape: float) -> Floats:
    """The share of gamma gaps of mean 1 that are at most so long (shape 1: exponential); same shape as the values.

    Source: the power series of the lower incomplete gamma function (Abramowitz and Stegun, 6.5.29).

    >>> gamma_cdf([0.0, 1.0, 2.0], 1.0).round(4).tolist()
    [0.0, 0.6321, 0.8647]
    """
    gaps = np.asarray(values, dtype=float)
    # Far in the tail the series is long, and the share is 1 to every digit.
    far = shape + 12 * math.sqrt(shape) + 40
    x = np.clip(gaps * shape, 0, far)
    term = total = np.ones_like(x)
    for n in range(1, _TERMS + int(3 * math.sqrt(shape) * 12)):
        term = term * x / (shape + n)
        total = total + term
        if float(term.max(initial=0.0)) < 1e-16:
            break
    with np.errstate(divide="ignore"):
        logs = shape * np.log(x) - x - math.lgamma(shape + 1)
    return np.where(gaps * shape >= far, 1.0, np.minimum(1.0, np.exp(logs) * total))


def kolmogorov(shares: ArrayLike, least: float = 0.0) -> float:
    """How likely uniform numbers are to stray at least this far from the straight line: a p-value.

    Distances are looked at from ``least`` on: numbers below it may be rounded, and the p-value is then, if anything,
    too large. Source: Kolmogorov (1933), with the correction for small samples of Stephens, JRSS B 32 (1970).

    >>> kolmogorov([0.1, 0.3, 0.5, 0.7, 0.9]) > 0.99
    True
    >>> kolmogorov([0.9] * 20) < 0.001
    True
    """
    ordered = np.sort(np.asarray(shares, dtype=float))
    n = ordered.size
    steps, seen = np.arange(n + 1) / n if n else np.zeros(1), ordered >= least
    above, below = (steps[1:] - ordered)[seen], (ordered - steps[:-1])[seen]
    away = max(float(above.max(initial=0.0)), float(below.max(initial=0.0)))
    z = (math.sqrt(n) + 0.12 + 0.11 / math.sqrt(max(n, 1))) * away
    if z < 0.2:
        return 1.0
    tail = 2 * sum((-1.0) ** (k - 1) * math.exp(-2 * k * k * z * z) for k in range(1, 101))
    return min(1.0, max(0.0, tail))


def dispersion(times: ArrayLike, until: float, window: float) -> tuple[float, int] | None:
    """Index of dispersion of the counts in windows: their mean squared distance from ``window``, over ``window``.

    Args:
        times: in expected requests, sorted.
        until: where the last window may end, in expected requests.
        window: expected requests in one window.

    Returns:
        The index and the number of windows; about 1 for Poisson arrivals. None below ten windows.

    >>> dispersion([0.5 + i for i in range(100)], 100, 5.0)
    (0.0, 20)
    """
    windows = int(until // window)
    if windows < 10:
        return None
    found = np.asarray(times, dtype=float)
    counts, _ = np.histogram(found, bins=window * np.arange(windows + 1))
    return float(((counts - window) ** 2).mean() / window), windows


def law_of_dispersion(shape: float, window: float, seed: int = 0) -> tuple[float, float]:
    """Mean and standard deviation of one window's part in the index, where the arrivals are what they should be.

    From 5,000 simulated windows: the variance of a renewal count has no closed form that holds for short windows.

    >>> mean, deviation = law_of_dispersion(1.0, 10.0)
    >>> 0.95 < mean < 1.05, 1.3 < deviation < 1.6
    (True, True)
    """
    rng = np.random.default_rng(seed)
    gaps = rng.standard_gamma(shape, int(_WINDOWS * window)) / shape
    times = np.cumsum(gaps)
    counts, _ = np.histogram(times, bins=window * np.arange(int(times[-1] // window) + 1))
    parts = (counts - window) ** 2 / window
    return float(parts.mean()), float(parts.std())
