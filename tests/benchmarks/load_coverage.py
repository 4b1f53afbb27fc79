"""How often the intervals of a load report hold, and how often its gate errs: queues whose truth is known.

`python -m tests.benchmarks.load_coverage` prints a table, with --json one JSON object; --runs N runs of each line.
Eight servers, Poisson arrivals, lognormal service (loadtests' own tests use the same queue, tests/loadtests/queues.py).

- coverage: share of runs whose nominal 95% interval holds the steady-state p95. ``independent``: the order-statistic
  interval that takes requests as independent; ``shown``: share of runs that get an interval from us at all; ``shown
  covers``: of those; ``shown and wrong``: of all runs.
- gate: share of runs answered pass, breach and inconclusive by our gate, and pass by the point estimate, for a system
  whose p95 is 10 and 20% over or under its objective, or at it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from costkit.stats import quantile, quantile_interval
from costkit.stats.dependence import steady_quantile
from loadtests.slo import Objective, answer_of
from tests.loadtests.queues import runs, truth

UTILISATIONS = (0.3, 0.6, 0.8, 0.9)
METRICS = ("ttft", "e2e")
ANSWERS = ("pass", "breach", "inconclusive")


def coverage(
    count: int, requests: int, metrics: Sequence[str], utilisations: Sequence[float]
) -> Iterator[dict[str, Any]]:
    for metric in metrics:
        for utilisation in utilisations:
            true = truth(utilisation, metric)
            made = getattr(runs(utilisation, requests, count, seed=1), metric)
            plain = [quantile_interval(row, 0.95) for row in made]
            ours = [steady_quantile(row, 0.95) for row in made]
            shown = np.array([one.trusted for one in ours])
            held = np.array([_holds(one.interval, true) for one in ours])
            yield {
                "coverage": metric, "utilisation": utilisation, "requests": requests, "runs": count,
                "independent": share(np.array([_holds(one, true) for one in plain])),
                "shown": share(shown), "shown covers": share(held[shown]) if shown.any() else None,
                "shown and wrong": share(shown & ~held),
                "width": _width([one.interval for one in ours if one.trusted], true),
            }  # fmt: skip


def gate(
    count: int, requests: int, metrics: Sequence[str], utilisations: Sequence[float]
) -> Iterator[dict[str, Any]]:
    for metric in metrics:
        for utilisation in utilisations:
            true = truth(utilisation, metric)
            made = getattr(runs(utilisation, requests, count, seed=2), metric)
            for over in (-0.2, -0.1, 0.0, 0.1, 0.2):
                limit = true / (1 + over)
                answers = [answer_of(Objective(metric, limit, 0.95), row, row > limit).answer for row in made]
                yield {
                    "gate": metric, "utilisation": utilisation, "requests": requests, "runs": count,
                    "p95 over the objective": over,
                    **{name: share(np.array([a == name for a in answers])) for name in ANSWERS},
                    "point estimate passes": share(np.array([quantile(row, 0.95) <= limit for row in made])),
                }  # fmt: skip


def _holds(interval: tuple[float, float] | None, true: float) -> bool:
    return interval is not None and interval[0] <= true <= interval[1]


def _width(intervals: list[tuple[float, float] | None], true: float) -> float | None:
    """The median width of the intervals shown, over the true value."""
    widths = [(one[1] - one[0]) / true for one in intervals if one is not None]
    return round(float(np.median(widths)), 3) if widths else None


def share(marks: np.ndarray) -> float:
    return round(float(np.mean(marks)), 4)


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--requests", type=int, nargs="+", default=[300, 1000, 4000])
    parser.add_argument("--metric", nargs="+", choices=METRICS, default=METRICS)
    parser.add_argument("--utilisation", nargs="+", type=float, default=UTILISATIONS)
    parser.add_argument("--only", choices=("coverage", "gate"))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    out = []
    for kind in (coverage, gate):
        if args.only not in (None, kind.__name__):
            continue
        for requests in args.requests:
            for line in kind(args.runs, requests, args.metric, args.utilisation):
                out.append(line)
                if not args.json:
                    print("  ".join(f"{name} {value}" for name, value in line.items()), flush=True)
    if args.json:
        print(json.dumps(out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
