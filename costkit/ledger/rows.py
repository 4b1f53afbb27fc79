"""Rows of ``queries``, ``attempts`` and ``prices``, and how they go in."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from costkit.call import Attempt, Usage


@dataclass(frozen=True, slots=True)
class Query:
    """One row of ``queries``; see the schema for the meaning of each field."""

    id: str
    parent_id: str | None
    root_id: str
    name: str
    version: str
    scope: str | None
    key: str | None
    at: float
    latency: float
    ttft: float | None
    saved_by: str | None
    role: str
    provider_cost: int
    counterfactual_cost: int | None
    overhead_cost: int = 0
    unknown_costs: int = 0
    complete: bool = True
    error: str | None = None
    request: str | None = None
    response: str | None = None
    reserved: int | None = None


_QUERY_COLUMNS = tuple(Query.__dataclass_fields__)
_INSERT_QUERY = (
    f"INSERT INTO queries ({', '.join(_QUERY_COLUMNS)}) VALUES ({', '.join('?' * len(_QUERY_COLUMNS))})"
)
_INSERT_ATTEMPT = f"""INSERT INTO attempts (
 query_id, root_id, role, model, provider, at, latency, ttft, finish, error, usage_state, in_fresh,
 cache_read, cache_write_5m, cache_write_1h, out_text, out_reasoning, cost, price_id, raw_usage)
 VALUES ({", ".join("?" * 20)})"""
_INSERT_PRICE = (
    "INSERT OR IGNORE INTO prices (price_id, source, version, rates, first_used) VALUES (?, ?, ?, ?, ?)"
)


def insert(
    con: sqlite3.Connection, rows: list[tuple[Query, tuple[Attempt, ...]]], known: set[str]
) -> set[str]:
    """Put the rows in; returns the price ids that were new, those in ``known`` left out."""
    con.executemany(_INSERT_QUERY, [_query_row(query) for query, _ in rows])
    con.executemany(_INSERT_ATTEMPT, [_attempt_row(q, a) for q, attempts in rows for a in attempts])
    return _insert_prices(con, (a for _, attempts in rows for a in attempts), known)


def _insert_prices(con: sqlite3.Connection, attempts: Iterable[Attempt], known: set[str]) -> set[str]:
    fresh: set[str] = set()
    for attempt in attempts:
        snapshot, price_id = attempt.snapshot, attempt.price_id
        if snapshot is None or price_id is None or price_id in known or price_id in fresh:
            continue
        rates = json.dumps(dict(snapshot.get("rates") or {}), default=str, sort_keys=True)
        row = (price_id, snapshot.get("source"), snapshot.get("version"), rates, attempt.at)
        con.execute(_INSERT_PRICE, row)
        fresh.add(price_id)
    return fresh


def _query_row(query: Query) -> tuple[object, ...]:
    return tuple(getattr(query, column) for column in _QUERY_COLUMNS)


def _attempt_row(query: Query, attempt: Attempt) -> tuple[object, ...]:
    u = attempt.usage
    tokens = (None,) * 6 if u is None else _tokens(u)
    raw = None if u is None or u.raw is None else json.dumps(u.raw, default=str)
    head = (
        query.id,
        query.root_id,
        attempt.role,
        attempt.model,
        attempt.provider,
        attempt.at,
        attempt.latency,
    )
    tail = (attempt.ttft, attempt.finish, attempt.error, attempt.usage_state)
    return (*head, *tail, *tokens, attempt.cost, attempt.price_id, raw)


def _tokens(u: Usage) -> tuple[int, ...]:
    return (u.in_fresh, u.cache_read, u.cache_write_5m, u.cache_write_1h, u.out_text, u.out_reasoning)
