"""What the tests of a kit share: a kit in a real folder, its rows, and a call that costs a known sum."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import costkit
from costkit import Kit

RATES = {"m": costkit.Rates(1, 2)}
USAGE = costkit.Usage(in_fresh=1000, out_text=500)
COST = 1000 * 1000 + 500 * 2000  # nano-dollars: 1 USD and 2 USD per million tokens


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    with Kit(tmp_path / "kit", prices=RATES) as made:
        yield made


def rows(kit: Kit, what: str = "queries") -> list[dict[str, Any]]:
    con = kit.ledger()
    try:
        return [
            dict(r)
            for r in con.execute(
                f"SELECT * FROM {what} ORDER BY rowid"
                if what != "query_costs"
                else "SELECT * FROM query_costs ORDER BY id"
            )
        ]
    finally:
        con.close()


def spend() -> None:
    costkit.record(usage=USAGE, model="m")


def answer(q: str, *, tenant: str = "t") -> str:
    return f"{q} for {tenant}"


RESPONSE: dict[str, Any] = {
    "object": "chat.completion",
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}],
    "usage": {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500},
}
