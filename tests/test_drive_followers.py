"""Those who follow a stream of another caller in a real kit: live, and when its leader breaks, leaves or dawdles."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from costkit import Kit, exact, flight
from costkit.errors import StreamLost
from tests import drives
from tests.drives import WAIT, in_threads, run, until, waiting

kit = drives.kit


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
