"""The figures of a report, straight from SQL: one temporary table of the queries asked for, and sums over it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..usage import COMPLETE
from .read import storable

__all__ = ["AttemptFacts", "Select", "attempts", "pick", "repeats", "rows", "saved_tokens", "values"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Select:
    """Which outermost queries count: from Unix time ``since``, of function ``name``, under ``scopes``' labels.

    None means all; ``nobody`` selects scope=None.
    """

    since: float | None = None
    name: str | None = None
    scopes: tuple[str, ...] | None = None
    nobody: bool = False


# One row per outermost query, its nested calls added up. ``hit``: a saving answered and no model was asked;
# ``part``: a saving answered a nested call, and some model was asked.
_TREES = """
CREATE TEMP TABLE trees AS
WITH below AS (
  SELECT q.root_id, SUM(q.provider_cost) AS paid, SUM(COALESCE(q.counterfactual_cost, q.provider_cost)) AS without,
         SUM(q.overhead_cost) AS overhead, SUM(q.unknown_costs) AS unknown,
         SUM(q.saved_by IS NOT NULL) AS saves
  FROM queries q WHERE q.parent_id IS NOT NULL GROUP BY q.root_id)
SELECT r.id AS root_id, r.name, r.scope, CAST(r.at AS REAL) AS at, CAST(r.latency AS REAL) AS latency,
       CAST(r.ttft AS REAL) AS ttft, r.role, r.saved_by,
       CASE WHEN r.complete = 0 THEN 'incomplete'
            WHEN r.error IN ('BudgetExceeded', 'BudgetUnavailable') THEN 'refused'
            WHEN r.error IS NOT NULL THEN 'failed' ELSE 'good' END AS ended,
       COALESCE(r.error, '') NOT IN ('BudgetExceeded', 'BudgetUnavailable', 'RecentFailure') AS ran,
       r.saved_by IS NOT NULL OR (COALESCE(b.saves, 0) > 0
         AND NOT EXISTS (SELECT 1 FROM attempts a WHERE a.root_id = r.id)) AS hit,
       r.saved_by IS NULL AND COALESCE(b.saves, 0) > 0 AS helped,
       r.provider_cost + COALESCE(b.paid, 0) AS paid,
       COALESCE(r.counterfactual_cost, r.provider_cost) + COALESCE(b.without, 0) AS without,
       r.overhead_cost + COALESCE(b.overhead, 0) AS overhead,
       r.unknown_costs + COALESCE(b.unknown, 0) AS unknown
FROM queries r LEFT JOIN below b ON b.root_id = r.id
WHERE r.parent_id IS NULL"""


def pick(con: sqlite3.Connection, select: Select) -> None:
    """Make the temporary table ``trees`` of the queries that count."""
    con.execute("CREATE TEMP TABLE wanted (scope TEXT PRIMARY KEY)")
    con.executemany("INSERT OR IGNORE INTO wanted VALUES (?)", [(text,) for text in select.scopes or ()])
    where, given = "", list[Any]()
    if select.since is not None:
        where, given = where + " AND r.at >= ?", [*given, select.since]
    if select.name is not None:
        where, given = where + " AND r.name = ?", [*given, storable(select.name)]
    if select.nobody:
        where += " AND r.scope IS NULL"
    elif select.scopes is not None:
        where += " AND r.scope IN (SELECT scope FROM wanted)"
    con.execute(_TREES + where, given)
    con.execute("CREATE UNIQUE INDEX trees_root ON trees (root_id)")


def rows(con: sqlite3.Connection, sql: str, *given: Any) -> list[dict[str, Any]]:
    """The rows of a query as dicts."""
    cursor = con.execute(sql, given)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def values(con: sqlite3.Connection, sql: str, *given: Any) -> Floats:
    """The one numeric column of a query, streamed into an array; NULL is left out."""
    cursor = con.execute(sql, given)
    return np.fromiter((row[0] for row in cursor if row[0] is not None), dtype=float)


@dataclass(frozen=True, slots=True)
class AttemptFacts:
    """Attempts that share a model, how their usage is known, how they ended; tokens and nano-dollars summed."""

    role: str
    model: str | None
    state: str
    priced: bool
    finish: str | None
    stream: bool
    count: int
    cost: int
    tokens_in: int
    tokens_out: int
    cache_read: int


_ATTEMPTS = """
SELECT t.role, a.model, a.usage_state, a.cost IS NOT NULL, a.finish, t.ttft IS NOT NULL, COUNT(*),
       COALESCE(SUM(a.cost), 0),
       COALESCE(SUM(a.in_fresh + a.cache_read + a.cache_write_5m + a.cache_write_1h), 0),
       COALESCE(SUM(a.out_text + a.out_reasoning), 0), COALESCE(SUM(a.cache_read), 0)
FROM attempts a JOIN trees t ON t.root_id = a.root_id
GROUP BY 1, 2, 3, 4, 5, 6"""


def attempts(con: sqlite3.Connection) -> list[AttemptFacts]:
    """Every attempt below the picked queries, added up."""
    return [
        AttemptFacts(role, model, state, bool(priced), finish, bool(stream), *numbers)
        for role, model, state, priced, finish, stream, *numbers in con.execute(_ATTEMPTS)
    ]


_REPEATS = """
SELECT name, COUNT(*) AS calls, SUM(n) AS made, SUM(n - 1) AS again, SUM(keyed) AS keyed, SUM(paid) AS paid
FROM (SELECT q.name, COUNT(*) AS n, MAX(q.key IS NOT NULL) AS keyed,
             SUM(CASE WHEN q.id = q.root_id THEN t.paid ELSE q.provider_cost END) * (COUNT(*) - 1) / COUNT(*) AS paid
      FROM queries q JOIN trees t ON t.root_id = q.root_id
      WHERE t.role = 'call' AND q.saved_by IS NULL AND q.complete = 1 AND q.error IS NULL
        AND (q.key IS NOT NULL OR q.request IS NOT NULL) AND q.root_id NOT IN (SELECT root_id FROM cut)
      GROUP BY q.name, COALESCE(q.key, q.request))
GROUP BY name ORDER BY again DESC, name LIMIT 20"""


def repeats(con: sqlite3.Connection) -> list[dict[str, Any]]:
    """By function: identical calls that ran again (``again`` of ``made``), recognised by key or stored text.

    Answers that were not whole are left out: no setting would have kept them.
    """
    whole = sorted(COMPLETE)
    con.execute(
        "CREATE TEMP TABLE cut AS SELECT DISTINCT a.root_id FROM attempts a JOIN trees t ON t.root_id = a.root_id"
        f" WHERE a.finish IS NOT NULL AND lower(a.finish) NOT IN ({', '.join('?' * len(whole))})",
        whole,
    )
    return rows(con, _REPEATS)


# A hit has no attempts of its own: its tokens are those of the last call that was made under its key.
_TOKENS = (
    "SUM(a.in_fresh + a.cache_read + a.cache_write_5m + a.cache_write_1h + a.out_text + a.out_reasoning)"
)
_MADE = f"""
CREATE TEMP TABLE made AS
SELECT key, tokens FROM (
  SELECT q.key, MAX(q.at), CASE WHEN q.id = q.root_id
    THEN (SELECT {_TOKENS} FROM attempts a WHERE a.root_id = q.id)
    ELSE (WITH RECURSIVE below(id) AS (
            SELECT q.id UNION SELECT c.id FROM queries c JOIN below ON c.parent_id = below.id
            WHERE c.root_id = q.root_id)
          SELECT {_TOKENS} FROM attempts a WHERE a.query_id IN (SELECT id FROM below)) END AS tokens
  FROM queries q
  WHERE q.saved_by IS NULL AND q.error IS NULL AND q.complete = 1 AND q.key IN (SELECT key FROM hits)
  GROUP BY q.key)"""


def saved_tokens(con: sqlite3.Connection) -> tuple[int, int]:
    """Tokens, in and out, that savings stood in for, and how many saved calls' tokens are unknown."""
    con.execute(
        "CREATE TEMP TABLE hits AS SELECT q.key, COUNT(*) AS n FROM queries q JOIN trees t ON t.root_id = q.root_id "
        "WHERE t.role = 'call' AND q.saved_by IS NOT NULL GROUP BY q.key"
    )
    con.execute(_MADE)
    con.execute("CREATE INDEX made_key ON made (key)")
    tokens, unknown = con.execute(
        "SELECT COALESCE(SUM(h.n * m.tokens), 0), COALESCE(SUM(CASE WHEN m.tokens IS NULL THEN h.n END), 0) "
        "FROM hits h LEFT JOIN made m ON m.key = h.key"
    ).fetchone()
    return int(tokens), int(unknown)


def quantiles_by(con: sqlite3.Connection, label: str, where: str) -> Iterator[tuple[Any, Floats]]:
    """Latencies by the SQL expression ``label`` over ``trees``, a group at a time."""
    group: list[float] = []
    current: Any = None
    for name, latency in con.execute(f"SELECT {label}, latency FROM trees WHERE {where} ORDER BY 1"):
        if name != current and group:
            yield current, np.asarray(group)
            group = []
        current = name
        group.append(latency)
    if group:
        yield current, np.asarray(group)


def dates() -> Mapping[str, str]:
    """How each grouping reads in SQL over ``trees``."""
    return {"name": "name", "scope": "scope", "day": "date(at, 'unixepoch')"}
