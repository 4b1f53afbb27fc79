"""A wrapped SDK client stays what it is: its class, its copies, its other endpoints, its kinds."""

from __future__ import annotations

import gc
import inspect
from typing import Any

import anthropic
import openai
import pytest

import costkit
from tests import wrapping
from tests.scripted import ANSWER, Script
from tests.wrapping import GPT, Caller, create, rows

pytestmark = wrapping.QUIET
caller = wrapping.caller
kit = wrapping.kit
script = wrapping.script
server = wrapping.server


@pytest.mark.parametrize("sdk", ["openai", "anthropic"])
def test_the_client_stays(sdk: str, script: Script, kit: costkit.Kit, caller: Caller) -> None:
    """The caller's own client is not wrapped, copies of the wrapped one are; other endpoints go straight through."""
    client = caller.client(sdk, script.url, max_retries=4, default_headers={"x-own": "1"})
    before = dict(client.__dict__)
    wrapped = kit.wrap(client, costkit.exact(), scope=None)
    assert client.__dict__ == before and client.max_retries == 4
    assert (
        isinstance(wrapped, type(client)) and wrapped.max_retries == 0 and wrapped.api_key == client.api_key
    )
    assert repr(wrapped).split(" at ")[0] == repr(client).split(" at ")[0]
    assert [model.id for model in caller.listed(wrapped.models.list())] == ["m"]
    assert rows(kit) == []
    api = "messages" if sdk == "anthropic" else "chat"
    other = wrapped.with_options(timeout=5).copy(max_retries=1)
    assert other.max_retries == 1 and type(other) is type(client)
    for one in (wrapped, other, wrapped.with_options(http_client=client._client)):
        caller.run(create(api, one, "text"))
    assert rows(kit) == [None, "exact", "exact"] and script.asked[0].headers["x-own"] == "1"
    caller.run(create(api, client, "text"))
    assert len(script.asked) == 2 and len(rows(kit)) == 3
    caller.run(wrapped.close())
    assert client.is_closed() and wrapped.is_closed()


def test_a_client_that_nobody_else_holds(script: Script, kit: costkit.Kit) -> None:
    """A client made on the spot lives as long as the wrapped one; a dropped wrapped one leaves the other usable."""
    wrapped = kit.wrap(openai.OpenAI(base_url=script.url + "/v1", api_key="k"), costkit.exact(), scope=None)
    assert create("chat", wrapped, "text").choices[0].message.content == ANSWER
    client = openai.OpenAI(base_url=script.url + "/v1", api_key="k")
    create("chat", kit.wrap(client, scope=None), "text")
    gc.collect()
    assert not client.is_closed() and create("chat", client, "text")


def test_state_kept_by_the_server_is_not_cached(script: Script, kit: costkit.Kit, caller: Caller) -> None:
    """Background responses and conversations go straight through: an answer from here would not be in them."""
    wrapped = kit.wrap(caller.client("openai", script.url), costkit.exact(), scope=None)
    for more in ({"background": True}, {"conversation": "conv_1"}):
        for _ in range(2):
            caller.run(create("responses", wrapped, "text", **more))
    assert len(script.asked) == 4 and rows(kit) == []


def test_azure_and_vertex(script: Script, kit: costkit.Kit) -> None:
    """Kinds that rewrite the path or the body are stored too; the model comes from what the caller said."""
    azure = openai.AzureOpenAI(
        azure_endpoint=script.url, api_key="k", api_version="2024-10-21", max_retries=0
    )
    wrapped = kit.wrap(azure, costkit.exact(), scope=None, provider="azure")
    first, second = (create("chat", wrapped, "text") for _ in range(2))
    assert first == second and script.asked[0].path.startswith(f"/openai/deployments/{GPT}/chat/completions?")
    vertex = pytest.importorskip("anthropic").AnthropicVertex(
        region="us-east5", project_id="p", access_token="t", base_url=script.url, max_retries=0
    )
    claude = kit.wrap(vertex, costkit.exact(), scope=None)
    first, second = (create("messages", claude, "text") for _ in range(2))
    streams = [
        [event.model_dump() for event in create("messages", claude, "text", stream=True)] for _ in range(2)
    ]
    assert first == second and streams[0] == streams[1]
    assert [asked.path.endswith("awPredict") for asked in script.asked] == [False, True, True]
    assert rows(kit) == [None, "exact"] * 3


def test_anthropic_middleware(script: Script, kit: costkit.Kit) -> None:
    """Middleware of the client runs around every call, hits included."""
    seen: list[int] = []

    def watch(request: Any, call_next: Any) -> Any:
        response = call_next(request)
        seen.append(response.http_response.status_code)
        return response

    if "middleware" not in inspect.signature(anthropic.Anthropic).parameters:
        pytest.skip("this anthropic has no middleware")
    client = anthropic.Anthropic(base_url=script.url, api_key="k", middleware=[watch], max_retries=0)
    wrapped = kit.wrap(client, costkit.exact(), scope=None)
    for _ in range(2):
        create("messages", wrapped, "text")
    with pytest.raises(anthropic.RateLimitError):
        create("messages", wrapped, "status 429")
    assert seen == [200, 200, 429] and len(script.asked) == 2


def test_what_cannot_be_wrapped(kit: costkit.Kit) -> None:
    """A class, a stranger, a wrapped client and settings that are none are refused, saying what to do."""
    client = openai.OpenAI(api_key="k")
    wrapped = kit.wrap(client, scope=None)
    for thing, why in [
        (openai.OpenAI, r"kit\.wrap\(OpenAI\(\)\)"),
        (object(), r"OpenAI, AsyncOpenAI.*kit\.call"),
        (wrapped, "wrapped already"),
        (wrapped.with_options(timeout=3), "wrapped already"),
    ]:
        with pytest.raises(costkit.CostkitError, match=why):
            kit.wrap(thing, scope=None)
    with pytest.raises(costkit.CostkitError, match="who may share"):
        kit.wrap(client)
    with pytest.raises(costkit.CostkitError, match="names no fields"):
        kit.wrap(client, scope=None, ignore="user")
