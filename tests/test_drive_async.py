"""The async driver in a real kit: outcomes, errors, cancellation, and what is left behind (nothing)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from costkit import Kit, exact
from tests import drives
from tests.drives import rows, run, spend, until, waiting
from tests.suspended import throw_at

kit = drives.kit


def test_async_hit_and_outcome(kit: Kit) -> None:
    """A coroutine function is awaited as before, served the second time, and recorded."""

    @kit.call(exact(), scope=None)
    async def ask(q: str) -> str:
        await asyncio.sleep(0)
        spend()
        return q.upper()

    async def main() -> None:
        assert await ask("a") == "A"
        out = await ask.outcome("a")
        assert (out.value, out.saving, out.cost.provider, out.cost.counterfactual) == (
            "A",
            "exact",
            0,
            20_000,
        )

    run(main())
    assert [r["provider_cost"] for r in rows(kit)] == [20_000, 0]


def test_async_errors_pass_unchanged(kit: Kit) -> None:
    """The very exception of a coroutine function comes out."""
    error = ValueError("x")

    @kit.call(exact(), scope=None)
    async def ask() -> None:
        raise error

    with pytest.raises(ValueError) as caught:
        run(ask())
    assert caught.value is error and rows(kit)[0]["error"] == "ValueError"


def test_a_cancelled_leader_is_replaced(kit: Kit) -> None:
    """When the leading task is cancelled, one of its followers calls, the others wait for that one."""
    calls = []
    go = asyncio.Event()

    @kit.call(exact(), scope=None)
    async def ask() -> int:
        calls.append(1)
        number = len(calls)
        if number == 1:
            await go.wait()
        await until(lambda: waiting(kit) >= 8)
        return number

    async def main() -> None:
        leader = asyncio.create_task(ask())
        await until(lambda: len(calls) == 1)
        followers = [asyncio.create_task(ask()) for _ in range(9)]
        await until(lambda: waiting(kit) == 9)
        leader.cancel()
        assert await asyncio.gather(*followers) == [2] * 9
        assert leader.cancelled()

    run(main())
    assert len(calls) == 2
    first = rows(kit)[0]
    assert (first["complete"], first["error"]) == (0, "CancelledError")


def test_a_cancelled_follower_harms_nobody(kit: Kit) -> None:
    """A follower that is cancelled is recorded as incomplete; the leader and the others have their answer."""
    go = asyncio.Event()

    @kit.call(exact(), scope=None)
    async def ask() -> str:
        await go.wait()
        return "a"

    async def main() -> None:
        tasks = [asyncio.create_task(ask()) for _ in range(3)]
        await until(lambda: waiting(kit) == 2)
        tasks[1].cancel()
        await asyncio.wait([tasks[1]])
        go.set()
        assert tasks[1].cancelled() and await tasks[0] == await tasks[2] == "a"

    run(main())
    assert sorted((r["complete"], r["saved_by"] or "") for r in rows(kit)) == [
        (0, ""),
        (1, ""),
        (1, "coalesced"),
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_cancelled_wherever_it_suspends_nothing_is_held(kit: Kit, stream: bool) -> None:
    """Cancelled once at every suspension: no flight and no claim is left, every call that began has its row, and the
    next call works."""
    calls = []

    @kit.call(exact(), scope=None)
    async def ask(n: int) -> str:
        calls.append(n)
        for _ in range(3):
            await asyncio.sleep(0)
        spend()
        return "a"

    @kit.call(exact(), scope=None)
    async def words(n: int) -> AsyncIterator[object]:
        calls.append(n)
        yield "a"
        await asyncio.sleep(0)
        spend()

    async def one(n: int) -> object:
        return [word async for word in words(n)] if stream else await ask(n)

    async def main() -> int:
        limit = 1
        while await throw_at(limit, one(limit), asyncio.CancelledError) >= limit:
            assert len(kit._ports.flights) == 0
            assert await asyncio.wait_for(one(limit), 5) == (["a"] if stream else "a")
            limit += 1
        return limit

    assert run(main()) >= 7
    found = rows(kit)
    assert {r["error"] for r in found} == {None, "CancelledError"}
    assert len(found) >= len(calls)


def test_cancelled_while_the_row_is_written_keeps_the_writer(kit: Kit, tmp_path: Path) -> None:
    """A task cancelled while its row waits for a locked ledger raises; the row is written all the same, and
    the writer serves the next call."""
    import sqlite3

    @kit.call(scope=None)
    async def ask(q: str) -> str:
        spend()
        return q

    lock = sqlite3.connect(kit.folder / "ledger.db", isolation_level=None)

    async def main() -> None:
        await ask("first")
        lock.execute("BEGIN IMMEDIATE")
        task = asyncio.create_task(ask("second"))
        for _ in range(20):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    run(main())
    lock.execute("ROLLBACK")
    assert run(ask("third")) == "third"
    assert len(rows(kit)) == 3 and kit.health()["unrecorded"] == 0


def test_a_timeout_inside_keeps_the_money(kit: Kit) -> None:
    """An inner call that its caller times out is recorded with its row, and the outer call goes on."""

    @kit.call(exact(), scope=None, name="slow")
    async def slow() -> str:
        spend()
        await asyncio.sleep(30)
        return "late"

    @kit.call(exact(), scope=None, name="outer")
    async def outer() -> str:
        try:
            return await asyncio.wait_for(slow(), 0.5)
        except TimeoutError:
            return "fallback"

    out = run(outer.outcome())
    assert (out.value, out.cost.provider) == ("fallback", 20_000)
    assert [(r["name"], r["complete"], r["provider_cost"]) for r in rows(kit)] == [
        ("slow", 0, 20_000),
        ("outer", 1, 0),
    ]


def test_async_recursion_with_the_same_call(kit: Kit) -> None:
    """A coroutine that awaits itself with the same arguments, also through a task, does not wait for
    itself."""
    depth = []

    @kit.call(exact(), scope=None)
    async def ask() -> int:
        depth.append(1)
        if len(depth) > 2:
            return len(depth)
        return await (ask() if len(depth) == 1 else asyncio.create_task(ask()))

    assert run(ask()) == 3


def test_a_closed_coroutine_ends_quietly(kit: Kit) -> None:
    """close() on a call under way, as a loop does that is torn down, raises nothing and leaves a row."""

    @kit.call(exact(), scope=None)
    async def ask(q: str) -> str:
        begun.append(q)
        await asyncio.Event().wait()
        return q

    async def main() -> None:
        call = ask("q")
        pending = call.send(None)
        while not begun:
            pending._asyncio_future_blocking = False
            await asyncio.wait([pending])
            pending = call.send(None)
        call.close()

    begun: list[str] = []
    run(main())
    assert [(r["complete"], r["error"]) for r in rows(kit)] == [(0, "GeneratorExit")]
