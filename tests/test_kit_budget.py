"""Budgets through the public kit: what they cover, how a call is estimated, what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

import costkit
from costkit import Kit, Usage, exact, tokens
from costkit.errors import BudgetExceeded, ConfigError, UnknownPrice
from tests import budgets
from tests.budgets import CARD, CENT, left_held, pay, spent

kit = budgets.kit


def test_a_block_is_a_hard_cap(kit: Kit) -> None:
    """Inside a block with a budget calls are made while the most they may cost fits, and refused before they run."""
    made = []

    @kit.call(scope=None, max_cost="0.02 USD")
    def ask(q: str) -> str:
        made.append(q)
        pay(CENT)
        return q

    with kit.scope(budget="0.05 USD"):
        for number in range(4):
            ask(f"q{number}")
        with pytest.raises(BudgetExceeded, match=r"0\.01 USD of 0\.05 USD left") as caught:
            ask("q4")
        assert (caught.value.needed, caught.value.left, caught.value.cap) == (2 * CENT, CENT, 5 * CENT)
    ask("q5")
    assert made == ["q0", "q1", "q2", "q3", "q5"]
    with kit.ledger() as con:
        rows = con.execute("SELECT error, reserved, provider_cost FROM queries ORDER BY rowid").fetchall()
    assert [tuple(row) for row in rows] == [(None, 2 * CENT, CENT)] * 4 + [
        ("BudgetExceeded", None, 0), (None, None, CENT)]  # fmt: skip


def test_hits_need_no_budget(kit: Kit) -> None:
    """A stored answer is served although nothing is left."""

    @kit.call(exact(), scope=None, max_cost="0.01 USD")
    def ask(q: str) -> str:
        pay(CENT)
        return q

    with kit.scope(budget="0.01 USD"):
        ask("a")
        assert ask.outcome("a").saving == "exact"
        with pytest.raises(BudgetExceeded):
            ask("b")


def test_estimated_from_input_and_output_limit(kit: Kit) -> None:
    """Without max_cost a call holds its counted input and its output limit at their prices, times n."""
    message = [{"role": "user", "content": "How long do refunds take?"}]

    @kit.call(scope=None)
    def ask(messages: list[Any], *, model: str = "m", max_tokens: int | None = None, n: int = 1) -> str:
        costkit.record(usage=Usage(in_fresh=13, out_text=5), model=model)
        return "5 days"

    with kit.scope(budget="1 USD"):
        ask(message, max_tokens=100)
        ask(message, max_tokens=100, n=3)
    with kit.ledger() as con:
        first, second = (row[0] for row in con.execute("SELECT reserved FROM queries ORDER BY rowid"))
    assert second - first == 200 * 10_000
    counted = math.ceil(13 * 1.5) + 128  # an unknown tokenizer, and its chat template
    assert first == counted * 1000 + 100 * 10_000


def test_what_reported_usage_teaches(kit: Kit) -> None:
    """After twenty calls the input is held at the most that was reported for what was counted, no longer at 1.5."""

    @kit.call(scope=None)
    def ask(prompt: str, *, model: str = "m", max_tokens: int = 10) -> str:
        costkit.record(usage=Usage(in_fresh=tokens.count(prompt) * 2, out_text=5), model=model)
        return "a"

    prompt = "how long do refunds take " * 100
    with kit.scope(budget="1 USD"):
        for _ in range(20):
            ask(prompt)
        kit._ledger.flush()
        kit._ledger._ratios_read = float("-inf")  # a minute later
        ask(prompt)
    with kit.ledger() as con:
        reserved = [row[0] for row in con.execute("SELECT reserved FROM queries ORDER BY rowid")]
        assert tuple(con.execute("SELECT calls, most FROM token_ratios").fetchone()) == (21, 2.0)
    counted = tokens.count(prompt)
    assert reserved[0] == (math.ceil(counted * 1.5) + 128) * 1000 + 100_000
    assert reserved[-1] == (counted * 2 + 128) * 1000 + 100_000


def test_what_cannot_be_estimated_is_refused(kit: Kit) -> None:
    """Under a budget a call without output limit, model or price is refused by name; without a budget it is made."""
    made = []

    @kit.call(scope=None)
    def ask(question: str, *, model: str = "m", max_tokens: int | None = None) -> str:
        made.append(question)
        pay(1000)
        return "a"

    @kit.call(scope=None)
    def outer(question: str) -> str:
        made.append(question)
        return ask(question)

    with kit.scope(budget="1 USD"):
        with pytest.raises(ConfigError, match="max_tokens"):
            ask("q")
        with pytest.raises(ConfigError, match="max_tokens"):
            ask("q", max_tokens=-1)
        with pytest.raises(UnknownPrice, match="nobodys-model"):
            ask("q", model="nobodys-model", max_tokens=5)
        with pytest.raises(ConfigError, match="max_cost=0"):
            outer("q")
    assert made == []
    assert outer("q") == "a" and made == ["q", "q"]


def test_a_nested_call_comes_under_every_budget_around_it(kit: Kit) -> None:
    """A function that spends only through calls inside it says max_cost=0; its own cap holds for them together."""

    @kit.call(scope=None, max_cost="0.01 USD")
    def inner(q: str) -> str:
        pay(CENT)
        return q

    @kit.call(scope=None, max_cost=0, budget="0.02 USD")
    def outer(parts: list[str]) -> list[str]:
        return [inner(part) for part in parts]

    assert outer(["a", "b"]) == ["a", "b"] == outer(["a", "b"])
    with pytest.raises(BudgetExceeded, match="outer"):
        outer(["a", "b", "c"])
    with kit.scope(budget="0.03 USD"):
        outer(["a", "b"])
        with pytest.raises(BudgetExceeded, match="this block"):
            outer(["a", "b"])


@pytest.mark.parametrize("said", ["0.01 USD", lambda q, *, words: f"0.0{words} USD", lambda q, **_: 0])
def test_max_cost_may_be_a_function(kit: Kit, said: Any) -> None:
    """``max_cost`` is text, or a function of the call's own arguments that returns text or 0."""

    @kit.call(scope=None, max_cost=said)
    def ask(q: str, *, words: int = 1) -> str:
        pay(1000)
        return q

    with kit.scope(budget="0.01 USD"):
        ask("q")
        if callable(said) and said("q", words=2):
            with pytest.raises(BudgetExceeded):
                ask("q", words=2)


def test_windowed_budgets_are_shared_and_named(tmp_path: Path) -> None:
    """A budget of the folder and one of a function and tenant are counted in the ledger, for every kit on it."""
    with (
        Kit(tmp_path / "kit", prices=CARD, budget="0.05 USD/total") as one,
        Kit(tmp_path / "kit", prices=CARD, budget="0.05 USD/total") as two,
    ):

        def ask(q: str, tenant: str) -> str:
            pay(CENT)
            return q

        settings: dict[str, Any] = {"scope": "tenant", "max_cost": "0.01 USD", "budget": "0.02 USD/day"}
        first, second = one.call(**settings)(ask), two.call(**settings)(ask)
        first("a", "acme")
        second("b", "acme")
        with pytest.raises(BudgetExceeded, match="acme") as caught:
            first("c", "acme")
        assert caught.value.resets is not None
        first("a", "bolt")
        second("b", "bolt")
        second("a", "core")
        with pytest.raises(BudgetExceeded, match="this folder") as over:
            first("b", "core")
        assert over.value.resets is None and left_held(one) == (0, 0)


def test_a_scope_with_a_window(kit: Kit) -> None:
    """``kit.scope(tenant=..., budget="... USD/day")`` holds for these scope values wherever they are said."""

    @kit.call(scope="tenant", max_cost="0.01 USD")
    def ask(q: str, tenant: str | None = None) -> str:
        pay(CENT)
        return q

    for q in ("a", "b"):
        with kit.scope(tenant="acme", budget="0.02 USD/day"):
            ask(q)
    with kit.scope(tenant="acme", budget="0.02 USD/day"), pytest.raises(BudgetExceeded):
        ask("c")
    with kit.scope(tenant="bolt", budget="0.02 USD/day"):
        ask("c")
    assert left_held(kit) == (0, 0) and spent(kit) == [2 * CENT, CENT]


@pytest.mark.parametrize(
    "text", ["0.05", "5 EUR", "-1 USD", "1 USD/fortnight", "", "1 USD/day/day", 5, ["1 USD", 3]]
)
def test_a_budget_that_is_none(kit: Kit, text: Any) -> None:
    """What is no budget is refused where it is written, by the argument's name."""
    with pytest.raises(ConfigError, match="budget"), kit.scope(budget=text):
        pass
    with pytest.raises(ConfigError, match="budget"):
        kit.call(scope=None, budget=text)


def test_a_folder_needs_a_window(tmp_path: Path) -> None:
    """Kit(budget=...) without a window is refused: of what time would it be?"""
    with pytest.raises(ConfigError, match="for how long"):
        Kit(tmp_path / "kit", budget="5 USD")
