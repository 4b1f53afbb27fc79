"""``costkit forget``: erase one scope's answers, and on request what the ledger knows of it."""

from __future__ import annotations

import argparse
import contextlib
import sqlite3
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError, FolderError
from .common import Commands, add_folder
from .report import add_scope

__all__ = ["add_forget"]

Scope = Mapping[str, Any] | None


def add_forget(commands: Commands) -> None:
    """The parser of ``forget``."""
    parser = commands.add_parser(
        "forget",
        help="delete the cached answers of one scope",
        description="Deletes every cached answer of exactly this scope. A number is taken as text and as a number; "
        "say --scope '{\"user\": 7}' for one of them.",
    )
    add_scope(parser, "the whole scope, name=value (repeat it), as JSON, or - for scope=None", required=True)
    parser.add_argument("--yes", action="store_true", help="do not ask; needed where nobody can answer")
    parser.add_argument(
        "--ledger",
        action="store_true",
        help="also blank its stored texts in the ledger and replace its readable label by a digest",
    )
    add_folder(parser)
    parser.set_defaults(run=_forget)


def _forget(args: argparse.Namespace) -> int:
    from ..report.read import clean, require_folder
    from ..report.scopes import candidates, parse

    folder = require_folder(args.folder)
    scope = parse(args.scope)
    given_as_json = args.scope[0].lstrip().startswith("{")
    forms: list[Scope] = [scope] if scope is None or given_as_json else list(candidates(scope))
    name = clean(_said(scope))
    _check_secret(folder)
    wider = [] if scope is None else _wider(folder, scope)
    if not args.yes:
        _ask(f"Delete every cached answer of {name}{' and its traces in the ledger' if args.ledger else ''}")
    gone = _delete(folder, forms)
    print(
        f"{gone:,} cached answer{'s' if gone != 1 else ''} of {name} deleted; one being made now is not served."
    )
    if args.ledger:
        rows = _blank(folder, forms)
        print(
            f"{rows:,} ledger rows: stored texts blanked, readable label replaced by its digest, also in budgets."
        )
    for label in wider[:5]:
        print(f"Not touched: the wider scope {clean(label, 100)}; name all of it to forget it.")
    print(_remains(args.ledger))
    if not gone and not args.ledger:
        print(
            "Next: if you expected some, your program may pass an enum or a date: call kit.forget(...) there."
        )
    else:
        print("Next: `costkit doctor` checks the folder.")
    return 0


def _said(scope: Scope) -> str:
    return "scope=None" if scope is None else " ".join(f"{name}={value}" for name, value in scope.items())


def _check_secret(folder: Path) -> None:
    """Without its secret a sealed folder's epochs would be written unsealed: everybody's answers would be lost."""
    from .. import secret
    from ..report.read import connect_to_read

    path = folder / "cache" / "cache.db"
    if secret.find(None, None, folder) is not None or not path.exists():
        return
    with contextlib.suppress(sqlite3.Error), contextlib.closing(connect_to_read(path)) as con:
        sealed = con.execute("SELECT 1 FROM Cache WHERE substr(value, 1, 1) = x'02' LIMIT 1").fetchone()
        if sealed:
            raise ConfigError(
                "forget: the answers here are sealed with a secret that this environment lacks; set COSTKIT_SECRET or "
                "COSTKIT_SECRET_FILE as your program has it"
            )


def _wider(folder: Path, scope: Mapping[str, Any]) -> list[str]:
    """Labels in the ledger that hold this scope and more names."""
    from ..report.read import reading
    from ..report.scopes import candidates, label, labels_of, scope_id

    with reading(folder) as con:
        if con is None:
            return []
        known = [row[0] for row in con.execute("SELECT DISTINCT scope FROM queries")]
    own = {text for form in candidates(scope) for text in (label(form), scope_id(form))}
    return [text for text in labels_of(scope, known) if text not in own]


def _ask(question: str) -> None:
    if not sys.stdin.isatty():
        raise ConfigError("forget: nobody can be asked here; say --yes")
    print(f"{question}? [y/N] ", end="", flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ConfigError("forget: not confirmed, nothing was deleted")


def _delete(folder: Path, forms: list[Scope]) -> int:
    from ..kit import Kit

    with Kit(folder) as kit:
        return sum(kit.forget(**(form or {})) for form in forms)


def _blank(folder: Path, forms: list[Scope]) -> int:
    """Blank the texts of the scope's queries and of the calls inside them, and its label everywhere."""
    from ..ledger import connect
    from ..report.scopes import label, scope_id

    path = folder / "ledger.db"
    if not path.exists():
        return 0
    try:
        with contextlib.closing(connect(path)) as con:
            con.execute("PRAGMA secure_delete=ON")
            con.execute("BEGIN IMMEDIATE")
            rows = sum(_blank_one(con, None if f is None else label(f), scope_id(f)) for f in forms)
            con.execute("COMMIT")
            con.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the log holds the old text until then
            return rows
    except sqlite3.Error as exc:
        raise FolderError(
            f"forget --ledger: the ledger cannot be written ({exc}); the answers are deleted, run it again"
        ) from exc


def _blank_one(con: sqlite3.Connection, label: str | None, digest: str) -> int:
    texts = con.execute(
        "UPDATE queries SET request = NULL, response = NULL WHERE root_id IN (SELECT root_id FROM queries"
        " WHERE scope IS ? OR scope = ?)",
        (label, digest),
    )
    if label is None:
        return texts.rowcount
    con.execute("UPDATE queries SET scope = ? WHERE scope = ?", (digest, label))
    con.execute("UPDATE budgets SET label = replace(label, ?, ?)", (label, digest))
    return texts.rowcount


def _remains(ledger: bool) -> str:
    kept = (
        "what calls cost, when, and their scope as a digest"
        if ledger
        else "what calls cost, when, and their scope"
    )
    more = "" if ledger else ", and texts where Kit(store_text=True); --ledger blanks those"
    return f"Not erased: the ledger's rows ({kept}{more}), backups, and disk blocks not overwritten yet."
