"""Why no saving answered a call, as far as the record and the cache tell."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

from ..errors import FolderError
from ..usage import COMPLETE
from .meaning import why_not_by_meaning
from .read import Record, clean, connect_to_read, records, seconds_text, when

__all__ = ["REFUSED", "why_unsaved"]

_NEAREST = 5
REFUSED = ("BudgetExceeded", "BudgetUnavailable")


def why_unsaved(con: sqlite3.Connection, folder: Path, row: Record) -> str | None:
    """One sentence for a call that ran; None for one that a saving answered."""
    if row["saved_by"] is not None:
        return None
    if row["error"] in REFUSED:
        return "it was refused before anything was spent; `costkit report` shows the budgets"
    if row["role"] == "reference":
        return "it was made inside costkit.reference(), where savings are off"
    if row["role"] == "refresh":
        return "it refreshed a stale answer that had been served meanwhile"
    if row["key"] is None:
        return "no saving is set on this function: put costkit.exact(ttl=...) into its kit.call(...)"
    # The whole record is searched by key: it has no index of its own, and this is asked seldom.
    same = records(
        con,
        "SELECT * FROM queries WHERE key = ? AND at < ? AND saved_by IS NULL AND id <> ?"
        " ORDER BY at DESC, id DESC LIMIT 1",
        row["key"],
        row["at"],
        row["id"],
    )
    reason = _repeated(con, folder, row, same[0]) if same else _first(con, row)
    meaning = why_not_by_meaning(con, row)
    return reason if meaning is None else f"{reason}; {meaning}"


def _repeated(con: sqlite3.Connection, folder: Path, row: Record, same: Record) -> str:
    before = f"the identical call of {when(same['at'])} ({same['id'][:16]})"
    if not same["complete"]:
        return f"{before} was left or cancelled, so it left no answer to serve"
    if same["error"] is not None:
        return f"{before} raised {clean(same['error'], 60)}, and errors are not served as answers"
    if same["role"] == "reference":
        return f"{before} was a reference call, which stores nothing"
    if same["at"] + same["latency"] > row["at"]:
        return (
            f"{before} was still under way, and its answer could not be shared or came from another process"
        )
    cut = _cut(con, same["id"])
    if cut is not None:
        return f"{before} ended with {clean(repr(cut), 40)}, and only whole answers are stored"
    age = row["at"] - same["at"]
    ttl = _ttl(folder, row["key"])
    if ttl is not None and age >= ttl:
        return f"{before} had expired: it was {seconds_text(age)} old, its ttl is {seconds_text(ttl)}"
    within = f", within the ttl of {seconds_text(ttl)}" if ttl is not None else ""
    return (
        f"{before} answered {seconds_text(age)} before{within}, and its answer was gone: expired, its epoch bumped, "
        "forgotten, evicted for room, or not admitted"
    )


def _cut(con: sqlite3.Connection, query_id: str) -> str | None:
    """How the last attempt below a call ended, where that is no whole answer."""
    found = con.execute(
        "WITH RECURSIVE below(id) AS (SELECT ? UNION SELECT q.id FROM queries q JOIN below ON q.parent_id = below.id"
        " WHERE q.root_id = (SELECT root_id FROM queries WHERE id = ?))"
        " SELECT finish FROM attempts WHERE query_id IN (SELECT id FROM below) AND finish IS NOT NULL"
        " ORDER BY id DESC LIMIT 1",
        (query_id, query_id),
    ).fetchone()
    return None if found is None or str(found[0]).lower() in COMPLETE else str(found[0])


def _ttl(folder: Path, key: str) -> float | None:
    """The ttl of the answer now stored under a key, from the cache itself; nothing is written or unsealed."""
    path = folder.expanduser() / "cache" / "cache.db"
    with (
        contextlib.suppress(sqlite3.Error, FolderError, OSError, TypeError),
        contextlib.closing(connect_to_read(path)) as con,
    ):
        found = con.execute("SELECT expire_time - store_time FROM Cache WHERE key = ?", (key,)).fetchone()
        return None if found is None or found[0] is None else float(found[0])
    return None


def _first(con: sqlite3.Connection, row: Record) -> str:
    """No identical call came before: say how the nearest earlier calls of the function differ."""
    nearest = records(
        con,
        "SELECT * FROM queries WHERE name = ? AND at < ? AND id <> ? AND key IS NOT NULL"
        " ORDER BY at DESC, id DESC LIMIT ?",
        row["name"],
        row["at"],
        row["id"],
        _NEAREST,
    )
    if not nearest:
        return "it is the first call of this function on record"
    for one in nearest:
        if _alike(one, row) and one["request"] is not None and one["request"] == row["request"]:
            return _only_around(one, row)
    near = nearest[0]
    before = f"no identical call came before; the one before it ({near['id'][:16]}, {when(near['at'])}) has "
    differs = []
    if near["version"] != row["version"]:
        differs.append("another version (the function's source or its version= changed)")
    if near["scope"] != row["scope"]:
        differs.append("another scope (scopes share nothing)")
    names = _arguments(near["request"], row["request"])
    if names:
        differs.append(f"other arguments: {', '.join(clean(name, 40) for name in names)}")
    elif not differs:
        differs.append(
            "the same version and scope, so an argument differs (Kit(store_text=True) would tell which)"
        )
    return before + ", ".join(differs)


def _alike(one: Record, row: Record) -> bool:
    return bool((one["version"], one["scope"]) != (row["version"], row["scope"]))


def _only_around(one: Record, row: Record) -> str:
    what = [
        text
        for name, text in (
            ("version", "under another version (the function's source or its version= changed since)"),
            ("scope", "in another scope (scopes share nothing)"),
        )
        if one[name] != row[name]
    ]
    return f"the same arguments were asked {when(one['at'])} ({one['id'][:16]}) {' and '.join(what)}"


def _arguments(one: str | None, other: str | None) -> list[str]:
    """Names of arguments whose stored text differs, at most eight."""
    told: list[Any] = []
    for text in (one, other):
        try:
            told.append(json.loads(text or ""))
        except (ValueError, RecursionError):
            return []
    before, now = told
    if not isinstance(before, dict) or not isinstance(now, dict):
        return []
    return [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)][:8]
