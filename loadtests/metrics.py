"""The figures of a load run: one definition each, over the requests that succeeded, failed ones counted beside them.

========== ==============================================================================================
ttft       time to first token: first non-empty content, reasoning included, from the intended send time
ttfo       time to first output: first content that is no reasoning, from the intended send time
tpot       time per output token after the first: (last token - first) / (output tokens - 1)
itl        gaps between content chunks, pooled over all requests
e2e        last token, from the intended send time
normalised e2e per output token
lag        how late the generator was: real send less intended send
cost       of one query, US dollars
========== ==============================================================================================

All but cost in seconds. A request that failed has no latency: it is not in these figures, and it is a miss of every
objective (:mod:`loadtests.slo`), so failing fast never looks fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costkit.stats.blocks import block_mean
from costkit.stats.dependence import Steady, steady_quantile
from loadtests.sample import Sample

__all__ = [
    "DIGITS",
    "METRICS",
    "Figure",
    "Metric",
    "figure",
    "figures",
    "good",
    "ordered",
    "series",
    "trouble",
]

Floats = NDArray[np.float64]
DIGITS = 9  # of a second or a dollar: what is equal must not differ by the rounding of a difference
_SATURATED = 3.0  # a request tells less than a third of what an independent one would


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure's title, its unit (``s`` or ``USD``), and what a request says of it (none, one or many values)."""

    title: str
    unit: str
    of: Callable[[Sample], float | None] | None


def _normalised(one: Sample) -> float | None:
    return one.e2e / one.output_tokens if one.e2e is not None and one.output_tokens else None


def _cost(one: Sample) -> float | None:
    return None if one.cost_nano is None else one.cost_nano / 1e9


METRICS: dict[str, Metric] = {
    "ttft": Metric("time to first token", "s", lambda one: one.ttft),
    "ttfo": Metric("time to first output", "s", lambda one: one.ttfo),
    "tpot": Metric("time per output token", "s", lambda one: one.tpot),
    "itl": Metric("gaps between chunks", "s", None),
    "e2e": Metric("end to end", "s", lambda one: one.e2e),
    "normalised": Metric("end to end per token", "s", _normalised),
    "lag": Metric("schedule lag", "s", lambda one: one.lag),
    "cost": Metric("cost per query", "USD", _cost),
}


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric over a run; ``mean_interval`` at 95%, None below 30 values."""

    metric: str
    count: int
    mean: float
    mean_interval: tuple[float, float] | None
    p50: Steady
    p95: Steady
    p99: Steady

    def as_json(self) -> dict[str, Any]:
        """Plain values, seconds or US dollars."""
        quantiles: dict[str, Any] = {}
        for name in ("p50", "p95", "p99"):
            one: Steady = getattr(self, name)
            quantiles[name] = {
                "value": one.value,
                "interval_95": one.interval,
                "n_eff": round(one.n_eff, 1),
                "trusted": one.trusted,
                "why_not": trouble(one),
            }
        unit = METRICS[self.metric].unit
        mean = {"value": self.mean, "interval_95": self.mean_interval}
        return {"unit": unit, "count": self.count, "mean": mean, **quantiles}


def good(samples: Iterable[Sample]) -> list[Sample]:
    """The requests that succeeded."""
    return [one for one in samples if one.error is None]


def ordered(samples: Iterable[Sample]) -> list[Sample]:
    """By intended send time: the order in which neighbours share a queue."""
    return sorted(samples, key=lambda one: (one.intended, one.id))


def series(samples: Sequence[Sample], metric: str) -> Floats:
    """The values of a metric over the requests that succeeded and have one, in order of their intended sends.

    Raises:
        ValueError: no such metric.

    >>> one = Sample(id=0, name="chat", intended=1.0, sent=1.0, ended=1.5, first=1.25, last=1.5, gaps=(0.1, 0.15))
    >>> bad = Sample(id=1, name="chat", intended=2.0, sent=2.0, ended=2.0, error="status_503")
    >>> series([one, bad], "ttft").tolist(), series([bad, one], "itl").tolist()
    ([0.25], [0.1, 0.15])
    """
    if metric not in METRICS:
        raise ValueError(f"metric {metric!r}: say one of {', '.join(METRICS)}")
    rows, of = good(ordered(samples)), METRICS[metric].of
    if of is None:
        return np.array([gap for one in rows for gap in one.gaps], dtype=float)
    values = np.array([value for one in rows if (value := of(one)) is not None], dtype=float)
    return values.round(DIGITS)


def figure(samples: Sequence[Sample], metric: str) -> Figure | None:
    """One metric with its intervals; None where no request has it. Raises ValueError for a metric that is none."""
    values = series(samples, metric)
    if values.size == 0:
        return None
    p50, p95, p99 = (steady_quantile(values, q) for q in (0.5, 0.95, 0.99))
    return Figure(metric, values.size, float(values.mean()), block_mean(values), p50, p95, p99)


def figures(samples: Sequence[Sample]) -> dict[str, Figure]:
    """Every metric that some request has, in their fixed order."""
    found = {name: figure(samples, name) for name in METRICS}
    return {name: one for name, one in found.items() if one is not None}


def trouble(one: Steady) -> str | None:
    """Why an interval is not to be trusted, in one line; None where it is.

    >>> trouble(steady_quantile([0.5] * 40, 0.95))
    'too few requests: 40 of at least 72'
    """
    if one.n < one.needed:
        return f"too few requests: {one.n:,} of at least {one.needed:,}"
    if not one.enough and one.n / one.n_eff > _SATURATED:
        return f"near saturation: not trustworthy ({one.n:,} requests are worth {one.n_eff:,.0f} independent ones)"
    if not one.enough:
        return f"too few requests: {one.n:,} are worth {one.n_eff:,.0f} of at least {one.needed:,}"
    if one.drifts:
        return f"not steady: it {'rises' if one.drift > 0 else 'falls'} over the run"
    return None
