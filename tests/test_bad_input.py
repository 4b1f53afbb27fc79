"""Odd, huge and hostile input: refused before anything is spent, or answered and recorded as what it is.

The cases, and what each costs in time and memory: `python -m tests.benchmarks.bad_input`.
"""

from __future__ import annotations

import importlib
import math
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import costkit
from costkit import errors
from costkit.key import encode_value

bad: Any = importlib.import_module("tests.benchmarks.bad_input")

HUGE = [case for case in bad.CASES if "1e" in case.name and "1e300" not in case.name]
SMALL = [case for case in bad.CASES if case not in HUGE]
RIGHT = [f"usage {name}" for name in bad.USAGE if name.startswith("more ") and "than" not in name]
COST = 1000 * 1000 + 500 * 2000  # nano-dollars: GOOD at 1 and 2 USD per million tokens
HOLD = 10_000_000

every_kind = pytest.mark.parametrize("kind", bad.KINDS)
two_kinds = pytest.mark.parametrize("kind", ["sync", "async_stream"])
small = pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)


def check(case: Any, tried: Any, fake: Any) -> None:
    """Nothing is left in the air, and the call was refused unspent or answered whole and recorded as it was.

    Impossible usage is missing or estimated, never reported and never negative; right usage costs what it costs.
    """
    assert tried.flights == 0 and not any(tried.health.values())
    if tried.refused is not None:
        own = isinstance(tried.refused, errors.CostkitError) or "hostile" in str(tried.refused)
        assert own, repr(tried.refused)[:300]
        assert tried.calls == 0 and tried.attempts == []
        assert all(row["provider_cost"] == 0 and row["error"] for row in tried.rows)
        return
    assert tried.calls == 1 and len(tried.rows) == len(tried.attempts) == 1
    given, got = (fake.gave, tried.got) if isinstance(fake.gave, list) else ([fake.gave], [tried.got])
    assert len(got) == len(given) and all(one is other for one, other in zip(got, given, strict=True))
    row, attempt = tried.rows[0], tried.attempts[0]
    assert row["complete"] == 1 and row["error"] is None and row["saved_by"] is None
    assert (attempt["cost"] is None) == (row["unknown_costs"] == 1)
    assert row["provider_cost"] == (attempt["cost"] or 0) >= 0
    if case.name in RIGHT or case.name.startswith("ask "):
        assert (attempt["usage_state"], attempt["cost"]) == ("reported", COST)
    elif case.name.startswith("usage "):
        assert attempt["usage_state"] in ("missing", "estimated")
        assert (attempt["cost"] is None) == (attempt["usage_state"] == "missing")
        assert all(
            attempt[n] is None or 0 <= attempt[n] < 1000 for n in ("in_fresh", "cache_read", "out_text")
        )


@every_kind
@pytest.mark.parametrize("exact", [True, False], ids=["exact", "recorded"])
@small
def test_refused_or_answered(case: Any, exact: bool, kind: str, tmp_path: Path) -> None:
    """Refused with an error of its own before the function runs, or its very answer comes back, in one row."""
    check(case, *bad.tried(case, kind, exact, str(tmp_path / "kit")))


@every_kind
@pytest.mark.parametrize("case", HUGE, ids=lambda case: case.name)
def test_huge(case: Any, kind: str, tmp_path: Path) -> None:
    """The same for what is huge, within ten seconds on a busy machine."""
    tried, fake = bad.tried(case, kind, True, str(tmp_path / "kit"))
    check(case, tried, fake)
    assert tried.seconds < 10


@two_kinds
@small
def test_asked_again(case: Any, kind: str, tmp_path: Path) -> None:
    """A kit opened afterwards serves what was answered, or makes the call again; a refusal stays one."""
    first, _ = bad.tried(case, kind, True, str(tmp_path / "kit"))
    again, other = bad.tried(case, kind, True, str(tmp_path / "kit"))
    if first.refused is not None:
        assert type(again.refused) is type(first.refused) and again.calls == 0
        return
    saved = [row["saved_by"] for row in again.rows]
    assert saved in ([None, "exact"], [None, None])
    assert other.calls == (saved[1] is None)
    if saved[1] == "exact":
        assert encode_value(again.got) == encode_value(
            first.got if kind in ("sync", "async") else list(first.got)
        )


@small
def test_text_is_kept(case: Any, tmp_path: Path) -> None:
    """With store_text=True as well: what has no text does not cost the answer."""
    tried, fake = bad.tried(case, "sync", True, str(tmp_path / "kit"), store_text=True)
    check(case, tried, fake)
    assert all(isinstance(row["request"], str) for row in tried.rows if row["error"] is None)


@two_kinds
@pytest.mark.parametrize("name", bad.USAGE)
def test_a_budget_loses_no_money(name: str, kind: str, tmp_path: Path) -> None:
    """Under a budget an unknown cost is charged at what was held for it, and nothing stays held."""
    case = next(case for case in bad.CASES if case.name == f"usage {name}")
    tried, _ = bad.tried(case, kind, True, str(tmp_path / "kit"), budget="1 USD/day", max_cost="0.01 USD")
    assert tried.refused is None
    (attempt,) = tried.attempts
    con = sqlite3.connect(tmp_path / "kit" / "ledger.db")
    ((spent, held),) = con.execute("SELECT spent, held FROM budgets").fetchall()
    con.close()
    assert (spent, held) == (HOLD if attempt["cost"] is None else attempt["cost"], 0)


@dataclass
class Message:
    """What an SDK's own message is: no dict, and its text is inside."""

    content: str
    role: str = "user"


ODD_LIMITS: list[dict[str, Any]] = [
    {},
    {"max_tokens": None},
    {"max_tokens": -1},
    {"max_tokens": math.nan},
    {"max_tokens": math.inf},
    {"max_tokens": 1e300},
    {"max_tokens": True},
    {"max_tokens": "10"},
    {"max_tokens": 10**20_000},
    {"max_tokens": 10**9, "n": 10**15},
    {"max_tokens": 10**9, "n": 10**20_000},
    {"max_tokens": 10, "prompt": bad.deep()},
    {"max_tokens": 10, "prompt": [bad.cyclic()]},
    {"max_tokens": 10, "prompt": "x" * 10_000_000},
    {"max_tokens": 10, "prompt": [Message(content="a word " * 1_000_000)]},
    {"max_tokens": 10, "prompt": "a word " * 2_000_000},
]


@pytest.mark.parametrize("arguments", ODD_LIMITS, ids=range(len(ODD_LIMITS)))
def test_no_estimate_no_call(arguments: dict[str, Any], tmp_path: Path) -> None:
    """Under a budget a call whose most cannot be told, or is too much, never runs; nothing stays held."""
    calls = []
    with costkit.Kit(tmp_path / "kit", prices={"m": costkit.Rates(1, 2)}, budget="1 USD/day") as kit:

        @kit.call(scope=None)
        def ask(prompt: Any = "hi", max_tokens: Any = None, n: Any = None, model: str = "m") -> str:
            calls.append(prompt)
            return "never"

        with pytest.raises(errors.CostkitError):
            ask(**arguments)
        held = kit.ledger().execute("SELECT COALESCE(SUM(held + spent), 0) FROM budgets").fetchone()[0]
    assert calls == [] and held == 0
