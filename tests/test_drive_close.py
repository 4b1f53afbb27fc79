"""A coroutine that is closed at any of its awaits, as a loop does that is torn down: quiet, counted, nothing held."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import costkit
from costkit import Kit, exact

CLOSED = 12  # more awaits than a call has


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    with Kit(tmp_path / "kit", prices={"m": costkit.Rates(1, 2)}, budget="1 USD/day") as made:
        yield made
        assert len(made._ports.flights) == 0, "a flight was left in the air"


def read(kit: Kit, query: str) -> list[tuple[Any, ...]]:
    con = kit.ledger()
    try:
        return [tuple(row) for row in con.execute(query)]
    finally:
        con.close()


async def closed_at(call: Any, awaits: int) -> bool:
    """Close the coroutine at this await; False where it ended before."""
    try:
        pending = call.send(None)
        for _ in range(awaits):
            if pending is None:
                await asyncio.sleep(0)
            else:
                pending._asyncio_future_blocking = False
                await asyncio.wait([pending])
            pending = call.send(None)
    except StopIteration:
        return False
    call.close()
    return True


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("awaits", range(CLOSED))
def test_closed_at_every_await(kit: Kit, awaits: int, fails: bool) -> None:
    """close() raises nothing wherever it strikes, what was spent stays spent, and nothing is held afterwards."""
    spent = 0

    @kit.call(exact(negative="1h"), scope=None, max_cost="0.01 USD")
    async def ask(q: str) -> str:
        nonlocal spent
        await asyncio.sleep(0)
        costkit.record(usage=costkit.Usage(in_fresh=1_000), model="m")
        spent = 1_000_000
        await asyncio.sleep(0)
        if fails:
            raise ValueError(q)
        return q

    async def main() -> None:
        with contextlib.suppress(ValueError):
            closed = await closed_at(ask("q"), awaits)
            assert closed or awaits > 3, "a call has more awaits"

    asyncio.run(asyncio.wait_for(main(), 30))
    assert read(kit, "SELECT * FROM holds WHERE lapsed = 0") == []
    booked = [tuple(row) for row in read(kit, "SELECT spent, held FROM budgets")] or [(0, 0)]
    assert booked[0][1] == 0 and booked[0][0] >= spent, "what was spent is never given back"


def test_closed_while_it_follows(kit: Kit) -> None:
    """A follower that is closed leaves its leader alone, raises nothing, and nothing is held for it."""

    @kit.call(exact(), scope=None, max_cost="0.01 USD")
    async def ask(q: str) -> str:
        await begun.wait()
        return q

    async def main() -> None:
        leader = asyncio.create_task(ask("q"))
        while not kit._ports.flights:
            await asyncio.sleep(0.001)
        follower = ask("q")
        for _ in range(50):
            pending = follower.send(None)
            if pending is None:
                await asyncio.sleep(0)
                continue
            pending._asyncio_future_blocking = False
            if not (await asyncio.wait([pending], timeout=0.2))[0]:
                break
        follower.close()
        begun.set()
        assert await leader == "q"

    begun = asyncio.Event()
    asyncio.run(asyncio.wait_for(main(), 30))
    assert read(kit, "SELECT * FROM holds WHERE lapsed = 0") == []
