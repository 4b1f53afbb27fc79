"""Rows of ``evidence`` and ``gates``: what a gate decided, what it turned out to be, and whose gate it is."""

from __future__ import annotations

import json
import sqlite3
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Evidence", "GateRow", "insert", "insert_once", "name_gate", "since", "tags"]


REHEARSED = "rehearsed"
"""The kind of rows that are no call of anybody's."""

FRESH = "fresh"
"""The kind of rows that say whether a judge told two answers to one and the same call apart; no gate folds them."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One row of ``evidence``; see the schema for the meaning of each field. ``id`` is 0 until it is written."""

    gate: str
    query_id: str | None
    at: float
    kind: str
    rung: int | None
    risk: float | None
    features: tuple[float, ...] | None
    chance: float
    generation: int
    scope: str | None = None
    tag: str | None = None
    wrong: bool | None = None
    id: int = 0


@dataclass(frozen=True, slots=True)
class GateRow:
    """One row of ``gates``."""

    id: str
    name: str
    version: str
    saving: str
    bound: Mapping[str, Any]
    about: Mapping[str, Any]
    at: float


_COLUMNS = (
    "gate",
    "query_id",
    "at",
    "kind",
    "rung",
    "risk",
    "features",
    "chance",
    "generation",
    "scope",
    "tag",
    "wrong",
)
_INSERT = f"INSERT INTO evidence ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"


def insert(con: sqlite3.Connection, rows: Iterable[Evidence]) -> None:
    """Append the rows."""
    con.executemany(
        _INSERT,
        [
            (
                row.gate, row.query_id, row.at, row.kind, row.rung, row.risk,
                None if row.features is None else struct.pack(f"<{len(row.features)}d", *row.features),
                row.chance, row.generation, row.scope, row.tag, None if row.wrong is None else int(row.wrong),
            )
            for row in rows
        ],
    )  # fmt: skip


def insert_once(con: sqlite3.Connection, rows: Iterable[Evidence]) -> int:
    """Append the rows but those whose tag their gate has; returns how many."""
    known: dict[str, set[str]] = {}
    fresh = []
    for row in rows:
        seen = known[row.gate] if row.gate in known else known.setdefault(row.gate, tags(con, row.gate))
        if row.tag is None or row.tag not in seen:
            fresh.append(row)
            seen |= set() if row.tag is None else {row.tag}
    insert(con, fresh)
    return len(fresh)


def tags(con: sqlite3.Connection, gate: str) -> set[str]:
    """The tags of the rows that came from a log or gold tests."""
    rows = con.execute("SELECT tag FROM evidence WHERE gate = ? AND kind IN (?, ?)", (gate, REHEARSED, FRESH))
    return {str(row[0]) for row in rows}


def since(con: sqlite3.Connection, gate: str, last: int) -> Iterator[Evidence]:
    """The gate's rows after the one with the id ``last``, in order; a row that cannot be read is left out."""
    rows = con.execute(
        f"SELECT id, {', '.join(_COLUMNS)} FROM evidence WHERE gate = ? AND id > ? ORDER BY id", (gate, last)
    )
    for id, *fields in rows:
        row = dict(zip(_COLUMNS, fields, strict=True))
        packed, wrong = row.pop("features"), row.pop("wrong")
        try:
            features = None if packed is None else struct.unpack(f"<{len(packed) // 8}d", packed)
            yield Evidence(**row, features=features, wrong=None if wrong is None else bool(wrong), id=id)
        except (TypeError, ValueError, struct.error):
            continue


def name_gate(con: sqlite3.Connection, row: GateRow) -> None:
    """Say whose gate it is, once."""
    bound, about = (json.dumps(dict(part), sort_keys=True) for part in (row.bound, row.about))
    con.execute(
        "INSERT OR IGNORE INTO gates (id, name, version, saving, bound, about, at) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (row.id, row.name, row.version, row.saving, bound, about, row.at),
    )
