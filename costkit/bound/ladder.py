"""Strata of the score as rungs of a ladder, and how far up the evidence lets a gate serve.

The first rung holds the substitutions least likely to be wrong. Serving "up to rung j" is certified by a walk in that
order, fixed beforehand (learn-then-test), so that no confidence is spent on the number of rungs. A bound per request only
gets harder to keep on the way up. One per hit does not, and the first rungs alone are long without labels: half of the
confidence is spent on a second walk, that starts half way up. What is not served is labelled in full, what is served only
by audits: the shares of all requests weigh the rungs together (:class:`costkit.stats.Strata`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from costkit.bound.risk import PER_REQUEST, Bound
from costkit.stats.strata import Strata

__all__ = ["Ladder", "rungs_of"]

# Each rung is up to twice as likely wrong as the one before it: from half the bound to sixteen times it, because a
# bound on the mean is spent by its worst few. Of hits the mean is over fewer answers, so the rungs lie half as high.
_DOUBLINGS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)

# Requests whose rungs say what the shares are now, and the fewest.
_WINDOW, _LEAST = 600, 60


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
        self.level = 0
        self._recent: deque[int] = deque(maxlen=_WINDOW)
        self._counts = [0] * (len(self.edges) + 2)
        self.requests = 0
        self.worth = [False] * len(self.edges)

    def rung(self, risk: float) -> int:
        """The rung of a candidate that is wrong with this probability."""
        for number, edge in enumerate(self.edges):
            if risk <= edge:
                return number
        return len(self.edges)

    def passed(self, rung: int | None) -> None:
        """One request more, with a candidate on this rung or none."""
        slot = len(self.edges) + 1 if rung is None else rung
        if len(self._recent) == _WINDOW:
            self._counts[self._recent[0]] -= 1
        self._recent.append(slot)
        self._counts[slot] += 1
        self.requests += 1

    def label(self, rung: int, wrong: bool) -> None:
        """What a candidate of this rung turned out to be."""
        if rung < len(self.edges):
            self.strata.see(rung, wrong)

    def shares(self) -> list[float]:
        """Of the last requests, those with a candidate on each rung."""
        seen = max(1, len(self._recent))
        return [count / seen for count in self._counts[: len(self.edges)]]

    def limit(self, shares: Sequence[float], upto: int) -> float:
        """The risk that may not be passed, on the scale of all requests."""
        if self.bound.per == PER_REQUEST:
            return self.bound.max_error
        return self.bound.max_error * sum(shares[:upto])

    def climb(self) -> None:
        """Set the level that the labels certify, and the rungs whose audits are worth their price."""
        if len(self._recent) < _LEAST:
            return
        shares, starts = self.shares(), (1,) if self.bound.per == PER_REQUEST else (1, 3)
        need = math.log(len(starts) / (1 - self.bound.confidence))
        found = [
            self.strata.log_e(shares, upto, self.limit(shares, upto))
            for upto in range(1, len(self.edges) + 1)
        ]
        self.level = max(_walked([log_e for log_e, _ in found], start, need) for start in starts)
        self.worth = self._worth(shares, [(need - log_e, rates) for log_e, rates in found])

    def certified(self) -> float | None:
        """The risk the labels leave possible at the level in force, in the bound's own unit; None where none is served."""
        shares = self.shares()
        served = sum(shares[: self.level])
        if not served:
            return None
        risk = self.strata.bound(shares, self.level, self.bound.confidence)
        return risk if self.bound.per == PER_REQUEST else risk / served

    def labels_to(self, upto: int, shares: Sequence[float]) -> int | None:
        """About how many more labels certify ``upto`` at the rates seen so far; None where no number would.

        Each label is expected to add the divergence of its rung's likely rate from the rates hardest to refute.
        """
        likely, limit = self.strata.rates(), self.limit(shares, upto)
        if sum(share * rate for share, rate in zip(shares, likely[:upto], strict=False)) >= limit:
            return None
        log_e, against = self.strata.log_e(shares, upto, limit)
        gap = math.log(1 / (1 - self.bound.confidence)) - log_e
        weight = sum(shares[:upto])
        pace = (
            sum(shares[k] * _growth(likely[k], against[k]) for k in range(upto)) / weight if weight else 0.0
        )
        needed = gap / pace if pace > 0 else math.inf
        return max(1, math.ceil(needed)) if math.isfinite(needed) else None

    def _worth(self, shares: list[float], gaps: list[tuple[float, list[float]]]) -> list[bool]:
        """Served rungs to audit in full, where that opens more than it costs before half as many requests come again.

        An audit costs the hit it takes the place of; the evidence it brings for the next rung is its expected log
        growth against the rates that are hardest to refute.
        """
        likely, floor = self.strata.rates(), self.bound.audit
        best, chosen = 0.0, [False] * len(self.edges)
        for upto in range(self.level + 1, len(self.edges) + 1):
            gap, against = gaps[upto - 1]
            more = sum(shares[self.level : upto])
            inside = sum(s * r for s, r in zip(shares, likely[:upto], strict=False)) < self.limit(
                shares, upto
            )
            if not 0 < gap < math.inf or more <= 0 or not inside:
                continue
            growth = [_growth(likely[k], against[k]) for k in range(upto)]
            pace = sum(shares[k] * growth[k] * (floor if k < self.level else 1.0) for k in range(upto))
            horizon = self.requests / 2
            gain_now = max(0.0, horizon - gap / pace) * more if pace > 0 else 0.0
            cost, picked = 0.0, [False] * len(self.edges)
            for k in sorted(range(self.level), key=lambda k: -growth[k]):
                if shares[k] <= 0 or growth[k] <= 0:
                    continue
                pace += shares[k] * (1 - floor) * growth[k]
                cost += shares[k] * (1 - floor)
                picked[k] = True
                gain = max(0.0, horizon - gap / pace) * more - cost * gap / pace - gain_now
                if gain > best:
                    best, chosen = gain, picked.copy()
        return chosen


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
