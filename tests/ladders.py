"""Many ladders at once, for simulations: the level that each of thousands of runs certifies, every ten requests.

The arithmetic of :class:`costkit.bound.ladder.Ladder` over arrays whose first axis is the run; a test holds it beside
the real one, number for number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln

from costkit.bound.ladder import Ladder
from costkit.bound.risk import PER_REQUEST, Bound

__all__ = ["Ladders", "Outcome", "run"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
STEP = 10  # requests between two climbs


def log_likelihood(wrong: Floats, labels: Floats, rates: Floats) -> Floats:
    """Of the labels at these rates, summed over the last axis."""
    right = labels - wrong
    with np.errstate(divide="ignore", invalid="ignore"):
        one = np.where(wrong > 0, wrong * np.log(np.maximum(rates, 1e-300)), 0.0)
        other = np.where(right > 0, right * np.log1p(-np.minimum(rates, 1 - 1e-15)), 0.0)
    found: Floats = (one + other).sum(axis=-1)
    return found


def least_refuted(wrong: Floats, labels: Floats, weights: Floats, limit: Floats) -> Floats:
    """Of all rates whose weighted sum is at least ``limit``, those the labels fit best, for each run."""

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
    for _ in range(36):
        middle = (low + high) / 2
        over = (weights * at(np.exp(middle))).sum(axis=1) >= limit
        low, high = np.where(over, low, middle), np.where(over, middle, high)
    return np.where(done[:, None], free, at(np.exp(low)))


class Ladders:
    """As many ladders as ``runs``, all of one bound."""

    def __init__(self, bound: Bound, runs: int) -> None:
        self.bound, self.model = bound, Ladder(bound)
        self.rungs = len(self.model.edges)
        self.labels = np.zeros((runs, self.rungs))
        self.wrong = np.zeros((runs, self.rungs))
        self.level = np.zeros(runs, dtype=np.int64)
        self.gaps = np.full((runs, self.rungs), math.inf)

    def log_e(self, shares: Floats, upto: int, limit: Floats) -> Floats:
        """As :meth:`costkit.stats.Strata.log_e`."""
        wrong, labels, weights = self.wrong[:, :upto], self.labels[:, :upto], shares[:, :upto]
        fit = log_likelihood(wrong, labels, least_refuted(wrong, labels, weights, limit))
        strata = self.model.strata
        a = np.array(strata.expected[:upto]) * 4.0
        b = 4.0 - a
        alone = (betaln(a + wrong, b + labels - wrong) - betaln(a, b)).sum(axis=1)
        together = (
            wrong @ strata._log_wrong[:, :upto].T + (labels - wrong) @ strata._log_right[:, :upto].T  # type: ignore[attr-defined]
        )
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

    def climb(self, shares: Floats) -> None:
        """Set the level of each run."""
        starts = (1,) if self.bound.per == PER_REQUEST else (1, 3)
        need = math.log(len(starts) / (1 - self.bound.confidence))
        found = np.stack(
            [self.log_e(shares, upto, self.limit(shares, upto)) for upto in range(1, self.rungs + 1)], axis=1
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


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of each run. ``false``: at some time the level in force had a risk of the bound or more, by the shares of the
    window; ``over``: by the true shares of that moment; ``excess``: the most by which, as a ratio to the bound;
    ``served``, ``wrong``: answers served in all, and the wrong ones among them; ``opened``: requests until the first level."""

    false: NDArray[np.bool_]
    over: NDArray[np.bool_]
    excess: Floats
    served: Floats
    wrong: Floats
    audits: Floats
    opened: Floats
    level: Ints


def run(
    bound: Bound, shares: Floats, rates: Floats, *, seed: int, runs: int, dense: str = "floor", window: int = 600
) -> Outcome:
    """Requests through the ladder: declined ones labelled in full, served ones audited.

    Args:
        shares: of requests on each rung; (steps of ten requests, rungs).
        rates: at which candidates on each rung are wrong; (steps, rungs).
        dense: "floor", audits at the floor; "paying", in full where the next rung is within two nats of its proof and
            at the floor elsewhere; "first", in full for a rung's first ten audits after each opening.
    """
    rng, ladders = np.random.default_rng(seed), Ladders(bound, runs)
    steps, rungs = shares.shape
    past = np.zeros((steps, runs, rungs))
    column = np.arange(rungs)
    false, over = np.zeros(runs, dtype=bool), np.zeros(runs, dtype=bool)
    excess, served, wrong, audits = (np.zeros(runs) for _ in range(4))
    opened = np.full(runs, np.inf)
    recent = np.zeros((runs, rungs))
    for step in range(steps):
        p = shares[step]
        counts = rng.multinomial(STEP, [*p, max(0.0, 1 - p.sum())], size=runs)[:, :rungs]
        past[step] = counts
        is_served = column < ladders.level[:, None]
        chance = np.full((runs, rungs), bound.audit)
        if dense == "paying":
            near = (ladders.gaps > 0) & (ladders.gaps < 2) & ~is_served
            chance = np.where(near.any(axis=1)[:, None], 1.0, chance)
        elif dense == "first":
            chance = np.where(ladders.labels < 60, 1.0, chance)
        labelled = rng.binomial(counts, np.where(is_served, chance, 1.0))
        bad = rng.binomial(labelled, rates[step])
        ladders.labels += labelled
        ladders.wrong += bad
        hits = counts - labelled
        served += hits.sum(axis=1)
        wrong += rng.binomial(hits, rates[step]).sum(axis=1)
        audits += np.where(is_served, labelled, 0).sum(axis=1)
        recent += counts
        if (step - window // STEP) >= 0:
            recent -= past[step - window // STEP]
        seen = min(window, (step + 1) * STEP)
        if seen < 60:
            continue
        ladders.climb(recent / seen)
        mask = column < ladders.level[:, None]
        for weights, judged in ((recent / seen, false), (np.broadcast_to(p, recent.shape), over)):
            risk = (weights * rates[step] * mask).sum(axis=1)
            allowed = bound.max_error * (1.0 if bound.per == PER_REQUEST else (weights * mask).sum(axis=1))
            judged |= (ladders.level > 0) & (risk >= allowed - 1e-12) & (risk > 0)
            if judged is over:
                excess = np.maximum(excess, np.where(ladders.level > 0, risk / np.maximum(allowed, 1e-12), 0))
        opened = np.where((ladders.level > 0) & ~np.isfinite(opened), (step + 1.0) * STEP, opened)
    return Outcome(false, over, excess, served, wrong, audits, opened, ladders.level)
