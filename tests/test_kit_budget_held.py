"""Budgets through the public kit: held before a call is made, settled with its row, and nothing left held."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import costkit
from costkit import Kit, Usage, exact
from costkit.errors import BudgetExceeded, BudgetUnavailable
from tests import budgets
from tests.budgets import CARD, CENT, left_held, pay, spent
from tests.suspended import throw_at

kit = budgets.kit


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
