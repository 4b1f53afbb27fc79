"""The drivers in a real kit: threads, tasks, streams, cancellation, and what is left behind (nothing)."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

import costkit
from costkit import Kit, exact, flight
from costkit.errors import StreamLost
from tests.suspended import throw_at

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


# --- one call per cold key
# ------------------------------------------------------------------------------------------


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


# --- async: kinds, errors, cancellation
# -----------------------------------------------------------------------------


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


# --- streams
# ----------------------------------------------------------------------------------------------------------


def test_stream_hit_and_outcome(kit: Kit) -> None:
    """A generator function streams as before; the second time the same chunks come from the store."""
    calls = []

    @kit.call(exact(), scope=None)
    def ask(q: str) -> Iterator[str]:
        calls.append(q)
        yield from ("a", "b", q)
        spend()

    assert list(ask("c")) == ["a", "b", "c"]
    again = ask.outcome("c")
    assert again.outcome is None and list(again) == ["a", "b", "c"]
    assert again.outcome is not None
    assert (again.outcome.value, again.outcome.saving) == (["a", "b", "c"], "exact")
    assert again.outcome.cost.saving == 20_000 and again.outcome.ttft is not None
    assert calls == ["c"]


def test_async_stream_hit_and_outcome(kit: Kit) -> None:
    """The same for an async generator function."""

    @kit.call(exact(), scope=None)
    async def ask(q: str) -> AsyncIterator[dict[str, str]]:
        for c in ("a", q):
            await asyncio.sleep(0)
            yield {"c": c}

    async def main() -> None:
        assert [c async for c in ask("b")] == [{"c": "a"}, {"c": "b"}]
        again = ask.outcome("b")
        assert [c async for c in again] == [{"c": "a"}, {"c": "b"}]
        assert again.outcome is not None and again.outcome.saving == "exact"

    run(main())


def test_a_stream_is_lazy_and_its_arguments_are_not(kit: Kit) -> None:
    """Bad arguments are refused at the call; the function runs when the first chunk is asked for."""
    calls = []

    @kit.call(exact(), scope=None)
    def ask(q: str) -> Iterator[str]:
        calls.append(q)
        yield q

    with pytest.raises(TypeError):
        ask()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    stream = ask("q")
    assert calls == [] and next(stream) == "q" and calls == ["q"]
    assert list(stream) == []


@pytest.mark.parametrize("how", ["close", "drop", "outcome"])
def test_a_stream_left_half_way(kit: Kit, how: str) -> None:
    """A stream that its reader leaves closes the function's generator, is recorded incomplete and not
    stored."""
    closed = []

    @kit.call(exact(), scope=None)
    def ask() -> Iterator[int]:
        try:
            spend()
            yield from range(10)
        finally:
            closed.append(1)

    stream: Any = ask.outcome() if how == "outcome" else ask()
    assert next(stream) == 0 and next(stream) == 1
    if how == "drop":
        del stream
        gc.collect()
    else:
        stream.close()
    assert closed == [1]
    (row,) = rows(kit)
    assert (row["complete"], row["provider_cost"], row["error"]) == (0, 20_000, "GeneratorExit")
    assert list(ask()) == list(range(10)) and [r["saved_by"] for r in rows(kit)] == [None, None]


def test_an_async_stream_left_half_way(kit: Kit) -> None:
    """The same for an async generator that is closed, and for a task that is cancelled between chunks."""
    closed: list[int] = []
    half: list[int] = []

    @kit.call(exact(), scope=None)
    async def ask() -> AsyncIterator[int]:
        try:
            spend()
            for i in range(10):
                yield i
                await asyncio.sleep(0)
        finally:
            closed.append(1)

    async def cancelled() -> None:
        async for i in ask():
            if i == 3:
                half.append(i)
                await asyncio.sleep(30)

    async def main() -> None:
        stream = ask.outcome()
        assert await anext(stream) == 0
        await stream.aclose()
        task = asyncio.create_task(cancelled())
        await until(lambda: half == [3])
        task.cancel()
        await asyncio.wait([task])
        gc.collect()
        await until(lambda: len(closed) == 2)
        await until(lambda: len(kit._ports.flights) == 0)
        assert [i async for i in ask()] == list(range(10))

    run(main())
    assert [r["complete"] for r in rows(kit)] == [0, 0, 1] and [r["saved_by"] for r in rows(kit)] == [
        None
    ] * 3


@pytest.mark.parametrize("chunks", [0, 2])
def test_stream_errors_pass_unchanged(kit: Kit, chunks: int) -> None:
    """The stream's own error comes out after its chunks, is recorded, and nothing is stored."""
    error = ValueError("x")

    @kit.call(exact(), scope=None)
    def ask() -> Iterator[int]:
        yield from range(chunks)
        raise error

    for _ in range(2):
        seen = []
        with pytest.raises(ValueError) as caught:
            for chunk in ask():
                seen.append(chunk)
        assert seen == list(range(chunks)) and caught.value is error
    assert [r["error"] for r in rows(kit)] == ["ValueError"] * 2


def test_a_follower_tails_live(kit: Kit) -> None:
    """A second reader in another thread gets each chunk while the first stream is still being made, as a
    copy."""
    calls = []
    first, second = threading.Event(), threading.Event()

    @kit.call(exact(), scope=None)
    def ask() -> Iterator[list[str]]:
        calls.append(1)
        yield ["a"]
        assert second.wait(WAIT)
        yield ["b"]

    def leader() -> None:
        for chunk in ask():
            chunk.append("mine")
            first.set()

    thread = threading.Thread(target=leader)
    thread.start()
    assert first.wait(WAIT)
    tail = ask.outcome()
    got = next(tail)
    assert got[0] == "a"  # while the leader has only its first chunk
    second.set()
    assert [c[0] for c in tail] == ["b"]
    thread.join(WAIT)
    assert len(calls) == 1 and tail.outcome is not None and tail.outcome.saving == "coalesced"


def test_async_followers_tail_live(kit: Kit) -> None:
    """Followers in an event loop get the first chunk before the leader has the second."""
    go = asyncio.Event()
    calls = []

    @kit.call(exact(), scope=None)
    async def ask() -> AsyncIterator[str]:
        calls.append(1)
        yield "a"
        await go.wait()
        yield "b"

    async def read(seen: list[str]) -> list[str]:
        async for chunk in ask():
            seen.append(chunk)
        return seen

    async def main() -> None:
        seen: list[list[str]] = [[] for _ in range(5)]
        tasks = [asyncio.create_task(read(s)) for s in seen]
        await until(lambda: seen == [["a"]] * 5)
        go.set()
        assert await asyncio.gather(*tasks) == [["a", "b"]] * 5

    run(main())
    assert len(calls) == 1


@pytest.mark.parametrize("emitted", [0, 1])
def test_followers_of_a_stream_that_breaks(kit: Kit, emitted: int) -> None:
    """A follower that has passed chunks on gets the leader's error; one that has not takes over."""
    go = asyncio.Event()
    calls = []

    @kit.call(exact(), scope=None)
    async def ask() -> AsyncIterator[str]:
        calls.append(1)
        if len(calls) == 1:
            for _ in range(emitted):
                yield "a"
            await go.wait()
            raise ConnectionError("broken")
        yield "whole"

    async def read() -> list[str]:
        return [chunk async for chunk in ask()]

    async def main() -> list[Any]:
        tasks = [asyncio.create_task(read()) for _ in range(3)]
        await until(lambda: waiting(kit) == 2)
        go.set()
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    results = run(main())
    broken = [r for r in results if isinstance(r, ConnectionError)]
    assert len(broken) == (3 if emitted else 1) and [r for r in results if r not in broken] == (
        [] if emitted else [["whole"]] * 2
    )


def test_a_follower_of_an_abandoned_stream(kit: Kit) -> None:
    """A follower that has chunks is told with StreamLost that the stream it followed was left."""
    from costkit.errors import StreamLost

    @kit.call(exact(), scope=None)
    def ask() -> Iterator[str]:
        yield "a"
        yield "b"

    leader: Any = ask()
    assert next(leader) == "a"
    got: list[Any] = []
    has_one = threading.Event()

    def follow() -> None:
        try:
            for chunk in ask():
                got.append(chunk)
                has_one.set()
        except StreamLost as exc:
            got.append(exc)

    thread = threading.Thread(target=follow)
    thread.start()
    assert has_one.wait(WAIT)
    leader.close()
    thread.join(WAIT)
    assert got[0] == "a" and isinstance(got[1], StreamLost)


@pytest.mark.filterwarnings("ignore:costkit")
def test_streams_that_cannot_be_stored_are_still_whole(kit: Kit) -> None:
    """Chunks that cannot be stored: followers get a whole stream each, whether the first or a later chunk is
    such."""

    class Thing:
        pass

    for kind in ("first", "later"):
        go = asyncio.Event()

        @kit.call(exact(), scope=None, name=kind)
        async def ask(kind: str) -> AsyncIterator[Any]:
            if kind == "later":
                yield "text"
            yield Thing()
            await go.wait()  # noqa: B023 - used up within this turn of the loop
            yield "end"

        async def read(ask: Any = ask, kind: str = kind) -> list[Any]:
            return [chunk async for chunk in ask(kind)]

        async def main(
            go: asyncio.Event = go, read: Callable[[], Awaitable[list[Any]]] = read
        ) -> list[list[Any]]:
            tasks = [asyncio.ensure_future(read()) for _ in range(3)]
            for _ in range(50):
                await asyncio.sleep(0)
            go.set()
            return list(await asyncio.gather(*tasks))

        names = [[type(c).__name__ for c in chunks] for chunks in run(main())]
        assert names == [["str"] * (kind == "later") + ["Thing", "str"]] * 3


def test_two_identical_streams_in_one_thread_do_not_deadlock(kit: Kit) -> None:
    """zip(ask(q), ask(q)) in one thread runs the second by itself instead of waiting for the first."""

    @kit.call(exact(), scope=None)
    def ask() -> Iterator[int]:
        yield from range(3)

    assert list(zip(ask(), ask(), strict=True)) == [(0, 0), (1, 1), (2, 2)]
    kit.forget()
    one, two = ask(), ask()
    assert next(one) == 0 and list(two) == [0, 1, 2] and list(one) == [1, 2]


def test_two_identical_async_streams_in_one_task_do_not_deadlock(kit: Kit) -> None:
    """The same for async generators of which one task reads the second to its end before the first."""

    @kit.call(exact(), scope=None)
    async def ask() -> AsyncIterator[int]:
        for i in range(3):
            yield i

    async def main() -> tuple[list[int], list[int]]:
        one, two = ask(), ask()
        first = [await anext(one)]
        return [c async for c in two], first + [c async for c in one]

    assert run(main()) == ([0, 1, 2], [0, 1, 2])


def test_a_call_inside_a_stream_is_its_child(kit: Kit) -> None:
    """A wrapped call inside a generator, between chunks, belongs to it; one made by the reader does not."""

    @kit.call(scope=None, name="inner")
    def inner() -> str:
        spend()
        return "x"

    @kit.call(scope=None, name="outer")
    def outer() -> Iterator[str]:
        yield inner()
        yield inner()

    stream = outer.outcome()
    for _ in stream:
        inner()
    assert stream.outcome is not None and stream.outcome.cost.provider == 40_000
    parents = [r["parent_id"] for r in rows(kit) if r["name"] == "inner"]
    assert parents == [stream.outcome.query_id, None] * 2


def test_a_leader_that_is_not_read_on_holds_up_nobody(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream whose reader pauses keeps its followers waiting for PATIENCE only: then they are told to call again."""
    monkeypatch.setattr(flight, "PATIENCE", 0.05)

    @kit.call(exact(), scope=None)
    async def ask(q: str) -> AsyncIterator[object]:
        yield "a"
        yield "b"

    @kit.call(exact(), scope=None)
    def ask_sync(q: str) -> Iterator[str]:
        yield "a"
        yield "b"

    async def main() -> None:
        leader = ask("q")
        await anext(leader)
        follower = asyncio.create_task(collect(ask("q")))
        with pytest.raises(StreamLost, match="not read on"):
            await asyncio.wait_for(follower, WAIT)
        assert [c async for c in leader] == ["b"] and await collect(ask("q")) == ["a", "b"]

    async def collect(chunks: AsyncIterator[object]) -> list[object]:
        return [c async for c in chunks]

    run(main())
    paused = ask_sync("q")
    assert next(paused) == "a"
    (lost,) = in_threads(1, lambda: list(ask_sync("q")))
    assert isinstance(lost, StreamLost) and list(paused) == ["b"]


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
