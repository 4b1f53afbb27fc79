"""Two configurations under the same requests: each request with its own pair, and what the pairs say together.

One trace is sent to A and to B, in the order A, B, B, A, so that a slow drift of the machine falls on both alike. Pairs
are drawn in whole blocks of consecutive arrivals (:mod:`costkit.stats.blocks`), because neighbours share a queue. What
is claimed holds for this trace: another trace has other prompts, other bursts and other repeats. Every interval also
covers what the repeats of a side differ by, so that a run on a busy machine is not told for a slower server.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from costkit.stats import quantile
from costkit.stats.blocks import block_statistic
from loadtests.metrics import METRICS
from loadtests.sample import Sample

__all__ = ["FIGURES", "Change", "Pairs", "change", "changes", "paired", "priced_apart"]

Floats = NDArray[np.float64]
Which = Literal["lower", "higher", "the same", "no difference shown", "too few pairs"]
_NEVER = 1e300  # a change that cannot be told, as a number that quantiles can be taken of
_SAME = 0.01  # a change nobody would act on
# Student's t by degrees of freedom, and where there are more.
_T_95 = {2: 4.303, 4: 2.776, 6: 2.447, 8: 2.306, 10: 2.228}
_T_95_MORE = 2.179
_Z_95 = 1.96
_FEWEST = 72  # pairs: as for the p95 of one run
FIGURES: dict[str, tuple[str, float | None]] = {
    "ttft_p95": ("ttft", 0.95),
    "e2e_p95": ("e2e", 0.95),
    "ttft_p50": ("ttft", 0.5),
    "e2e_p50": ("e2e", 0.5),
    "cost_mean": ("cost", None),
}
"""Name of a figure: its metric, and its quantile; the mean where that is None."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """The same requests on both sides, in order of time; each side ``(repeats, requests)`` samples."""

    a: tuple[tuple[Sample, ...], ...]
    b: tuple[tuple[Sample, ...], ...]

    @property
    def size(self) -> int:
        """How many requests."""
        return len(self.a[0])


@dataclass(frozen=True, slots=True)
class Change:
    """One figure on both sides, and its relative change (-0.2: B is 20% lower) with a 95% interval.

    ``rounds`` are the changes of each repeat by itself: far apart, they say that state was carried over.
    """

    figure: str
    a: float
    b: float
    change: float | None
    interval: tuple[float, float] | None
    pairs: int
    rounds: tuple[float | None, ...]

    @property
    def which(self) -> Which:
        """Is B lower or higher for sure (the whole interval on one side of 0), or within 1% for sure?"""
        if self.interval is None:
            return "too few pairs"
        if self.interval[0] >= -_SAME and self.interval[1] <= _SAME:
            return "the same"
        if self.interval[1] < 0:
            return "lower"
        return "higher" if self.interval[0] > 0 else "no difference shown"

    def as_json(self) -> dict[str, Any]:
        """Plain values, seconds or US dollars; None where a failed request has no end."""
        row = {**asdict(self), "which": self.which}
        return {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in row.items()}


def paired(a: Sequence[Sequence[Sample]], b: Sequence[Sequence[Sample]]) -> Pairs:
    """The requests that every run of both sides has, in the order of their intended sends.

    Args:
        a: runs of the one configuration, each with the same numbers.
        b: as many runs of the other.

    Raises:
        ValueError: no run, other numbers of runs, or no request that all runs have.
    """
    if not a or len(a) != len(b):
        raise ValueError(f"paired(a, b): needs as many runs on both sides, not {len(a)} and {len(b)}")
    tables = [{one.id: one for one in run} for run in (*a, *b)]
    common = set.intersection(*(set(table) for table in tables))
    if not common:
        raise ValueError("no request is in every run: were they made with the same seed and trace?")
    order = sorted(common, key=lambda number: (tables[0][number].intended, number))
    sides = [tuple(table[number] for number in order) for table in tables]
    return Pairs(tuple(sides[: len(a)]), tuple(sides[len(a) :]))


def priced_apart(pairs: Pairs) -> bool:
    """Whether A and B were charged by other prices: calls of the same tokens cost them more than 1% apart."""
    ratios = [
        two.cost_nano / one.cost_nano
        for run_a, run_b in zip(pairs.a, pairs.b, strict=True)
        for one, two in zip(run_a, run_b, strict=True)
        if one.cost_nano and two.cost_nano and _tokens(one) == _tokens(two) and not (one.saving or two.saving)
    ]
    return bool(ratios) and abs(float(np.median(ratios)) - 1) > _SAME


def _tokens(one: Sample) -> tuple[int | None, ...]:
    return one.prompt_tokens, one.cached_tokens or 0, one.output_tokens, one.reasoning_tokens or 0


def changes(pairs: Pairs, *, repeats: int = 1000, seed: int = 0) -> dict[str, Change]:
    """Every figure that both sides have."""
    found = {name: change(pairs, name, repeats=repeats, seed=seed) for name in FIGURES}
    return {name: one for name, one in found.items() if one is not None}


def change(pairs: Pairs, figure: str, *, repeats: int = 1000, seed: int = 0) -> Change | None:
    """One figure; None where a side has no value at all. A failed request is infinitely late, and costs what it cost.

    Raises:
        ValueError: no such figure.
    """
    if figure not in FIGURES:
        raise ValueError(f"figure {figure!r}: say one of {', '.join(FIGURES)}")
    metric, q = FIGURES[figure]
    sides = [np.array([[_value(one, metric) for one in run] for run in side]) for side in (pairs.a, pairs.b)]
    known = ~np.isnan(np.concatenate(sides)).any(axis=0)
    a, b = (side[:, known] for side in sides)
    if a.size == 0:
        return None

    def of(values: Floats) -> float:
        return float(values.mean()) if q is None else quantile(values.ravel(), q)

    def relative(rows: NDArray[np.int64]) -> float:
        found = _relative(of(a[:, rows]), of(b[:, rows]))
        return _NEVER if found is None else found

    count = int(known.sum())
    interval = block_statistic(count, relative, repeats=repeats, seed=seed) if count >= _FEWEST else None
    if interval is not None and max(interval) >= _NEVER / 2:
        interval = None
    if interval is not None:
        interval = _widened(interval, [of(one) for one in a], [of(one) for one in b])
    rounds = tuple(_relative(of(one), of(two)) for one, two in zip(a, b, strict=True))
    return Change(figure, of(a), of(b), _relative(of(a), of(b)), interval, count, rounds)


def _widened(interval: tuple[float, float], a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """The interval of a relative change, wider by what the repeats differ by beyond what requests explain.

    A neighbour's load that falls on a whole run moves all its requests alike, which no drawing of requests can see.
    In logarithms: the variance of the change by the repeats, less that by requests, comes on top with Student's t.
    """
    if len(a) < 2 or min(interval) <= -1 or not all(math.isfinite(one) and one > 0 for one in (*a, *b)):
        return interval
    one, two = np.log(a), np.log(b)
    low, high = map(math.log1p, interval)
    middle = min(max(float(two.mean() - one.mean()), low), high)
    repeats = float(one.var(ddof=1) + two.var(ddof=1)) / len(a)
    more = _T_95.get(2 * (len(a) - 1), _T_95_MORE) ** 2 * max(
        0.0, repeats - ((high - low) / (2 * _Z_95)) ** 2
    )
    low, high = middle - math.hypot(middle - low, more**0.5), middle + math.hypot(high - middle, more**0.5)
    return math.expm1(low), math.expm1(min(high, 700.0))


def _value(one: Sample, metric: str) -> float:
    if metric == "cost":
        return math.nan if one.cost_nano is None else one.cost_nano / 1e9
    if one.error is not None:
        return math.inf
    of: Callable[[Sample], float | None] | None = METRICS[metric].of
    value = of(one) if of is not None else None
    return math.nan if value is None else value


def _relative(before: float, after: float) -> float | None:
    if not (math.isfinite(before) and math.isfinite(after)):
        return None
    if before == after:
        return 0.0
    return after / before - 1 if before else None
