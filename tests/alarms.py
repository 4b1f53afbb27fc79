"""The alarm of thousands of open gates at once, for simulations: when it goes off, and what has been served by then."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from costkit.bound.gate import _ALERT, _BETS, _DENSE
from costkit.bound.risk import PER_REQUEST, Bound

__all__ = ["Alarms", "alarms"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Alarms:
    """Of each run: requests until the alarm (infinity: none); from the change until then, audits and wrong answers
    served; of all answers that would be served, the share met while the alarm asked for more audits."""

    at: Floats
    audits: Floats
    wrong: Floats
    dense: Floats

    def found(self, change: int) -> NDArray[np.bool_]:
        """Runs whose alarm went off after the change, and not before."""
        return np.isfinite(self.at) & (self.at > change)


def alarms(
    bound: Bound, *, hits: float, before: float, after: float = 0.0, change: int | None = None, requests: int,
    runs: int, seed: int,
) -> Alarms:  # fmt: skip
    """Requests to open gates.

    Args:
        hits: the share of requests with a candidate that would be served.
        before, after: how many of those are wrong, until the request ``change`` and from there on.
    """
    rng, bets = np.random.default_rng(seed), np.array(_BETS)
    levels, at = np.zeros((runs, bets.size)), np.full(runs, np.inf)
    audits, wrong, dense, hit = (np.zeros(runs) for _ in range(4))
    for request in range(requests):
        changed = change is not None and request >= change
        live, would = ~np.isfinite(at), rng.random(runs) < hits
        near = levels.mean(axis=1) >= bound.arl**_ALERT
        chance = np.where(near, max(bound.audit, _DENSE), bound.audit)
        audited = would & (rng.random(runs) < chance)
        bad = would & (rng.random(runs) < (after if changed else before))
        loss = np.where(audited & bad, 1 / chance, 0.0)
        looks = np.ones(runs, dtype=bool) if bound.per == PER_REQUEST else would
        es = 1 + bets * (loss[:, None] / bound.max_error - 1)
        levels = np.where(looks[:, None], (levels + 1) * es, levels)
        hit += live & would
        dense += live & would & near
        if changed:
            audits += live & audited
            wrong += live & would & bad & ~audited
        off = live & (levels.mean(axis=1) >= bound.arl)
        at[off] = request + 1
        levels[off] = 0.0
    return Alarms(at, audits, wrong, dense / np.maximum(hit, 1))
