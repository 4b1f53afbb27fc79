"""The figures of the demo: each arm's, with 95 % intervals, and what was saved by what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from costkit.stats import Values, bootstrap_change, bootstrap_mean, quantile, quantile_interval, wilson
from serving.demo.arm import Sample

__all__ = ["Arm", "Figure", "Saved", "changes", "saved_by", "summarise"]


@dataclass(frozen=True, slots=True)
class Figure:
    """A value and its 95 % interval; None where there are too few requests for one."""

    value: float
    interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Arm:
    """One arm: dollars per 1,000 queries, seconds, shares."""

    queries: int
    errors: int
    model_calls: int
    cost: Figure
    p50: Figure
    p95: Figure
    right: Figure
    judged: int

    def as_json(self) -> dict[str, object]:
        """Plain values; the units are in the names."""
        pairs = {
            "usd_per_1000_queries": self.cost,
            "p50_s": self.p50,
            "p95_s": self.p95,
            "gold_right": self.right,
        }
        figures = {name: {"value": f.value, "interval_95": f.interval} for name, f in pairs.items()}
        counts = {"queries": self.queries, "errors": self.errors, "model_calls": self.model_calls}
        return {**counts, "gold_judged": self.judged, **figures}


@dataclass(frozen=True, slots=True)
class Saved:
    """What one kind of saving did: queries answered, and nano-dollars not spent."""

    kind: str
    queries: int
    nano: int


def summarise(samples: Sequence[Sample]) -> Arm:
    """The figures of one arm. Failed queries count with their latency; a failed gold question is not right."""
    latencies = [s.latency for s in samples]
    costs = [s.cost / 1e6 for s in samples if s.cost is not None]
    # A question asked ten times is one piece of evidence, not ten; it is right if it was right every time.
    by_question: dict[str, bool] = {}
    for s in samples:
        if s.right is not None:
            by_question[s.asked] = by_question.get(s.asked, True) and s.right
    judged = list(by_question.values())
    return Arm(
        queries=len(samples),
        errors=sum(s.error is not None for s in samples),
        model_calls=sum(s.called for s in samples),
        cost=Figure(sum(costs) / max(1, len(costs)), bootstrap_mean(costs) if costs else None),
        p50=Figure(quantile(latencies, 0.5), quantile_interval(latencies, 0.5)),
        p95=Figure(quantile(latencies, 0.95), quantile_interval(latencies, 0.95)),
        right=Figure(sum(judged) / max(1, len(judged)), wilson(sum(judged), len(judged)) if judged else None),
        judged=len(judged),
    )


def changes(without: Sequence[Sample], with_: Sequence[Sample]) -> dict[str, Figure]:
    """Relative change of mean cost, p50 and p95 (-0.4: 40 % less), paired by query."""
    latency = [s.latency for s in without], [s.latency for s in with_]
    paid = [(a.cost, b.cost) for a, b in zip(without, with_, strict=True)]
    cost = [(a, b) for a, b in paid if a is not None and b is not None]
    measured: dict[str, tuple[Sequence[float], Sequence[float], Callable[[Values], float]]] = {
        "cost": ([a for a, _ in cost], [b for _, b in cost], lambda v: float(v.mean())),
        "p50": (*latency, lambda v: quantile(v, 0.5)),
        "p95": (*latency, lambda v: quantile(v, 0.95)),
    }
    return {
        name: Figure(change, interval)
        for name, (before, after, statistic) in measured.items()
        if before
        for change, interval in [bootstrap_change(before, after, statistic)]
    }


def saved_by(without: Sequence[Sample], with_: Sequence[Sample]) -> list[Saved]:
    """Per kind of saving, what the same questions had cost in the arm without."""
    queries: Counter[str] = Counter()
    nano: Counter[str] = Counter()
    for before, after in zip(without, with_, strict=True):
        if after.saving is not None:
            queries[after.saving] += 1
            nano[after.saving] += (before.cost or 0) - (after.cost or 0)
    return [Saved(kind, queries[kind], nano[kind]) for kind in sorted(queries)]
