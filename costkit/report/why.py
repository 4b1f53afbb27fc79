"""One query as the record tells it: the tree of its calls, what each cost, and why no saving answered."""

from __future__ import annotations

import os
import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .charge import Charge, charges
from .meaning import never_repeating
from .read import Record, reading, records, storable
from .reason import why_unsaved

__all__ = ["AttemptTold", "CallTold", "Story", "tell"]

_MOST_CALLS = 2000
_DEEPEST = 50
_MOST_REASONS = 20  # each searches the whole record


@dataclass(frozen=True, slots=True)
class AttemptTold:
    """One call to a model; ``cost`` in nano-dollars (None: unknown), ``charges`` what it is made of where the price
    rows were kept, ``source`` where those come from.
    """

    role: str
    model: str | None
    provider: str | None
    at: float
    latency: float | None
    ttft: float | None
    finish: str | None
    error: str | None
    usage_state: str
    tokens: Mapping[str, int]
    cost: int | None
    price_id: str | None
    source: str | None
    charges: tuple[Charge, ...] = ()


@dataclass(frozen=True, slots=True)
class CallTold:
    """One call of a wrapped function, with the calls inside it; ``reason`` says why no saving answered."""

    id: str
    name: str
    version: str
    scope: str | None
    key: str | None
    at: float
    latency: float
    ttft: float | None
    saved_by: str | None
    role: str
    cost: int
    counterfactual: int | None
    unknown_costs: int
    reserved: int | None
    complete: bool
    error: str | None
    reason: str | None
    attempts: tuple[AttemptTold, ...]
    calls: tuple[CallTold, ...]


@dataclass(frozen=True, slots=True)
class Story:
    """The outermost query, which of its calls was asked for, and how many calls were left out as too many.

    ``warnings`` are of its functions, not of this query alone.
    """

    asked: str
    root: CallTold
    left_out: int = 0
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON: money in nano-dollars, times in Unix seconds, durations in seconds, null means unknown."""
        return {"units": {"money": "nano-dollars", "time": "seconds"}, **asdict(self)}


def tell(folder: str | os.PathLike[str], query_id: str) -> Story:
    """The story of one query: its id, the beginning of it where that is unique, or ``last``.

    Raises:
        ConfigError: no query has this id, or several begin so; the message names near ones.
        FolderError: no kit's folder, or its ledger cannot be read.

    >>> import costkit, tempfile
    >>> kit = costkit.Kit(tempfile.mkdtemp() + "/kit")
    >>> shout = kit.call(costkit.exact(), scope=None)(lambda text: text.upper())
    >>> _ = shout("hi"), shout("hi"), kit.close()
    >>> tell(kit.folder, "last").root.saved_by
    'exact'
    """
    with reading(folder) as con:
        if con is None:
            raise ConfigError(f"{query_id!r:.80}: nothing is recorded in this folder yet")
        found = _find(con, query_id)
        rows = records(
            con,
            "SELECT * FROM queries WHERE root_id = ? OR id = ? ORDER BY at, id LIMIT ?",
            found["root_id"],
            found["root_id"],
            _MOST_CALLS,
        )
        (every,) = con.execute(
            "SELECT COUNT(*) FROM queries WHERE root_id = ?", (found["root_id"],)
        ).fetchone()
        root, told = _grow(con, Path(folder), found, rows)
        warnings = never_repeating(con, {str(row["name"]) for row in rows})
        return Story(found["id"], root, max(0, every - told), warnings)


def _find(con: sqlite3.Connection, query_id: str) -> Record:
    if query_id == "last":
        newest = records(
            con, "SELECT * FROM queries WHERE parent_id IS NULL ORDER BY at DESC, id DESC LIMIT 1"
        )
        if not newest:
            raise ConfigError("last: nothing is recorded in this folder yet")
        return newest[0]
    begins = storable(query_id.strip())
    rows = records(
        con,
        "SELECT * FROM queries WHERE id >= ? AND substr(id, 1, ?) = ? ORDER BY id LIMIT 4",
        begins,
        len(begins),
        begins,
    )
    exact = [row for row in rows if row["id"] == begins]
    if begins and (exact or len(rows) == 1):
        return (exact or rows)[0]
    if begins and rows:
        few = ", ".join(row["id"] for row in rows[:3])
        raise ConfigError(f"{begins!r:.80}: several queries begin so ({few}, ...); give more of the id")
    near = _near(con, begins)
    raise ConfigError(
        f"{begins!r:.80}: no query has this id; "
        + (f"near: {', '.join(near)}; " if near else "nothing is recorded in this folder yet; ")
        + "`costkit why last` shows the newest"
    )


def _near(con: sqlite3.Connection, begins: str) -> list[str]:
    """Ids sort by time, so the neighbours are the queries made at about that time."""
    before = con.execute("SELECT id FROM queries WHERE id < ? ORDER BY id DESC LIMIT 2", (begins,))
    after = con.execute("SELECT id FROM queries WHERE id > ? ORDER BY id LIMIT 2", (begins,))
    return [str(row[0]) for row in [*reversed(before.fetchall()), *after.fetchall()]]


def _grow(con: sqlite3.Connection, folder: Path, found: Record, rows: list[Record]) -> tuple[CallTold, int]:
    """The tree and how many calls are in it. Made without recursion: what a file says may be deep, or a circle."""
    below: dict[str | None, list[Record]] = defaultdict(list)
    ids = {row["id"] for row in rows}
    root = next((row for row in rows if row["id"] == found["root_id"]), found)
    for row in rows:
        if row["id"] != root["id"]:
            # A call whose parent's row was lost hangs below the root rather than nowhere.
            below[row["parent_id"] if row["parent_id"] in ids else root["id"]].append(row)
    order: dict[str, Record] = {}
    waiting = [(root, 0)]
    while waiting:
        row, depth = waiting.pop()
        if row["id"] not in order and depth <= _DEEPEST:
            order[row["id"]] = row
            waiting.extend((inner, depth + 1) for inner in reversed(below[row["id"]]))
    reasoned = {*list(order)[:_MOST_REASONS], found["id"]}
    told: dict[str, CallTold] = {}
    for row in reversed(order.values()):
        reason = why_unsaved(con, folder, row) if row["id"] in reasoned else None
        calls = tuple(told[inner["id"]] for inner in below[row["id"]] if inner["id"] in told)
        told[row["id"]] = _call(con, row, reason, calls)
    return told[root["id"]], len(told)


def _call(con: sqlite3.Connection, row: Record, reason: str | None, calls: tuple[CallTold, ...]) -> CallTold:
    found = records(con, "SELECT * FROM attempts WHERE query_id = ? ORDER BY id LIMIT 1000", row["id"])
    return CallTold(
        row["id"], row["name"], row["version"], row["scope"], row["key"], row["at"], row["latency"], row["ttft"],
        row["saved_by"], row["role"], row["provider_cost"], row["counterfactual_cost"], row["unknown_costs"],
        row["reserved"], bool(row["complete"]), row["error"], reason,
        tuple(_attempt(con, attempt) for attempt in found), calls,
    )  # fmt: skip


_TOKENS = ("in_fresh", "cache_read", "cache_write_5m", "cache_write_1h", "out_text", "out_reasoning")


def _attempt(con: sqlite3.Connection, row: Record) -> AttemptTold:
    tokens = {name: row[name] for name in _TOKENS if row[name]}
    price = records(con, "SELECT source, version, rates FROM prices WHERE price_id = ?", row["price_id"])
    source = _source(price[0]["source"] or "", price[0]["version"] or "") if price else None
    return AttemptTold(
        row["role"], row["model"], row["provider"], row["at"], row["latency"], row["ttft"], row["finish"],
        row["error"], row["usage_state"], tokens, row["cost"], row["price_id"], source,
        charges(tokens, price[0]["rates"] or "") if price else (),
    )  # fmt: skip


def _source(source: str, version: str) -> str:
    return version if version.startswith(source) else f"{source} {version}".rstrip()
