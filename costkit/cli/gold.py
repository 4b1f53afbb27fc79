"""``costkit gold run``: ask a function the gold questions and analyse its failures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import EXIT_BELOW, Commands, check_json, console_for, load_function

if TYPE_CHECKING:
    from ..gold import GoldReport, GoldTest

__all__ = ["add_gold"]


def add_gold(commands: Commands) -> None:
    """The parser of ``gold``."""
    gold = commands.add_parser("gold", help="ask a function the gold questions and analyse its failures")
    run = gold.add_subparsers(title="commands", metavar="COMMAND", required=True).add_parser(
        "run",
        help="ask every question, print the failure analysis",
        description="Calls FUNCTION(question, **arguments) for every gold test and judges the answers.",
        epilog="Exit status: 0 done, 1 fewer right than --min-right, 2 an error of costkit.",
    )
    run.add_argument(
        "function", metavar="MODULE:FUNCTION", help="what to ask, such as my_app.chat:ask; may be async"
    )
    run.add_argument(
        "--gold", required=True, type=Path, metavar="PATH", help="a gold file, or a folder of them"
    )
    run.add_argument(
        "--workers", type=int, default=1, metavar="N", help="questions asked at once (default 1)"
    )
    run.add_argument(
        "--k", type=int, default=3, metavar="K", help="rank down to which recall counts (default 3)"
    )
    run.add_argument("--cached", action="store_true", help="judge what the caches serve, not fresh answers")
    run.add_argument("--json", metavar="FILE", help="write the report as JSON; - for standard output")
    run.add_argument(
        "--min-right", type=_share, metavar="SHARE", help="exit 1 when fewer are right, such as 0.8"
    )
    run.set_defaults(run=_gold_run)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} must be a share between 0 and 1, such as 0.8")
    return value


def _gold_run(args: argparse.Namespace) -> int:
    from ..gold import load_gold

    tests = load_gold(args.gold)
    check_json(args)
    report = _with_progress(tests, load_function(args.function), args)
    to_stdout = args.json == "-"
    if to_stdout:
        print(report.to_json())
    elif args.json:
        Path(args.json).write_text(report.to_json() + "\n", "utf-8")
    console_for(to_stdout).print(report.table())
    if args.min_right is not None and report.share < args.min_right:
        print(f"costkit: {report.share:.1%} right is below --min-right {args.min_right:.1%}", file=sys.stderr)
        return EXIT_BELOW
    return 0


def _with_progress(tests: list[GoldTest], ask: Callable[..., Any], args: argparse.Namespace) -> GoldReport:
    """The run, with a bar on a terminal and silent in a pipe."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from ..gold import run_gold

    console = Console(stderr=True)
    columns = (TextColumn("gold"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("gold", total=len(tests))
        return run_gold(
            tests,
            ask,
            workers=args.workers,
            k=args.k,
            cached=args.cached,
            progress=lambda done, _total: bar.update(task, completed=done),
        )
