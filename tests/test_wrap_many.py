"""Wrapped SDK clients with many callers at once, and what they leave on disk."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

import costkit
from tests import wrapping
from tests.scripted import Script, serving
from tests.wrapping import CLAUDE, Caller, caught, create, rows, sdk_of

pytestmark = wrapping.QUIET
caller = wrapping.caller
kit = wrapping.kit
script = wrapping.script
server = wrapping.server


# --- many at once ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("api", ["chat", "messages"])
def test_one_call_for_many(api: str, stream: bool, script: Script, kit: costkit.Kit, caller: Caller) -> None:
    """32 threads, or 32 tasks, on one cold key: one call upstream, 32 equal answers, one of them paid."""
    script.wait = 0.3
    wrapped = kit.wrap(caller.client(sdk_of(api), script.url), costkit.exact(), scope=None)

    def one(_: int) -> Any:
        got = create(api, wrapped, "text", stream=stream)
        return [chunk.model_dump() for chunk in got] if stream else got.model_dump()

    async def one_async() -> Any:
        got = await create(api, wrapped, "text", stream=stream)
        return [chunk.model_dump() async for chunk in got] if stream else got.model_dump()

    async def all_async() -> list[Any]:
        return list(await asyncio.gather(*(one_async() for _ in range(32))))

    if caller.asynchronous:
        answers = caller.run(all_async())
    else:
        with ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(one, range(32)))
    assert len(script.asked) == 1 and all(answer == answers[0] for answer in answers)
    assert rows(kit).count(None) == 1 and len(rows(kit)) == 32


def test_followers_read_a_stream_as_it_comes(script: Script, kit: costkit.Kit) -> None:
    """A second reader of a stream under way gets its chunks before the stream has ended."""
    wrapped = kit.wrap(openai.OpenAI(base_url=script.url + "/v1", api_key="k"), costkit.exact(), scope=None)
    first = create("chat", wrapped, "endless", stream=True)
    chunks = [next(first) for _ in range(3)]
    got: list[Any] = []

    def follow() -> None:
        second = create("chat", wrapped, "endless", stream=True)
        got.extend(next(second) for _ in range(3))
        second.close()

    thread = threading.Thread(target=follow)
    thread.start()
    thread.join(10)
    first.close()
    assert got == chunks and len(script.asked) == 1


def test_tenants_at_once(script: Script, kit: costkit.Kit) -> None:
    """Calls of two tenants under way at the same time are not shared."""
    script.wait = 0.2
    wrapped = kit.wrap(
        openai.OpenAI(base_url=script.url + "/v1", api_key="k"), costkit.exact(), scope="tenant"
    )

    def one(number: int) -> None:
        with kit.scope(tenant=f"t{number % 2}"):
            create("chat", wrapped, "text")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(8)))
    assert len(script.asked) == 2


def test_followers_of_a_failing_call(script: Script, kit: costkit.Kit) -> None:
    """16 callers of one failing call get the SDK's error after at most three calls, each with a request of its own."""
    script.wait = 0.2
    clients = [
        openai.OpenAI(base_url=script.url + "/v1", api_key=f"sk-{n}", max_retries=0) for n in range(16)
    ]
    wrapped = [kit.wrap(client, costkit.exact(), scope=None) for client in clients]

    def one(client: Any) -> tuple[Any, ...]:
        error: Any = caught(lambda: create("chat", client, "status 429"))
        return type(error), error.request.headers["authorization"]

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(one, wrapped))
    assert {kind for kind, _ in found} == {openai.RateLimitError} and len(script.asked) <= 3
    assert {key for _, key in found} == {f"Bearer sk-{n}" for n in range(16)}


# --- secrets --------------------------------------------------------------------------------------------------


def test_no_key_anywhere(tmp_path: Path, script: Script, caller: Caller) -> None:
    """The API key, and what else may be secret in headers and query, is in no file, error or print."""
    canary = "sk-canary-7f3a"
    with costkit.Kit(tmp_path / "kit", store_text=True) as kit:
        for sdk, api in (("openai", "chat"), ("anthropic", "messages")):
            more = {"default_headers": {"x-gateway-token": canary}, "default_query": {"code": canary}}
            wrapped = kit.wrap(
                caller.client(sdk, script.url, api_key=canary, **more), costkit.exact(), scope=None
            )
            caller.run(create(api, wrapped, "text"))
            caller.listed(create(api, wrapped, "text", stream=True))
            error = caught(lambda: caller.run(create(api, wrapped, "status 401")))  # noqa: B023
            assert canary not in repr(wrapped) + repr(error) + str(error) + repr(kit)
        assert all(canary in str(asked.headers) and canary in asked.path for asked in script.asked)
        kit.ledger()
        for file in (tmp_path / "kit").rglob("*"):
            assert not file.is_file() or canary.encode() not in file.read_bytes(), file
    for file in (tmp_path / "kit").rglob("*"):
        assert not file.is_file() or canary.encode() not in file.read_bytes(), file


def test_a_hit_needs_no_server(tmp_path: Path, script: Script, caller: Caller) -> None:
    """What is stored is served by another kit on the folder though the server is gone."""
    with serving() as gone:
        base = gone.url
        with costkit.Kit(tmp_path / "kit") as kit:
            wrapped = kit.wrap(caller.client("anthropic", base), costkit.exact(), scope=None)
            first = caller.run(create("messages", wrapped, "text"))
            chunks = caller.listed(create("messages", wrapped, "text", stream=True))
    with costkit.Kit(tmp_path / "kit") as kit:
        wrapped = kit.wrap(caller.client("anthropic", base), costkit.exact(), scope=None)
        assert caller.run(create("messages", wrapped, "text")) == first
        again = caller.listed(create("messages", wrapped, "text", stream=True))
        assert [event.model_dump() for event in again] == [event.model_dump() for event in chunks]
        with pytest.raises(anthropic.APIConnectionError):
            caller.run(create("messages", wrapped, "tools"))
    assert first.model == CLAUDE
