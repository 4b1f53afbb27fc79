"""When requests are to be sent: a seeded point process, so that every worker and every later run knows the same times.

Gaps of mean 1 are drawn in *expected requests*, not in seconds, and turned into seconds by the inverse of the expected
number of requests so far. For Poisson arrivals that is the exact process of a rate that changes (Çinlar, Introduction
to Stochastic Processes, 1975, section 4.7); for the others it is what a burst or an even spacing means while a rate
changes. The first gap is what is left of a gap that was under way when the run began, so that the expected number of
requests is the rate times the seconds from the first second on (Cox, Renewal Theory, 1962, section 2.2).

The times are dealt to workers by number: worker 1 of 2 sends 1, 3, 5, ... of the one sequence. So the process never
depends on how many workers there are, and one number is the same request in every run of a plan.

>>> from itertools import islice
>>> plan = Plan(stages=(Stage(10.0, 10.0, 60.0),), seed=1)
>>> [(number, round(at, 2)) for number, at in islice(arrivals(plan), 3)]
[(0, 0.03), (1, 0.57), (2, 0.61)]
>>> [number for number, _ in islice(arrivals(plan, part=1, parts=2), 3)]
[1, 3, 5]
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Kind", "Plan", "Stage", "arrivals", "dealt", "expected", "parse_seconds", "parse_stages"]

Kind = Literal["poisson", "gamma", "constant"]
Floats = NDArray[np.float64]
_DRAWN = 1024
_MOST_RATE = 1e6  # requests a second: beyond any generator, and a slip of the pen
_SECONDS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Stage:
    """So many seconds during which the rate goes from ``start`` to ``end`` requests a second, in a straight line."""

    start: float
    end: float
    seconds: float = math.inf

    def __post_init__(self) -> None:
        if not (0 <= self.start <= _MOST_RATE and 0 <= self.end <= _MOST_RATE):
            raise ValueError(
                f"rate {self.start:g} to {self.end:g}: needs 0 to {_MOST_RATE:g} requests a second"
            )
        if not self.seconds > 0:
            raise ValueError(f"a stage of {self.seconds:g} seconds: needs more than 0")
        if math.isinf(self.seconds) and self.start != self.end:
            raise ValueError("a ramp needs an end: say how many seconds it takes")

    @property
    def requests(self) -> float:
        """The expected number of requests."""
        return (self.start + self.end) / 2 * self.seconds if self.start or self.end else 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What arrivals were asked for.

    ``burstiness`` is the shape of gamma gaps, as in vLLM's benchmark: 1 is Poisson, less comes in bursts, more is more
    even; the gaps' coefficient of variation is its inverse square root. Raises ValueError naming the argument.

    >>> Plan((Stage(5, 5),), "gamma", burstiness=0.25).variation
    2.0
    """

    stages: tuple[Stage, ...]
    kind: Kind = "poisson"
    burstiness: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"arrivals {self.kind!r}: say one of {', '.join(get_args(Kind))}")
        if not 0.01 <= self.burstiness <= 1000:
            raise ValueError(
                f"burstiness {self.burstiness:g}: needs .01 to 1,000 (1 is Poisson, less is burstier)"
            )
        if self.burstiness != 1 and self.kind != "gamma":
            raise ValueError(
                f"burstiness {self.burstiness:g} belongs to gamma arrivals, not to {self.kind} ones"
            )
        if not any(stage.requests for stage in self.stages):
            raise ValueError("no requests: at least one stage needs a rate over 0")
        if any(math.isinf(stage.seconds) for stage in self.stages[:-1]):
            raise ValueError(
                "only the last stage may go on without an end: say how many seconds the others take"
            )

    @property
    def seconds(self) -> float:
        """How long the plan lasts; infinite where its last stage goes on."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def variation(self) -> float:
        """The gaps' coefficient of variation: standard deviation over mean, in expected requests."""
        return 0.0 if self.kind == "constant" else 1 / math.sqrt(self.burstiness)


def arrivals(plan: Plan, *, part: int = 0, parts: int = 1) -> Iterator[tuple[int, float]]:
    """Number and time of each request, in order: seconds from the start of the run; endless where the plan is.

    Args:
        plan: what was asked for.
        part: which worker's share, from 0.
        parts: of how many workers.

    Raises:
        ValueError: ``part`` is none of ``parts``.
    """
    _check_part(part, parts)
    return ((n, at) for n, at in enumerate(_times(plan)) if n % parts == part)


def dealt(times: Sequence[float], *, part: int = 0, parts: int = 1) -> Iterator[tuple[int, float]]:
    """Number and time of one worker's share of times that are known, such as a trace's.

    >>> list(dealt([0.0, 0.5, 2.0], part=0, parts=2))
    [(0, 0.0), (2, 2.0)]
    """
    _check_part(part, parts)
    return ((n, times[n]) for n in range(part, len(times), parts))


def expected(plan: Plan, seconds: ArrayLike) -> Floats:
    """The expected number of requests until each moment; same shape.

    >>> ramp = Plan((Stage(0, 10, 10), Stage(10, 10, 10)))
    >>> expected(ramp, [5.0, 10.0, 12.0, 99.0]).tolist()
    [12.5, 50.0, 70.0, 150.0]
    """
    moments = np.asarray(seconds, dtype=float)
    total, begin = np.zeros_like(moments), 0.0
    for stage in plan.stages:
        inside = np.clip(moments - begin, 0, stage.seconds)
        slope = 0.0 if math.isinf(stage.seconds) else (stage.end - stage.start) / stage.seconds
        total = total + stage.start * inside + slope * inside**2 / 2
        begin += stage.seconds
    return total


def _times(plan: Plan) -> Iterator[float]:
    ends = list(accumulate(stage.requests for stage in plan.stages))
    begins = list(accumulate((stage.seconds for stage in plan.stages[:-1]), initial=0.0))
    for drawn in _draws(plan):
        place = np.minimum(np.searchsorted(ends, drawn, side="right"), len(ends) - 1)
        for stage, moment in zip(place.tolist(), drawn.tolist(), strict=True):
            if moment >= ends[-1]:
                return
            before = ends[stage - 1] if stage else 0.0
            yield begins[stage] + _seconds_into(plan.stages[stage], moment - before)


def _draws(plan: Plan) -> Iterator[Floats]:
    """Times in expected requests, without an end."""
    rng = np.random.default_rng(plan.seed)
    shape = plan.burstiness
    # A moment falls into long gaps more often than into short ones, and anywhere within.
    under_way = 1.0 if plan.kind == "constant" else rng.standard_gamma(shape + 1) / shape
    now = rng.random() * under_way
    while True:
        gaps = np.ones(_DRAWN) if plan.kind == "constant" else rng.standard_gamma(shape, _DRAWN) / shape
        times = now + np.concatenate([[0.0], np.cumsum(gaps)])
        now = float(times[-1])
        yield times[:-1]


def _seconds_into(stage: Stage, requests: float) -> float:
    """When so many requests of a stage are expected: the root of a quadratic, in the form that does not cancel."""
    if math.isinf(stage.seconds):
        return requests / stage.start
    slope = (stage.end - stage.start) / stage.seconds
    root = math.sqrt(max(0.0, stage.start**2 + 2 * slope * requests))
    return min(stage.seconds, 2 * requests / (stage.start + root)) if requests else 0.0


def parse_seconds(text: str) -> float:
    """A length of time such as ``90``, ``500ms``, ``30s``, ``5m`` or ``1h``, in seconds.

    >>> parse_seconds("5m"), parse_seconds("250ms")
    (300.0, 0.25)
    """
    found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(ms|s|m|h|)\s*", text)
    if not found:
        raise ValueError(f"{text!r} is no length of time: say it like 500ms, 30s, 5m or 1h")
    return float(found[1]) * _SECONDS[found[2]]


def parse_stages(text: str) -> tuple[Stage, ...]:
    """Stages and ramps as one writes them: ``10@30s,10-50@60s,50@5m`` (a steady rate, a ramp, a steady rate).

    Raises:
        ValueError: a stage that is none; the message names it.

    >>> parse_stages("10@30s, 10-50@1m")
    (Stage(start=10.0, end=10.0, seconds=30.0), Stage(start=10.0, end=50.0, seconds=60.0))
    """
    found = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)(?:\s*-\s*(\d+\.?\d*|\.\d+))?\s*@([^@]+)", part)
        if not match:
            raise ValueError(
                f"stage {part.strip()!r}: say RATE@TIME or FROM-TO@TIME, such as 10@30s or 10-50@1m"
            )
        try:
            stage = Stage(float(match[1]), float(match[2] or match[1]), parse_seconds(match[3]))
        except ValueError as error:
            raise ValueError(f"stage {part.strip()!r}: {error}") from None
        found.append(stage)
    return tuple(found)


def _check_part(part: int, parts: int) -> None:
    if not 0 <= part < parts:
        raise ValueError(f"part={part}, parts={parts}: needs 0 <= part < parts")
