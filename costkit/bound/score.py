"""How likely a substitution is wrong: a ridge logistic regression, fitted only on the past.

The gate's promise never rests on this model: a poor one saves less, and errs no more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Score"]

# Labels before the first fit, how much more of them before the next, how many of the newest are fitted.
_FIRST, _GROWTH, _NEWEST = 50, 1.1, 5_000
_RIDGE = 3.0

# Features are of the order of 1: one far outside must not outweigh all labels. A step of Newton's method is cut there
# too, because a full one may overshoot where the labels are separable.
_MOST_FEATURE, _MOST_STEP = 30.0, 2.0
_BLOCK = 256

_Matrix = NDArray[np.float64]


class Score:
    """Weights over features, a prior at first, refitted as labels come.

    Two scores that learned the same labels in the same order are the same: each fit starts from the prior.

    Args:
        prior: weights before any label, the first one the intercept's (its feature is 1).

    >>> score = Score([0.0, 1.0])
    >>> round(score.wrong([1.0, 2.0]), 3)
    0.119
    """

    def __init__(self, prior: Sequence[float]) -> None:
        self._prior = np.array(prior, dtype=float)
        self._weights = self._prior
        self._each: list[float] = self._weights.tolist()
        self._x = np.zeros((64, len(prior)))
        self._right = np.zeros(64)
        self.labels = 0
        self._next = float(_FIRST)

    @property
    def width(self) -> int:
        """How many features there are."""
        return len(self._prior)

    def wrong(self, features: Sequence[float]) -> float:
        """The probability that the substitution with these features is wrong; 1 where they are no numbers."""
        if len(features) != len(self._each) or not all(map(math.isfinite, features)):
            return 1.0
        # A dozen numbers: numpy would take longer to be called than to multiply.
        level = 0.0
        for weight, feature in zip(self._each, features, strict=True):
            near = -_MOST_FEATURE <= feature <= _MOST_FEATURE
            level += weight * (feature if near else math.copysign(_MOST_FEATURE, feature))
        return 1.0 / (1.0 + math.exp(min(500.0, max(-500.0, level))))

    def wrong_all(self, features: _Matrix) -> _Matrix:
        """The same for many, shape (n, number of features)."""
        level = np.einsum("ij,j->i", np.clip(features, -_MOST_FEATURE, _MOST_FEATURE), self._weights)
        found: _Matrix = 1.0 / (1.0 + np.exp(np.clip(level, -500, 500)))
        return np.where(np.isfinite(features).all(axis=1), found, 1.0)

    def learn(self, features: Sequence[float], wrong: bool) -> bool:
        """One label more; True where so many have come that the score was fitted anew."""
        known = self._known(features)
        if known is None:
            return False
        at = self.labels % _NEWEST
        if at == len(self._x) < _NEWEST:
            more = min(_NEWEST, 2 * at)
            self._x = np.resize(self._x, (more, self._x.shape[1]))
            self._right = np.resize(self._right, more)
        self._x[at], self._right[at] = known, not wrong
        self.labels += 1
        if self.labels < self._next:
            return False
        self._next = self.labels * _GROWTH + 5
        size = min(self.labels, _NEWEST)
        self._weights = self._fit(self._x[:size], self._right[:size])
        self._each = self._weights.tolist()
        return True

    def _known(self, features: Sequence[float]) -> _Matrix | None:
        known = np.array(features, dtype=float)
        if known.shape != self._prior.shape or not np.isfinite(known).all():
            return None
        return known.clip(-_MOST_FEATURE, _MOST_FEATURE)

    def _fit(self, x: _Matrix, right: _Matrix) -> _Matrix:
        """Newton's method; the weights there are where it finds no finite ones."""
        weights, ridge = self._prior.copy(), _RIDGE * np.eye(len(self._prior))
        # In blocks too small for a BLAS to call its threads for: they wait for one another where cores are busy. Rows
        # of zeros fill the last one up.
        short = -len(x) % _BLOCK
        blocks = np.pad(x, ((0, short), (0, 0))).reshape(-1, _BLOCK, x.shape[1])
        answers = np.pad(right, (0, short)).reshape(-1, _BLOCK, 1)
        turned = blocks.transpose(0, 2, 1)
        for _ in range(25):
            p = 1.0 / (1.0 + np.exp(-np.clip(blocks @ weights[:, None], -30, 30)))
            gradient = (turned @ (answers - p)).sum(axis=0)[:, 0] - _RIDGE * (weights - self._prior)
            step = np.linalg.solve((turned @ (blocks * (p * (1 - p)))).sum(axis=0) + ridge, gradient)
            size = float(np.abs(step).max())
            if not math.isfinite(size):
                return self._weights
            weights += step * min(1.0, _MOST_STEP / max(size, 1e-9))
            if size < 1e-4:
                break
        return weights
