"""What the tests of a kit's budgets share: a kit with one price, what it holds and what it spent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import costkit
from costkit import Kit, Rates, Usage

CARD = {"m": Rates(1, 10)}  # dollars per million tokens: 1,000 and 10,000 nano-dollars a token
CENT = 10_000_000


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    with Kit(tmp_path / "kit", prices=CARD) as kit:
        yield kit


def read(kit: Kit, query: str) -> list[tuple[Any, ...]]:
    con = kit.ledger()
    try:
        return [tuple(row) for row in con.execute(query)]
    finally:
        con.close()


def left_held(kit: Kit) -> tuple[int, int]:
    """Holds that are left, and the money they hold."""
    with kit.ledger() as con:
        holds = con.execute("SELECT COUNT(*) FROM holds").fetchone()[0]
        return holds, con.execute("SELECT COALESCE(SUM(held), 0) FROM budgets").fetchone()[0]


def spent(kit: Kit) -> list[int]:
    with kit.ledger() as con:
        return [row[0] for row in con.execute("SELECT spent FROM budgets ORDER BY starts")]


def pay(cost: int) -> None:
    """Record a call of so many nano-dollars (a multiple of 1,000)."""
    costkit.record(usage=Usage(in_fresh=cost // 1000), model="m")
