"""The rate of errors over strata that are labelled at different rates: one e-process, every threshold.

Answers fall into strata by a score. Some strata are labelled in full (nothing of them is served), some only by audits.
For a vector of error rates, one for each stratum, the likelihood ratio of a fixed mixture to that vector is an
e-process: the vector is refuted for good once it reaches 1 / alpha, however often one looks (Ville's inequality). What
is not refuted is a confidence sequence for the whole vector, and so for the share-weighted risk of any set of strata,
whatever the shares. The risk of a threshold is below a limit when every vector at or above the limit is refuted:
the least refuted one is found by a Lagrange multiplier.

Sources: Wasserman, Ramdas and Balakrishnan, Universal inference, PNAS 117 (2020); Spertus and Stark, Sweeter than
SUITE, E-Vote-ID (2022), for the union over strata; Robbins, Ann. Math. Stat. 41 (1970), for the method of mixtures.
Labels are taken as exchangeable within a stratum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy

import numpy as np

__all__ = ["Strata"]

# Half of the mixture: independent beta priors, a stratum each, with the expected rate as their mean and half an error
# of weight, so that neither a clean stratum nor one error in it costs much. The other half: the expected rates, all
# wrong by one factor and one exponent.
_SHAPE = 0.5
_FACTORS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
_EXPONENTS = (0.7, 1.0, 1.4)


class Strata:
    """Counts of labels by stratum, and what they refute.

    Args:
        expected: the error rate expected in each stratum, between 0 and 1, least first, fixed before any label. A wrong
            guess costs labels, never validity.

    >>> strata = Strata([0.01, 0.1])
    >>> for _ in range(400):
    ...     strata.see(0, wrong=False)
    >>> strata.bound([0.5, 0.0], 1, confidence=0.95) < 0.01
    True
    """

    def __init__(self, expected: Sequence[float]) -> None:
        if not expected or not all(0 < rate < 1 for rate in expected):
            raise ValueError(f"Strata(expected={expected}): needs rates between 0 and 1")
        self.expected = tuple(float(rate) for rate in expected)
        self.labels = [0] * len(self.expected)
        self.wrong = [0] * len(self.expected)
        middle = math.exp(sum(map(math.log, self.expected)) / len(self.expected))
        grid = np.array(
            [
                [
                    min(0.9, max(1e-5, factor * rate * (rate / middle) ** (exponent - 1)))
                    for rate in self.expected
                ]
                for factor in _FACTORS
                for exponent in _EXPONENTS
            ]
        )
        self._log_wrong, self._log_right = np.log(grid), np.log1p(-grid)

    def copy(self) -> Strata:
        """The counts as they are now, for a look at them later."""
        other = copy(self)
        other.labels, other.wrong = self.labels.copy(), self.wrong.copy()
        return other

    def see(self, stratum: int, wrong: bool) -> None:
        """Count one label."""
        self.labels[stratum] += 1
        self.wrong[stratum] += bool(wrong)

    def log_e(self, shares: Sequence[float], upto: int, limit: float) -> tuple[float, list[float]]:
        """Log evidence against a risk of ``limit`` or more of the first ``upto`` strata, and the rates it is against.

        Args:
            shares: of all requests, those in each stratum.
            upto: how many strata, from the first, the risk is over.
            limit: of the risk, sum of share times error rate.

        Returns:
            The log of the least e-value over all rates with such a risk, and those rates; infinite where no rates
            have such a risk.
        """
        weights = [float(share) for share in shares[:upto]]
        if sum(weights) < limit or not upto:
            return math.inf, [1.0] * upto
        rates, price = self._least_refuted(weights, limit)
        fit = sum(
            _log_likelihood(wrong, labels, rate)
            for wrong, labels, rate in zip(self.wrong, self.labels, rates, strict=False)
        )
        # By weak duality no rates with such a risk fit better than this, whatever the price is.
        fit += price * (_risk(weights, rates) - limit)
        return self._log_mixture(upto) - fit, rates

    def bound(self, shares: Sequence[float], upto: int, confidence: float) -> float:
        """The largest risk of the first ``upto`` strata that the labels do not refute at this confidence.

        An upper limit that holds at every moment at once, at least where the same ``upto`` is asked for.
        """
        threshold = -math.log1p(-confidence)
        low, high = 0.0, sum(shares[:upto])
        if self.log_e(shares, upto, high)[0] < threshold:
            return high
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (low, middle) if self.log_e(shares, upto, middle)[0] >= threshold else (middle, high)
        return high

    def rates(self) -> list[float]:
        """The likeliest error rate of each stratum, drawn half a label towards the expected one."""
        return [
            (wrong + rate) / (labels + 1)
            for wrong, labels, rate in zip(self.wrong, self.labels, self.expected, strict=True)
        ]

    def _log_mixture(self, upto: int) -> float:
        alone = 0.0
        for rate, labels, wrong in zip(self.expected[:upto], self.labels, self.wrong, strict=False):
            a, b = _SHAPE, _SHAPE * (1 - rate) / rate
            alone += _log_beta(a + wrong, b + labels - wrong) - _log_beta(a, b)
        errors = np.array(self.wrong[:upto])
        right = np.array(self.labels[:upto]) - errors
        together = self._log_wrong[:, :upto] @ errors + self._log_right[:, :upto] @ right
        most = float(together.max())
        shared = most + math.log(float(np.exp(together - most).mean()))
        high = max(alone, shared)
        return high + math.log((math.exp(alone - high) + math.exp(shared - high)) / 2)

    def _least_refuted(self, weights: list[float], limit: float) -> tuple[list[float], float]:
        """Of rates whose weighted sum is at least ``limit``, those the labels fit best; the price of risk there."""
        pairs = list(zip(self.wrong, self.labels, strict=False))[: len(weights)]

        def at(price: float) -> list[float]:
            return [
                _priced(wrong, labels, price * w) for (wrong, labels), w in zip(pairs, weights, strict=True)
            ]

        free = at(0.0)
        if _risk(weights, free) >= limit:
            return free, 0.0
        low, high = math.log(1e-9), math.log(1e12)
        while high - low > 1e-3:
            middle = (low + high) / 2
            low, high = (low, middle) if _risk(weights, at(math.exp(middle))) >= limit else (middle, high)
        price = math.exp(low)
        return at(price), price


def _risk(weights: Sequence[float], rates: Sequence[float]) -> float:
    return sum(weight * rate for weight, rate in zip(weights, rates, strict=True))


def _priced(wrong: int, labels: int, price: float) -> float:
    """The rate that maximises log likelihood + price * rate; any rate fits where there is no label."""
    if not labels:
        return 1.0
    if price <= 0:
        return wrong / labels
    b = price - labels
    root = math.sqrt(b * b + 4 * price * wrong)
    # The same root of a quadratic, in the form that does not cancel.
    rate = (b + root) / (2 * price) if b >= 0 else 2 * wrong / (root - b)
    return min(1.0, max(0.0, rate))


def _log_likelihood(wrong: int, labels: int, rate: float) -> float:
    total = 0.0
    if wrong:
        total += wrong * math.log(max(rate, 1e-300))
    if labels > wrong:
        total += (labels - wrong) * math.log1p(-min(rate, 1 - 1e-15))
    return total


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
