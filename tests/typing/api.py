"""What a type checker must make of the public API; checked by mypy --strict and pyright, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import assert_type

from anthropic import AsyncAnthropic
from openai import OpenAI

import costkit
from costkit import Kit, Outcome, exact

kit = Kit("./.costkit", prices={"m": costkit.Rates(1, 2)})


@kit.call(exact(ttl="1d"), scope="tenant")
def ask(question: str, n: int = 1, *, tenant: str) -> list[str]:
    return [question] * n


@kit.call(exact(), scope=None)
async def ask_async(question: str) -> dict[str, int]:
    return {question: 1}


@kit.call(exact(), scope=None)
def stream(question: str) -> Iterator[str]:
    yield question


@kit.call(exact(), scope=None)
async def stream_async(question: str) -> AsyncIterator[bytes]:
    yield question.encode()


class Agent:
    @kit.call(exact(), scope=None, ignore=["self"])
    def ask(self, question: str) -> int:
        return len(question)

    @kit.call(exact(), scope=None, ignore=["self"])
    async def ask_async(self, question: str) -> float:
        return float(len(question))

    @kit.call(exact(), scope=None, ignore=["self"])
    def stream(self, question: str) -> Iterator[int]:
        yield 1

    @kit.call(exact(), scope=None, ignore=["self"])
    async def stream_async(self, question: str) -> AsyncIterator[int]:
        yield 1


assert_type(ask("q", tenant="t"), list[str])
assert_type(ask("q", 2, tenant="t"), list[str])
out = ask.outcome("q", tenant="t")
assert_type(out, Outcome[list[str]])
assert_type(out.value, list[str])
assert_type(out.cost.usd, float)
assert_type(out.latency, float)
assert_type(out.saving, str | None)
assert_type(out.query_id, str)
assert_type(stream("q"), Iterator[str])
assert_type(stream_async("q"), AsyncIterator[bytes])
assert_type(Agent().ask("q"), int)
assert_type(Agent().ask.outcome("q"), Outcome[int])
assert_type(Agent.ask(Agent(), "q"), int)
assert_type(Agent().stream("q"), Iterator[int])
assert_type(Agent().stream_async("q"), AsyncIterator[int])

told = stream.outcome("q")
for chunk in told:
    assert_type(chunk, str)
assert_type(told.outcome, Outcome[list[str]] | None)

assert_type(kit.wrap(OpenAI(), exact(ttl="1d"), scope="tenant", budget=["0.02 USD", "1 USD/day"]), OpenAI)
assert_type(kit.wrap(AsyncAnthropic(), scope=None, max_cost=0), AsyncAnthropic)
with kit.scope(tenant="acme", budget="0.05 USD"):
    kit.call(exact(ttl="1h", stale="1d", negative=5, wait="30s"), scope=None, max_cost=lambda q: "0.01 USD")


async def main() -> None:
    assert_type(await ask_async("q"), dict[str, int])
    assert_type(await ask_async.outcome("q"), Outcome[dict[str, int]])
    assert_type(await Agent().ask_async("q"), float)
    async for part in stream_async("q"):
        assert_type(part, bytes)
    last = stream_async.outcome("q")
    async for part in last:
        assert_type(part, bytes)
    assert_type(last.outcome, Outcome[list[bytes]] | None)
    # A coroutine function's call must be awaited.
    ask_async("q")["k"]  # type: ignore[index]  # pyright: ignore[reportIndexIssue]
    await ask_async(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# What must be an error, on plain calls, outcomes and methods alike.
ask(5, tenant="t")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
ask("q")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
ask("q", tenant="t", colour=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
ask.outcome("q", "2", tenant="t")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
stream(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
stream_async()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Agent().ask(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Agent().ask.outcome()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
kit.call(exact(ttl=[1]), scope=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
kit.call(exact(), scope=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
out.value.append(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
out.cost = 5  # type: ignore[misc, assignment]  # pyright: ignore[reportAttributeAccessIssue]
kit.wrap(OpenAI(), scope=None).chat.completions.create(n="x")  # type: ignore[call-overload]  # pyright: ignore
kit.call(scope=None, budget=0.05)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
