"""``costkit gate``: where the gates of lossy savings stand."""

from __future__ import annotations

import argparse

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
    add_folder(parser)
    add_json(parser)
    parser.set_defaults(run=_gate)


def _gate(args: argparse.Namespace) -> int:
    from ..report.gates import gates, to_text

    check_json(args)
    told = gates(args.folder, args.name)
    show(args, lambda: [gate.to_dict() for gate in told], lambda: to_text(told))
    return 0
