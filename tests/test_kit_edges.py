"""Refreshes, money and processes at their edges, through the public kit."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

import costkit
from costkit import Kit, Usage, exact
from costkit.errors import BudgetExceeded
from tests import budgets, refreshing
from tests.budgets import CARD, CENT, pay, read
from tests.refreshing import Clock, until

STALE = exact(ttl="1m", stale="1h")

kit, later = budgets.kit, refreshing.later


def refreshes(kit: Kit) -> list[str | None]:
    """How the refreshes ended."""
    return [row[0] for row in read(kit, "SELECT error FROM queries WHERE role = 'refresh' ORDER BY id")]


class Shut(ThreadPoolExecutor):
    """Takes no job, as at the interpreter's end."""

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")


def test_a_refresh_that_cannot_begin(kit: Kit, later: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the interpreter ends a stale answer is served all the same, each time."""

    @kit.call(STALE, scope=None)
    def ask(q: str) -> str:
        return q

    ask("q")
    later(90)
    monkeypatch.setattr("costkit.refresh.ThreadPoolExecutor", Shut)
    assert [ask.outcome("q").saving for _ in range(2)] == ["stale", "stale"]
    assert not kit._ports.refreshes._under


def test_a_refused_refresh_rests(tmp_path: Path, later: Clock) -> None:
    """A refresh that a budget refuses is not asked for again at once: one row, not one for each answer served."""
    with Kit(tmp_path / "kit", prices=CARD, budget="0.01 USD/total") as kit:

        @kit.call(STALE, scope=None, max_cost="0.01 USD")
        def ask(q: str) -> str:
            pay(CENT)
            return q

        ask("q")
        later(90)
        for _ in range(5):
            assert ask("q") == "q"
            until(lambda: not kit._ports.refreshes._under)
        assert refreshes(kit) == ["BudgetExceeded"]


def test_a_refresh_cut_off_with_its_loop_rests(kit: Kit, later: Clock) -> None:
    """Where each request has a loop of its own, which ends before the refresh does, not each one pays for a refresh."""
    calls = []

    @kit.call(STALE, scope=None)
    async def ask(q: str) -> str:
        calls.append(q)
        if len(calls) > 1:
            await asyncio.sleep(60)
        return q

    async def serve() -> None:
        await ask("q")
        for _ in range(20):
            await asyncio.sleep(0.01)

    asyncio.run(ask("q"))
    later(90)
    for _ in range(4):
        asyncio.run(serve())
    assert len(calls) == 2


def test_a_refresh_whose_loop_died(kit: Kit, later: Clock) -> None:
    """A refresh left behind in a loop that runs no more does not keep its key from being refreshed for ever."""
    calls = []

    @kit.call(exact(ttl="1m", stale="1h", wait=0.05), scope=None)
    async def ask(q: str) -> str:
        calls.append(q)
        if len(calls) == 2:
            await asyncio.Event().wait()
        return q

    async def serve() -> None:
        await ask("q")
        for _ in range(20):
            await asyncio.sleep(0.01)

    asyncio.run(ask("q"))
    later(90)
    stopped = asyncio.new_event_loop()
    stopped.run_until_complete(serve())
    assert len(calls) == 2
    time.sleep(0.06)
    asyncio.run(serve())
    assert len(calls) == 3
    for task in asyncio.all_tasks(stopped):
        task.cancel()
    stopped.run_until_complete(asyncio.sleep(0.05))
    stopped.close()


def test_a_refresh_whose_arguments_lost_their_key(kit: Kit, later: Clock) -> None:
    """A caller who put into his list what has no key does not lose the row of what was paid for the refresh."""
    go = threading.Event()
    sent = []

    @kit.call(STALE, scope=None)
    def ask(messages: list[Any]) -> str:
        sent.append(len(messages))
        if len(sent) > 1:
            assert go.wait(10)
        pay(CENT)
        return "a"

    messages: list[Any] = ["one"]
    ask(messages)
    later(90)
    ask(messages)
    messages.append(threading.Lock())
    go.set()
    until(lambda: not kit._ports.refreshes._under)
    assert refreshes(kit) == ["ConfigError"]
    assert read(kit, "SELECT provider_cost FROM queries WHERE role = 'refresh'") == [(CENT,)]


def test_each_refresh_comes_under_the_cap_of_each_call(kit: Kit, later: Clock) -> None:
    """``kit.call(budget="0.02 USD")`` holds for what a refresh spends as for any other call."""
    dear = ["0.01 USD"]

    @kit.call(scope=None, max_cost=lambda q: dear[0])
    def inner(q: str) -> str:
        pay(CENT)
        return q

    @kit.call(STALE, scope=None, max_cost=0, budget="0.02 USD")
    def outer(q: str) -> str:
        return inner(q)

    outer("q")
    later(90)
    dear[0] = "0.03 USD"
    outer("q")
    until(lambda: not kit._ports.refreshes._under)
    assert refreshes(kit) == ["BudgetExceeded"]


def test_a_window_of_a_function_counts_the_calls_inside_it(kit: Kit) -> None:
    """A function that spends only through calls inside it has a daily budget all the same."""

    @kit.call(scope=None, max_cost="0.01 USD")
    def inner(q: str) -> str:
        pay(CENT)
        return q

    @kit.call(scope=None, max_cost=0, budget="0.02 USD/day")
    def outer(q: str) -> str:
        return inner(q)

    outer("a"), outer("b")
    with pytest.raises(BudgetExceeded, match="outer"):
        outer("c")
    assert inner("c") == "c"
    assert read(kit, "SELECT spent, held FROM budgets") == [(2 * CENT, 0)]


def test_a_budget_that_refuses_is_no_failure_of_the_call(kit: Kit) -> None:
    """A call whose inner call one caller could not afford is made anew for the next one, who can."""

    @kit.call(scope=None, max_cost="0.01 USD")
    def inner(q: str) -> str:
        pay(CENT)
        return q

    @kit.call(exact(negative="1h"), scope=None, max_cost=0)
    def outer(q: str) -> str:
        return inner(q)

    with kit.scope(budget="0.001 USD"), pytest.raises(BudgetExceeded):
        outer("q")
    assert outer("q") == "q"


def test_what_is_known_to_be_spent_is_settled(kit: Kit) -> None:
    """A call that is known to have cost more than it held, and perhaps more yet, is settled at what is known."""

    @kit.call(scope=None, max_cost="0.01 USD")
    def ask(q: str) -> str:
        pay(5 * CENT)
        costkit.record(usage=Usage(in_fresh=1), model="nobodys-model")
        return q

    with kit.scope(budget=["1 USD", "1 USD/day"]):
        with pytest.warns(RuntimeWarning, match="nobodys-model"):
            ask("q")
        (purse,) = kit._allowed.get().purses
        assert (purse.spent, purse.held) == (5 * CENT, 0)
    assert read(kit, "SELECT spent, held FROM budgets") == [(5 * CENT, 0)]


def test_a_lesson_that_fails_costs_neither_row_nor_money(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Learning from a call is beside the point: its row is written and its hold settled, come what may."""

    @kit.call(scope=None, max_cost="0.01 USD")
    def ask(q: str) -> str:
        pay(CENT)
        return q

    def fails(*_: object) -> None:
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    monkeypatch.setattr(kit._ports.lessons, "learn", fails)
    with kit.scope(budget="1 USD/day"):
        ask("q")
    assert read(kit, "SELECT provider_cost FROM queries") == [(CENT,)]
    assert read(kit, "SELECT spent, held FROM budgets") == [(CENT, 0)]


@pytest.mark.parametrize("n", [3, 3.0])
def test_answers_asked_for_count_however_written(kit: Kit, n: Any) -> None:
    """``n=3.0`` asks a server for three answers, and so holds the money of three."""

    @kit.call(scope=None)
    def ask(prompt: str, *, model: str = "m", max_tokens: int = 100, n: Any = 1) -> str:
        pay(1000)
        return "a"

    with kit.scope(budget="1 USD"):
        ask("q")
        ask("q", n=n)
    one, three = (row[0] for row in read(kit, "SELECT reserved FROM queries ORDER BY rowid"))
    assert three - one == 200 * 10_000


def test_max_cost_sees_its_callers_context(kit: Kit) -> None:
    """A ``max_cost`` function reads the caller's context variables, in a coroutine too."""
    dear: ContextVar[str] = ContextVar("dear", default="0.01 USD")

    @kit.call(scope=None, max_cost=lambda q: dear.get())
    async def ask(q: str) -> str:
        return q

    async def main() -> None:
        dear.set("2 USD")
        with kit.scope(budget="1 USD"), pytest.raises(BudgetExceeded):
            await ask("q")

    asyncio.run(main())


def test_a_loop_that_ends_cancels(kit: Kit) -> None:
    """A call whose loop ends while it waits for a busy thread is cancelled, not failed with another error."""
    go = threading.Event()
    pool = kit._ports.pool()
    seen: list[BaseException | None] = []

    @kit.call(exact(), scope=None)
    async def ask(q: str) -> str:
        return q

    async def one() -> None:
        try:
            await ask("q")
        except BaseException as exc:
            seen.append(exc)
            raise

    async def main() -> None:
        for _ in range(8):
            pool.submit(go.wait, 10)
        under_way = {asyncio.create_task(one())}
        await asyncio.sleep(0.05)
        assert under_way
        asyncio.get_running_loop().call_later(0.1, go.set)

    asyncio.run(main())
    assert [type(exc) for exc in seen] == [asyncio.CancelledError]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_made_inside_a_call_does_not_end_it(kit: Kit) -> None:
    """A child forked inside a call, which leaves it too, neither writes the call's row nor settles its money."""

    @kit.call(scope=None, max_cost="0.02 USD")
    def ask(q: str) -> str:
        child = os.fork()
        if child == 0:
            raise SystemExit(0)
        os.waitpid(child, 0)
        pay(CENT)
        return q

    with kit.scope(budget="1 USD/day"):
        here = os.getpid()
        try:
            ask("q")
        except SystemExit:
            if os.getpid() != here:
                kit._ledger.flush()
                os._exit(0)
            raise
    assert read(kit, "SELECT provider_cost, error FROM queries") == [(CENT, None)]
    assert read(kit, "SELECT spent, held FROM budgets") == [(CENT, 0)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_block_budget_in_a_child(kit: Kit) -> None:
    """A child forked while another thread is inside the block's purse can use its copy."""

    @kit.call(scope=None, max_cost="0.01 USD")
    def ask(q: str) -> str:
        pay(CENT)
        return q

    with kit.scope(budget="1 USD"):
        (purse,) = kit._allowed.get().purses
        holding, done = threading.Event(), threading.Event()

        def hold() -> None:
            with purse._lock:
                holding.set()
                done.wait(10)

        thread = threading.Thread(target=hold)
        thread.start()
        holding.wait(10)
        child = os.fork()
        if child == 0:
            threading.Timer(5, os._exit, (1,)).start()
            ask("q")
            os._exit(0)
        done.set()
        thread.join()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
