"""Many ladders at once, for simulations: the level that each of thousands of runs certifies, every ten requests.

The arithmetic of :class:`costkit.bound.ladder.Ladder` over arrays whose first axis is the run; a test holds it beside
the real one, number for number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from costkit.bound.ladder import Ladder
from costkit.bound.risk import PER_REQUEST, Bound
from costkit.bound.shares import LONG, SHORT

__all__ = ["Ladders", "Outcome", "run"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
STEP = 10  # requests between two climbs
MOST = 50_000  # labels of one rung


def log_likelihood(wrong: Floats, labels: Floats, rates: Floats) -> Floats:
    """Of the labels at these rates, summed over the last axis."""
    right = labels - wrong
    with np.errstate(divide="ignore", invalid="ignore"):
        one = np.where(wrong > 0, wrong * np.log(np.maximum(rates, 1e-300)), 0.0)
        other = np.where(right > 0, right * np.log1p(-np.minimum(rates, 1 - 1e-15)), 0.0)
    found: Floats = (one + other).sum(axis=-1)
    return found


def least_refuted(wrong: Floats, labels: Floats, weights: Floats, limit: Floats) -> tuple[Floats, Floats]:
    """Of all rates whose weighted sum is at least ``limit``, those the labels fit best, and the price of risk there."""

    def at(price: Floats) -> Floats:
        priced = price[:, None] * weights
        b = priced - labels
        root = np.sqrt(b * b + 4 * priced * wrong)
        with np.errstate(divide="ignore", invalid="ignore"):
            rate = np.where(b >= 0, (b + root) / (2 * priced), 2 * wrong / (root - b))
            rate = np.where(priced <= 0, wrong / labels, rate)
        return np.where(labels > 0, np.clip(rate, 0, 1), 1.0)

    free = at(np.zeros(len(limit)))
    done = (weights * free).sum(axis=1) >= limit
    low, high = np.full(len(limit), math.log(1e-9)), np.full(len(limit), math.log(1e12))
    for _ in range(16):  # as near as the real one comes
        middle = (low + high) / 2
        over = (weights * at(np.exp(middle))).sum(axis=1) >= limit
        low, high = np.where(over, low, middle), np.where(over, middle, high)
    price = np.where(done, 0.0, np.exp(low))
    return np.where(done[:, None], free, at(np.exp(low))), price


class Ladders:
    """As many ladders as ``runs``, all of one bound."""

    def __init__(self, bound: Bound, runs: int) -> None:
        self.bound, self.model = bound, Ladder(bound)
        self.rungs = len(self.model.edges)
        self.labels = np.zeros((runs, self.rungs))
        self.wrong = np.zeros((runs, self.rungs))
        self.level = np.zeros(runs, dtype=np.int64)
        self.gaps = np.full((runs, self.rungs), math.inf)
        expected = np.array(self.model.strata.expected)[:, None]
        self._wrong_more, self._right_more, self._more = (
            _rising(start) for start in (0.5 + 0 * expected, 0.5 * (1 - expected) / expected, 0.5 / expected)
        )

    def see(self, labels: Ints, wrong: Ints) -> None:
        """Count labels, by run and rung."""
        self.labels += labels
        self.wrong += wrong

    def log_e(self, shares: Floats, upto: int, limit: Floats) -> Floats:
        """As :meth:`costkit.stats.Strata.log_e`."""
        wrong, labels, weights = self.wrong[:, :upto], self.labels[:, :upto], shares[:, :upto]
        rates, price = least_refuted(wrong, labels, weights, limit)
        fit = log_likelihood(wrong, labels, rates) + price * ((weights * rates).sum(axis=1) - limit)
        strata = self.model.strata
        k, w, n = np.arange(upto), wrong.astype(np.int64), labels.astype(np.int64)
        alone = (self._wrong_more[k, w] + self._right_more[k, n - w] - self._more[k, n]).sum(axis=1)
        together = wrong @ strata._log_wrong[:, :upto].T + (labels - wrong) @ strata._log_right[:, :upto].T
        most = together.max(axis=1)
        shared = most + np.log(np.exp(together - most[:, None]).mean(axis=1))
        found: Floats = np.logaddexp(alone, shared) - math.log(2) - fit
        return np.where(weights.sum(axis=1) < limit, math.inf, found)

    def limit(self, shares: Floats, upto: int) -> Floats:
        """As :meth:`costkit.bound.ladder.Ladder.limit`."""
        if self.bound.per == PER_REQUEST:
            return np.full(len(shares), self.bound.max_error)
        served: Floats = self.bound.max_error * shares[:, :upto].sum(axis=1)
        return served

    def climb(self, *views: Floats) -> None:
        """Set the level of each run, by every one of these shares."""
        starts = (1,) if self.bound.per == PER_REQUEST else (1, 3)
        need = math.log(len(starts) / (1 - self.bound.confidence))
        shares = views[0]
        found = np.stack(
            [
                np.min([self.log_e(view, upto, self.limit(view, upto)) for view in views], axis=0)
                for upto in range(1, self.rungs + 1)
            ],
            axis=1,
        )
        self.gaps = need - found
        level = np.zeros(len(shares), dtype=np.int64)
        for start in starts:
            walking, here = np.ones(len(shares), dtype=bool), np.zeros(len(shares), dtype=np.int64)
            for upto in range(start, self.rungs + 1):
                walking &= found[:, upto - 1] >= need
                here = np.where(walking & (found[:, upto - 1] < math.inf), upto, here)
            level = np.maximum(level, here)
        self.level = level


def _rising(start: Floats) -> Floats:
    """log Gamma(start + k) - log Gamma(start), for k from 0 on."""
    return np.concatenate([0 * start, np.cumsum(np.log(start + np.arange(MOST)), axis=1)], axis=1)


@dataclass(slots=True)
class Outcome:
    """Of each run.

    ``false``: at some time the level in force had a risk of the bound or more, by the shares it went by; ``excess``:
    the most that its risk ever was by the true shares of the moment, as a ratio to the bound; ``served``, ``wrong``,
    ``audits``: answers served in all, the wrong ones among them, answers audited; ``opened``: requests until the first
    level.
    """

    false: NDArray[np.bool_]
    excess: Floats
    served: Floats
    wrong: Floats
    audits: Floats
    opened: Floats

    def note(
        self, ladders: Ladders, shares: Sequence[Floats], true: Floats, rates: Floats, requests: int
    ) -> None:
        """Judge the level in force after so many requests."""
        mask = np.arange(ladders.rungs) < ladders.level[:, None]
        per_request = ladders.bound.per == PER_REQUEST

        def ratio(weights: Floats) -> Floats:
            allowed = 1.0 if per_request else (weights * mask).sum(axis=1)
            found: Floats = (weights * rates * mask).sum(axis=1) / np.maximum(allowed, 1e-12)
            return found / ladders.bound.max_error

        self.false |= np.max([ratio(weights) for weights in shares], axis=0) >= 1 - 1e-12
        self.excess = np.maximum(self.excess, ratio(np.broadcast_to(true, mask.shape)))
        opening = (ladders.level > 0) & ~np.isfinite(self.opened)
        self.opened = np.where(opening, requests, self.opened)


def run(bound: Bound, shares: Floats, rates: Floats, *, seed: int, runs: int, dense: bool = False) -> Outcome:
    """Requests through the ladder: declined ones labelled in full, served ones audited.

    Args:
        shares: of requests on each rung; (steps of ten requests, rungs).
        rates: at which candidates on each rung are wrong; (rungs,).
        dense: audits in full where the next rung is within two nats of its proof, not only at the floor.
    """
    rng, ladders = np.random.default_rng(seed), Ladders(bound, runs)
    steps, rungs = shares.shape
    past = np.zeros((steps, runs, rungs))
    zeros = np.zeros(runs)
    out = Outcome(zeros > 0, zeros, zeros, zeros, zeros, np.full(runs, np.inf))
    short, long = np.zeros((runs, rungs)), np.zeros((runs, rungs))
    for step, p in enumerate(shares):
        counts = rng.multinomial(STEP, [*p, max(0.0, 1 - p.sum())], size=runs)[:, :rungs]
        served = np.arange(rungs) < ladders.level[:, None]
        near = np.any((ladders.gaps > 0) & (ladders.gaps < 2) & ~served, axis=1, keepdims=True)
        chance = np.where(near & dense, 1.0, bound.audit)
        labelled = rng.binomial(counts, np.where(served, chance, 1.0))
        hits = counts - labelled
        ladders.see(labelled, rng.binomial(labelled, rates))
        out.served = out.served + hits.sum(axis=1)
        out.wrong = out.wrong + rng.binomial(hits, rates).sum(axis=1)
        out.audits = out.audits + (labelled * served).sum(axis=1)
        past[step] = counts
        short += counts - (past[step - SHORT // STEP] if step >= SHORT // STEP else 0)
        long += counts - (past[step - LONG // STEP] if step >= LONG // STEP else 0)
        requests = (step + 1) * STEP
        if requests >= 60:
            views = [short / min(SHORT, requests)]
            if requests > SHORT:
                views.append(long / min(LONG, requests))
            ladders.climb(*views)
            out.note(ladders, views, p, rates, requests)
    return out
