"""A threshold of its own for one stored answer, in the manner of vCache (Schroeder et al., arXiv 2502.03771).

Written from a description of the idea, and kinder to it where that was open: each entry learns from its own labels
alone how similar a question must be, and a question is served with a probability such that, if the estimates are right,
at most ``max_error`` of all calls that reach the entry are answered wrong. The estimate here is the posterior on a grid
under a flat prior, which stays finite where right and wrong labels separate, and the levels tried lie close together.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

__all__ = ["Entry"]

_Table = npt.NDArray[np.float64]

# Labels before an entry may serve at all.
_LEAST = 4

_THRESHOLDS = np.linspace(0.0, 1.0, 201)
_SLOPES = np.geomspace(2.0, 200.0, 9)
_LEVELS = np.geomspace(1e-4, 0.5, 60)


@functools.cache
def _grid() -> tuple[_Table, _Table]:
    slopes, thresholds = np.meshgrid(_SLOPES, _THRESHOLDS, indexing="ij")
    return slopes, thresholds


class Entry:
    """P(right | similarity) = 1 / (1 + exp(-slope (similarity - threshold))), from the labels of one entry.

    Two made-up labels say that a similarity of 0 is wrong and one of 1 is right.

    >>> entry = Entry()
    >>> for similarity in (0.9, 0.92, 0.95, 0.97):
    ...     entry.learn(similarity, right=True)
    >>> entry.doubt(0.99, max_error=0.02) < 1.0 == Entry().doubt(0.99, max_error=0.02)
    True
    """

    def __init__(self) -> None:
        self.labels = 0
        self._log = self._likely(0.0, False) + self._likely(1.0, True)
        self._known: tuple[_Table, _Table] | None = None

    def learn(self, similarity: float, right: bool) -> None:
        """One question that was answered by the model, and whether this entry's answer would have been right."""
        self.labels += 1
        self._log = self._log + self._likely(similarity, right)
        self._known = None

    def doubt(self, similarity: float, max_error: float) -> float:
        """The probability with which a question as similar as this is to be answered by the model, in [0, 1].

        The least over all levels e of 1 - max_error / (1 - a), where a = (1 - e) P(right) at the threshold that is
        passed with posterior probability e.
        """
        if self.labels < _LEAST:
            return 1.0
        thresholds, slopes = self._posterior()
        z = np.clip(_SLOPES[:, None] * (similarity - thresholds[None, :]), -500, 500)
        right = (1 - _LEVELS) * (slopes[:, None] / (1 + np.exp(-z))).sum(axis=0)
        return float(np.clip(1 - max_error / np.maximum(1e-12, 1 - right), 0.0, 1.0).min())

    def _posterior(self) -> tuple[_Table, _Table]:
        """The threshold not passed with each of the levels' probabilities, and the weight of each slope."""
        if self._known is None:
            weight = np.exp(self._log - self._log.max())
            weight /= weight.sum()
            upto = np.cumsum(weight.sum(axis=0))
            at = np.minimum(np.searchsorted(upto, 1 - _LEVELS), len(_THRESHOLDS) - 1)
            self._known = _THRESHOLDS[at], weight.sum(axis=1)
        return self._known

    @staticmethod
    def _likely(similarity: float, right: bool) -> _Table:
        slopes, thresholds = _grid()
        z = slopes * (similarity - thresholds)
        return -np.logaddexp(0.0, -z if right else z)
