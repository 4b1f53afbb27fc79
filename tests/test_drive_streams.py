"""Streams in a real kit: lazy, whole, broken, left half way."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from costkit import Kit, exact
from tests import drives
from tests.drives import rows, run, spend, until

kit = drives.kit


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
