"""Made-up requests to one gate, whose truth is known: scores that fit it well, badly, upside down, not at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from costkit.bound import PER_REQUEST, Bound, Gate

__all__ = ["WORLDS", "Lived", "live"]

Floats = NDArray[np.float64]

# Of each world the weights a score starts with.
WORLDS = {
    "calibrated": (2.5, 2.0), "overconfident": (6.0, 0.5), "timid": (-1.0, 1.0), "upside down": (2.5, -2.0),
    "constant": (3.2, 1.0), "bad among the best": (2.5, 2.0), "noisy": (2.5, 1.5),
    "much noise": (0.0, 0.5, *(0.0,) * 10),
}  # fmt: skip
_CANDIDATES = 0.7  # of requests have one
_PEOPLE = 4000  # by which the risk of a level is known


@dataclass(frozen=True, slots=True)
class Lived:
    """``excess``: the most that the true risk of the level in force ever was, as a ratio to the bound."""

    excess: float
    served: float
    wrong_per_request: float
    wrong_per_hit: float
    demoted: bool


def _drawn(world: str, rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    """Features, and how likely each candidate is wrong."""
    z = rng.normal(size=n)
    wrong = 1 / (1 + np.exp(2.5 + 2 * z))
    features = [np.ones(n), z]
    if world == "constant":
        features[1], wrong = np.zeros(n), np.full(n, 0.04)
    elif world == "bad among the best":
        wrong = np.where(z > 1.5, 0.15, wrong)
    elif world == "noisy":
        features[1] = z + 0.7 * rng.normal(size=n)
    elif world == "much noise":
        features.extend(rng.normal(size=(10, n)))
    return np.stack(features, axis=1), wrong


def live(world: str, bound: Bound, *, requests: int, seed: int) -> Lived:
    """One gate from its first request on; a request's label is known before the next one comes."""
    rng, gate = np.random.default_rng(seed), Gate(bound, WORLDS[world])
    features, likely = _drawn(world, rng, requests)
    people, truth = _drawn(world, rng, _PEOPLE)
    wrong, coins = rng.random(requests) < likely, rng.random(requests)
    has = rng.random(requests) < _CANDIDATES
    excess, served, bad, known = 0.0, 0, 0, None
    for number, row in enumerate(features.tolist()):
        passage = gate.decide(tuple(row) if has[number] else None, coin=float(coins[number]))
        level, fit = gate.ladder.level, id(gate.score._weights)
        if level and (level, fit) != known:
            known, inside = (level, fit), gate.score.wrong_all(people) <= gate.ladder.edges[level - 1]
            allowed = bound.max_error * (1 if bound.per == PER_REQUEST else inside.mean() * _CANDIDATES)
            risk = float((truth * inside).mean()) * _CANDIDATES
            excess = max(excess, risk / allowed if allowed else 0.0)
        served += passage.kind == "served"
        bad += passage.kind == "served" and bool(wrong[number])
        gate.see(passage, bool(wrong[number]) if passage.labelled else None)
    return Lived(excess, served / requests, bad / requests, bad / max(1, served), gate.generation > 0)
