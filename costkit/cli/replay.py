"""``costkit replay``: what would caching have saved of this log?"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import ConfigError
from .common import Commands, add_json, check_json, load, show

if TYPE_CHECKING:
    from ..bound import Bound
    from ..replay import Columns
    from ..semantic.pool import Meaning

__all__ = ["add_columns", "add_replay", "columns_of", "progress_bar"]

_SHOWN_EVERY = 0.2  # seconds

_COLUMNS = {
    "question": "what was asked: text, or chat messages (their last one may be asked in other words)",
    "answer": "the model's answer",
    "label": "instead of the answer: rows with equal labels have the same right answer",
    "tenant": "who may share answers; without one everybody does",
    "time": "Unix time or ISO date",
    "cost": "what the call cost, in USD",
    "input-tokens": "with --output-tokens and --model: the cost by the price list",
    "output-tokens": "see --input-tokens",
    "latency": "how long the call took, in seconds",
    "model": "the model; two models never share an answer",
}


def add_replay(commands: Commands) -> None:
    """The parser of ``replay``."""
    parser = commands.add_parser(
        "replay",
        help="what would caching have saved of your own log, at which share of wrong answers",
        description="Streams a log through the exact and the semantic cache. No call is made, nothing is written.",
        epilog="Columns are found by their usual names; dots lead into nested objects (usage.prompt_tokens).",
    )
    parser.add_argument("log", nargs="?", metavar="LOG", help="a .jsonl or .csv file: one call a row")
    parser.add_argument("--ledger", metavar="FOLDER", help="instead: the record of a Kit(store_text=True)")
    parser.add_argument(
        "--name", metavar="FUNCTION", help="with --ledger: which function, as the ledger calls it"
    )
    add_columns(parser)
    parser.add_argument(
        "--max-error",
        type=float,
        action="append",
        metavar="SHARE",
        help="share of wrong answers you accept (repeat it)",
    )
    parser.add_argument(
        "--per", choices=("hit", "request"), help="of the answers served (default), or of all calls"
    )
    parser.add_argument("--judge", metavar="MODULE:NAME", help="what a wrong answer is (default same_answer)")
    parser.add_argument(
        "--encoder", metavar="NAME", help="minilm (default), wordllama (faster, coarser), or a folder"
    )
    parser.add_argument("--ttl", metavar="TIME", help="how long a stored answer is served, such as 1d")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the coins that choose audits")
    parser.add_argument("--plot", metavar="FILE", help="draw precision against hit rate (.png, .svg or .pdf)")
    add_json(parser)
    parser.set_defaults(run=_replay)


def add_columns(parser: argparse.ArgumentParser) -> None:
    """One option for each thing a column may mean."""
    group = parser.add_argument_group("columns of the log")
    for name, text in _COLUMNS.items():
        group.add_argument(f"--{name}", default="", metavar="COLUMN", help=text)
    group.add_argument(
        "--same",
        action="append",
        default=[],
        metavar="COLUMN",
        help="must be identical to share an answer (repeat it)",
    )
    group.add_argument(
        "--provider", metavar="NAME", help="the provider that the price list knows the models under"
    )


def columns_of(args: argparse.Namespace) -> Columns:
    """The columns that were named."""
    from ..replay import Columns

    named = {name.replace("-", "_"): getattr(args, name.replace("-", "_")) for name in _COLUMNS}
    return Columns(**named, same=tuple(args.same), provider=args.provider)


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each part of the work on a terminal, nothing in a pipe."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks: dict[str, TaskID] = {}
        later: dict[str, float] = {}

        def told(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what], later[what] = bar.add_task(what, total=total), 0.0
            if done == total or time.monotonic() >= later[what]:
                later[what] = time.monotonic() + _SHOWN_EVERY
                bar.update(tasks[what], completed=done, total=total)

        yield told


def _replay(args: argparse.Namespace) -> int:
    from ..exact import seconds
    from ..replay import plot, read_ledger, read_log, replay, to_table
    from ..replay.plot import check_plot

    check_json(args)
    if (args.log is None) == (args.ledger is None):
        raise ConfigError("replay: name a LOG (.jsonl or .csv), or --ledger FOLDER, one of the two")
    if args.name and not args.ledger:
        raise ConfigError("--name: only the ledger has functions; say --ledger FOLDER too")
    if args.plot:
        check_plot(args.plot)
    bounds, meaning = _bounds(args), _meaning(args)
    ttl = None if args.ttl is None else seconds(args.ttl, "--ttl")
    columns = columns_of(args)
    log = read_ledger(args.ledger, columns, args.name) if args.ledger else read_log(args.log, columns)
    with progress_bar() as progress:
        told = replay(
            log, meaning, bounds, ttl=ttl, seed=args.seed, curves=bool(args.plot), progress=progress
        )
    show(args, told.to_dict, lambda: to_table(told))
    if args.plot:
        drawn = plot(told, args.plot)
        if args.json != "-":
            print(f"Drawn: {drawn}")
    return 0


def _bounds(args: argparse.Namespace) -> tuple[Bound, ...]:
    from ..bound import bound_of
    from ..replay import BOUNDS

    if not args.max_error:
        return tuple(bound for bound in BOUNDS if args.per in (None, bound.per))
    return tuple(bound_of(share, args.per, None, None, where="--max-error") for share in args.max_error)


def _meaning(args: argparse.Namespace) -> Meaning:
    from ..bound import Bound
    from ..embed import encoder_of
    from ..judges import judged, same_answer
    from ..semantic.pool import Meaning
    from ..semantic.settings import semantic

    judge = same_answer if args.judge is None else judged(load(args.judge))
    settings = semantic("question", encoder=args.encoder)
    return Meaning(settings, Bound(0.02), judge, encoder_of(args.encoder))
