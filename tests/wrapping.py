"""What the tests of wrapped SDK clients share: fixtures, sync and async clients run alike, the ledger read."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

import costkit
from tests.scripted import Script, serving

GPT, CLAUDE = "gpt-5-mini", "claude-sonnet-4-5"
KINDS: dict[str, tuple[type, type]] = {
    "openai": (openai.OpenAI, openai.AsyncOpenAI),
    "anthropic": (anthropic.Anthropic, anthropic.AsyncAnthropic),
}
QUIET = pytest.mark.filterwarnings("ignore:The model:DeprecationWarning")
APIS = ("chat", "completions", "responses", "messages")


class Caller:
    """Runs sync and async clients alike."""

    def __init__(self, asynchronous: bool) -> None:
        self.asynchronous = asynchronous
        self.runner = asyncio.Runner() if asynchronous else None
        self.made: list[Any] = []

    def client(self, sdk: str, url: str, **more: Any) -> Any:
        """A client of the SDK."""
        base = url + "/v1" if sdk == "openai" else url
        kind = KINDS[sdk][self.asynchronous]
        self.made.append(kind(**{"base_url": base, "api_key": "sk-none", "max_retries": 0, **more}))
        return self.made[-1]

    def close(self) -> None:
        """Close what was made, in the loop it was made in."""
        for client in self.made:
            self.run(client.close())
        if self.runner is not None:
            self.runner.close()

    def run(self, thing: Any) -> Any:
        """The result of a call."""
        if not inspect.isawaitable(thing):
            return thing

        async def wait() -> Any:
            return await thing

        assert self.runner is not None
        return self.runner.run(wait(), context=contextvars.copy_context())

    def listed(self, thing: Any) -> list[Any]:
        """All that a stream yields."""
        stream = self.run(thing)
        if not self.asynchronous:
            return list(stream)

        async def read() -> list[Any]:
            return [chunk async for chunk in stream]

        return list(self.run(read()))

    def helper(self, manager: Any, final: str) -> tuple[list[Any], Any]:
        """The events of an SDK's ``.stream()`` helper, and its final object."""
        if not self.asynchronous:
            with manager as stream:
                return list(stream), getattr(stream, final)()

        async def read() -> tuple[list[Any], Any]:
            async with manager as stream:
                return [event async for event in stream], await getattr(stream, final)()

        found: tuple[list[Any], Any] = self.run(read())
        return found


@pytest.fixture(scope="module")
def server() -> Iterator[Script]:
    with serving() as script:
        yield script


@pytest.fixture
def script(server: Script) -> Script:
    server.asked.clear()
    server.gone.clear()
    server.piece, server.wait, server.pause = 0, 0.0, 0.0
    return server


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def caller(request: pytest.FixtureRequest) -> Iterator[Caller]:
    made = Caller(request.param)
    yield made
    made.close()


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[costkit.Kit]:
    with costkit.Kit(tmp_path / "kit") as made:
        yield made


def sdk_of(api: str) -> str:
    return "anthropic" if api == "messages" else "openai"


def create(api: str, client: Any, what: str, **more: Any) -> Any:
    """One call of an API."""
    messages = [{"role": "user", "content": what}]
    if api == "messages":
        return client.messages.create(model=CLAUDE, messages=messages, **{"max_tokens": 100, **more})
    if api == "responses":
        return client.responses.create(model=GPT, input=what, **more)
    if api == "completions":
        return client.completions.create(model=GPT, prompt=what, **more)
    return client.chat.completions.create(model=GPT, messages=messages, **more)


def rows(kit: costkit.Kit, columns: str = "saved_by") -> list[Any]:
    found = kit.ledger().execute(f"SELECT {columns} FROM queries ORDER BY at, rowid").fetchall()
    return [row[0] if len(row) == 1 else tuple(row) for row in found]


def attempts(kit: costkit.Kit) -> list[tuple[Any, ...]]:
    found = (
        kit.ledger().execute("SELECT model, usage_state, cost, finish FROM attempts ORDER BY id").fetchall()
    )
    return [tuple(row) for row in found]


def caught(call: Callable[[], Any]) -> Exception:
    """What the call raises."""
    with pytest.raises(Exception) as info:
        call()
    return info.value


def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until it is so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came to pass"
        time.sleep(0.005)
