"""What the tests of wrongly billed responses share: responses, a kit with prices, nano-dollars."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from costkit import Kit, Prices, Rates
from costkit.usage import Seen

QUESTION = "How long do refunds take?"


def usd(nano: int | None) -> float:
    assert nano is not None
    return nano / 1e9


def chat(usage: object, model: str = "m", **changes: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Five days."}}
    return {
        "id": "c",
        "object": "chat.completion",
        "model": model,
        "choices": [choice],
        "usage": usage,
        **changes,
    }


def message(usage: object, model: str = "m", **changes: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": "Five days."}]
    body = {"id": "m", "type": "message", "role": "assistant", "model": model, "stop_reason": "end_turn"}
    return {**body, "content": content, "usage": usage, **changes}


def cost(seen: Seen | None, card: Rates | None = None, **told: Any) -> int:
    """Nano-dollars of a response at a report's prices, or at genai-prices'."""
    assert seen is not None and seen.usage is not None and seen.model is not None
    prices = Prices({"*": card} if card else None)
    return prices.price(seen.usage, model=seen.model, provider=seen.provider, context=seen.tier, **told).cost


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    with Kit(tmp_path / "kit", prices={"m": Rates(3, 15, "0.30", cache_write_5m="3.75")}) as made:
        yield made


def rows(kit: Kit, table: str) -> list[dict[str, Any]]:
    with kit.ledger() as con:
        return [dict(row) for row in con.execute(f"SELECT * FROM {table} ORDER BY rowid")]
