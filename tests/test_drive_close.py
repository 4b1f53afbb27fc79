"""A coroutine that is closed at any of its awaits, as a loop does that is torn down: quiet, counted, nothing held."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import costkit
from costkit import Kit, exact
from tests.budgets import read

CLOSED = 12  # more awaits than a call has


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    with Kit(tmp_path / "kit", prices={"m": costkit.Rates(1, 2)}, budget="1 USD/day") as made:
        yield made
        assert len(made._ports.flights) == 0, "a flight was left in the air"


async def driven_to(call: Any, awaits: int) -> bool:
    """Drive the call up to this await; False where it ended before."""
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
    return True


async def closed_at(call: Any, awaits: int) -> bool:
    """Close the coroutine at this await; False where it ended before."""
    driven = await driven_to(call, awaits)
    if driven:
        call.close()
    return driven


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


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("awaits", range(CLOSED))
def test_a_closed_call_leaves_its_row(kit: Kit, awaits: int, fails: bool) -> None:
    """Wherever close() strikes there is one row, with what was spent, and just that is settled."""
    spent = 0

    @kit.call(exact(negative="1h"), scope=None, max_cost="0.01 USD")
    async def ask(q: str) -> str:
        nonlocal spent
        costkit.record(usage=costkit.Usage(in_fresh=1_000), model="m")
        spent = 1_000_000
        await asyncio.sleep(0)
        if fails:
            raise ValueError(q)
        return q

    async def main() -> None:
        with contextlib.suppress(ValueError):
            await closed_at(ask("q"), awaits)

    asyncio.run(asyncio.wait_for(main(), 30))
    assert read(kit, "SELECT provider_cost, unknown_costs FROM queries") == [(spent, 0)]
    assert read(kit, "SELECT sum(spent), sum(held) FROM budgets") in ([(spent, 0)], [(None, None)])


@pytest.mark.parametrize("awaits", range(2 * CLOSED))
def test_a_call_closed_inside_another(kit: Kit, awaits: int) -> None:
    """A call that is closed tells the call around it what was spent, which is then settled at just that."""
    spent = 0

    @kit.call(scope=None, max_cost="0.01 USD")
    async def ask(q: str) -> str:
        nonlocal spent
        costkit.record(usage=costkit.Usage(in_fresh=1_000), model="m")
        spent = 1_000_000
        await asyncio.sleep(0)
        return q

    @kit.call(scope=None, max_cost="0.05 USD")
    async def outer(q: str) -> str:
        return await ask(q)

    async def main() -> None:
        await closed_at(outer("q"), awaits)

    asyncio.run(asyncio.wait_for(main(), 30))
    assert read(kit, "SELECT sum(provider_cost), sum(unknown_costs) FROM queries") == [(spent, 0)]
    assert read(kit, "SELECT sum(spent), sum(held) FROM budgets") in ([(spent, 0)], [(None, None)])


@pytest.mark.parametrize("fails", [False, True])
def test_a_call_closed_while_its_end_is_stored(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """A coroutine closed while its answer or its failure is stored has its row and is settled."""
    go, storing = threading.Event(), threading.Event()

    def slow(*_: object) -> bool:
        storing.set()
        return go.wait(10)

    monkeypatch.setattr(kit._store, "set", slow)

    @kit.call(exact(negative="1h"), scope=None, max_cost="0.05 USD")
    async def ask(q: str) -> str:
        costkit.record(usage=costkit.Usage(in_fresh=10_000), model="m")
        if fails:
            raise ValueError(q)
        return q

    async def main() -> None:
        call = ask("q")
        pending: Any = call.send(None)
        while not storing.is_set():
            pending._asyncio_future_blocking = False
            await asyncio.wait([pending])
            pending = call.send(None)
            await asyncio.sleep(0.05)
        call.close()
        go.set()

    asyncio.run(asyncio.wait_for(main(), 30))
    error = "ValueError" if fails else None
    assert read(kit, "SELECT provider_cost, error FROM queries") == [(10_000_000, error)]
    assert read(kit, "SELECT spent, held FROM budgets") == [(10_000_000, 0)]


def test_a_call_in_a_loop_that_was_dropped(kit: Kit, caplog: pytest.LogCaptureFixture) -> None:
    """A call that is collected with its loop has its row, with what it had spent by then."""

    @kit.call(scope=None, max_cost="0.01 USD")
    async def ask(q: str) -> str:
        costkit.record(usage=costkit.Usage(in_fresh=1_000), model="m")
        begun.set()
        await asyncio.get_running_loop().create_future()
        return q

    begun = asyncio.Event()
    loop = asyncio.new_event_loop()
    task = loop.create_task(ask("q"))
    loop.run_until_complete(begun.wait())
    loop.close()
    del task
    gc.collect()
    assert "destroyed but it is pending" in caplog.text
    assert read(kit, "SELECT provider_cost, error, complete FROM queries") == [
        (1_000_000, "GeneratorExit", 0)
    ]
    assert read(kit, "SELECT spent, held FROM budgets") == [(1_000_000, 0)]


@pytest.mark.parametrize("awaits", range(4))
def test_a_stream_closed_before_its_first_chunk(kit: Kit, awaits: int) -> None:
    """A stream that is closed before its function ran has its row, waits for nothing more and holds nothing."""

    @kit.call(exact(), scope=None, max_cost="0.01 USD")
    async def ask(q: str) -> AsyncIterator[str]:
        yield q

    async def main() -> None:
        step: Any = anext(ask("q"))
        assert await driven_to(step, awaits)
        with pytest.raises(GeneratorExit):
            step.throw(GeneratorExit)

    asyncio.run(asyncio.wait_for(main(), 30))
    assert read(kit, "SELECT error, complete, unknown_costs FROM queries") == [("GeneratorExit", 0, 0)]
    assert read(kit, "SELECT sum(held) FROM budgets") in ([(0,)], [(None,)])


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
    told = read(kit, "SELECT error, complete FROM queries ORDER BY error")
    assert told == [(None, 1), ("GeneratorExit", 0)]
