"""What the tests of the drivers share: a kit that leaves no flight in the air, threads and tasks with a limit."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

import costkit
from costkit import Kit

WAIT = 20.0


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    with Kit(tmp_path / "kit", prices={"m": costkit.Rates(1, 2)}) as made:
        yield made
        assert len(made._ports.flights) == 0, "a flight was left in the air"


def rows(kit: Kit) -> list[dict[str, Any]]:
    con = kit.ledger()
    try:
        return [dict(r) for r in con.execute("SELECT * FROM queries ORDER BY rowid")]
    finally:
        con.close()


def spend() -> None:
    costkit.record(usage=costkit.Usage(in_fresh=10, out_text=5), model="m")


def in_threads(n: int, work: Callable[[], Any]) -> list[Any]:
    """Run the work in n threads that start together; results or exceptions, in no order."""
    results: list[Any] = []
    barrier = threading.Barrier(n)

    def one() -> None:
        barrier.wait(WAIT)
        try:
            results.append(work())
        except Exception as exc:  # noqa: BLE001 - the tests look at it
            results.append(exc)

    threads = [threading.Thread(target=one) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert len(results) == n
    return results


def run(main: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(main, WAIT))


async def until(condition: Callable[[], bool]) -> None:
    """Give way to the other tasks until the condition holds."""
    for _ in range(5000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("did not come to pass")


def waiting(kit: Kit) -> int:
    """How many followers wait in an event loop for any flight."""
    return sum(len(f._listeners) for f in kit._ports.flights._flights.values())
