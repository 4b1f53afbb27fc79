"""Wrapped SDK clients against a real vLLM, which speaks OpenAI's protocols and Anthropic's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

import costkit
from serving.engine.layout import here
from tests import wrapping
from tests.wrapping import Caller, attempts, rows

ROOT = Path(__file__).parents[2]
MODEL = "tiny-random"
WANTED = os.environ.get("COSTKIT_TEST_VLLM") == "1" or here().venv.exists()
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not WANTED,
        reason="no real vLLM here: `python3 -m serving.engine setup` first, or set COSTKIT_TEST_VLLM=1",
    ),
]
caller = wrapping.caller


def engine(*arguments: str) -> str:
    """Run ``python -m serving.engine`` as a user does and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "serving.engine", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The tiny model on a free port, without the /v1 of OpenAI's clients."""
    printed = engine("serve", "--model", "tiny", "--port", "0", "--background")
    port = re.findall(r"base URL http://127\.0\.0\.1:(\d+)/v1", printed)[0]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        engine("stop", "--port", port)


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[costkit.Kit]:
    prices = {MODEL: costkit.Rates(1, 2)}
    with costkit.Kit(tmp_path / "kit", prices=prices) as made:
        yield made


def ask(api: str, client: Any, words: str, **more: Any) -> Any:
    """One call of an API; greedy where its SDK lets one say so."""
    messages = [{"role": "user", "content": words}]
    if api == "messages":
        return client.messages.create(model=MODEL, max_tokens=12, messages=messages, **more)
    if api == "responses":
        return client.responses.create(model=MODEL, max_output_tokens=12, temperature=0, input=words, **more)
    if api == "completions":
        return client.completions.create(model=MODEL, max_tokens=12, temperature=0, prompt=words, **more)
    return client.chat.completions.create(
        model=MODEL, max_tokens=12, temperature=0, messages=messages, **more
    )


@pytest.mark.parametrize("api", ["chat", "completions", "responses", "messages"])
def test_hit_equals_miss(api: str, url: str, kit: costkit.Kit, caller: Caller) -> None:
    """Whole and streamed, a hit is the miss field by field, in type, in text; usage is vLLM's own."""
    sdk = "anthropic" if api == "messages" else "openai"
    client = caller.client(sdk, url)
    wrapped = kit.wrap(client, costkit.exact(admit=lambda answer: True), scope=None)
    miss, hit = (caller.run(ask(api, wrapped, f"hello {api}")) for _ in range(2))
    assert type(miss) is type(hit) and miss.model_dump(exclude_unset=True) == hit.model_dump(
        exclude_unset=True
    )
    assert repr(miss) == repr(hit) and miss._request_id == hit._request_id
    first, again = (caller.listed(ask(api, wrapped, f"hello {api}", stream=True)) for _ in range(2))
    assert [type(chunk) for chunk in first] == [type(chunk) for chunk in again] and len(first) > 5
    assert [c.model_dump(exclude_unset=True) for c in first] == [
        c.model_dump(exclude_unset=True) for c in again
    ]
    bare = caller.listed(ask(api, client, f"hello {api}", stream=True))
    # How many tokens vLLM puts into a delta varies from run to run.
    assert {type(chunk) for chunk in bare} == {type(chunk) for chunk in first}
    assert bare[0].model_dump().keys() == first[0].model_dump().keys()
    assert bare[-1].model_dump().keys() == first[-1].model_dump().keys()
    assert rows(kit) == [None, "exact", None, "exact"]
    assert [state for _, state, *_ in attempts(kit)] == ["reported"] * 2
    assert all(cost > 0 for _, _, cost, _ in attempts(kit))


@pytest.mark.parametrize("api", ["chat", "completions", "responses", "messages"])
def test_answers_cut_by_their_limit_are_not_stored(
    api: str, url: str, kit: costkit.Kit, caller: Caller
) -> None:
    """By default what vLLM cut at the output limit is asked for again."""
    client = caller.client("anthropic" if api == "messages" else "openai", url)
    wrapped = kit.wrap(client, costkit.exact(), scope=None)
    for _ in range(2):
        caller.run(ask(api, wrapped, "cut"))
        caller.listed(ask(api, wrapped, "cut", stream=True))
    assert rows(kit) == [None] * 4


def test_a_whole_answer_is_stored(url: str, kit: costkit.Kit, caller: Caller) -> None:
    """An answer that vLLM ended by itself (guided to one of two words) is stored as it is, whole and streamed."""
    wrapped = kit.wrap(caller.client("openai", url), costkit.exact(), scope=None)
    guided = {"extra_body": {"structured_outputs": {"choice": ["yes", "no"]}}}
    answers = [caller.run(ask("chat", wrapped, "sure?", **guided)) for _ in range(2)]
    assert answers[0] == answers[1] and answers[0].choices[0].message.content in ("yes", "no")
    streams = [caller.listed(ask("chat", wrapped, "sure?", stream=True, **guided)) for _ in range(2)]
    assert streams[0] == streams[1] and streams[0][-1].choices[0].finish_reason == "stop"
    assert rows(kit) == [None, "exact", None, "exact"]


def test_helpers(url: str, kit: costkit.Kit, caller: Caller) -> None:
    """``.stream()`` of all three protocols gives the same events on a hit."""
    exact = costkit.exact(admit=lambda answer: True)
    gpt = kit.wrap(caller.client("openai", url), exact, scope=None)
    claude = kit.wrap(caller.client("anthropic", url), exact, scope=None)
    messages: Any = [{"role": "user", "content": "help"}]
    made: list[tuple[Any, str]] = []
    for _ in range(2):
        chat = gpt.responses.stream(model=MODEL, input="help", max_output_tokens=12)
        made += [(chat, "get_final_response")]
        made += [(claude.messages.stream(model=MODEL, max_tokens=12, messages=messages), "get_final_message")]
    told = [caller.helper(*one) for one in made]
    for one, other in ((told[0], told[2]), (told[1], told[3])):
        assert [repr(event) for event in one[0]] == [repr(event) for event in other[0]]
        assert one[1].model_dump() == other[1].model_dump()
    assert rows(kit) == [None, None, "exact", "exact"]


def test_errors_of_vllm(url: str, kit: costkit.Kit, caller: Caller) -> None:
    """A model that vLLM does not serve, and a prompt too long, are the SDK's own errors and not stored."""
    client = caller.client("openai", url)
    wrapped = kit.wrap(client, costkit.exact(), scope=None)
    long = {"model": MODEL, "messages": [{"role": "user", "content": "a b " * 4000}]}
    for stream in (False, True):
        for asked, kind in (
            ({**long, "model": "gpt-5-mini"}, openai.NotFoundError),
            (long, openai.BadRequestError),
        ):
            errors = []
            for one in (client, wrapped, wrapped):
                with pytest.raises(kind) as info:
                    caller.run(one.chat.completions.create(**asked, stream=stream))
                errors.append((info.value.status_code, str(info.value), info.value.body))
            assert errors[0] == errors[1] == errors[2]
    claude = kit.wrap(caller.client("anthropic", url), costkit.exact(), scope=None)
    with pytest.raises(anthropic.NotFoundError):
        caller.run(claude.messages.create(model="claude-sonnet-4-5", max_tokens=1, messages=long["messages"]))
    assert "exact" not in rows(kit) and None not in rows(kit, "error")


def test_a_left_stream(url: str, kit: costkit.Kit, caller: Caller) -> None:
    """A stream left after two chunks is recorded as incomplete and estimated, and asked for again."""
    wrapped = kit.wrap(caller.client("openai", url), costkit.exact(admit=lambda answer: True), scope=None)

    async def some() -> None:
        stream = await ask("chat", wrapped, "left", stream=True)
        assert await anext(stream) and await anext(stream)
        await stream.close()

    if caller.asynchronous:
        caller.run(some())
    else:
        stream = ask("chat", wrapped, "left", stream=True)
        assert next(stream) and next(stream)
        stream.close()
    assert rows(kit, "complete") == [0] and [state for _, state, *_ in attempts(kit)] == ["estimated"]
    assert caller.listed(ask("chat", wrapped, "left", stream=True))
    assert rows(kit) == [None, None]
