"""Tests that may be read after every observation: betting e-processes for a bounded mean.

Somebody who claims that a mean is at least ``bound`` should not mind a bet that pays when observations fall below it.
Start with a capital of 1, stake a part of it at each observation, at odds that are fair if the claim is true: then
the capital ever reaches 1/alpha with probability at most alpha (Ville's inequality), however often it is looked at
and whenever one stops. The capital is the e-value, its log the evidence in nats.

Source: Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting, JRSS B 86 (2024). How much
is staked matters for power alone. Here the capital is split over constant stakes on a geometric grid and left to run:
that is the same as staking, each time, the mean of the stakes weighted by what each has earned so far, so the bet is
fixed before the observation is seen and leans towards the stake that would have been best.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Bet", "Evidence", "log_e_process", "stakes", "walk"]

Evidence = Literal["below", "above"]
"""What a bet gathers evidence for: that the mean lies below its bound, or above it."""

_MOST_STAKE = 0.95  # of the capital: one bad observation never ruins a bet for good
_LEAST_STAKE = 0.02


def stakes(
    bound: float, evidence: Evidence = "below", low: float = 0.0, high: float = 1.0
) -> tuple[float, ...]:
    """The grid of stakes: shares of the capital that the worst possible observation would take.

    Each is half the next. The smallest is the best one for observations that spread over the whole range and whose
    mean is a hundredth or so of it away from the bound. The capital is split in proportion to their square roots.

    >>> [round(stake, 3) for stake in stakes(0.02)]
    [0.015, 0.03, 0.059, 0.119, 0.237, 0.475, 0.95]
    """
    worst = _worst(bound, evidence, low, high)
    least = _LEAST_STAKE * worst / max(high - bound, bound - low)
    count = 1 + math.ceil(math.log2(_MOST_STAKE / least))
    return tuple(_MOST_STAKE * 0.5**i for i in reversed(range(count)))


@dataclass(slots=True)
class Bet:
    """A bet against "the mean is at least ``bound``" (evidence ``below``) or "at most" (``above``).

    What is tested is that every observation's mean, given the past, lies on that side of the bound; the bound itself
    counts as true. An error bound is certified by evidence ``below``, an alarm is evidence ``above``.
    The state is plain numbers: ``Bet(**dataclasses.asdict(bet))`` goes on where the other stood, through JSON too.

    Args:
        bound: the claimed mean, between ``low`` and ``high``, in the unit of the observations.
        evidence: "below" or "above".
        low, high: the range of an observation; 0 to 1, or -1 to 1 for a drop.
        log_e: the evidence now, in nats.
        most_log_e: the most there ever was; what a decision is made on.
        stakes: parts of the capital staked on the worst possible observation; see :func:`stakes`.
        shares: how the capital is now spread over them.

    Raises:
        ValueError: an argument is outside its range.

    >>> bet = Bet(0.05)
    >>> for _ in range(90):
    ...     bet.see(0.0)
    >>> bet.p < 0.05
    True
    """

    bound: float
    evidence: Evidence = "below"
    low: float = 0.0
    high: float = 1.0
    log_e: float = 0.0
    most_log_e: float = 0.0
    stakes: list[float] = field(default_factory=list[float])
    shares: list[float] = field(default_factory=list[float])

    def __post_init__(self) -> None:
        _worst(self.bound, self.evidence, self.low, self.high)
        self.stakes = list(self.stakes or stakes(self.bound, self.evidence, self.low, self.high))
        if not all(0 < stake < 1 for stake in self.stakes):
            raise ValueError(f"Bet(stakes={self.stakes}): needs shares of the capital, between 0 and 1")
        self.shares = list(self.shares or _spread(self.stakes))
        if len(self.shares) != len(self.stakes):
            raise ValueError(f"Bet(shares=...): needs one share for each of the {len(self.stakes)} stakes")

    def see(self, x: float, weight: float = 1.0, most: float = 1.0) -> None:
        """Settle the bet on one observation.

        An observation audited with a known probability r counts 1/r times when it was audited, else 0 times: say
        ``weight=1/r, most=1/r``; the others change nothing and need not be told. Where r differs from row to row, the
        weight is the row's own 1/r and ``most`` the largest there can be: ``most`` may depend on the past, never on
        the row, or rows that are looked at more often would count more.

        Args:
            x: the observation, between ``low`` and ``high``.
            weight: how many observations it stands for; its mean over the draw of the audits must be 1.
            most: the most that ``weight`` could have been, known before the row was drawn; at least 1.

        Raises:
            ValueError: an argument is outside its range; the bet is as it was.
        """
        if not self.low <= x <= self.high:
            raise ValueError(f"Bet.see(x={x}): needs a number from {self.low} to {self.high}")
        if not 0 <= weight <= most or not 1 <= most < math.inf:
            raise ValueError(
                f"Bet.see(weight={weight}, most={most}): needs 0 <= weight <= most and most >= 1"
            )
        if self.evidence == "below":
            won = (self.bound - x) / (self.high - self.bound)
        else:
            won = (x - self.bound) / (self.bound - self.low)
        won *= weight / most
        growth = 1 + won * sum(share * stake for share, stake in zip(self.shares, self.stakes, strict=True))
        self.shares = [
            share * (1 + stake * won) / growth for share, stake in zip(self.shares, self.stakes, strict=True)
        ]
        self.log_e += math.log(growth)
        self.most_log_e = max(self.most_log_e, self.log_e)

    @property
    def p(self) -> float:
        """An anytime-valid p-value: under the claim, P(it is ever at most alpha) <= alpha."""
        return math.exp(-self.most_log_e)


def log_e_process(
    xs: ArrayLike,
    bound: float,
    evidence: Evidence = "below",
    *,
    low: float = 0.0,
    high: float = 1.0,
    weights: ArrayLike = 1.0,
    most: ArrayLike = 1.0,
) -> NDArray[np.float64]:
    """What ``Bet.log_e`` is after each of many observations, all at once.

    Args:
        xs: observations, shape (..., n), in order along the last axis; each row is a process of its own.
        bound: as for :class:`Bet`, and so are ``evidence``, ``low`` and ``high``.
        weights: as for :meth:`Bet.see`, broadcast to the shape of ``xs``; and so is ``most``.

    Returns:
        Nats, the shape of ``xs``.

    Raises:
        ValueError: an argument is outside its range.

    >>> log_e_process([0.0, 0.0, 1.0], 0.05).round(3).tolist()
    [0.025, 0.049, -0.615]
    """
    worst = _worst(bound, evidence, low, high)
    values = np.asarray(xs, dtype=float)
    weight = np.broadcast_to(np.asarray(weights, dtype=float), values.shape)
    limit = np.broadcast_to(np.asarray(most, dtype=float), values.shape)
    if not ((values >= low) & (values <= high)).all():
        raise ValueError(f"log_e_process(xs): needs numbers from {low} to {high}")
    if not ((weight >= 0) & (weight <= limit) & (limit >= 1) & (limit < np.inf)).all():
        raise ValueError("log_e_process(weights, most): needs 0 <= weight <= most and most >= 1 everywhere")
    won = (bound - values if evidence == "below" else values - bound) * (weight / limit / worst)
    grid = np.array(stakes(bound, evidence, low, high))
    start = np.log(_spread(grid.tolist()))
    rows = won.reshape(-1, values.shape[-1]) if values.size else won.reshape(0, 1)
    logs = [_log_mixture(row, grid, start) for row in rows]
    return np.array(logs).reshape(values.shape)


def _log_mixture(
    won: NDArray[np.float64], grid: NDArray[np.float64], start: NDArray[np.float64]
) -> NDArray[np.float64]:
    logs = np.cumsum(np.log(1 + grid[:, None] * won), axis=1) + start[:, None]
    best: NDArray[np.float64] = logs.max(axis=0)
    mixed: NDArray[np.float64] = best + np.log(np.exp(logs - best).sum(axis=0))
    return mixed


def _spread(grid: list[float]) -> list[float]:
    total = sum(math.sqrt(stake) for stake in grid)
    return [math.sqrt(stake) / total for stake in grid]


def _worst(bound: float, evidence: Evidence, low: float, high: float) -> float:
    """How far the worst observation lies beyond the bound."""
    if evidence not in {"below", "above"}:
        raise ValueError(f'evidence={evidence!r}: say "below" or "above"')
    if not -math.inf < low < bound < high < math.inf:
        raise ValueError(f"bound={bound}: needs low < bound < high, and low={low}, high={high}")
    return high - bound if evidence == "below" else bound - low


def walk(log_es: Iterable[float], alpha: float) -> int:
    """How many hypotheses are rejected, in an order fixed beforehand, before the first that is not.

    Each is tested at the full ``alpha``, and the chance that any true one is among the rejected is at most alpha
    (fixed-sequence testing; Angelopoulos et al., Learn then test, 2021, section 2.2). The order must not depend on
    the observations that the e-values are made of.

    Args:
        log_es: evidence against each hypothesis, in nats: the most there ever was, safest first.
        alpha: between 0 and 1.

    Raises:
        ValueError: alpha is outside its range, or a value is not a number.

    >>> walk([5.0, 3.1, 2.0, 9.0], alpha=0.05)
    2
    """
    if not 0 < alpha < 1:
        raise ValueError(f"walk(alpha={alpha}): needs 0 < alpha < 1, such as .05")
    wanted, count = -math.log(alpha), 0
    for log_e in log_es:
        if math.isnan(log_e):
            raise ValueError(f"walk(log_es): value {count + 1} is not a number")
        if log_e < wanted:
            break
        count += 1
    return count
