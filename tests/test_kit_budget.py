"""Budgets through the public kit: held before a call is made, settled with its row, and nothing left held."""

from __future__ import annotations

import asyncio
import math
import random
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import costkit
from costkit import Kit, Rates, Usage, exact, tokens
from costkit.errors import BudgetExceeded, BudgetUnavailable, ConfigError, UnknownPrice
from tests.suspended import throw_at

CARD = {"m": Rates(1, 10)}  # dollars per million tokens: 1,000 and 10,000 nano-dollars a token
CENT = 10_000_000


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    with Kit(tmp_path / "kit", prices=CARD) as kit:
        yield kit


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


def test_failed_calls_settle_at_what_they_may_have_cost(kit: Kit) -> None:
    """A provider's error answer costs nothing; a timeout or a bug may have cost what was held."""

    class RateLimited(Exception):
        status_code = 429

    @kit.call(scope=None, max_cost="0.01 USD")
    def ask(error: str) -> str:
        raise {"rate": RateLimited(), "reset": ConnectionError(), "late": TimeoutError()}[error]

    with kit.scope(budget="1 USD/total"):
        for name in ("rate", "reset", "late"):
            with pytest.raises((RateLimited, ConnectionError, TimeoutError)):
                ask(name)
    assert spent(kit) == [CENT] and left_held(kit) == (0, 0)
    with kit.ledger() as con:
        assert [row[0] for row in con.execute("SELECT cost FROM attempts")] == [0, 0, None]


def test_threads_never_overspend(kit: Kit) -> None:
    """64 threads on a cap of 20 calls: 20 are made, whichever budget it is, and nothing stays held."""
    made: list[int] = []

    @kit.call(scope=None, max_cost="1 USD")
    def ask(n: int) -> int:
        made.append(n)
        costkit.record(usage=Usage(in_fresh=1_000_000), model="m")
        return n

    def one(n: int) -> int:
        with kit.scope(budget="20 USD/day"):
            try:
                return ask(n) * 0 + 1
            except BudgetExceeded:
                return 0

    with ThreadPoolExecutor(64) as pool:
        assert sum(pool.map(one, range(64))) == 20 == len(made)
    assert left_held(kit) == (0, 0) and spent(kit) == [20 * 10**9]


class Stop(BaseException):
    """Not an Exception, like KeyboardInterrupt."""


def test_cancelled_at_random_nothing_is_left_held(kit: Kit) -> None:
    """400 async calls cancelled at random moments, windowed and block budgets in force: no hold is left."""
    dice = random.Random(7)
    cap = "400 USD"

    @kit.call(exact(), scope=None, max_cost="1 USD")
    async def ask(n: int) -> int:
        await asyncio.sleep(dice.random() * 0.01)
        costkit.record(usage=Usage(in_fresh=1), model="m")
        return n

    async def main() -> None:
        with kit.scope(budget=[cap, cap + "/day"]):
            tasks = [asyncio.ensure_future(ask(n % 300)) for n in range(400)]
            for task in tasks:
                asyncio.get_running_loop().call_later(dice.random() * 0.15, task.cancel)
            await asyncio.gather(*tasks, return_exceptions=True)
            (purse,) = kit._allowed.get().purses
            assert purse.held == 0

    asyncio.run(main())
    assert left_held(kit) == (0, 0)


def test_cancelled_at_every_step(tmp_path: Path) -> None:
    """One async call and one async stream, cancelled before every step they take: nothing is ever left held."""

    with Kit(tmp_path / "kit", prices=CARD, budget="1000 USD/day") as kit:

        @kit.call(exact(epoch="again"), scope=None, max_cost="1 USD", budget="2 USD")
        async def ask(n: int) -> int:
            await asyncio.sleep(0)
            costkit.record(usage=Usage(in_fresh=1), model="m")
            return n

        @kit.call(exact(epoch="again"), scope=None, max_cost="1 USD", budget="2 USD")
        async def words(n: int) -> AsyncIterator[str]:
            yield "a"
            await asyncio.sleep(0)
            costkit.record(usage=Usage(in_fresh=1), model="m")
            yield "b"

        async def stream(n: int) -> list[str]:
            return [word async for word in words(n)]

        async def main(error: type[BaseException]) -> None:
            for kind in (ask, stream):
                limit = 1
                while await throw_at(limit, kind(limit), error) >= limit:
                    assert len(kit._ports.flights) == 0
                    limit += 1
                assert limit > 7

        asyncio.run(main(asyncio.CancelledError))
        assert left_held(kit) == (0, 0)
        kit.bump("again")
        asyncio.run(main(Stop))
        assert left_held(kit) == (0, 0)


def test_abandoned_streams_settle(kit: Kit) -> None:
    """A stream left by its reader settles what it had held."""

    @kit.call(scope=None, max_cost="0.01 USD")
    def words(q: str) -> Iterator[str]:
        yield "a"
        yield "b"

    with kit.scope(budget=["1 USD", "1 USD/day"]):
        chunks = words("q")
        next(chunks)
        del chunks
        (purse,) = kit._allowed.get().purses
        assert purse.held == 0
    assert left_held(kit) == (0, 0)


def test_interrupted_while_it_waits_for_the_ledger(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt between hold and call gives everything back."""

    @kit.call(scope=None, max_cost="0.01 USD")
    def ask(q: str) -> str:
        return q

    hold = kit._ledger.hold

    def interrupted(what: Any) -> Any:
        hold(what)
        raise Stop

    monkeypatch.setattr(kit._ledger, "hold", interrupted)
    with kit.scope(budget=["1 USD", "1 USD/day"]):
        with pytest.raises(Stop):
            ask("q")
        assert kit._allowed.get().purses[0].held == 0
    assert left_held(kit) == (0, 0)


def test_a_ledger_in_trouble_refuses(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a windowed budget set and a ledger that cannot be written nothing is spent; without one calls go on."""
    made = []

    @kit.call(scope=None, max_cost="0.01 USD")
    def ask(q: str) -> str:
        made.append(q)
        pay(1000)
        return q

    ask("before")

    def broken(*_: object, **__: object) -> None:
        raise sqlite3.DatabaseError("database disk image is malformed")

    monkeypatch.setattr("costkit.ledger.writer.Ledger._commit", broken)
    with kit.scope(budget="1 USD/day"), pytest.raises(BudgetUnavailable, match="costkit doctor"):
        ask("refused")
    with pytest.warns(RuntimeWarning, match="ledger"):
        assert ask("after") == "after"
    assert made == ["before", "after"]
    monkeypatch.undo()


def test_followers_of_a_refused_leader_have_their_own_budget(kit: Kit) -> None:
    """A leader refused by its own block's budget does not refuse those who wait with it."""
    started, go = threading.Event(), threading.Event()

    def slow(q: str) -> str:
        started.set()
        go.wait(10)
        return "0.01 USD"

    @kit.call(exact(), scope=None, max_cost=slow)
    def ask(q: str) -> str:
        pay(1000)
        return q

    def poor() -> str:
        with kit.scope(budget="0.001 USD"):
            try:
                return ask("q")
            except BudgetExceeded:
                return "refused"

    def rich() -> str:
        started.wait(10)
        go.set()
        with kit.scope(budget="1 USD"):
            return ask("q")

    with ThreadPoolExecutor(2) as pool:
        one, two = pool.submit(poor), pool.submit(rich)
        assert (one.result(20), two.result(20)) == ("refused", "q")
