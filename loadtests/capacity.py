"""The highest arrival rate that meets the objectives, and what 1,000 good requests cost there.

    python -m loadtests.capacity --host http://127.0.0.1:8000 --slo 'ttft.p95<500ms' --start 5 --machine-hour 0.20

Each step is one ``locust --headless`` run of a locust file here (``--file chat``); whatever follows ``--`` goes to it.
A closed loop's peak is no capacity: with eight slots, Poisson arrivals can use some 60% of it before they wait.

Exit codes: 0 the rate was found; 1 a run could not be made; 2 bad arguments; 3 no rate meets the objectives; 4 the rate
is known only between two bounds; 5 the generator, not the server, was the limit. What was found before a run that could
not be made, or before Ctrl-C, is told and kept.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from costkit.errors import ConfigError, MissingExtra
from loadtests.cost import per_1000_good
from loadtests.plot import BAD, GOOD, GREY, INK, clear, figure_of, saved
from loadtests.runs import Finished, RunError, Runner, as_interrupts, locust, split
from loadtests.search import Cut, Found, Limits, Step, search
from loadtests.slo import parse_objectives
from loadtests.words import money

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Capacity", "Tried", "exit_code", "find", "main"]


@dataclass(frozen=True, slots=True)
class Tried:
    """One run of the search: its answer, and what its ``run.json`` says."""

    step: Step
    goodput: float
    per_1000_good: float | None
    objectives: tuple[dict[str, Any], ...]
    folder: str


@dataclass(frozen=True, slots=True)
class Capacity:
    """What was found, and every run it was found by. Dollars are those at the highest rate that passed.

    ``cut`` is the exit code of what ended the search early, 0 if nothing did.
    """

    found: Found
    tried: tuple[Tried, ...]
    goodput: float | None
    per_1000_good: float | None
    cut: int = 0

    def as_json(self) -> dict[str, Any]:
        """Plain values: requests a second, US dollars."""
        about = {
            "goodput_per_s": self.goodput,
            "usd_per_1000_good": self.per_1000_good,
            "exit_code": exit_code(self),
        }
        found = asdict(self.found)
        runs = [asdict(one) for one in self.tried]
        return {**{name: found[name] for name in found if name != "steps"}, **about, "runs": runs}


@dataclass(slots=True)
class _Measure:
    """Makes the runs of a search. ``args`` go to locust."""

    run: Runner
    host: str
    folder: Path
    slo: str
    args: Sequence[str]
    usd_per_hour: float | None
    quiet: bool
    tried: list[Tried] = field(default_factory=list)
    cut: int = 0

    def __call__(self, rate: float, requests: int, seed: int) -> Step:
        seconds = max(5.0, requests / rate)
        folder = self.folder / f"{len(self.tried) + 1:02d}-{rate:.4g}"
        plan = [
            "--rate",
            f"{rate:.6g}",
            "--run-time",
            f"{seconds:.0f}s",
            "--seed",
            str(seed),
            "--slo",
            self.slo,
        ]
        hour = ["--machine-hour", f"{self.usd_per_hour:g}"] if self.usd_per_hour is not None else []
        finished = self._made(folder, [*self.args, *plan, *hour], seconds)
        step = _step(rate, finished)
        goodput = float(finished.told["goodput_per_s"])
        thousand = finished.told["cost_usd"]["per_1000_good"]
        if self.usd_per_hour is not None:
            thousand = per_1000_good(self.usd_per_hour, goodput) if goodput else None
        self.tried.append(Tried(step, goodput, thousand, tuple(finished.told["objectives"]), str(folder)))
        if not self.quiet:
            why = f" ({step.why})" if step.why else ""
            print(
                f"{rate:8.4g}/s, {step.requests:,} requests: {step.answer}{why}", file=sys.stderr, flush=True
            )
        return step

    def _made(self, folder: Path, args: Sequence[str], seconds: float) -> Finished:
        try:
            return self.run(self.host, folder, args, seconds)
        except (RunError, KeyboardInterrupt) as error:
            if not self.tried:
                raise
            self.cut = error.code if isinstance(error, RunError) else 130
            raise Cut(str(error) or "interrupted") from error


def _step(rate: float, finished: Finished) -> Step:
    told = finished.told
    if not told["verdict"]["valid"]:
        return Step(rate, told["requests"], "invalid", told["verdict"]["reason"])
    why = next(
        (one["why"] for one in told["objectives"] if one["answer"] == told["answer"] and one["why"]), ""
    )
    return Step(rate, told["requests"], told["answer"] or "inconclusive", why)


def find(
    run: Runner,
    host: str,
    folder: Path,
    slo: str,
    limits: Limits,
    *,
    args: Sequence[str] = (),
    usd_per_hour: float | None = None,
    quiet: bool = True,
) -> Capacity:
    """Search for the capacity of one server.

    Args:
        run: makes a load run; :func:`loadtests.runs.locust`.
        host: base URL of the server.
        folder: for the runs' own folders.
        slo: objectives, at least one; errors count as misses of each.
        limits: how to search.
        args: more options for the locust file.
        usd_per_hour: price of the machines that serve; without it the requests' own costs count.
        quiet: no line for each run.

    Raises:
        RunError: the first run could not be made. Where a later one cannot, what was found until then is returned.
    """
    measure = _Measure(run, host, folder, slo, args, usd_per_hour, quiet)
    found = search(measure, limits)
    at = [one for one in measure.tried if one.step.rate == found.passes and one.step.answer == "pass"]
    goodput = sum(one.goodput for one in at) / len(at) if at else None
    costs = [one.per_1000_good for one in at if one.per_1000_good is not None]
    thousand = sum(costs) / len(costs) if costs else None
    return Capacity(found, tuple(measure.tried), goodput, thousand, measure.cut)


def exit_code(capacity: Capacity) -> int:
    """0 found; 3 no rate passes; 4 known only between bounds; 5 the generator was the limit; or what cut it short."""
    found = capacity.found
    if capacity.cut:
        return capacity.cut
    if found.resolved:
        return 0
    if found.ceiling is not None and (found.breaches is None or found.ceiling < found.breaches):
        return 5
    return 3 if found.passes is None and not found.unresolved else 4


def tell(capacity: Capacity) -> list[str]:
    """The result in lines, what to do next last."""
    found = capacity.found
    if found.passes is None and capacity.cut:
        return [f"no rate met the objectives so far: {found.stopped}", "next: mend that and search again."]
    if found.passes is None:
        lines = [f"no rate met the objectives: {found.stopped}"]
        low = min((one.step.rate for one in capacity.tried), default=0.0)
        return [
            *lines,
            f"next: look at the run at {low:.4g}/s; one request alone may already miss the objective.",
        ]
    above = f"; {found.breaches:.4g}/s breaches them" if found.breaches is not None else ""
    lines = [f"highest rate that meets the objectives: {found.passes:.4g} requests a second{above}"]
    if found.stopped:
        lines.append(f"not resolved: {found.stopped}")
    if capacity.goodput is not None:
        lines.append(f"goodput there: {capacity.goodput:.4g} requests a second")
    if capacity.per_1000_good is not None:
        lines.append(f"1,000 good requests there: {money(capacity.per_1000_good)}")
    else:
        lines.append("name --machine-hour, or prices after --, to have dollars for 1,000 good requests")
    return [*lines, f"next: {_next(capacity)}"]


def _next(capacity: Capacity) -> str:
    rate = f"{capacity.found.passes:.4g}"
    if capacity.cut:
        return f"mend what ended the search, and go on from there: --start {rate}"
    if capacity.found.stopped:
        return f"search on from there: --start {rate}, with longer runs (--requests) or more of them (--runs)"
    return f"one long run at it, before you rely on it (locust ... --rate {rate} --run-time 30m)"


def draw(capacity: Capacity, path: Path) -> Path:
    """Share of misses against rate, with its limits, one panel an objective; and dollars for 1,000 good requests.

    Raises:
        MissingExtra: matplotlib is not installed.
        ConfigError: the file cannot be written.
    """
    names = [one["objective"] for one in capacity.tried[0].objectives]
    known = [one for one in capacity.tried if one.per_1000_good is not None and one.step.answer != "invalid"]
    priced = [(one.step.rate, one.per_1000_good) for one in known]
    figure = figure_of(8, 2.6 * (len(names) + bool(priced)) + 0.6)
    axes = figure.subplots(len(names) + bool(priced), 1, sharex=True, squeeze=False)[:, 0]
    for place, name in enumerate(names):
        _misses(axes[place], capacity, place, name)
    if priced:
        axes[-1].plot(*zip(*sorted(priced), strict=True), "o", color=INK, ms=5, mec="white")
        axes[-1].set(
            title="1,000 good requests, runs that the generator kept up with", ylabel="USD", ylim=(0, None)
        )
    for one in axes:
        one.title.set_size(9)
        if capacity.found.passes is not None:
            one.axvline(capacity.found.passes, color=GOOD, lw=1.2)
        clear(one)
    rates = sorted({one.step.rate for one in capacity.tried})
    axes[-1].set(xscale="log", xlabel="requests a second (log)")
    axes[-1].set_xticks(rates, [f"{rate:.4g}" for rate in rates])
    axes[-1].set_xticks([], minor=True)
    figure.suptitle("\n".join(tell(capacity)[:1]), x=0.01, ha="left", fontsize=10, color=INK)
    return saved(figure, path)


def _misses(axes: Axes, capacity: Capacity, place: int, name: str) -> None:
    """One objective: what each run says, with its limits, beside what is allowed."""
    factor = 1 if name.startswith("cost") else 100
    hues = {"pass": GOOD, "breach": BAD, "inconclusive": GREY}
    seen: set[str] = set()
    top = allowed = 0.0
    for one in capacity.tried:
        told = one.objectives[place]
        allowed, value = told["allowed"] * factor, (told["value"] or 0.0) * factor
        answer = "generator too slow" if one.step.answer == "invalid" else told["answer"]
        label = None if answer in seen else answer
        seen.add(answer)
        if answer not in hues:
            axes.plot([one.step.rate], [value], "x", color=INK, ms=5, label=label)
            continue
        low, high = (
            (told[key] if told[key] is not None else told["value"]) or 0.0 for key in ("low_95", "high_95")
        )
        axes.plot([one.step.rate] * 2, [low * factor, high * factor], color=hues[answer], lw=2.5, alpha=0.5)
        axes.plot([one.step.rate], [value], "o", color=hues[answer], ms=6, mec="white", label=label)
        top = max(top, value)
    axes.axhline(allowed, color=INK, lw=0.9, ls="--")
    what = "USD a query" if factor == 1 else "% of requests miss it"
    axes.set(title=name, ylabel=what, ylim=(0, max(3 * allowed, 1.2 * top)))
    axes.legend(frameon=False, fontsize=8, loc="upper left")


@as_interrupts()
def main(argv: Sequence[str] | None = None, run: Runner | None = None) -> int:
    """Search, tell, leave ``capacity.json`` and a picture; returns the exit code."""
    given, more = split(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(given)
    try:
        limits = Limits(args.start, args.most, args.requests, args.most_requests, args.precision, args.runs)
        if not parse_objectives(args.slo):
            raise ValueError("--slo: name an objective, such as 'ttft.p95<500ms'")
    except ValueError as error:
        print(f"loadtests.capacity: {error}", file=sys.stderr)
        return 2
    try:
        capacity = find(
            run or locust(args.file), args.host, args.out, args.slo, limits,
            args=more, usd_per_hour=args.machine_hour, quiet=args.json,
        )  # fmt: skip
    except RunError as error:
        print(f"loadtests.capacity: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("loadtests.capacity: interrupted in the first run", file=sys.stderr)
        return 130
    (args.out / "capacity.json").write_text(json.dumps(capacity.as_json(), indent=2) + "\n", encoding="utf-8")
    if args.json:
        print(json.dumps(capacity.as_json()))
    else:
        print("\n".join(tell(capacity)))
    try:
        drawn = draw(capacity, args.out / "capacity.png")
        print(f"picture: {drawn}", file=sys.stderr)
    except (MissingExtra, ConfigError) as error:
        print(f"no picture: {error}", file=sys.stderr)
    return exit_code(capacity)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.capacity",
        epilog="After --: options of the locust file, such as -- --max-tokens 64.",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--host", required=True, help="base URL of the server")
    add("--slo", required=True, help="objectives, such as 'ttft.p95<500ms,errors<1%%'")
    add("--file", default="chat", help="locust file: chat, rag, multiturn, or a path (default: chat)")
    add("--start", type=float, default=1.0, help="first rate to try, requests a second")
    add("--most", type=float, default=1000.0, help="highest rate to try")
    add("--requests", type=int, default=600, help="requests of a run")
    add("--most-requests", type=int, default=2400, help="of a run that was inconclusive and is extended")
    add(
        "--precision",
        type=float,
        default=0.1,
        help="stop when passing and breaching rate are so close (a share)",
    )
    add("--runs", type=int, default=20, help="at most so many runs")
    add("--machine-hour", type=float, help="US dollars an hour of what serves")
    add("--out", type=Path, default=Path("loadtest-out/capacity"), help="folder for the runs and the result")
    add("--json", action="store_true", help="one JSON object on standard output")
    return parser


if __name__ == "__main__":
    sys.exit(main())
