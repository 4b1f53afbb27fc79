"""``costkit certify``: open a gate before the first call, from a log or gold tests."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .common import EXIT_BELOW, Commands, add_json, check_json, load, show
from .replay import progress_bar

if TYPE_CHECKING:
    from ..certify import Certification, Certified
    from ..plan import Plan

__all__ = ["add_certify"]


def add_certify(commands: Commands) -> None:
    """The parser of ``certify``."""
    parser = commands.add_parser(
        "certify",
        help="open the gate of a wrapped function before its first call, from a log or gold tests",
        description="Rehearses the rows for the function's own settings and gives the gate what comes of it as "
        "evidence. Nothing is called. A row counts once, however often it is given.",
        epilog="Exit status: 0 the gate may serve now, 1 it waits for more, 2 an error of costkit.",
    )
    parser.add_argument(
        "function", metavar="MODULE:FUNCTION", help="what @kit.call(...) wraps, such as my_app.chat:ask"
    )
    parser.add_argument(
        "rows",
        type=Path,
        metavar="LOG",
        help="a .jsonl or .csv log, or gold tests (.toml, or a folder of them)",
    )
    group = parser.add_argument_group("columns of a log; columns called like an argument are that argument")
    group.add_argument(
        "--answer", default="answer", metavar="COLUMN", help="what the function returned (default answer)"
    )
    group.add_argument("--time", metavar="COLUMN", help="when: Unix time or ISO date")
    group.add_argument(
        "--argument",
        action="append",
        default=[],
        metavar="NAME=COLUMN",
        help="a column of another name (repeat it)",
    )
    parser.add_argument(
        "--seed-answers",
        action="store_true",
        help="store the answers too: they are served from the first call on",
    )
    add_json(parser)
    parser.set_defaults(run=_certify)


def _certify(args: argparse.Namespace) -> int:
    from ..certify import plan_of

    check_json(args)
    renamed = _renamed(args.argument)
    ask = load(args.function)
    plan, _ = plan_of(ask, "certify")
    rows = (
        _gold(args.rows) if args.rows.is_dir() or args.rows.suffix == ".toml" else _log(args, plan, renamed)
    )
    with progress_bar() as progress:
        done = ask._owner.certify(ask, rows, seed_answers=args.seed_answers, progress=progress)
    show(args, lambda: _data(done), lambda: _table(done))
    return 0 if done.open else EXIT_BELOW


def _renamed(given: list[str]) -> dict[str, str]:
    found = {}
    for text in given:
        name, equals, column = text.partition("=")
        if not (name and equals and column):
            raise ConfigError(f"--argument {text}: write NAME=COLUMN, such as question=prompt")
        found[name] = column
    return found


def _gold(path: Path) -> list[Any]:
    from ..gold import load_gold

    return list(load_gold(path))


def _log(args: argparse.Namespace, plan: Plan, renamed: dict[str, str]) -> Iterator[Any]:
    """The rows of a log as arguments and answer; what is no row stays one, to be counted."""
    from ..replay.columns import at, time_of
    from ..replay.log import entries

    for name in renamed:
        if name not in plan.names:
            raise ConfigError(
                f"--argument {name}=...: {plan.name} has no such argument; it has {', '.join(sorted(plan.names))}"
            )

    # A key tells 5 from "5", and a CSV holds nothing but text.
    kinds = _kinds(plan) if args.rows.suffix.lower() in (".csv", ".tsv") else {}

    def read() -> Iterator[Any]:
        for _, row in entries(args.rows):
            if row is None:
                yield "broken line"
                continue
            columns = {name: renamed.get(name, name) for name in plan.names}
            given = {
                name: value for name, column in columns.items() if (value := at(row, column)) is not None
            }
            try:
                given = {
                    name: kinds[name](value) if name in kinds else value
                    for name, value in given.items()
                    if value != "" or name not in kinds
                }
            except ValueError:
                yield "an argument is text where the function takes a number or true or false"
                continue
            when = time_of(at(row, args.time)) if args.time else None
            yield {**given, "answer": at(row, args.answer), **({} if when is None else {"at": when})}

    return read()


def _kinds(plan: Plan) -> dict[str, Callable[[str], Any]]:
    """How a CSV's text becomes each argument that is a number or true or false: by its annotation, else its default."""
    kinds: dict[str, Callable[[str], Any]] = {"bool": _truth, "int": int, "float": float}
    found: dict[str, Callable[[str], Any]] = {}
    for name, parameter in plan.signature.parameters.items():
        said = parameter.annotation
        if said is parameter.empty:
            said = type(parameter.default)
        words = set(re.findall(r"\w+", said.__name__ if isinstance(said, type) else str(said)))
        known = [kind for kind in kinds if kind in words]
        if known and words <= {*kinds, "None", "Optional", "Union", "typing"}:
            found[name] = kinds[known[0]]
    return found


def _truth(text: str) -> bool:
    said = text.strip().lower()
    if said not in ("true", "false", "1", "0"):
        raise ValueError(text)
    return said in ("true", "1")


def _data(done: Certification) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(done), "open": done.open}


def _table(done: Certification) -> Any:
    from rich.console import Group
    from rich.text import Text

    from ..report.read import clean

    lines = []
    for gate in done.gates:
        model = f", {clean(gate.model, 60)}" if gate.model else ""
        lines.append(Text(f"{clean(done.name, 80)}{model}: {_state(gate)}", style="bold"))
        lines.append(Text(_counts(gate)))
    if done.left_out:
        why = ", ".join(f"{count:,} x {clean(reason, 80)}" for reason, count in done.left_out.items())
        lines.append(Text(f"Left out: {sum(done.left_out.values()):,} rows ({why})"))
    lines.append(Text(f"Next: {_next(done)}", style="bold"))
    return Group(*lines)


def _state(gate: Certified) -> str:
    from ..report.read import percent

    standing = gate.standing
    if standing.state == "open":
        return f"open; at most {percent(standing.certified)} wrong on this evidence"
    more = f", about {standing.next_labels:,} more labels" if standing.next_labels else ""
    return f"in shadow{more}"


def _counts(gate: Certified) -> str:
    parts = [
        f"{gate.rows:,} rows",
        f"{gate.candidates:,} with a stored answer that may mean the same, {gate.wrong:,} of them wrong",
        f"{gate.repeats:,} identical calls",
    ]
    parts += [f"{gate.known:,} counted before"] if gate.known else []
    parts += [f"{gate.stored:,} answers stored"] if gate.stored else []
    return ", ".join(parts)


def _next(done: Certification) -> str:
    if done.open:
        return "call the function; costkit gate shows its bound beside its saving"
    if any(gate.standing.next_labels for gate in done.gates):
        return (
            "certify with more rows, or go on: calls in shadow are labelled too, and the gate opens by itself"
        )
    return "costkit replay LOG says at which bound and with which judge something would be saved"
