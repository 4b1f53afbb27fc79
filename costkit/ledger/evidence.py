"""Rows of ``evidence`` and ``gates``: what a gate decided, what it turned out to be, and whose gate it is."""

from __future__ import annotations

import json
import sqlite3
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Evidence",
    "GateRow",
    "GateState",
    "insert",
    "insert_once",
    "keep_state",
    "kept_state",
    "name_gate",
    "since",
    "tags",
]


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
    pair: str | None = None
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


@dataclass(frozen=True, slots=True)
class GateState:
    """One row of ``gate_states``."""

    gate: str
    upto: int
    about: str
    body: bytes


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
    "pair",
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
                row.pair,
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
    for id, of, query_id, at, kind, rung, risk, packed, chance, generation, scope, tag, wrong, pair in rows:
        try:
            features = None if packed is None else struct.unpack(f"<{len(packed) // 8}d", packed)
            told = None if wrong is None else bool(wrong)
            row = Evidence(
                of, query_id, at, kind, rung, risk, features, chance, generation, scope, tag, told, pair, id
            )
        except (TypeError, ValueError, struct.error):
            continue
        yield row


def keep_state(con: sqlite3.Connection, state: GateState) -> None:
    """Keep a state, unless one that has come further is kept."""
    con.execute(
        "INSERT INTO gate_states (gate, upto, about, body) VALUES (?, ?, ?, ?) ON CONFLICT (gate) DO UPDATE SET "
        "upto = excluded.upto, about = excluded.about, body = excluded.body "
        "WHERE excluded.upto > upto OR excluded.about <> about",
        (state.gate, state.upto, state.about, state.body),
    )


def kept_state(con: sqlite3.Connection, gate: str, about: str) -> GateState | None:
    """The state kept for this gate by the same code, where the row that it goes up to is there."""
    found = con.execute(
        "SELECT upto, body FROM gate_states s WHERE gate = ? AND about = ? "
        "AND EXISTS (SELECT 1 FROM evidence e WHERE e.id = s.upto AND e.gate = s.gate)",
        (gate, about),
    ).fetchone()
    if found is None or type(found[0]) is not int or type(found[1]) is not bytes:
        return None
    return GateState(gate, found[0], about, found[1])


def name_gate(con: sqlite3.Connection, row: GateRow) -> None:
    """Say whose gate it is, once."""
    bound, about = (json.dumps(dict(part), sort_keys=True) for part in (row.bound, row.about))
    con.execute(
        "INSERT OR IGNORE INTO gates (id, name, version, saving, bound, about, at) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (row.id, row.name, row.version, row.saving, bound, about, row.at),
    )
