"""Wrapped SDK clients over a real socket: a hit is what the miss was, and both are what the bare client gives."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from pydantic import BaseModel

import costkit
from tests import wrapping
from tests.scripted import Script
from tests.wrapping import APIS, CLAUDE, GPT, Caller, attempts, create, rows, sdk_of

pytestmark = wrapping.QUIET
caller = wrapping.caller
kit = wrapping.kit
script = wrapping.script
server = wrapping.server
TOOLS = [
    {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
]


class Days(BaseModel):
    """What structured answers hold."""

    days: int
    sure: bool


# --- hit, miss and the bare client ----------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["text", "tools", "json"])
@pytest.mark.parametrize("api", APIS)
def test_a_whole_answer(api: str, what: str, script: Script, kit: costkit.Kit, caller: Caller) -> None:
    """Bare, miss and hit are equal field by field and in print, of one class, after one call; usage is the server's."""
    client = caller.client(sdk_of(api), script.url)
    wrapped = kit.wrap(client, costkit.exact(), scope=None)
    bare = caller.run(create(api, client, what))
    miss, hit = (caller.run(create(api, wrapped, what)) for _ in range(2))
    assert type(wrapped) is type(client) and type(miss) is type(hit) is type(bare)
    dumps = [answer.model_dump(exclude_unset=True) for answer in (bare, miss, hit)]
    assert dumps[0] == dumps[1] == dumps[2]
    assert repr(miss) == repr(hit) == repr(bare) and miss == hit
    assert miss._request_id == hit._request_id is not None
    assert len(script.asked) == 2 and script.asked[0].body == script.asked[1].body
    assert rows(kit) == [None, "exact"]
    assert [(model, state) for model, state, *_ in attempts(kit)] == [(miss.model, "reported")]
    assert (
        rows(kit, "provider_cost")[1]
        == 0
        < rows(kit, "provider_cost")[0]
        == rows(kit, "counterfactual_cost")[1]
    )


@pytest.mark.parametrize("what", ["text", "tools", "json", "torn text"])
@pytest.mark.parametrize("api", APIS)
def test_a_stream(api: str, what: str, script: Script, kit: costkit.Kit, caller: Caller) -> None:
    """A stream's chunks are the same bare, missed and hit, however its bytes are cut; its usage was reported."""
    script.piece = 7 if what == "torn text" else 0
    client = caller.client(sdk_of(api), script.url)
    wrapped = kit.wrap(client, costkit.exact(), scope=None)
    bare = caller.listed(create(api, client, what, stream=True))
    miss, hit = (caller.listed(create(api, wrapped, what, stream=True)) for _ in range(2))
    assert len(miss) > 3 and len(script.asked) == 2 and rows(kit) == [None, "exact"]
    assert [c.model_dump(exclude_unset=True) for c in miss] == [c.model_dump(exclude_unset=True) for c in hit]
    assert [c.model_dump() for c in miss] == [c.model_dump() for c in bare]
    assert [type(c) for c in miss] == [type(c) for c in hit] == [type(c) for c in bare]
    assert [state for _, state, *_ in attempts(kit)] == ["reported"]


@pytest.mark.parametrize("api", APIS)
def test_raw_and_streaming_responses(api: str, script: Script, kit: costkit.Kit, caller: Caller) -> None:
    """The raw text, the status and the parsed object are the same; the first one has all of the server's headers."""
    client = caller.client(sdk_of(api), script.url)
    wrapped = kit.wrap(client, costkit.exact(), scope=None)

    def raw(one: Any) -> Any:
        return caller.run(create(api, one.with_raw_response, "text"))

    bare, miss, hit = raw(client), raw(wrapped), raw(wrapped)
    texts = [response.http_response.text for response in (bare, miss, hit)]
    assert texts[0] == texts[1] == texts[2] and len(script.asked) == 2
    assert miss.status_code == hit.status_code == 200 and hit.elapsed.total_seconds() >= 0
    assert miss.headers["x-left"] == "41" and "x-left" not in hit.headers
    assert hit.headers["x-request-id"] == miss.headers["x-request-id"]
    assert hit.headers["content-type"] == miss.headers["content-type"]
    parsed = [caller.run(response.parse()) for response in (miss, hit)]
    assert parsed[0] == parsed[1] == caller.run(create(api, wrapped, "text")) and len(script.asked) == 2


def test_with_streaming_response(script: Script, kit: costkit.Kit, caller: Caller) -> None:
    """A response read by the caller line by line is the same on a hit."""
    wrapped = kit.wrap(caller.client("openai", script.url), costkit.exact(), scope=None)
    asked = {"model": GPT, "messages": [{"role": "user", "content": "text"}]}
    for stream in (False, True):
        read: list[list[str]] = []
        for _ in range(2):
            manager = wrapped.chat.completions.with_streaming_response.create(**asked, stream=stream)
            if caller.asynchronous:

                async def lines(manager: Any = manager) -> list[str]:
                    async with manager as response:
                        return [line async for line in response.iter_lines()]

                read.append(caller.run(lines()))
            else:
                with manager as response:
                    read.append(list(response.iter_lines()))
        assert read[0] == read[1] and len(read[0]) > 3
    assert rows(kit) == [None, "exact"] * 2


def test_structured_output(script: Script, kit: costkit.Kit, caller: Caller) -> None:
    """``parse()`` gives the same parsed objects on a hit, for chat completions and for responses."""
    wrapped = kit.wrap(caller.client("openai", script.url), costkit.exact(), scope=None)
    messages = [{"role": "user", "content": "json"}]
    for _ in range(2):
        chat = caller.run(wrapped.chat.completions.parse(model=GPT, messages=messages, response_format=Days))
        assert chat.choices[0].message.parsed == Days(days=5, sure=True)
        answer = caller.run(wrapped.responses.parse(model=GPT, input="json", text_format=Days))
        assert answer.output_parsed == Days(days=5, sure=True)
    assert rows(kit) == [None, None, "exact", "exact"] and len(script.asked) == 2


@pytest.mark.parametrize("what", ["text", "tools", "json"])
@pytest.mark.parametrize("api", ["chat", "responses", "messages"])
def test_stream_helpers(api: str, what: str, script: Script, kit: costkit.Kit, caller: Caller) -> None:
    """The SDK's ``.stream()`` helpers give the same events and the same final object, and are stored."""
    wrapped = kit.wrap(caller.client(sdk_of(api), script.url), costkit.exact(), scope=None)
    messages = [{"role": "user", "content": what}]
    told = []
    for _ in range(2):
        if api == "chat":
            more = {"tools": [{**TOOLS[0], "function": {**TOOLS[0]["function"], "strict": True}}]}  # type: ignore[dict-item]
            manager = wrapped.chat.completions.stream(
                model=GPT, messages=messages, **(more if what == "tools" else {})
            )
            told.append(caller.helper(manager, "get_final_completion"))
        elif api == "responses":
            told.append(caller.helper(wrapped.responses.stream(model=GPT, input=what), "get_final_response"))
        else:
            manager = wrapped.messages.stream(model=CLAUDE, max_tokens=100, messages=messages)
            told.append(caller.helper(manager, "get_final_message"))
    (events, final), (again, last) = told
    assert [repr(event) for event in events] == [repr(event) for event in again] and len(events) > 3
    assert final.model_dump() == last.model_dump()
    assert rows(kit) == [None, "exact"] and len(script.asked) == 1


def test_embeddings(script: Script, kit: costkit.Kit, caller: Caller) -> None:
    """Embeddings are stored, and priced without an output."""
    wrapped = kit.wrap(caller.client("openai", script.url), costkit.exact(), scope=None)
    first, second = (
        caller.run(wrapped.embeddings.create(model="text-embedding-3-small", input="hi")) for _ in "ab"
    )
    assert first == second and len(script.asked) == 1 and rows(kit, "provider_cost")[0] > 0


# --- what is asked, and what is hidden ------------------------------------------------------------------------


def test_stream_usage_is_asked_for_and_not_shown(script: Script, kit: costkit.Kit, caller: Caller) -> None:
    """Usage is asked for on the caller's behalf, its chunk is shown to who asked for it, never to who did not."""
    client = caller.client("openai", script.url)
    wrapped = kit.wrap(client, costkit.exact(), scope=None)
    for options in ({}, {"stream_options": {"include_usage": True}}):
        for _ in range(2):
            chunks = caller.listed(create("chat", wrapped, "text", stream=True, **options))
            assert bool(chunks[-1].usage) is bool(options) and bool(chunks[-1].choices) is not bool(options)
    assert [asked.body["stream_options"] for asked in script.asked] == [{"include_usage": True}] * 2
    quiet = kit.wrap(client, costkit.exact(), scope=None, stream_usage=False, name="quiet")
    declined = {"include_usage": False}
    caller.listed(create("chat", quiet, "text", stream=True))
    caller.listed(create("chat", wrapped, "text", stream=True, stream_options=declined))
    caller.listed(create("chat", wrapped, "text", stream=True, stream_options={"include_obfuscation": False}))
    sent = [asked.body.get("stream_options") for asked in script.asked[2:]]
    assert sent == [None, declined, {"include_obfuscation": False, "include_usage": True}]


def test_what_makes_the_key(script: Script, kit: costkit.Kit, caller: Caller) -> None:
    """Another field, header, query or base URL is another call; keys, ids of requests and ignored fields are not."""
    client = caller.client("openai", script.url)
    wrapped = kit.wrap(client, costkit.exact(), scope=None, ignore=["user"])
    differ: list[tuple[Any, dict[str, Any]]] = [
        (wrapped, {}),
        (wrapped, {"temperature": 0}),
        (wrapped, {"temperature": 0.0}),
        (wrapped, {"extra_body": {"top_k": 3}}),
        (wrapped, {"extra_headers": {"x-mode": "deep"}}),
        (wrapped, {"extra_query": {"v": "2"}}),
        (wrapped.with_options(default_headers={"x-mode": "wide"}), {}),
        (wrapped.with_options(base_url=script.url + "/other"), {}),
    ]
    for one, more in differ * 2:
        caller.run(create("chat", one, "text", **more))
    assert len(script.asked) == len(differ) and rows(kit).count("exact") == len(differ)
    same: list[tuple[Any, dict[str, Any]]] = [
        (wrapped, {"user": "u-1"}),
        (
            wrapped,
            {"extra_headers": {"Authorization": "Bearer other", "X-Request-Id": "7", "Idempotency-Key": "k"}},
        ),
        (wrapped.with_options(api_key="sk-other", timeout=7), {}),
    ]
    for one, more in same:
        caller.run(create("chat", one, "text", **more))
    assert len(script.asked) == len(differ)


@pytest.mark.parametrize("api", ["chat", "messages"])
def test_scope(api: str, script: Script, kit: costkit.Kit, caller: Caller) -> None:
    """Two tenants never share; the scope comes from the body or from kit.scope; without one nothing is sent."""
    wrapped = kit.wrap(caller.client(sdk_of(api), script.url), costkit.exact(), scope="tenant")
    for stream in (False, True):
        with pytest.raises(costkit.CostkitError, match="'tenant' has no value"):
            caller.run(create(api, wrapped, "text", stream=stream))
    assert script.asked == []
    for tenant in ("acme", "bolt", "acme"):
        with kit.scope(tenant=tenant):
            caller.run(create(api, wrapped, "text"))
    assert len(script.asked) == 2 and rows(kit) == [None, None, "exact"]
    for tenant in ("dyn", "ever", "dyn"):
        caller.run(create(api, wrapped, "text", extra_body={"tenant": tenant}))
    assert len(script.asked) == 4 and script.asked[-1].body["tenant"] == "ever"


def test_inside_a_wrapped_function_usage_is_counted_once(script: Script, kit: costkit.Kit) -> None:
    """What a wrapped function returns of a wrapped client's answer is counted in the inner call alone."""
    client = kit.wrap(openai.OpenAI(base_url=script.url + "/v1", api_key="k"), costkit.exact(), scope=None)
    claude = kit.wrap(anthropic.Anthropic(base_url=script.url, api_key="k"), costkit.exact(), scope=None)
    messages: Any = [{"role": "user", "content": "text"}]

    def chat() -> Any:
        return client.chat.completions.create(model=GPT, messages=messages)

    def final() -> Any:
        with claude.messages.stream(model=CLAUDE, max_tokens=9, messages=messages) as stream:
            return stream.get_final_message()

    def dumped() -> Any:
        return client.responses.create(model=GPT, input="text").model_dump()

    def embedded() -> Any:
        return client.embeddings.create(model="text-embedding-3-small", input="text")

    def chunks() -> Iterator[Any]:
        yield from client.chat.completions.create(model=GPT, messages=messages, stream=True)

    def events() -> Iterator[Any]:
        with claude.messages.stream(model=CLAUDE, max_tokens=8, messages=messages) as stream:
            yield from stream

    makers: list[Callable[[], Any]] = [chat, final, dumped, embedded, chunks, events]
    for made in makers:
        outer: Any = kit.call(scope=None, name=made.__name__)(made)
        for hit in (False, True):
            value = outer.outcome()
            if inspect.isgeneratorfunction(made):
                assert list(value)
                value = value.outcome
            assert (value.cost.provider > 0) is not hit and value.cost.unknown == 0, made.__name__
            assert value.cost.counterfactual > 0, made.__name__
    sql = "SELECT COUNT(*) FROM attempts WHERE cost IS NOT NULL"
    assert kit.ledger().execute(sql).fetchone()[0] == len(makers) == len(script.asked)
    assert all(
        row[0] for row in kit.ledger().execute("SELECT parent_id FROM queries WHERE name LIKE '%.%.%'")
    )


def test_reference_and_stored_text(tmp_path: Path, script: Script, caller: Caller) -> None:
    """Inside costkit.reference() every call is made; with store_text the ledger holds what was said."""
    with costkit.Kit(tmp_path / "told", store_text=True) as kit:
        wrapped = kit.wrap(caller.client("openai", script.url), costkit.exact(), scope=None)
        caller.run(create("chat", wrapped, "text"))
        with costkit.reference():
            caller.run(create("chat", wrapped, "text"))
            caller.listed(create("chat", wrapped, "text", stream=True))
        assert len(script.asked) == 3 and rows(kit, "role") == ["call", "reference", "reference"]
        for request, response in rows(kit, "request, response"):
            assert json.loads(request)["messages"] and "Five" in response
