"""How often the gate breaks its promise: the long form of the simulations in tests/test_bound_*.py.

`python -m tests.benchmarks.validity` prints a table, with --json one JSON object; --runs N repeats of each line.

- ladder: runs of 5,000 requests, looked at every ten; at most 5% of runs may ever serve a level whose risk is the bound
  or more. ``false``: by the shares of the last 600 and 4,800 requests; ``true``: by the shares requests are drawn with.
- gate: whole gates of 1,500 requests, score and all; ``true``: the level's risk by the score as it is, over the people
  that requests are drawn from.
- alarm: ``off``: runs demoted within 5,500 requests though the risk is half the bound, or the bound (arl promises at
  most 5.5%); after half of the answers changed, audited hits and wrong answers served until it is off, median and 90%.
- time: microseconds of one decision, and of one new level.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from costkit.bound import PER_HIT, PER_REQUEST, Bound, Gate, Passage
from tests.alarms import alarms
from tests.ladders import STEP, Floats, run
from tests.worlds import WORLDS, live

REQUESTS = 5000
REQUEST, HIT = Bound(0.02, PER_REQUEST), Bound(0.05, PER_HIT)
SHARES = np.array([0.15, 0.1, 0.1, 0.1, 0.1, 0.1])
RATES: dict[str, tuple[Bound, tuple[float, ...]]] = {
    "at the bound: first rung": (REQUEST, (0.02 / 0.15, 0.3, 0.4, 0.5, 0.6, 0.7)),
    "5% above it: first rung": (REQUEST, (0.021 / 0.15, 0.3, 0.4, 0.5, 0.6, 0.7)),
    "at the bound: three rungs": (REQUEST, (0.02, 0.05, 0.12, 0.5, 0.6, 0.7)),
    "at the bound: an audited rung": (REQUEST, (0.05, 0.125, 0.01, 0.5, 0.6, 0.7)),
    "two rungs pass it in turn": (REQUEST, (0.07, 0.1, 0.14, 0.2, 0.3, 0.4)),
    "at the bound: all hits": (HIT, (0.05,) * 6),
    "at the bound: hits of rungs 2 and 3": (HIT, (0.02, 0.095, 0.05, 0.2, 0.6, 0.7)),
    "as expected": (REQUEST, (0.01, 0.02, 0.04, 0.08, 0.12, 0.2)),
    "as expected, of hits": (HIT, (0.015, 0.03, 0.06, 0.12, 0.2, 0.4)),
}
STEPS = REQUESTS // STEP
MOVING: dict[str, Floats] = {
    "steady": np.tile(SHARES, (STEPS, 1)),
    "doubling": SHARES / 2 * np.linspace(1, 2, STEPS)[:, None],
}


def ladders(runs: int) -> Iterator[dict[str, Any]]:
    for name, (bound, rates) in RATES.items():
        for moving, shares in MOVING.items():
            for dense in (False, True):
                out = run(bound, shares, np.array(rates), seed=1, runs=runs, dense=dense)
                yield {
                    "ladder": name, "per": bound.per, "shares": moving, "audits": "dense" if dense else "floor",
                    "false": share(out.false), "true": share(out.excess >= 1 - 1e-9), "excess_95": at(out.excess, 0.95),
                    "served": round(float(out.served.mean()) / REQUESTS, 4), "opened": at(out.opened, 0.5),
                }  # fmt: skip


def gates(runs: int) -> Iterator[dict[str, Any]]:
    for bound in (REQUEST, HIT):
        for world in WORLDS:
            lived = [live(world, bound, requests=1500, seed=seed) for seed in range(runs)]
            excess = np.array([one.excess for one in lived])
            yield {
                "gate": world, "per": bound.per, "true": share(excess > 1 + 1e-9), "excess_95": at(excess, 0.95),
                "served": round(statistics.fmean(one.served for one in lived), 4),
                "demoted": share(np.array([one.demoted for one in lived])),
            }  # fmt: skip


def alarm(runs: int) -> Iterator[dict[str, Any]]:
    for bound, hits in (
        (Bound(0.01, PER_REQUEST), 0.15),
        (REQUEST, 0.35),
        (HIT, 0.35),
        (Bound(0.02, PER_HIT), 0.2),
    ):
        full = bound.max_error / hits if bound.per == PER_REQUEST else bound.max_error
        half, whole = (
            alarms(bound, hits=hits, before=part * full, requests=5500, runs=runs, seed=1)
            for part in (0.5, 1.0)
        )
        changed = alarms(
            bound, hits=hits, before=full / 2, after=0.5, change=1500, requests=6500, runs=runs, seed=2
        )
        found = changed.found(1500)
        yield {
            "alarm": f"{bound.max_error:.0%} per {bound.per}", "off_at_half": share(np.isfinite(half.at)),
            "off_at_bound": share(np.isfinite(whole.at)), "dense_at_half": round(float(half.dense.mean()), 4),
            "found": share(found), "audits": [at(changed.audits[found], q) for q in (0.5, 0.9)],
            "wrong": [at(changed.wrong[found], q) for q in (0.5, 0.9)],
        }  # fmt: skip


def times() -> dict[str, float]:
    """Microseconds, medians."""
    rng, gate = np.random.default_rng(1), Gate(REQUEST, [2.5, 2.0, *(0.0,) * 10])
    decisions, levels = [], []
    for number in range(3000):
        x = (1.0, *rng.normal(size=11).tolist())
        start = time.perf_counter_ns()
        passage = gate.decide(x, coin=float(rng.random()))
        decisions.append(time.perf_counter_ns() - start)
        wrong = bool(rng.random() < 1 / (1 + np.exp(2.5 + 2 * x[1])))
        gate.see(passage, wrong if passage.labelled else None)
        if number % 20 == 0:
            gate.see(Passage("none", None, None, None, generation=gate.generation))
            gate.ladder.climb()
            start = time.perf_counter_ns()
            _ = gate.ladder.level
            levels.append(time.perf_counter_ns() - start)
    return {
        "decide_us": round(statistics.median(decisions) / 1e3, 1),
        "level_us": round(statistics.median(levels) / 1e3, 1),
    }


def share(of: Any) -> float:
    return round(float(np.mean(of)), 4)


def at(values: Floats, q: float) -> float | None:
    """A quantile; None where it lies at no number."""
    if not len(values):
        return None
    found = float(np.quantile(values, q, method="inverted_cdf"))
    return round(found, 3) if np.isfinite(found) else None


def main() -> None:
    parser = argparse.ArgumentParser(description="How often the gate breaks its promise.")
    parser.add_argument("--runs", type=int, default=2000, help="of each line; a tenth as many whole gates")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output, at the end")
    settings = parser.parse_args()
    parts: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
        "ladders": lambda: ladders(settings.runs),
        "gates": lambda: gates(max(1, settings.runs // 10)),
        "alarms": lambda: alarm(settings.runs),
    }
    found: dict[str, Any] = {"runs": settings.runs}
    for name, lines in parts.items():
        found[name] = []
        for line in lines():
            found[name].append(line)
            print(
                "  ".join(f"{key}={value}" for key, value in line.items()),
                file=sys.stderr if settings.json else None,
            )
    found["time"] = times()
    print(json.dumps(found) if settings.json else found["time"])


if __name__ == "__main__":
    main()
