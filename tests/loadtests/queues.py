"""Queues whose truth is known: Poisson arrivals, lognormal service, several servers; many runs at once, seeded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SERVERS = 8
BASE = 0.1  # seconds to a first token without a wait, times a little noise; mean service time is 1 s
_WARM = 2000


@dataclass(frozen=True, slots=True)
class Runs:
    """Steady-state runs: shape (runs, requests), seconds."""

    arrivals: Floats
    waits: Floats
    services: Floats
    firsts: Floats

    @property
    def ttft(self) -> Floats:
        return self.waits + self.firsts

    @property
    def e2e(self) -> Floats:
        return self.waits + self.services


def runs(utilisation: float, requests: int, count: int, seed: int) -> Runs:
    """So many runs of a queue in its steady state; first come, first served."""
    rng = np.random.default_rng(seed)
    free, now = np.zeros((count, SERVERS)), np.zeros(count)
    rows = np.arange(count)
    arrivals, waits, services = (np.empty((requests, count)) for _ in range(3))
    for i in range(-_WARM, requests):
        now = now + rng.exponential(1 / (utilisation * SERVERS), count)
        took = rng.lognormal(-0.125, 0.5, count)
        server = free.argmin(axis=1)
        start = np.maximum(now, free[rows, server])
        free[rows, server] = start + took
        if i >= 0:
            arrivals[i], waits[i], services[i] = now, start - now, took
    firsts = BASE * rng.lognormal(0.0, 0.2, (count, requests))
    return Runs(arrivals.T, waits.T, services.T, firsts)


@cache
def truth(utilisation: float, metric: str, q: float = 0.95) -> float:
    """The steady-state quantile, from a million requests."""
    return float(np.quantile(getattr(runs(utilisation, 5_000, 200, seed=999), metric), q))
