"""Strata of the score as rungs of a ladder, and how far up the evidence lets a gate serve.

The first rung holds the substitutions least likely to be wrong. Serving "up to rung j" is certified by a walk in that
order, fixed beforehand (learn-then-test), so that no confidence is spent on the number of rungs. A bound per request
only gets harder to keep on the way up. One per hit does not, and the first rungs alone are long without labels: half of
the confidence is spent on a second walk, that starts half way up. What is not served is labelled in full, what is
served only by audits: the shares of all requests weigh the rungs together (:class:`costkit.stats.Strata`).

What is proved: for each level, the probability that it is ever in force at a moment at which its risk reaches the bound
is at most 1 - confidence (half of that in each walk of a bound per hit), however often one looks, whatever is served,
and whichever answers are audited, by chances fixed before.

What is taken for granted: the labels of a rung are exchangeable, so that its candidates are now wrong as often as they
were on average while the labels came. That is watched and told (:mod:`costkit.bound.steady`); where a rung gets worse
while it is served, the alarm of the gate answers. (To forget a rung's older labels then was tried: the level fell
before the alarm went off, the outdated answers stayed in the pool, and a change cost twice as many wrong answers.)
Shares are taken as they were in the last 600 requests and in the last 4,800, on the rungs of the score of now; the risk
must be below the bound by both. While shares move, the lowest level that is too risky may be another, and each has a
probability of its own: in theory as many times 1 - confidence as there are such levels. Simulated with shares that
double and neighbouring rungs at the bound it was below 1 - confidence for all levels together
(tests/test_bound_ladder.py, ``make validity``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from costkit.bound.risk import PER_REQUEST, Bound
from costkit.bound.score import Score
from costkit.bound.shares import Shares
from costkit.bound.steady import Steady
from costkit.stats.strata import Strata

__all__ = ["Ladder", "rungs_of"]

# Each rung is up to twice as likely wrong as the one before it: from half the bound to sixteen times it, because a
# bound on the mean is spent by its worst few. Of hits the mean is over fewer answers, so the rungs lie half as high.
_DOUBLINGS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)

# Requests before anything is served.
_LEAST = 60


def rungs_of(bound: Bound) -> tuple[float, ...]:
    """The upper edge of each rung, as a probability to be wrong."""
    unit = bound.max_error if bound.per == PER_REQUEST else bound.max_error / 2
    return tuple(min(0.5, unit * doubling) for doubling in _DOUBLINGS)


class Ladder:
    """Labels and shares by rung, and the level they certify.

    Rungs are numbered from 0; ``len(edges)`` stands for a candidate beyond the last one, None for no candidate.
    """

    def __init__(self, bound: Bound) -> None:
        self.bound, self.edges = bound, rungs_of(bound)
        # The middle of each rung on a log scale; the first one reaches down to nothing.
        expected = [edge / math.sqrt(2) for edge in self.edges]
        self.strata = Strata(expected)
        self._steady = [Steady() for _ in self.edges]
        self.worsened = 0  # rungs that were found to have got worse
        self._shares = Shares(len(self.edges))
        self._level, self._worthy = 0, [False] * len(self.edges)
        self._due: _Seen | None = None

    def rung(self, risk: float) -> int:
        """The rung of a candidate that is wrong with this probability."""
        for number, edge in enumerate(self.edges):
            if risk <= edge:
                return number
        return len(self.edges)

    def passed(self, rung: int | None, features: Sequence[float] | None = None) -> None:
        """One request more, with a candidate on this rung or none; without ``features`` it is never scored again."""
        self._shares.passed(rung, features)

    def rescore(self, score: Score) -> None:
        """The score was fitted anew: where the last candidates would be now."""
        self._shares.rescore(lambda features: np.searchsorted(self.edges, score.wrong_all(features)))

    def label(self, rung: int, wrong: bool) -> None:
        """What a candidate of this rung turned out to be."""
        if rung < len(self.edges):
            self.strata.see(rung, wrong)
            self.worsened += self._steady[rung].see(wrong)

    def shares(self) -> list[float]:
        """Of the last requests, those with a candidate on each rung."""
        return self._shares.short()

    @property
    def requests(self) -> int:
        """How many there were."""
        return self._shares.requests

    def limit(self, shares: Sequence[float], upto: int) -> float:
        """The risk that may not be passed, on the scale of all requests."""
        if self.bound.per == PER_REQUEST:
            return self.bound.max_error
        return self.bound.max_error * sum(shares[:upto])

    def climb(self) -> None:
        """Let the level follow from the labels and shares as they are now; it is worked out when it is asked for."""
        if self.requests >= _LEAST:
            shares = self._shares
            self._due = _Seen(self.strata.copy(), shares.short(), shares.long(), shares.requests)

    @property
    def level(self) -> int:
        """How many rungs, from the first, may be served."""
        self._work()
        return self._level

    @property
    def worth(self) -> list[bool]:
        """The served rungs whose audits are worth their price."""
        self._work()
        return self._worthy

    def _work(self) -> None:
        seen = self._due
        if seen is None:
            return
        found = [seen.least(self.limit, upto) for upto in range(1, len(self.edges) + 1)]
        need = self._need
        log_es = [log_e for log_e, _ in found]
        self._level = max(_walked(log_es, start, need) for start in self._starts)
        self._worthy = self._worth(seen, [(need - log_e, rates) for log_e, rates in found])
        self._due = None

    @property
    def _starts(self) -> tuple[int, ...]:
        return (1,) if self.bound.per == PER_REQUEST else (1, 3)

    @property
    def _need(self) -> float:
        """The log evidence that certifies, of each walk."""
        return math.log(len(self._starts) / (1 - self.bound.confidence))

    def certified(self) -> float | None:
        """The risk that labels leave possible at the level in force, in the bound's own unit; None where none is.

        The level was chosen by the same labels, so that the limit is one for all levels at once. Where the walk proves
        more than it, it is the bound.
        """
        confidence = 1 - (1 - self.bound.confidence) / len(self.edges)
        found = []
        for shares in (self._shares.short(), self._shares.long()):
            served = sum(shares[: self.level])
            if served:
                risk = self.strata.bound(shares, self.level, confidence)
                found.append(risk if self.bound.per == PER_REQUEST else risk / served)
        return min(max(found), self.bound.max_error) if found and sum(self.shares()[: self.level]) else None

    def labels_to(self, upto: int, shares: Sequence[float]) -> int | None:
        """About how many more labels certify ``upto`` at the rates seen so far; None where no number would.

        Each label is expected to add the divergence of its rung's likely rate from the rates hardest to refute.
        """
        likely, limit = self.strata.rates(), self.limit(shares, upto)
        if sum(share * rate for share, rate in zip(shares, likely[:upto], strict=False)) >= limit:
            return None
        log_e, against = self.strata.log_e(shares, upto, limit)
        gap = self._need - log_e
        weight = sum(shares[:upto])
        pace = (
            sum(shares[k] * _growth(likely[k], against[k]) for k in range(upto)) / weight if weight else 0.0
        )
        needed = gap / pace if pace > 0 else math.inf
        return max(1, math.ceil(needed)) if math.isfinite(needed) else None

    def _worth(self, seen: _Seen, gaps: list[tuple[float, list[float]]]) -> list[bool]:
        """Served rungs to audit in full, where that opens more than it costs before half as many requests come again.

        An audit costs the hit it takes the place of; the evidence it brings for the next rung is its expected log
        growth against the rates that are hardest to refute.
        """
        likely, floor, shares, level = seen.strata.rates(), self.bound.audit, seen.shares, self._level
        best, chosen = 0.0, [False] * len(self.edges)
        for upto in range(level + 1, len(self.edges) + 1):
            gap, against = gaps[upto - 1]
            more = sum(shares[level:upto])
            inside = sum(s * r for s, r in zip(shares, likely[:upto], strict=False)) < self.limit(
                shares, upto
            )
            if not 0 < gap < math.inf or more <= 0 or not inside:
                continue
            growth = [_growth(likely[k], against[k]) for k in range(upto)]
            pace = sum(shares[k] * growth[k] * (floor if k < level else 1.0) for k in range(upto))
            horizon = seen.requests / 2
            gain_now = max(0.0, horizon - gap / pace) * more if pace > 0 else 0.0
            cost, picked = 0.0, [False] * len(self.edges)
            for k in sorted(range(level), key=lambda k: -growth[k]):
                if shares[k] <= 0 or growth[k] <= 0:
                    continue
                pace += shares[k] * (1 - floor) * growth[k]
                cost += shares[k] * (1 - floor)
                picked[k] = True
                gain = max(0.0, horizon - gap / pace) * more - cost * gap / pace - gain_now
                if gain > best:
                    best, chosen = gain, picked.copy()
        return chosen


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a level follows from: labels, shares of the last requests and over a longer time, how many there were."""

    strata: Strata
    shares: list[float]
    long_shares: list[float]
    requests: int

    def least(self, limit: Callable[[Sequence[float], int], float], upto: int) -> tuple[float, list[float]]:
        """The evidence against the bound by those shares that make it the less."""
        return min(
            (
                self.strata.log_e(shares, upto, limit(shares, upto))
                for shares in (self.shares, self.long_shares)
            ),
            key=lambda found: found[0],
        )


def _walked(log_es: Sequence[float], start: int, need: float) -> int:
    """The last rung that a walk from ``start`` certifies, before the first failure; 0 where it starts with one."""
    level = 0
    for upto in range(start, len(log_es) + 1):
        if log_es[upto - 1] < need:
            break
        # Where so few calls come that all of them may be wrong, there is no need to serve them on no evidence.
        level = upto if log_es[upto - 1] < math.inf else level
    return level


def _growth(likely: float, against: float) -> float:
    """Expected log evidence of one label: the Kullback-Leibler divergence of the likely rate from the one to refute."""
    p, q = min(max(likely, 1e-9), 1 - 1e-9), min(max(against, 1e-9), 1 - 1e-9)
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)) if p < q else 0.0
