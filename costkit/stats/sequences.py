"""Confidence sequences: intervals that hold at every sample size at once, so one may look after each observation.

Two claims, and which one is wanted matters. :func:`mean_sequence` is for a mean that stays what it is: there every
observation's mean, given the past, is the same number. :class:`RunningMean` is for a mean that moves: it bounds the
average of the means so far, whatever they were.

Sources: Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting, JRSS B 86 (2024), section 4
(hedged capital); Howard, Ramdas, McAuliffe and Sekhon, Time-uniform, nonparametric, nonasymptotic confidence
sequences, Annals of Statistics 49 (2021), theorem 4 (empirical Bernstein) with a discrete mixture as its boundary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from costkit.stats.intervals import Values

__all__ = ["RunningMean", "mean_sequence", "running_mean_sequence"]

_MOST_BET = 0.75  # below 1, so that no capital dies; the same for every candidate mean, so that limits can be drawn in
_CANDIDATES = (
    np.sin(np.linspace(0, math.pi / 2, 201)) ** 2
)  # closer together near the ends, where shares are surer
_BLOCK = 4096
_FEW = 256  # growths of .25 to 1.75 whose product is still a float
# Rates of the mixture, over the range of one observation: made for variances summed up to 1e8 ranges squared
_RATES = 0.9 * 0.5 ** np.arange(13)
_COSTS = -np.log1p(-_RATES) - _RATES


def mean_sequence(
    xs: ArrayLike, confidence: float = 0.95, low: float = 0.0, high: float = 1.0, *, sides: int = 2
) -> tuple[Values, Values]:
    """Limits for a mean that stays the same, after each observation: by hedged capital.

    Of the two that Waudby-Smith and Ramdas give, hedged capital is the tighter; it costs 400 products an
    observation. Limits found earlier go on holding, so they never widen. Limits that have crossed say that the mean
    did not stay the same (or that the one case in twenty has come).

    Args:
        xs: observations in order, shape (n,).
        confidence: that the limits hold after every one of them.
        low, high: the range of an observation.
        sides: 2, both limits hold together with ``confidence``; 1, each of the two alone does.

    Returns:
        Lower and upper limits, shape (n,) each, in the unit of the observations.

    Raises:
        ValueError: an argument is outside its range.

    >>> lows, highs = mean_sequence([0.0] * 100)
    >>> float(lows[-1]), round(float(highs[-1]), 2)
    (0.0, 0.05)
    """
    threshold = _threshold("mean_sequence", confidence, sides)
    x = _checked("mean_sequence", xs, low, high)
    z = (x - low) / (high - low)
    t = np.arange(1, z.size + 1)
    means = (0.5 + np.cumsum(z)) / (t + 1)
    variances = (0.25 + np.cumsum((z - means) ** 2)) / (t + 1)
    past = np.concatenate([[0.25], variances[:-1]])
    bets = np.minimum(_MOST_BET, np.sqrt(2 * threshold / (past * t * np.log1p(t))))
    lows = np.maximum.accumulate(_lower(z, bets, threshold))
    highs = np.minimum.accumulate(1 - _lower(1 - z, bets, threshold))
    return low + (high - low) * lows, low + (high - low) * highs


def _lower(z: Values, bets: Values, threshold: float) -> Values:
    """Below which mean the capital of bets that the mean is higher has passed the threshold, after each z.

    The log capital falls as the mean tried rises, and is concave in it: a chord between two candidates crosses the
    threshold below where the curve does, so drawing the limit in by the chord never overstates it.
    """
    log_capital = np.zeros(_CANDIDATES.size)
    limits = []
    for start in range(0, z.size, _FEW):
        some = slice(start, start + _FEW)
        growths = np.cumprod(1 + bets[some, None] * (z[some, None] - _CANDIDATES), axis=0)
        with np.errstate(over="ignore"):  # infinitely far from the threshold: not passed
            passed = (growths >= np.exp(threshold - log_capital)).sum(axis=1)
        at = np.clip(passed - 1, 0, _CANDIDATES.size - 2)
        row = np.arange(at.size)
        above = np.log(growths[row, at]) + log_capital[at]
        under = np.log(growths[row, at + 1]) + log_capital[at + 1]
        fall = np.where(passed > 0, above - under, 1.0)
        drawn = _CANDIDATES[at] + (above - threshold) / fall * (_CANDIDATES[at + 1] - _CANDIDATES[at])
        limits.append(np.where(passed > 0, drawn, 0.0))
        log_capital = log_capital + np.log(growths[-1])
    return np.concatenate(limits) if limits else np.zeros(0)


@dataclass(slots=True)
class RunningMean:
    """A confidence sequence for the average of the means so far, which may move; a few numbers of state.

    After t observations it bounds (m1 + ... + mt) / t, where mi is the mean of observation i given what came before
    it. Nothing is assumed of how the means move. It says nothing of the mean now, or next.
    ``RunningMean(**dataclasses.asdict(running))`` goes on where the other stood, through JSON too.

    Args:
        confidence: that the limits hold after every observation.
        low, high: the range of an observation.
        most: the largest weight there can be; 1 when every observation is seen, 1/r when audited at rates from r up.
        sides: 2, both limits hold together with ``confidence``; 1, each of the two alone does.
        count: observations so far, audited or not.
        total: the sum of their estimates.
        variance: the sum of their squared distances from what was predicted.
        seen, weight: the sum of what was seen, weighted, and of the weights; what predictions are made of.

    Raises:
        ValueError: an argument is outside its range.

    >>> running = RunningMean()
    >>> for _ in range(200):
    ...     running.see(0.0)
    >>> low, high = running.interval()
    >>> low, round(high, 3)
    (0.0, 0.037)
    """

    confidence: float = 0.95
    low: float = 0.0
    high: float = 1.0
    most: float = 1.0
    sides: int = 2
    count: int = 0
    total: float = 0.0
    variance: float = 0.0
    seen: float = 0.0
    weight: float = 0.0

    def __post_init__(self) -> None:
        _threshold("RunningMean", self.confidence, self.sides)
        _checked("RunningMean", [], self.low, self.high)
        if not 1 <= self.most < math.inf:
            raise ValueError(f"RunningMean(most={self.most}): needs a number of at least 1")

    def see(self, x: float, weight: float = 1.0) -> None:
        """Take in one observation; O(1).

        Args:
            x: between ``low`` and ``high``; of no account where the weight is 0.
            weight: 1/r for one that was audited with the known probability r, 0 for one that was not: each must be
                told, for the average is over all of them.

        Raises:
            ValueError: an argument is outside its range; nothing was taken in.
        """
        if not self.low <= x <= self.high:
            raise ValueError(f"RunningMean.see(x={x}): needs a number from {self.low} to {self.high}")
        if not 0 <= weight <= self.most:
            raise ValueError(f"RunningMean.see(weight={weight}): needs a number from 0 to most={self.most}")
        predicted = (0.5 * (self.low + self.high) + self.seen) / (1 + self.weight)
        away = weight * (x - predicted)
        self.count += 1
        self.total += predicted + away
        self.variance += away * away
        self.seen += weight * x
        self.weight += weight

    def interval(self) -> tuple[float, float]:
        """Lower and upper limit now; the whole range before the first observation."""
        if self.count == 0:
            return self.low, self.high
        span = self.most * (self.high - self.low)
        threshold = _threshold("RunningMean", self.confidence, self.sides)
        reach = span * float(_boundary(np.array([self.variance / span**2]), threshold)[0]) / self.count
        mean = self.total / self.count
        return min(self.high, max(self.low, mean - reach)), max(self.low, min(self.high, mean + reach))


def running_mean_sequence(
    xs: ArrayLike,
    confidence: float = 0.95,
    low: float = 0.0,
    high: float = 1.0,
    *,
    weights: ArrayLike = 1.0,
    most: float = 1.0,
    sides: int = 2,
) -> tuple[Values, Values]:
    """What ``RunningMean.interval()`` is after each of many observations, all at once.

    Args:
        xs: observations, shape (..., n), in order along the last axis; each row is a sequence of its own.
        confidence: as for :class:`RunningMean`, and so are ``low``, ``high``, ``most`` and ``sides``.
        weights: as for :meth:`RunningMean.see`, broadcast to the shape of ``xs``.

    Returns:
        Lower and upper limits, the shape of ``xs`` each, in the unit of the observations.

    Raises:
        ValueError: an argument is outside its range.

    >>> lows, highs = running_mean_sequence([0.0] * 200)
    >>> float(lows[-1]), round(float(highs[-1]), 3)
    (0.0, 0.037)
    """
    start = RunningMean(confidence, low, high, most, sides)
    x = _checked("running_mean_sequence", xs, low, high)
    weight = np.broadcast_to(np.asarray(weights, dtype=float), x.shape)
    if not ((weight >= 0) & (weight <= start.most)).all():
        raise ValueError(f"running_mean_sequence(weights): needs numbers from 0 to most={most}")
    seen, weighed = np.cumsum(weight * x, axis=-1), np.cumsum(weight, axis=-1)
    predicted = (0.5 * (low + high) + seen - weight * x) / (1 + weighed - weight)
    away = weight * (x - predicted)
    t = np.arange(1, x.shape[-1] + 1)
    means = np.cumsum(predicted + away, axis=-1) / t
    span = most * (high - low)
    threshold = _threshold("running_mean_sequence", confidence, sides)
    reach = span * _boundary(np.cumsum(away * away, axis=-1) / span**2, threshold) / t
    return np.clip(means - reach, low, high), np.clip(means + reach, low, high)


def _boundary(variance: Values, threshold: float) -> Values:
    """How far a sum strays at most, in ranges, when its squared steps (in ranges squared) sum to ``variance``.

    The mean over the rates r of exp(r s - c(r) variance) starts at 1 and does not grow on average, and c(r) is
    -log(1 - r) - r: its log passes the threshold at the boundary s. It is convex in s and every single rate's
    own boundary lies above, so Newton's steps come down from there and may stop anywhere.
    """
    flat = variance.ravel()
    blocks = [_solved(flat[i : i + _BLOCK], threshold) for i in range(0, flat.size, _BLOCK)]
    return np.concatenate(blocks or [flat]).reshape(variance.shape)


def _solved(variance: Values, threshold: float) -> Values:
    room = threshold + math.log(_RATES.size)
    costs = _COSTS[:, None] * variance + room
    s: Values = (costs / _RATES[:, None]).min(axis=0)
    for _ in range(3):
        parts = _RATES[:, None] * s - costs
        best = parts.max(axis=0)
        terms = np.exp(parts - best)
        total = terms.sum(axis=0)
        s = s - np.maximum(best + np.log(total), 0.0) * total / (_RATES @ terms)
    return s


def _threshold(name: str, confidence: float, sides: int) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"{name}(confidence={confidence}): needs 0 < confidence < 1, such as .95")
    if sides not in {1, 2}:
        raise ValueError(f"{name}(sides={sides}): needs 1 or 2")
    return math.log(sides / (1 - confidence))


def _checked(name: str, xs: ArrayLike, low: float, high: float) -> Values:
    if not -math.inf < low < high < math.inf:
        raise ValueError(f"{name}(low={low}, high={high}): needs low < high")
    x = np.asarray(xs, dtype=float)
    if not ((x >= low) & (x <= high)).all():
        raise ValueError(f"{name}(xs): needs numbers from {low} to {high}")
    return x
