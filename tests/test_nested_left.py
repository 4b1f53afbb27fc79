"""A stream of text that is left before its end, made by calls inside it or by a rule: what it is billed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import costkit

PRICES = {"m": costkit.Rates(1, 2)}
CHUNKS: tuple[dict[str, Any], ...] = tuple(
    {"object": "chat.completion.chunk", "model": "m", "choices": [{"index": 0, "delta": {"content": word}}]}
    for word in ("five ", "days ", "or ", "so")
)


def test_a_left_stream_counts_what_is_inside_it_once(tmp_path: Path) -> None:
    """The inner call is billed by estimate; the outer, whose text is the inner's, adds nothing and knows its cost."""
    with costkit.Kit(tmp_path / "kit", prices=PRICES) as kit:

        @kit.call(scope=None, name="complete")
        def complete(question: str, *, model: str = "m") -> Iterator[dict[str, Any]]:
            yield from CHUNKS

        @kit.call(scope=None, name="ask")
        def ask(question: str) -> Iterator[str]:
            for chunk in complete(question):
                yield chunk["choices"][0]["delta"]["content"]

        stream = ask("how long?")
        assert [next(stream), next(stream)] == ["five ", "days "]
        stream.close()  # type: ignore[attr-defined]
        rows = kit.ledger().execute("SELECT provider_cost > 0, unknown_costs FROM query_costs").fetchall()
        attempts = kit.ledger().execute("SELECT usage_state FROM attempts").fetchall()
    assert [tuple(row) for row in rows] == [(1, 0)]
    assert [tuple(row) for row in attempts] == [("estimated",)]


def test_a_left_stream_of_a_cancelled_task_counts_once(tmp_path: Path) -> None:
    """The same in a task that is cancelled while the inner call waits."""

    async def run(kit: costkit.Kit) -> None:
        @kit.call(scope=None, name="complete")
        async def complete(question: str, *, model: str = "m") -> AsyncIterator[dict[str, Any]]:
            for chunk in CHUNKS:
                yield chunk
            await asyncio.sleep(30)

        @kit.call(scope=None, name="ask")
        async def ask(question: str) -> AsyncIterator[str]:
            async for chunk in complete(question):
                yield chunk["choices"][0]["delta"]["content"]

        got: list[str] = []

        async def read() -> None:
            async for text in ask("how long?"):
                got.append(text)

        reading = asyncio.create_task(read())
        while len(got) < 4:
            await asyncio.sleep(0.01)
        reading.cancel()
        await asyncio.wait([reading])

    with costkit.Kit(tmp_path / "kit", prices=PRICES) as kit:
        asyncio.run(run(kit))
        rows = kit.ledger().execute("SELECT provider_cost > 0, unknown_costs FROM query_costs").fetchall()
    assert [tuple(row) for row in rows] == [(1, 0)]


def test_a_left_stream_of_a_rule_is_free(tmp_path: Path) -> None:
    """Text that a rule gave, and said so, costs nothing however much of it was read."""
    with costkit.Kit(tmp_path / "kit") as kit:

        @kit.call(scope=None, name="ask")
        def ask(question: str) -> Iterator[str]:
            costkit.record(free=True)
            yield "Hello, "
            yield "how can I help?"

        stream = ask("hi")
        next(stream)
        stream.close()  # type: ignore[attr-defined]
        rows = kit.ledger().execute("SELECT provider_cost, unknown_costs FROM query_costs").fetchall()
    assert [tuple(row) for row in rows] == [(0, 0)]
