"""Two configurations under the same requests: did it help, by how much, for sure?

    python -m loadtests.compare --a http://127.0.0.1:8000 --b http://127.0.0.1:8001 -- --rate 10 --run-time 100s
    python -m loadtests.compare --a 'python -m serving.simulated' --b 'python -m serving.simulated --slots 8' \\
        --file replay -- --trace conversation.jsonl.gz --trace-speed 2 --run-time 100s

A side is the URL of a running server, or a command that starts one and prints a JSON line with its ``url``: started
afresh for every run, so that no run finds the cache of the one before it. Each run is ``locust --headless`` with the
same seed; what follows ``--`` goes to the locust file.

Exit codes: 0 B is lower in something and higher in nothing; 1 a run could not be made, or requests failed; 2 bad
arguments; 3 B is higher (slower or dearer) in something; 4 no difference is shown, or there are too few pairs;
5 the generator did not send what was asked.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from costkit.errors import ConfigError, MissingExtra
from loadtests.metrics import METRICS, series
from loadtests.paired import FIGURES, Change, Pairs, changes, paired, priced_apart
from loadtests.plot import clear, figure_of, log_ticks, saved
from loadtests.runs import Finished, RunError, Runner, as_interrupts, locust, served, split, timed
from loadtests.words import value

__all__ = ["CLAIM", "Comparison", "compare", "exit_code", "main"]

CLAIM = "conditional on this trace: these requests, at these moments, on these machines"
_APART = 0.2
_COLOURS = ("#8a8f98", "#1f6feb")
_INK = "#24292f"
_DEFAULT_S = 60.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the pairs say. ``runs`` are ``(side, folder, verdict's reason or "")`` in the order they were made."""

    changes: dict[str, Change]
    pairs: int
    failed: tuple[int, int]
    runs: tuple[tuple[str, str, str], ...]
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain values, seconds and US dollars."""
        failed = {"a": self.failed[0], "b": self.failed[1]}
        runs = [{"side": side, "folder": folder, "invalid": why or None} for side, folder, why in self.runs]
        figures = {name: one.as_json() for name, one in self.changes.items()}
        about = {"claim": CLAIM, "pairs": self.pairs, "failed": failed, "exit_code": exit_code(self)}
        return {**about, "figures": figures, "runs": runs, "note": self.note or None}


def compare(
    run: Runner, a: str, b: str, folder: Path, *, args: Sequence[str], seconds: float, order: str = "abba"
) -> tuple[Comparison, Pairs]:
    """Make the runs and pair them.

    Args:
        run: makes a load run; :func:`loadtests.runs.locust`.
        a: URL, or command that starts a server and prints its ``url``.
        b: the same for the other side.
        folder: for the runs' own folders.
        args: options of the locust file, the same for both sides.
        seconds: how long one run sends.
        order: letters a and b, each as often.

    Raises:
        RunError: a run could not be made, or no request is in all runs.
        ValueError: the order is none.
    """
    _check_order(order)
    made: list[tuple[str, Path, Finished]] = []
    for number, side in enumerate(order, 1):
        target = a if side == "a" else b
        place = folder / f"{number}-{side}"
        with nullcontext(target) if _is_url(target) else served(shlex.split(target)) as url:
            made.append((side, place, run(url, place, args, seconds)))
    sides = [[one.samples for side, _, one in made if side == which] for which in "ab"]
    try:
        pairs = paired(*sides)
    except ValueError as error:
        raise RunError(str(error)) from None
    failed = [sum(one.error is not None for each in side for one in each) for side in sides]
    runs = tuple((side, str(place), str(one.told["verdict"]["reason"])) for side, place, one in made)
    found, note = changes(pairs), ""
    if "cost_mean" not in found:
        note = "cost: not known on both sides; say --price-in and --price-out after --"
    elif priced_apart(pairs):
        note = (
            "cost: A and B charge other prices for the same tokens; where that is not meant, give both the same "
            "(--price-in and --price-out after --, and to a service that tells its own cost)"
        )
    return Comparison(found, pairs.size, (failed[0], failed[1]), runs, note), pairs


def exit_code(comparison: Comparison) -> int:
    """5 invalid; 1 failed requests; 3 worse in something; 0 better in something; 4 neither."""
    if any(why for _, _, why in comparison.runs):
        return 5
    if any(comparison.failed):
        return 1
    found = {one.which for one in comparison.changes.values()}
    return 3 if "higher" in found else 0 if "lower" in found else 4


def tell(comparison: Comparison) -> list[str]:
    """The result in lines, what to do next last."""
    lines = [f"{comparison.pairs:,} requests, each sent to A and to B ({CLAIM})"]
    for name, one in comparison.changes.items():
        lines.append(_line(name, one))
    if any(comparison.failed):
        lines.append(
            f"failed: {comparison.failed[0]:,} of A, {comparison.failed[1]:,} of B (a failed one is never fast)"
        )
    apart = [name for name, one in comparison.changes.items() if _carried(one)]
    if apart:
        names = ", ".join(map(_title, apart))
        lines.append(
            f"the repeats differ much ({names}): was a cache warm? Start each run afresh (a command for a URL)."
        )
    lines += [comparison.note] if comparison.note else []
    if len(comparison.runs) == 2:
        lines.append(
            "one run a side: a difference between two runs may pass for one between A and B (--order abba)"
        )
    for side, folder, why in comparison.runs:
        if why:
            lines.append(f"INVALID run of {side.upper()} ({folder}): {why}")
    return [*lines, f"next: {_next(comparison)}"]


def _line(name: str, one: Change) -> str:
    unit = METRICS[FIGURES[name][0]].unit
    told = f"{_title(name)}: A {value(one.a, unit)}, B {value(one.b, unit)}"
    if one.change is None:
        return f"{told}: no change can be told"
    told += f", {one.change:+.1%}"
    if one.interval is None:
        return f"{told} (no interval: {one.pairs:,} pairs)"
    return f"{told} [{one.interval[0]:+.1%} to {one.interval[1]:+.1%}]: B is {_words(one)}"


def _words(one: Change) -> str:
    dear = (
        {"lower": "cheaper", "higher": "dearer"}
        if one.figure == "cost_mean"
        else {"lower": "faster", "higher": "slower"}
    )
    return {**dear, "the same": "the same within 1%"}.get(one.which, "not shown to differ")


def _title(name: str) -> str:
    metric, q = FIGURES[name]
    return f"{METRICS[metric].title}, {'mean' if q is None else f'p{q * 100:g}'}"


def _carried(one: Change) -> bool:
    known = [each for each in one.rounds if each is not None]
    return len(known) > 1 and max(known) - min(known) > _APART


def _next(comparison: Comparison) -> str:
    code = exit_code(comparison)
    if code == 5:
        return "do not use these figures; lower the rate or use --processes, and compare again."
    if code == 1:
        return "look at the failed requests first (requests.jsonl of each run)."
    if code == 4:
        return (
            "a longer run (--run-time) narrows the intervals; half the width takes four times the requests."
        )
    if code == 3:
        return "B is worse in something: weigh it against what it saves, or keep A."
    return "B helps on this trace; repeat with another --seed before it is said of all traffic."


def draw(comparison: Comparison, pairs: Pairs, path: Path) -> Path:
    """Distributions of both sides, and each figure's change with its interval.

    Raises:
        MissingExtra: matplotlib is not installed.
        ConfigError: the file cannot be written.
    """
    figure = figure_of(9, 6.4)
    grid = figure.subplot_mosaic([["ttft", "e2e"], ["change", "change"]], height_ratios=(1.3, 1))
    for metric in ("ttft", "e2e"):
        axes = grid[metric]
        for side, hue, name in ((pairs.a, _COLOURS[0], "A"), (pairs.b, _COLOURS[1], "B")):
            requests = [one for run in side for one in run]
            values = np.sort(series(requests, metric))
            axes.step(
                values,
                np.arange(1, values.size + 1) / len(requests) * 100,
                where="post",
                color=hue,
                label=name,
            )
        axes.axhline(95, color=_COLOURS[0], lw=0.6, ls=":")
        axes.set(title=METRICS[metric].title, xscale="log", xlabel="seconds (log)", ylim=(0, 101))
        log_ticks(axes.xaxis)
        axes.legend(frameon=False, loc="lower right")
        clear(axes)
    grid["ttft"].set_ylabel("% of requests")
    shown = [one for one in comparison.changes.values() if one.change is not None]
    axes = grid["change"]
    for place, one in enumerate(reversed(shown)):
        hue = {"lower": "#3d8a60", "higher": "#c1553b"}.get(one.which, _COLOURS[0])
        if one.interval is not None:
            axes.plot(
                [end * 100 for end in one.interval],
                [place] * 2,
                color=hue,
                lw=5,
                alpha=0.45,
                solid_capstyle="butt",
            )
        axes.plot([(one.change or 0.0) * 100], [place], "o", color=hue, ms=6, mec="white")
    axes.set_yticks(range(len(shown)), [_title(one.figure) for one in reversed(shown)])
    axes.axvline(0, color=_INK, lw=0.9)
    axes.set(xlabel="change from A to B, %, with 95 % interval", ylim=(-0.6, len(shown) - 0.4))
    clear(axes)
    figure.suptitle(
        f"{comparison.pairs:,} paired requests, {CLAIM}", x=0.01, ha="left", fontsize=9, color=_INK
    )
    return saved(figure, path)


@as_interrupts()
def main(argv: Sequence[str] | None = None, run: Runner | None = None) -> int:
    """Compare, tell, leave ``compare.json`` and a picture; returns the exit code."""
    given, more = split(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(given)
    try:
        seconds, options = timed(more, _DEFAULT_S)
        _check_order(args.order)
    except ValueError as error:
        print(f"loadtests.compare: {error}", file=sys.stderr)
        return 2
    try:
        comparison, pairs = compare(
            run or locust(args.file),
            args.a,
            args.b,
            args.out,
            args=options,
            seconds=seconds,
            order=args.order,
        )
    except RunError as error:
        print(f"loadtests.compare: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print(f"loadtests.compare: interrupted; the runs so far are in {args.out}", file=sys.stderr)
        return 130
    (args.out / "compare.json").write_text(
        json.dumps(comparison.as_json(), indent=2) + "\n", encoding="utf-8"
    )
    print(json.dumps(comparison.as_json()) if args.json else "\n".join(tell(comparison)))
    try:
        print(f"picture: {draw(comparison, pairs, args.out / 'compare.png')}", file=sys.stderr)
    except (MissingExtra, ConfigError) as error:
        print(f"no picture: {error}", file=sys.stderr)
    return exit_code(comparison)


def _check_order(order: str) -> None:
    if not order or set(order) - {"a", "b"} or order.count("a") != order.count("b"):
        raise ValueError(f"--order {order!r}: letters a and b, each as often, such as abba")


def _is_url(target: str) -> bool:
    return target.startswith(("http://", "https://"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="After --: options of the locust file, the same for both sides. A run is as long as --run-time says, "
        "else as --stages are, else 60 s.",
    )
    add = parser.add_argument
    add(
        "--a", required=True, help="URL of one server, or a command that starts it and prints its url as JSON"
    )
    add("--b", required=True, help="the other one")
    add("--file", default="chat", help="locust file: chat, rag, multiturn, replay, or a path (default: chat)")
    add("--order", default="abba", help="order of the runs (default: abba)")
    add("--out", type=Path, default=Path("loadtest-out/compare"), help="folder for the runs and the result")
    add("--json", action="store_true", help="one JSON object on standard output")
    return parser


if __name__ == "__main__":
    sys.exit(main())
