"""Detectors of a change, with one knob: how many looks go by, on average, between false alarms.

Source: Shin, Ramdas and Rinaldo, E-detectors: a nonparametric framework for sequential change detection, New England
Journal of Statistics in Data Science 2 (2024), definitions 2.2 and 2.5. Each look brings an e-value: a number of at
least 0 whose mean, given the past, is at most 1 while nothing has changed. Looks may depend on one another.

Where the size of the change is not known, a look brings one e-value for each size (:func:`look_es`), each runs a
detector of its own, and their mean raises the alarm: it keeps the promise, and learns which size fits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from costkit.stats.bets import Evidence, stakes

__all__ = ["Cusum", "ShiryaevRoberts", "look_es"]

_MOST_LOG = 700.0  # exp of more is no float; a smaller e-value is still one


@dataclass(slots=True)
class ShiryaevRoberts:
    """Alarms when the e-values multiplied up since a moment, summed over all moments, reach ``arl``.

    Without a change, false alarms are at least ``arl`` looks apart on average, and one comes within the first T looks
    with probability at most T / arl. It starts anew after each alarm.
    ``ShiryaevRoberts(**dataclasses.asdict(detector))`` goes on where the other stood, through JSON too.

    Args:
        arl: looks from one false alarm to the next, on average; more than 1.
        levels: where the detector of each size stands now; empty before the first look.

    Raises:
        ValueError: an argument is outside its range.

    >>> detector = ShiryaevRoberts(arl=1000)
    >>> [detector.look(4.0) for _ in range(5)]
    [False, False, False, False, True]
    """

    arl: float
    levels: list[float] = field(default_factory=list[float])

    def __post_init__(self) -> None:
        _check(self.arl, self.levels)

    def look(self, es: float | Sequence[float]) -> bool:
        """Take in one look's e-value, or one for each size of change; True is an alarm.

        Raises:
            ValueError: an e-value is negative or no number, or their number changed; the detector is as it was.
        """
        factors = _factors(es, self.levels)
        levels = self.levels or [0.0] * len(factors)
        self.levels = [(level + 1) * e for level, e in zip(levels, factors, strict=True)]
        return _alarm(self)

    @property
    def level(self) -> float:
        """Where the detector stands, 0 to ``arl``."""
        return _mean(self.levels)


@dataclass(slots=True)
class Cusum:
    """Alarms when the e-values multiplied up since the likeliest moment of change reach ``arl``.

    Promise, arguments and state are those of :class:`ShiryaevRoberts`, which it never overtakes: it is slower, and
    its false alarms are rarer than was asked for.

    >>> detector = Cusum(arl=1000)
    >>> [detector.look(4.0) for _ in range(5)]
    [False, False, False, False, True]
    """

    arl: float
    levels: list[float] = field(default_factory=list[float])

    def __post_init__(self) -> None:
        _check(self.arl, self.levels)

    def look(self, es: float | Sequence[float]) -> bool:
        """Take in one look's e-value, or one for each size of change; True is an alarm.

        Raises:
            ValueError: an e-value is negative or no number, or their number changed; the detector is as it was.
        """
        factors = _factors(es, self.levels)
        levels = self.levels or [0.0] * len(factors)
        self.levels = [max(level, 1.0) * e for level, e in zip(levels, factors, strict=True)]
        return _alarm(self)

    @property
    def level(self) -> float:
        """Where the detector stands, 0 to ``arl``."""
        return _mean(self.levels)


def look_es(wrong: int, of: int, bound: float, evidence: Evidence = "above") -> list[float]:
    """One e-value for each size of change, from a look at 0/1 losses whose known bound on the mean is ``bound``.

    Each is the likelihood ratio of one share of losses beyond the bound to the bound itself; the shares are those
    for which the stakes of :func:`costkit.stats.stakes` are the best bets.

    Args:
        wrong: losses of 1 in this look; with evidence "below" few of them are the news.
        of: how many observations the look has; 0 says nothing.
        bound: what the share of losses is not to pass, between 0 and 1: known, not estimated from a sample.
        evidence: "above", that the share rose past the bound, or "below", that it fell.

    Raises:
        ValueError: an argument is outside its range.

    >>> [round(e, 2) for e in look_es(wrong=3, of=20, bound=0.05)]
    [1.04, 1.08, 1.15, 1.31, 1.63, 2.29, 3.4, 4.03, 1.67, 0.02, 0.0]
    """
    if not 0 <= wrong <= of:
        raise ValueError(f"look_es(wrong={wrong}, of={of}): needs 0 <= wrong <= of")
    grid = stakes(bound, evidence)
    if evidence == "above":
        logs = [
            wrong * math.log1p(stake * (1 - bound) / bound) + (of - wrong) * math.log1p(-stake)
            for stake in grid
        ]
    else:
        logs = [
            wrong * math.log1p(-stake) + (of - wrong) * math.log1p(stake * bound / (1 - bound))
            for stake in grid
        ]
    return [math.exp(min(log, _MOST_LOG)) for log in logs]


def _check(arl: float, levels: list[float]) -> None:
    if not 1 < arl < math.inf:
        raise ValueError(f"arl={arl}: needs a number of looks, more than 1")
    if not all(0 <= level < math.inf for level in levels):
        raise ValueError(f"levels={levels}: needs numbers of at least 0")


def _factors(es: float | Sequence[float], levels: list[float]) -> list[float]:
    factors = [float(es)] if isinstance(es, (int, float)) else [float(e) for e in es]
    if not factors or not all(e >= 0 for e in factors):
        raise ValueError(f"look(es={es}): an e-value is a number of at least 0")
    if levels and len(factors) != len(levels):
        raise ValueError(f"look(es): {len(factors)} e-values, but {len(levels)} at the last look")
    return factors


def _alarm(detector: ShiryaevRoberts | Cusum) -> bool:
    alarm = not _mean(detector.levels) < detector.arl
    if alarm:
        detector.levels = [0.0] * len(detector.levels)
    return alarm


def _mean(levels: list[float]) -> float:
    return sum(levels) / len(levels) if levels else 0.0
