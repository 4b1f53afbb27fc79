"""``costkit gate``: where the gates of lossy savings stand."""

from __future__ import annotations

import argparse

from ..errors import ConfigError
from .common import Commands, add_folder, add_json, check_json, show

__all__ = ["add_gate"]


def add_gate(commands: Commands) -> None:
    """The parser of ``gate``."""
    parser = commands.add_parser(
        "gate",
        help="the error bound beside each lossy saving: evidence, certificate, alarm",
        description="Folds the evidence of every gate in the ledger and writes nothing.",
    )
    parser.add_argument("--name", metavar="FUNCTION", help="only this function, as the ledger calls it")
    parser.add_argument(
        "--plot", metavar="FILE", help="draw bound, risk and served share over time (.png, .svg or .pdf)"
    )
    add_folder(parser)
    add_json(parser)
    parser.set_defaults(run=_gate)


def _gate(args: argparse.Namespace) -> int:
    from ..report.gates import gates
    from ..report.gates_course import courses
    from ..report.gates_plot import draw_gates
    from ..report.gates_text import to_text

    check_json(args)
    told = gates(args.folder, args.name)
    if args.name is not None and not told:
        _check_name(args.folder, args.name)
    drawn = draw_gates(courses(args.folder, args.name), args.plot) if args.plot else None
    show(args, lambda: [gate.to_dict() for gate in told], lambda: to_text(told))
    if drawn is not None and args.json != "-":
        print(f"Drawn: {drawn}")
    return 0


def _check_name(folder: str, name: str) -> None:
    """Say which functions have a gate, where the one asked for has none."""
    from ..report.gates import gates

    known = sorted({gate.name for gate in gates(folder)})
    if known:
        raise ConfigError(f"--name {name}: this function has no gate; these have one: {', '.join(known[:5])}")
