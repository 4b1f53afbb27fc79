"""``costkit report``: what calls cost, how long they took, and what was saved."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from .common import Commands, add_folder, add_json, check_json, moment, show

__all__ = ["add_report", "add_scope", "labels"]

BYS = ("name", "scope", "model", "day")


def add_report(commands: Commands) -> None:
    """The parser of ``report``."""
    parser = commands.add_parser(
        "report",
        help="cost, latency and savings of what is recorded",
        description="Reads the ledger and writes nothing. Every outermost query is in every denominator.",
    )
    parser.add_argument("--since", metavar="WHEN", help="7d, 12h or 2026-11-01 (UTC); default: everything")
    parser.add_argument(
        "--name", metavar="FUNCTION", help="only this outermost function, as the ledger calls it"
    )
    add_scope(parser, "only queries whose scope holds this: name=value (repeat it), or -: scope=None")
    parser.add_argument("--by", choices=BYS, help="one row for each")
    parser.add_argument("--plot", metavar="FILE", help="draw cost and latency a day (.png, .svg or .pdf)")
    add_folder(parser)
    add_json(parser)
    parser.set_defaults(run=_report)


def add_scope(parser: argparse.ArgumentParser, text: str, required: bool = False) -> None:
    """``--scope``, repeatable."""
    parser.add_argument(
        "--scope", action="append", default=[], required=required, metavar="NAME=VALUE", help=text
    )


def _report(args: argparse.Namespace) -> int:
    from ..report import Select, daily, make_report, plot, to_table
    from ..report.scopes import parse

    check_json(args)
    scope = parse(args.scope) if args.scope else {}
    select = Select(
        since=None if args.since is None else moment(args.since),
        name=args.name,
        scopes=labels(args.folder, scope) if scope else None,
        nobody=scope is None,
    )
    report = make_report(args.folder, select, by=args.by)
    if not report.counts.queries and not report.money.attempts and args.name is not None:
        _check_name(args.folder, args.name)
    drawn = plot(daily(args.folder, select), args.plot) if args.plot else None
    show(args, report.to_dict, lambda: to_table(report))
    if drawn is not None and args.json != "-":
        print(f"Drawn: {drawn}")
    return 0


def labels(folder: str, scope: Mapping[str, Any]) -> tuple[str, ...]:
    """The ledger's labels that hold every pair of ``scope``; raises ConfigError where none does."""
    from ..report.read import reading
    from ..report.scopes import labels_of

    with reading(folder) as con:
        if con is None:
            return ()
        known = [row[0] for row in con.execute("SELECT DISTINCT scope FROM queries")]
    found = labels_of(scope, known)
    if not found:
        near = ", ".join(sorted(text for text in known if text is not None)[:3])
        raise ConfigError(
            f"--scope: no query has {' '.join(f'{k}={v}' for k, v in scope.items())}; "
            + (f"scopes here are like {near}" if near else "every query here has scope=None: say --scope -")
        )
    return tuple(found)


def _check_name(folder: str, name: str) -> None:
    """Say which names there are where the one asked for has no outermost query at all."""
    from ..report.read import reading

    with reading(folder) as con:
        if con is None:
            return
        names = {
            str(row[0]) for row in con.execute("SELECT DISTINCT name FROM queries WHERE parent_id IS NULL")
        }
    if name in names or not names:
        return
    from difflib import get_close_matches

    short = [full for full in sorted(names) if full.rpartition(".")[2] == name]
    near = short or get_close_matches(name, sorted(names), n=3, cutoff=0.3) or sorted(names)[:3]
    raise ConfigError(f"--name {name}: no outermost call has this name; near: {', '.join(near)}")
