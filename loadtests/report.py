"""The report of one load run: made of its samples, told as JSON; tables, pictures and pages are made of it.

Exit codes: 0 all is well; 1 requests failed; 3 an objective is breached; 4 an objective is inconclusive; 5 the
generator did not send what was asked, so nothing is said about the server.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from costkit.errors import ConfigError, MissingExtra
from costkit.stats.dependence import drift
from loadtests.arrivals import Plan
from loadtests.cost import Cost, cost_of
from loadtests.metrics import Figure, figures, ordered, trouble
from loadtests.sample import Sample, write_samples
from loadtests.slo import Answer, Checked, Objective, check, goodput, overall
from loadtests.verdict import Verdict, judge

__all__ = [
    "EXIT_BREACH",
    "EXIT_FAILED",
    "EXIT_INCONCLUSIVE",
    "EXIT_INVALID",
    "Report",
    "make_report",
    "write_report",
]

EXIT_FAILED, EXIT_BREACH, EXIT_INCONCLUSIVE, EXIT_INVALID = 1, 3, 4, 5
_RISING = 2.5758  # standard errors: 1% of steady runs, on either side


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a run says. ``errors`` counts failed requests by code; ``goodput`` is requests a second."""

    name: str
    settings: Mapping[str, Any]
    seconds: float
    requests: int
    errors: Mapping[str, int]
    verdict: Verdict
    figures: Mapping[str, Figure]
    checked: tuple[Checked, ...]
    goodput: float
    cost: Cost
    in_flight: tuple[float, int]
    rising: bool

    @property
    def failed(self) -> int:
        """How many requests failed."""
        return sum(self.errors.values())

    @property
    def answer(self) -> Answer | None:
        """Of the gate over all objectives; None without one."""
        return overall(self.checked)

    @property
    def exit_code(self) -> int:
        """0, 1, 3, 4 or 5: the worst that is true. Failed requests alone are 0 where an objective for errors passed."""
        if not self.verdict.valid:
            return EXIT_INVALID
        if self.answer == "breach":
            return EXIT_BREACH
        if self.answer == "inconclusive":
            return EXIT_INCONCLUSIVE
        allowed = any(one.objective.metric == "errors" for one in self.checked)
        return EXIT_FAILED if self.failed and not allowed else 0

    @property
    def next_steps(self) -> tuple[str, ...]:
        """What to do next, the most pressing first; never empty."""
        return tuple(_next(self))

    def as_json(self) -> dict[str, Any]:
        """Plain values: what ``run.json`` holds."""
        return {
            "name": self.name,
            "settings": dict(self.settings),
            "seconds": self.seconds,
            "requests": self.requests,
            "failed": self.failed,
            "errors": dict(self.errors),
            "verdict": self.verdict.as_json(),
            "answer": self.answer,
            "exit_code": self.exit_code,
            "objectives": [one.as_json() for one in self.checked],
            "metrics": {name: one.as_json() for name, one in self.figures.items()},
            "goodput_per_s": self.goodput,
            "cost_usd": self.cost.as_json(),
            "in_flight": {"mean": self.in_flight[0], "max": self.in_flight[1], "rises": self.rising},
            "next": list(self.next_steps),
        }


def make_report(
    samples: Sequence[Sample],
    *,
    seconds: float,
    plan: Plan | None = None,
    times: Sequence[float] | None = None,
    objectives: Sequence[Objective] = (),
    usd_per_hour: float | None = None,
    name: str = "run",
    settings: Mapping[str, Any] | None = None,
    overloaded: str | None = None,
) -> Report:
    """Judge the generator, measure the server, ask the gate, count the money.

    Args:
        samples: every request of every worker, failed ones too.
        seconds: how long requests were sent, from the start of the run.
        plan: the arrivals asked for; or ``times``, those of a trace.
        times: in seconds from the start of the run.
        objectives: service level objectives.
        usd_per_hour: the machines' price, where the cost is theirs and not that of tokens.
        name: of the run.
        settings: to be kept with it; no keys.
        overloaded: what the generator said of itself.

    Raises:
        ValueError: neither or both of ``plan`` and ``times``.
    """
    rows = ordered(samples)
    flights = [one.in_flight for one in rows]
    return Report(
        name=name,
        settings=dict(settings or {}),
        seconds=seconds,
        requests=len(rows),
        errors=dict(Counter(one.error for one in rows if one.error is not None).most_common()),
        verdict=judge(
            rows, seconds=seconds, plan=plan, times=times, objectives=objectives, overloaded=overloaded
        ),
        figures=figures(rows),
        checked=check(rows, objectives),
        goodput=goodput(rows, objectives, seconds),
        cost=cost_of(rows, seconds=seconds, objectives=objectives, usd_per_hour=usd_per_hour),
        in_flight=(sum(flights) / len(flights) if flights else 0.0, max(flights, default=0)),
        rising=bool(flights) and drift(flights) > _RISING,
    )


def write_report(folder: Path, report: Report, samples: Sequence[Sample]) -> None:
    """Leave a run in a folder, which is made: each file whole or not at all.

    ``run.json`` (:meth:`Report.as_json`), ``requests.jsonl`` (every request), ``report.html``, and ``run.png`` where
    matplotlib is installed and a request succeeded.
    """
    from loadtests.page import page
    from loadtests.plot import draw

    folder.mkdir(parents=True, exist_ok=True)
    write_samples(folder / "requests.jsonl", ordered(samples))
    _whole(folder / "run.json", json.dumps(report.as_json(), indent=2, default=str) + "\n")
    _whole(folder / "report.html", page(report, samples))
    with contextlib.suppress(MissingExtra, ConfigError):
        draw(report, samples, folder / "run.png")


def _whole(path: Path, text: str) -> None:
    part = path.with_suffix(path.suffix + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _next(report: Report) -> list[str]:
    if not report.verdict.valid:
        return [f"Do not use these figures: {report.verdict.reason}."]
    steps = []
    if report.errors:
        code, count = next(iter(report.errors.items()))
        steps.append(
            f"Look at the {report.failed:,} failed requests first: {count:,} are {code} (requests.jsonl)."
        )
    if report.rising:
        steps.append("Requests in flight rise over the run: the server does not keep up; try a lower rate.")
    for one in report.checked:
        if one.answer == "breach":
            steps.append(
                f"{one.objective} is breached: lower the rate, add capacity, or find the rate that holds"
                " (python -m loadtests.capacity)."
            )
        elif one.answer == "inconclusive":
            longer = f"run longer (--run-time {math.ceil(4 * report.seconds):,}s)".replace(",", "")
            steps.append(
                f"{one.objective} is inconclusive: {one.why}. So {longer}, or, where requests queue, at a lower rate."
            )
    if not report.checked:
        steps.append("Name an objective, such as --slo 'ttft.p95<500ms', to have an answer and an exit code.")
        shown = report.figures.get("ttft")
        why = trouble(shown.p95) if shown else None
        if why:
            steps.append(f"The p95 of the time to first token has no interval: {why}.")
    if report.cost.source == "unknown":
        steps.append(
            "No cost is known: name --price-in and --price-out (USD per million tokens), or a price an hour."
        )
    elif report.cost.unpriced:
        steps.append(
            f"{report.cost.unpriced:,} requests have no cost: the endpoint reported no usage for them."
        )
    if not steps:
        steps.append(
            "All objectives hold at this rate. Find the highest rate that does: python -m loadtests.capacity."
        )
    return steps
