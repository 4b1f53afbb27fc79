"""Wrapped SDK clients when things go wrong: errors, broken and left streams, many callers at once, secrets."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from typing import Any

import openai
import pytest

import costkit
from costkit.errors import UnknownPrice
from tests import wrapping
from tests.scripted import Script, events
from tests.wrapping import APIS, GPT, Caller, attempts, caught, create, rows, sdk_of, until

pytestmark = wrapping.QUIET
caller = wrapping.caller
kit = wrapping.kit
script = wrapping.script
server = wrapping.server
PATHS = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
}


def told(error: Any) -> tuple[Any, ...]:
    """All of an SDK's error that a caller can act on."""
    response = getattr(error, "response", None)
    varies = ("date", "request-id", "x-request-id")
    headers = None if response is None else {k: v for k, v in response.headers.items() if k not in varies}
    return type(error), str(error), getattr(error, "status_code", None), getattr(error, "body", None), headers


# --- errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("api", ["chat", "messages"])
def test_errors_are_the_sdks_own(
    api: str, stream: bool, script: Script, kit: costkit.Kit, caller: Caller
) -> None:
    """Every status gives the bare client's error, to the word and the header, at one request a call, unstored."""
    client = caller.client(sdk_of(api), script.url)
    wrapped = kit.wrap(client, costkit.exact(), scope=None)
    for status in (400, 401, 403, 404, 409, 422, 429, 500, 503, 529):
        bare = caught(lambda s=status: caller.run(create(api, client, f"status {s}", stream=stream)))  # type: ignore[misc]
        script.asked.clear()
        for _ in range(2):
            error = caught(lambda s=status: caller.run(create(api, wrapped, f"status {s}", stream=stream)))  # type: ignore[misc]
            assert told(error) == told(bare)
        assert len(script.asked) == 2
    names = rows(kit, "error")
    assert "RateLimitError" in names and "InternalServerError" in names and None not in names


def test_connection_errors_are_the_sdks_own(script: Script, kit: costkit.Kit, caller: Caller) -> None:
    """A refused connection and a hanging server give the bare client's errors."""
    nowhere = caller.client("openai", "http://127.0.0.1:9")
    slow = caller.client("openai", script.url, timeout=0.2)
    script.wait = 1.0
    for client, expected in ((nowhere, openai.APIConnectionError), (slow, openai.APITimeoutError)):
        for stream in (False, True):
            wrapped = kit.wrap(client, costkit.exact(), scope=None)
            bare = caught(lambda: caller.run(create("chat", client, "text", stream=stream)))  # noqa: B023
            error = caught(lambda: caller.run(create("chat", wrapped, "text", stream=stream)))  # noqa: B023
            assert type(error) is type(bare) is expected and str(error) == str(bare)
    assert None not in rows(kit, "error")


def test_errors_of_costkit_come_as_they_are(script: Script, kit: costkit.Kit, caller: Caller) -> None:
    """An unknown price is not made a connection error, and is raised before anything is sent."""
    for sdk, api in (("openai", "chat"), ("anthropic", "messages")):
        wrapped = kit.wrap(caller.client(sdk, script.url, max_retries=0), costkit.exact(), scope=None)
        for stream in (False, True):
            with pytest.raises(UnknownPrice):
                if api == "chat":
                    asked: Any = {
                        "model": "no-such-model-7",
                        "messages": [{"role": "user", "content": "text"}],
                    }
                    caller.run(wrapped.chat.completions.create(**asked, stream=stream))
                else:
                    asked = {"model": "no-such-model-7", "max_tokens": 5, "messages": []}
                    caller.run(wrapped.messages.create(**asked, stream=stream))
    assert script.asked == []


def test_admit_of_the_user(script: Script, kit: costkit.Kit, caller: Caller) -> None:
    """The user's admit is given the answer's JSON, for a stream its events'; what it raises is raised."""
    given: list[Any] = []

    def admit(answer: Any) -> bool:
        given.append(answer)
        if len(given) > 2:
            raise LookupError("the user's own")
        return False

    wrapped = kit.wrap(caller.client("openai", script.url), costkit.exact(admit=admit), scope=None)
    caller.run(create("chat", wrapped, "length"))
    caller.listed(create("chat", wrapped, "length", stream=True))
    assert (
        given[0]["choices"][0]["finish_reason"] == "length"
        and given[1][0]["object"] == "chat.completion.chunk"
    )
    with pytest.raises(LookupError, match="the user's own"):
        caller.run(create("chat", wrapped, "text"))
    assert len(script.asked) == 3


def test_retries_only_where_they_are_asked_for(script: Script, kit: costkit.Kit, caller: Caller) -> None:
    """The SDK's retries are off; asked for on a copy, each of them is a call with a row of its own."""
    wrapped = kit.wrap(caller.client("openai", script.url, max_retries=5), costkit.exact(), scope=None)
    caught(lambda: caller.run(create("chat", wrapped, "status 500")))
    assert len(script.asked) == 1
    caught(lambda: caller.run(create("chat", wrapped.with_options(max_retries=1), "status 500")))
    assert len(script.asked) == 3 == len(rows(kit))


# --- answers that are not whole -------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["length", "refusal"])
@pytest.mark.parametrize("api", ["chat", "responses", "messages"])
def test_cut_and_refused_answers_are_not_stored(
    api: str, what: str, script: Script, kit: costkit.Kit, caller: Caller
) -> None:
    """An answer cut by its limit or refused, whole or streamed, is passed on, and asked for again."""
    wrapped = kit.wrap(caller.client(sdk_of(api), script.url), costkit.exact(), scope=None)
    for stream in (False, False, True, True):
        got = create(api, wrapped, what, stream=stream)
        assert caller.listed(got) if stream else caller.run(got)
    assert len(script.asked) == 4 and rows(kit) == [None] * 4


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("way", ["cut", "stop"])
def test_half_a_stream_is_never_stored(
    way: str, api: str, script: Script, kit: costkit.Kit, caller: Caller
) -> None:
    """Broken off or ended after any event, a stream gives what the bare client gives, and is asked for again."""
    client = caller.client(sdk_of(api), script.url)
    wrapped = kit.wrap(client, costkit.exact(), scope=None)
    asks_usage = {"stream_options": {"include_usage": True}} if api in ("chat", "completions") else {}
    total = len(events(PATHS[api], {"model": GPT, **asks_usage}, "text"))

    def read(one: Any, what: str) -> tuple[list[Any], str]:
        got: list[Any] = []
        try:
            if not caller.asynchronous:
                for chunk in create(api, one, what, stream=True, **asks_usage):
                    got.append(chunk.model_dump())
            else:

                async def run() -> None:
                    async for chunk in await create(api, one, what, stream=True, **asks_usage):
                        got.append(chunk.model_dump())

                caller.run(run())
        except Exception as exc:  # noqa: BLE001 - compared with the bare client's
            return got, type(exc).__name__
        return got, ""

    for count in range(total):
        bare = read(client, f"{way} {count}")
        script.asked.clear()
        for _ in range(2):
            assert read(wrapped, f"{way} {count}") == bare, f"after {count} of {total}"
        assert len(script.asked) == 2, f"after {count} of {total}"
    assert "exact" not in rows(kit)
    whole = [read(wrapped, f"{way} {total}") for _ in range(2)]
    assert whole[0] == whole[1] and whole[0][1] == "" and rows(kit)[-2:] == [None, "exact"]


@pytest.mark.parametrize("what", ["garbage", "latin"])
def test_what_is_no_json_or_no_text(what: str, script: Script, kit: costkit.Kit, caller: Caller) -> None:
    """A page in place of JSON, and bytes that are no UTF-8, end as with the bare client, and are not stored."""
    client = caller.client("openai", script.url)
    wrapped = kit.wrap(client, costkit.exact(), scope=None)

    def outcome(one: Any, stream: bool) -> str:
        try:
            got = create("chat", one, what, stream=stream)
            return repr(caller.listed(got) if stream else caller.run(got))
        except Exception as exc:  # noqa: BLE001 - compared with the bare client's
            return f"{type(exc).__name__}: {exc}"

    with pytest.warns(RuntimeWarning, match="cannot be stored"):
        for stream in (False, True) if what == "latin" else (False,):
            bare = outcome(client, stream)
            script.asked.clear()
            assert outcome(wrapped, stream) == outcome(wrapped, stream) == bare
            assert len(script.asked) == 2 and "exact" not in rows(kit)


# --- streams that are left ------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["close", "drop", "exit"])
@pytest.mark.parametrize("api", ["chat", "messages"])
def test_a_left_stream_is_closed_and_estimated(
    api: str, way: str, script: Script, kit: costkit.Kit, caller: Caller
) -> None:
    """Closed, dropped or left by ``with``, a stream is closed at the server, billed as estimated and not stored."""
    wrapped = kit.wrap(caller.client(sdk_of(api), script.url), costkit.exact(), scope=None)
    if caller.asynchronous:

        async def some() -> None:
            stream = await create(api, wrapped, "endless", stream=True)
            if way == "exit":
                async with stream:
                    assert await anext(stream) and await anext(stream)
                return
            assert await anext(stream) and await anext(stream)
            if way == "close":
                await stream.close()
            else:
                del stream
                gc.collect()
                await asyncio.sleep(0.05)

        caller.run(some())
    else:
        stream = create(api, wrapped, "endless", stream=True)
        assert next(stream) and next(stream)
        if way == "close":
            stream.close()
        elif way == "exit":
            with stream:
                pass
        else:
            del stream
            gc.collect()
    assert script.gone.wait(10), "the server was left waiting"
    until(lambda: len(rows(kit)) == 1)
    assert rows(kit, "complete, saved_by") == [(0, None)]
    assert [state for _, state, *_ in attempts(kit)] == ["estimated"]
    assert attempts(kit)[0][2] > 0


def test_closed_by_another_thread(script: Script, kit: costkit.Kit) -> None:
    """A stream that one thread reads and another closes ends for both, soon."""
    wrapped = kit.wrap(openai.OpenAI(base_url=script.url + "/v1", api_key="k"), costkit.exact(), scope=None)
    stream = create("chat", wrapped, "endless", stream=True)
    ended = threading.Event()

    def read() -> None:
        try:
            for _ in stream:
                pass
        except Exception:  # noqa: BLE001 - however the HTTP library says it
            pass
        ended.set()

    threading.Thread(target=read, daemon=True).start()
    until(lambda: len(script.asked) == 1)
    time.sleep(0.05)
    stream.close()
    assert script.gone.wait(10) and ended.wait(10)


def test_a_cancelled_task(script: Script, kit: costkit.Kit) -> None:
    """A task cancelled while it waits, or while it reads, leaves the server alone and is recorded as incomplete."""

    async def run() -> None:
        client = openai.AsyncOpenAI(base_url=script.url + "/v1", api_key="k")
        wrapped = kit.wrap(client, costkit.exact(), scope=None)

        async def read() -> None:
            async for _ in await create("chat", wrapped, "endless", stream=True):
                reading.set()

        reading = asyncio.Event()
        task = asyncio.create_task(read())
        await reading.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        script.wait = 5.0
        waiting = asyncio.create_task(create("chat", wrapped, "text"))
        while len(script.asked) < 2:
            await asyncio.sleep(0.005)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(run())
    assert script.gone.wait(10)
    assert rows(kit, "complete, error") == [(0, "CancelledError")] * 2
