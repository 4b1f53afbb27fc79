"""The command line: ``costkit gold run my_app:ask --gold gold/``.

Each command is one function below that adds its parser and says what to run; COMMANDS lists them.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ConfigError, CostkitError

if TYPE_CHECKING:
    from .gold import GoldReport, GoldTest

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = ["main"]

EXIT_BELOW = 1
EXIT_ERROR = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 0, 1 where an asked-for bar was missed, 2 for an error of costkit."""
    parser = argparse.ArgumentParser(
        prog="costkit",
        description="Cuts the cost and the p95 of LLM calls, and shows that quality did not pay for it.",
    )
    parser.add_argument("--version", action="store_true", help="print the version and leave")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for add in COMMANDS:
        add(commands)
    args = parser.parse_args(argv)
    if args.version:
        from . import __version__

        print(__version__)
        return 0
    if not hasattr(args, "run"):
        parser.print_help()
        return EXIT_ERROR
    try:
        return int(args.run(args))
    except CostkitError as error:
        print(f"costkit: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("costkit: stopped", file=sys.stderr)
        return 130


def _gold(commands: Commands) -> None:
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


COMMANDS: tuple[Callable[[Commands], None], ...] = (_gold,)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} must be a share between 0 and 1, such as 0.8")
    return value


def _gold_run(args: argparse.Namespace) -> int:
    from rich.console import Console

    from .gold import load_gold

    tests = load_gold(args.gold)
    if args.json and args.json != "-" and not Path(args.json).absolute().parent.is_dir():
        raise ConfigError(f"--json {args.json}: the folder does not exist; make it first")
    report = _with_progress(tests, load_function(args.function), args)
    to_stdout = args.json == "-"
    if to_stdout:
        print(report.to_json())
    elif args.json:
        Path(args.json).write_text(report.to_json() + "\n", "utf-8")
    console = Console(stderr=to_stdout)
    # A pipe has no width of its own, and 80 columns would break the table's sentences.
    console = console if console.is_terminal else Console(stderr=to_stdout, width=120)
    console.print(report.table())
    if args.min_right is not None and report.share < args.min_right:
        print(f"costkit: {report.share:.1%} right is below --min-right {args.min_right:.1%}", file=sys.stderr)
        return EXIT_BELOW
    return 0


def _with_progress(tests: list[GoldTest], ask: Callable[..., Any], args: argparse.Namespace) -> GoldReport:
    """The run, with a bar on a terminal and silent in a pipe."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from .gold import run_gold

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


def load_function(name: str) -> Callable[..., Any]:
    """The callable that ``MODULE:FUNCTION`` names, with the current folder on the path as for ``python -m``.

    Raises ConfigError saying which part is wrong.
    """
    module, colon, path = name.partition(":")
    if not (module and colon and path):
        raise ConfigError(f"{name!r}: write MODULE:FUNCTION, such as my_app.chat:ask")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:
        raise ConfigError(f"{name}: cannot import {module!r}: {type(error).__name__}: {error}") from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"{name}: {module!r} has no {part!r}; look at the spelling after the colon")
        found = getattr(found, part)
    if not callable(found):
        raise ConfigError(f"{name}: is {type(found).__name__}, which cannot be called; name a function")
    called: Callable[..., Any] = found
    return called


if __name__ == "__main__":
    sys.exit(main())
