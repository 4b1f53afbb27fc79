"""A quantile of a series whose neighbours are alike, such as latencies under queueing, and whether to trust it.

An interval that takes requests as independent covers the p95 of a queue at 80% utilisation in 25 to 50% of runs, not
in 95%. Here the number of requests is divided by the correlation time: how many neighbours tell as much as one
independent request. It is estimated from the ranks of the values and from which of them exceed the quantile, by Geyer's
initial monotone sequence (Statistical Science 7, 1992, section 3.3), the larger of the two is taken at the upper end of
its own uncertainty (Madras and Sokal, Journal of Statistical Physics 50, 1988), and so many independent requests make
the interval (Clopper and Pearson for the levels, order statistics for the values).

Where fewer are left than an interval for this quantile needs at all (72 for a p95), or where the level drifts, the run
says little about the steady state: it is *not trusted*. Share of runs that are trusted, and how many of those cover,
for queues of eight servers, simulated (``make load-coverage``, 400 to 1,000 runs a cell, nominal 95%):

=========== ================ ================ ================ ================
utilisation wait, n = 1,000  wait, 4,000      total, 1,000     total, 4,000
=========== ================ ================ ================ ================
.3          100%: 99%        99%: 96%         99%: 98%         -
.6          77%: 93%         100%: 97%        99%: 99%         -
.8          4%: 21%          65%: 92%         49%: 96%         94%: 98%
=========== ================ ================ ================ ================

So at most 6 in 100 runs claim something false. No rule on one run is perfect: of the few that are trusted where most
are not, many are too short to have met a busy spell, and cannot know that there are any (wait, .8, 1,000).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .intervals import binomial_limits, quantile

__all__ = ["Steady", "correlation_time", "drift", "needed", "ranks", "steady_quantile", "steady_share"]

Floats = NDArray[np.float64]
_STRETCH = 1 << 18
_SURE = NormalDist().inv_cdf(0.95)
_DRIFTS = NormalDist().inv_cdf(0.995)


@dataclass(frozen=True, slots=True)
class Steady:
    """A quantile or a share, and what is known about it.

    ``n_eff`` is how many independent values the ``n`` are worth at least, ``drift`` how many standard errors the
    values rise (or fall) over the series. ``interval`` is None where ``n_eff`` is below ``needed``.
    """

    value: float
    interval: tuple[float, float] | None
    n: int
    n_eff: float
    drift: float
    needed: int

    @property
    def enough(self) -> bool:
        """Are there enough independent values for an interval?"""
        return self.n_eff >= self.needed

    @property
    def drifts(self) -> bool:
        """Does the level change over the series more than chance does (1% of steady series do)?"""
        return abs(self.drift) > _DRIFTS

    def limits(self, confidence: float = 0.95, *, sides: int = 2) -> tuple[float, float]:
        """Exact limits for this as a share of ``n_eff`` independent values."""
        worth = max(1, math.floor(self.n_eff))
        low = binomial_limits(math.floor(self.value * worth), worth, confidence, sides=sides)[0]
        return low, binomial_limits(math.ceil(self.value * worth), worth, confidence, sides=sides)[1]

    @property
    def trusted(self) -> bool:
        """Is there an interval to rely on?"""
        return self.enough and not self.drifts


def ranks(values: ArrayLike) -> Floats:
    """Places in the order of the values, equal values sharing their mean place; same shape.

    >>> ranks([5.0, 1.0, 5.0]).tolist()
    [1.5, 0.0, 1.5]
    """
    _, place, counts = np.unique(np.asarray(values, dtype=float), return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return ((ends - counts + ends - 1) / 2)[place].astype(float)


def correlation_time(values: ArrayLike, *, upper: bool = False) -> float:
    """How many values in their order tell as much about the mean as one independent one; at least 1.

    Args:
        values: in order of time, shape (n,).
        upper: the upper end of a one-sided 95% interval for it instead of the estimate.

    >>> import numpy as np
    >>> noise = np.random.default_rng(1).normal(size=4000)
    >>> correlation_time(noise) < 1.2, 1.8 < correlation_time(noise[1:] + noise[:-1]) < 2.2
    (True, True)
    """
    data = np.asarray(values, dtype=float)
    n = data.size
    away = data - data.mean() if n else data
    if n < 4 or not float(np.abs(away).max()) > 0:
        return 1.0
    length = 1 << (2 * n - 1).bit_length()
    spectrum = np.fft.rfft(away, length)
    lags = np.fft.irfft(spectrum * spectrum.conj(), length)[: n // 2 * 2]
    pairs = (lags[0::2] + lags[1::2]) / lags[0]
    ends = np.flatnonzero(pairs <= 0)
    kept = pairs[: ends[0]] if ends.size else pairs
    tau = max(1.0, 2 * float(np.minimum.accumulate(kept).sum()) - 1) if kept.size else 1.0
    return tau * (1 + _SURE * math.sqrt(2 * (4 * kept.size + 1) / n)) if upper else tau


def drift(values: ArrayLike, tau: float | None = None) -> float:
    """How many standard errors the ranks of the values rise over the series; dependence counts (``tau``).

    >>> drift(range(400)) > 3, abs(drift([1.0, 2.0] * 200)) < 0.1
    (True, True)
    """
    place = ranks(values)
    n = place.size
    if n < 4 or not np.ptp(place) > 0:
        return 0.0
    at = np.arange(n)
    slope = float(np.corrcoef(at, place)[0, 1])
    # Of what is left without the slope: a trend is no dependence between neighbours.
    rest = place - np.polyval(np.polyfit(at, place, 1), at)
    start = max(0, (n - _STRETCH) // 2)
    each = correlation_time(rest[start : start + _STRETCH], upper=True) if tau is None else tau
    return slope * math.sqrt(n / each / max(1e-12, 1 - slope * slope))


def needed(q: float, confidence: float = 0.95) -> int:
    """The fewest independent values that an order-statistic interval for a quantile needs.

    >>> needed(0.95), needed(0.99), needed(0.5)
    (72, 368, 6)
    """
    if not (0 < q < 1 and 0 < confidence < 1):
        raise ValueError(f"needed(q={q}, confidence={confidence}): needs shares between 0 and 1, such as .95")
    return math.ceil(math.log((1 - confidence) / 2) / math.log(max(q, 1 - q)))


def steady_quantile(values: ArrayLike, q: float, confidence: float = 0.95) -> Steady:
    """A quantile of a series in order of time, its interval, and whether it is to be trusted.

    Args:
        values: in order of time, shape (n,); infinite ones (what never came) are the largest.
        q: between 0 and 1.
        confidence: of the two-sided interval.

    Raises:
        ValueError: no values, one that is not a number, or an argument outside its range.

    >>> import numpy as np
    >>> found = steady_quantile(np.random.default_rng(0).exponential(size=1000), 0.95)
    >>> found.trusted, round(found.value, 1), [round(end, 1) for end in found.interval]
    (True, 3.0, [2.7, 3.2])
    >>> steady_quantile(range(60), 0.95).interval is None
    True
    """
    data = _checked("steady_quantile", values)
    fewest, value = needed(q, confidence), quantile(data, q)
    over = (data > value).astype(float)
    n_eff = _effective(data, over)
    worth = math.floor(n_eff)
    interval = None
    if worth >= fewest:
        low = binomial_limits(math.floor(q * worth), worth, confidence)[0]
        high = binomial_limits(math.ceil(q * worth), worth, confidence)[1]
        ordered, n = np.sort(data), data.size
        interval = float(ordered[math.floor(low * n) - 1]), float(ordered[min(math.ceil(high * n), n) - 1])
    return Steady(value, interval, data.size, n_eff, drift(data), fewest)


def steady_share(values: ArrayLike, over: ArrayLike, confidence: float = 0.95, *, sides: int = 2) -> Steady:
    """The share of a series that is marked, with exact limits for as many independent values as the series is worth.

    Args:
        values: in order of time, shape (n,); what the marks are made of: their dependence counts too.
        over: the marks, shape (n,).
        confidence: of the limits.
        sides: 2, both limits hold together with it; 1, each of the two alone does.

    Raises:
        ValueError: no values, one that is not a number, or an argument outside its range.

    >>> import numpy as np
    >>> waits = np.random.default_rng(0).exponential(size=1000)
    >>> found = steady_share(waits, waits > 3)
    >>> round(found.value, 3), [round(end, 3) for end in found.interval]
    (0.048, [0.035, 0.066])
    """
    data, marked = _checked("steady_share", values), np.asarray(over, dtype=float)
    if marked.shape != data.shape:
        raise ValueError("steady_share(over): needs one mark for each value")
    share = float(marked.mean())
    told = Steady(share, None, data.size, _effective(data, marked), drift(data), 1)
    return replace(told, interval=told.limits(confidence, sides=sides))


def _effective(data: Floats, over: Floats) -> float:
    # Of a series of millions, a stretch in its middle tells the correlation time as well, in less memory.
    start = max(0, (data.size - _STRETCH) // 2)
    part, marks = data[start : start + _STRETCH], over[start : start + _STRETCH]
    tau = max(correlation_time(ranks(part), upper=True), correlation_time(marks, upper=True))
    return data.size / tau


def _checked(name: str, values: ArrayLike) -> Floats:
    data = np.asarray(values, dtype=float)
    if data.ndim != 1 or data.size == 0 or np.isnan(data).any():
        raise ValueError(
            f"{name}(values): needs at least one value, in one row, and none that is not a number"
        )
    return data
