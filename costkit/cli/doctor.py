"""``costkit doctor``: is this folder healthy, and what to mend."""

from __future__ import annotations

import argparse
import contextlib
import sqlite3

from ..errors import FolderError
from .common import EXIT_BELOW, Commands, add_folder, add_json, check_json, show

__all__ = ["add_doctor"]


def add_doctor(commands: Commands) -> None:
    """The parser of ``doctor``."""
    parser = commands.add_parser(
        "doctor",
        help="is the folder healthy: files, seal, ledger, cache, disk, clock, versions",
        description="Looks only; each line is ok, warn or bad with its mend.",
        epilog="Exit status: 0 nothing bad, 1 something is bad, 2 an error of costkit.",
    )
    parser.add_argument(
        "--accept-loss",
        action="store_true",
        help="after a damaged ledger: let budgets count from now on, what was spent before it stays unknown",
    )
    parser.add_argument(
        "--make-secret", metavar="FILE", help="write a new secret to a private file, and leave"
    )
    add_folder(parser)
    add_json(parser)
    parser.set_defaults(run=_doctor)


def _doctor(args: argparse.Namespace) -> int:
    from ..report import examine

    check_json(args)
    if args.make_secret:
        return _make_secret(args.make_secret)
    if args.accept_loss:
        _accept_loss(args.folder)
    health = examine(args.folder)
    show(args, health.to_dict, health.table)
    return EXIT_BELOW if health.bad else 0


def _make_secret(path: str) -> int:
    from ..secret import make

    print(f"Made {make(path)} (0600). Next: set COSTKIT_SECRET_FILE to it where your programs run.")
    return 0


def _accept_loss(folder: str) -> None:
    from ..ledger import connect
    from ..report.read import reading, require_folder

    path = require_folder(folder) / "ledger.db"
    with reading(folder) as con:  # refuses what is not a ledger of ours before anything is written
        found = (
            None
            if con is None
            else con.execute("SELECT value FROM meta WHERE name = 'damaged_at'").fetchone()
        )
    if found is None:
        raise FolderError("--accept-loss: this ledger has lost nothing; nothing was changed")
    with contextlib.closing(connect(path)) as con:
        try:
            con.execute("DELETE FROM meta WHERE name = 'damaged_at'")
        except sqlite3.Error as exc:
            raise FolderError(
                f"--accept-loss: the ledger cannot be written ({exc}); nothing was changed"
            ) from exc
