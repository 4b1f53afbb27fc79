"""The drivers in a real kit: one call per cold key, for threads, tasks and loops, also when it fails."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from costkit import Kit, exact
from tests import drives
from tests.drives import in_threads, rows, run, until, waiting

kit = drives.kit


def test_64_threads_on_one_cold_key(kit: Kit) -> None:
    """64 threads that ask the same at once make one upstream call, and each has its own copy of the
    answer."""
    calls = []
    everybody = threading.Event()

    @kit.call(exact(), scope=None)
    def ask(q: str) -> list[int]:
        calls.append(q)
        everybody.wait(0.2)
        return [len(calls)]

    results = in_threads(64, lambda: ask("q"))
    assert calls == ["q"] and results == [[1]] * 64 and len({id(r) for r in results}) == 64
    saved = [r["saved_by"] for r in rows(kit)]
    assert saved.count(None) == 1 and len(saved) == 64 and "coalesced" in saved


def test_64_tasks_on_one_cold_key(kit: Kit) -> None:
    """64 tasks that ask the same at once make one upstream call."""
    calls = []

    @kit.call(exact(), scope=None)
    async def ask(q: str) -> int:
        calls.append(q)
        await until(lambda: waiting(kit) == 63)
        return len(calls)

    async def main() -> list[int]:
        return list(await asyncio.gather(*(ask("q") for _ in range(64))))

    assert run(main()) == [1] * 64 and calls == ["q"]
    assert [r["saved_by"] for r in rows(kit)].count("coalesced") == 63


def test_tasks_of_several_loops_share_one_call(kit: Kit) -> None:
    """Tasks in different event loops and threads share one upstream call."""
    calls = []

    @kit.call(exact(), scope=None)
    async def ask() -> int:
        calls.append(1)
        await until(lambda: waiting(kit) == 7)
        return len(calls)

    assert in_threads(8, lambda: run(ask())) == [1] * 8 and len(calls) == 1


def test_a_failing_upstream_is_not_stormed(kit: Kit) -> None:
    """32 waiters on a call that fails make at most three calls; all get the function's own error."""
    calls = []

    @kit.call(exact(), scope=None)
    async def ask() -> None:
        calls.append(1)
        if len(calls) == 1:
            await until(lambda: waiting(kit) == 31)
        raise ConnectionError(f"no {len(calls)}")

    async def main() -> list[Any]:
        return list(await asyncio.gather(*(ask() for _ in range(32)), return_exceptions=True))

    assert all(isinstance(r, ConnectionError) for r in run(main()))
    assert 2 <= len(calls) <= 3


def test_a_failing_upstream_is_not_stormed_by_threads(kit: Kit) -> None:
    """The same with 32 threads: nobody who waited starts a call of his own after the second failure."""
    calls = []
    gate = threading.Event()

    @kit.call(exact(), scope=None)
    def ask() -> None:
        calls.append(1)
        gate.wait(0.3)
        gate.set()
        raise ConnectionError("no")

    assert all(isinstance(r, ConnectionError) for r in in_threads(32, ask))
    assert len(calls) <= 3
