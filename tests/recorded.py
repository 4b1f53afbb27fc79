"""Ledgers written by hand, row by row, so that every figure read from them can be checked on paper."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from costkit.folder import open_folder
from costkit.ledger import connect

DAY = 86_400.0
START = 1_790_000_000.0  # 2026-09-21 14:13:20 UTC

Row = Mapping[str, Any]


def query(id: str, **changes: Any) -> dict[str, Any]:
    """A row of ``queries``: an outermost call of ``app.ask`` that ran for a second and cost nothing."""
    row: dict[str, Any] = {
        "id": id,
        "parent_id": None,
        "root_id": changes.get("root_id", id),
        "name": "app.ask",
        "version": "1",
        "scope": None,
        "key": None,
        "at": START,
        "latency": 1.0,
        "saved_by": None,
        "role": "call",
        "provider_cost": 0,
        "counterfactual_cost": changes.get("provider_cost", 0),
        "complete": 1,
        "error": None,
    }
    return {**row, **changes}


def attempt(query_id: str, **changes: Any) -> dict[str, Any]:
    """A row of ``attempts``: 90 fresh tokens, 10 from the provider's cache, 20 out, reported, for 1000 nano-dollars."""
    row: dict[str, Any] = {
        "query_id": query_id,
        "root_id": query_id,
        "role": "reference",
        "model": "m",
        "provider": "p",
        "at": START,
        "latency": 0.5,
        "finish": "stop",
        "usage_state": "reported",
        "in_fresh": 90,
        "cache_read": 10,
        "cache_write_5m": 0,
        "cache_write_1h": 0,
        "out_text": 20,
        "out_reasoning": 0,
        "cost": 1000,
        "price_id": "p1",
    }
    return {**row, **changes}


def missing(query_id: str, **changes: Any) -> dict[str, Any]:
    """An attempt whose usage nobody told."""
    tokens = ("in_fresh", "cache_read", "cache_write_5m", "cache_write_1h", "out_text", "out_reasoning")
    unknown = dict.fromkeys([*tokens, "cost", "price_id"])
    return attempt(query_id, **{**unknown, "usage_state": "missing", **changes})


def folder_of(path: Path, **tables: Iterable[Row]) -> Path:
    """A kit's folder whose ledger holds these rows of these tables."""
    folder = open_folder(path)
    with contextlib.closing(connect(folder / "ledger.db")) as con:
        for table, rows in tables.items():
            for row in rows:
                marks = ", ".join("?" * len(row))
                con.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", list(row.values()))
    return folder


def response(
    text: str = "ok", *, model: str = "gpt-4o-mini", finish: str = "stop", **usage: Any
) -> dict[str, Any]:
    """A chat completion as OpenAI's API gives it."""
    told = {"prompt_tokens": 900, "completion_tokens": 40, "total_tokens": 940, **usage}
    message = {"role": "assistant", "content": text}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "finish_reason": finish, "message": message}],
        "usage": told,
    }


def rates(**prices: str) -> str:
    """The ``rates`` column of a price."""
    return json.dumps({"in_fresh": "10", "cache_read": "1", "out_text": "4", "per_request": "0", **prices})
