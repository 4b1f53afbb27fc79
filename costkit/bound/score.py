"""How likely a substitution is wrong: a ridge logistic regression, fitted only on the past.

The gate's promise never rests on this model: a poor one saves less, and errs no more.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import numpy as np

__all__ = ["Score"]

# Labels before the first fit, how much more of them before the next, how many of the newest are fitted.
_FIRST, _GROWTH, _NEWEST = 50, 1.1, 5_000
_RIDGE = 3.0


class Score:
    """Weights over features, a prior at first, refitted as labels come.

    Args:
        prior: weights before any label, the first one the intercept's (its feature is 1).

    >>> score = Score([0.0, 1.0])
    >>> round(score.wrong([1.0, 2.0]), 3)
    0.119
    """

    def __init__(self, prior: Sequence[float]) -> None:
        self._prior = np.array(prior, dtype=float)
        self._weights = self._prior
        self._past: deque[tuple[Sequence[float], bool]] = deque(maxlen=_NEWEST)
        self.labels = 0
        self._next = float(_FIRST)
        self._due = False

    def wrong(self, features: Sequence[float]) -> float:
        """The probability that the substitution with these features is wrong."""
        if self._due:
            self._fit()
        level = float(self._weights @ np.asarray(features, dtype=float))
        return 1.0 / (1.0 + math.exp(min(500.0, max(-500.0, level))))

    def learn(self, features: Sequence[float], wrong: bool) -> None:
        """One label more; the next score is of a new fit where enough have come."""
        self._past.append((features, not wrong))
        self.labels += 1
        if self.labels >= self._next:
            self._next = self.labels * _GROWTH + 5
            self._due = True

    def _fit(self) -> None:
        """Newton's method from the weights there are; a step that does not converge is left at the last finite one."""
        self._due = False
        x = np.array([features for features, _ in self._past], dtype=float)
        y = np.array([right for _, right in self._past], dtype=float)
        weights = self._weights.copy()
        for _ in range(25):
            p = 1.0 / (1.0 + np.exp(-np.clip(x @ weights, -30, 30)))
            gradient = x.T @ (y - p) - _RIDGE * (weights - self._prior)
            curvature = (x * (p * (1 - p))[:, None]).T @ x + _RIDGE * np.eye(len(weights))
            step = np.linalg.solve(curvature, gradient)
            if not np.isfinite(step).all():
                return
            weights = weights + step
            if float(np.abs(step).max()) < 1e-4:
                break
        self._weights = weights
