"""What the simulations of costkit.stats share: seeded repeats, looked at after every step."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["REPEATS", "bernoulli", "check_alarms", "check_coverage", "drops", "first", "most"]

REPEATS = 2000
Floats = NDArray[np.float64]


def bernoulli(seed: int, mean: float, n: int, repeats: int = REPEATS) -> Floats:
    """Losses of 0 or 1, shape (repeats, n)."""
    return (np.random.default_rng(seed).random((repeats, n)) < mean).astype(float)


def drops(seed: int, mean: float | Floats, n: int, repeats: int = REPEATS) -> Floats:
    """Losses of -1, 0 or 1, three in four of them 0, shape (repeats, n)."""
    u = np.random.default_rng(seed).random((repeats, n))
    return np.where(u < 0.125 + mean / 2, 1.0, 0.0) - np.where(u > 0.875 + mean / 2, 1.0, 0.0)


def most(alpha: float, repeats: int = REPEATS) -> float:
    """The share of repeats that an event of probability alpha exceeds in one seed of a thousand."""
    return alpha + 3.09 * math.sqrt(alpha * (1 - alpha) / repeats)


def check_alarms(log_es: Floats, alpha: float) -> float:
    """Fails if more repeats than alpha allows ever reach 1/alpha; else the share of those that do."""
    share = float((log_es.max(axis=-1) >= -math.log(alpha)).mean())
    assert share <= most(alpha, len(log_es)), f"{share:.4f} false alarms at alpha {alpha}"
    return share


def check_coverage(lows: Floats, highs: Floats, truth: ArrayLike, confidence: float = 0.95) -> float:
    """Fails if more repeats than the confidence allows are ever missed; else the share of those that are."""
    means = np.asarray(truth, dtype=float)
    share = float(((lows > means + 1e-12) | (highs < means - 1e-12)).any(axis=-1).mean())
    assert share <= most(1 - confidence, len(lows)), f"{share:.4f} missed at confidence {confidence}"
    return share


def first(reached: NDArray[np.bool_]) -> Floats:
    """At which step, counted from 1, each repeat first reaches something; infinity if it never does."""
    steps = reached.argmax(axis=-1) + 1.0
    return np.where(reached.any(axis=-1), steps, np.inf)
