"""Input tokens of a call from its arguments: exact where it can be, never blind, bounded for hostile input."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import tracemalloc
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from costkit import tokens
from costkit.errors import ConfigError, UncountableInput
from costkit.tokens import Ratio, asks_hour, count, count_arguments, count_messages, learn

TEXT = "How long do refunds take?"  # 6 tokens
USER = {"role": "user", "content": TEXT}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def counted(**arguments: Any) -> int:
    return count_arguments(arguments, model="gpt-5")


MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant"]), "content": st.text(max_size=80)},
        optional={"name": st.text(max_size=10)},
    ),
    min_size=1,
    max_size=6,
)


@settings(deadline=None)
@given(MESSAGES, st.sampled_from(["gpt-5", "gpt-4", "claude-sonnet-5"]))
def test_a_chat_counts_by_the_chat_rule(messages: list[dict[str, str]], model: str) -> None:
    """A chat's count is the chat rule's, names included, and settings beside it add nothing."""
    expected = count_messages(messages, model=model)
    assert count_arguments({"messages": messages}, model=model) == expected
    settings = {"model": "some-model", "temperature": 0.7, "stream": True, "max_tokens": 5, "n": None}
    assert count_arguments({"messages": tuple(messages), **settings}, model=model) == expected


def test_texts_count_once() -> None:
    """A text argument counts as it is, a list of texts with one token more a text."""
    assert counted(prompt=TEXT) == counted(question=TEXT) == counted(instructions=TEXT, model="gpt-5") == 6
    assert counted(passages=[TEXT, TEXT, TEXT]) == counted(passages=(TEXT, TEXT, TEXT)) == 21
    assert counted(question=TEXT, passages=[TEXT], temperature=1.5, flag=True, nothing=None) == 13
    assert counted() == counted(messages=[]) == counted(passages=[], options={}) == 0


def test_parts_and_tools_of_a_chat() -> None:
    """Text parts, tool calls, tool results and Anthropic's system text all count."""
    parts = {"role": "user", "content": [{"type": "text", "text": TEXT}, {"type": "text", "text": TEXT}]}
    assert counted(messages=[parts]) == 3 + 3 + 1 + 12
    call = {"id": "call_1", "type": "function", "function": {"name": "hello", "arguments": "hello world"}}
    assistant = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert counted(messages=[assistant]) == count_messages([assistant]) == 3 + 3 + 1 + 1 + 2
    result = {"role": "tool", "tool_call_id": "call_1", "content": TEXT}
    assert counted(messages=[result]) == 3 + 3 + 1 + 6
    assert counted(system=[{"type": "text", "text": TEXT, "cache_control": {"type": "ephemeral"}}]) == 6
    block = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": TEXT}]}
    assert counted(messages=[{"role": "user", "content": [block]}]) >= 3 + 3 + 1 + 6
    use = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "a city " * 50}}
    assert counted(messages=[{"role": "assistant", "content": [use]}]) >= count("a city " * 50) + 8


def test_responses_input() -> None:
    """OpenAI responses' input, as text or as items, counts with its instructions."""
    assert counted(input=TEXT, instructions=TEXT) == 12
    items = [{"role": "user", "content": [{"type": "input_text", "text": TEXT}]}]
    assert counted(input=items) == 3 + 3 + 1 + 6
    output = {"type": "function_call_output", "call_id": "c", "output": TEXT * 20}
    assert counted(input=[*items, output]) >= 13 + 3 + count(TEXT * 20)


class Point(BaseModel):
    """A point."""

    x: float
    label: str


def test_tools_and_schemas_count_as_json() -> None:
    """Tools and answer schemas count at least their JSON, given as dicts or as a pydantic class."""
    text = json.dumps([WEATHER])
    assert counted(tools=[WEATHER]) == count(text) + 50
    assert count_arguments({"tools": [WEATHER]}, model="claude-sonnet-5") == count(text) + 1000
    assert counted(tools=[]) == count("[]")
    schema = json.dumps(Point.model_json_schema())
    assert counted(response_format=Point) == count(schema)
    assert counted(response_format={"type": "json_schema", "json_schema": {"schema": Point}}) > count(schema)
    assert counted(tools=[{"name": "odd", "default": {"a", "b"}, "limit": float("nan")}]) > 50


@dataclass
class Passage:
    """A passage of a document."""

    source: str
    text: str


def test_objects_count_their_fields() -> None:
    """Dataclasses and pydantic models count what is in them; other objects are settings and count nothing."""
    assert counted(passages=[Passage("a", TEXT)]) >= 7
    assert counted(point=Point(x=1.0, label=TEXT)) >= 6
    message = Point(x=1.0, label=TEXT)
    assert counted(messages=[message]) >= 6
    assert counted(client=object(), lock=threading.Lock(), f=count) == 0
    assert counted(passages=OrderedDict(a=TEXT)) == counted(passages={"a": TEXT})


def test_numbers_inside_a_value_count() -> None:
    """A table of numbers that goes into the prompt is not free, however large a number is."""
    assert counted(rows=[[1, 2.5, 1234567890], [float("nan"), float("inf"), -7]]) >= 15
    assert 1000 <= counted(rows=[10**1000]) <= 2000


def test_bytes_never_count_too_little() -> None:
    """UTF-8 bytes count as their text, others a token a byte: no tokenizer of bytes makes more."""
    assert counted(data=TEXT.encode()) == counted(data=bytearray(TEXT.encode())) == 6
    assert counted(data=b"\xff" * 1000) == counted(data=memoryview(b"\xff" * 1000)) == 1000


# --- images and other media ------------------------------------------------------------------------------

IMAGES: list[dict[str, Any]] = [
    {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 10**6}},
    {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "high"},
    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 10**6}},
    {"inline_data": {"mime_type": "image/png", "data": "A" * 10**6}},
    {"image": {"format": "png", "source": {"bytes": b"A" * 10**6}}},
]


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_counts_its_allowance(image: dict[str, Any]) -> None:
    """An image counts what its model makes of one at most, not the characters it is sent as."""
    content = [{"type": "text", "text": TEXT}, image]

    def extra(model: str) -> int:
        return count_arguments({"messages": [{"role": "user", "content": content}]}, model=model) - 13

    # Each is over the largest that its maker publishes: 85 + 8 * 170, 2833 + 8 * 5667, 4784, 16384.
    assert 3779 <= extra("gpt-5") < 5100
    assert 48_169 <= extra("gpt-4o-mini") < 50_100
    assert 4784 <= extra("claude-opus-4-7") < 5100
    assert 16_384 <= extra("qwen2.5-vl-7b") < 16_500


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "audio_url", "audio_url": {"url": "https://example.com/a.wav"}},
        {"type": "file", "file": {"file_id": "f"}},
        {"type": "input_file", "file_id": "f"},
        {"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}},
        {"type": "container_upload", "file_id": "f"},
        {"inline_data": {"mime_type": "audio/mp3", "data": "AAAA"}},
        {"fileData": {"mimeType": "video/mp4", "fileUri": "gs://a"}},
        {"document": {"format": "pdf", "source": {"bytes": b"A"}}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "original"}},
    ],
)
def test_what_is_no_text_is_refused(part: dict[str, Any]) -> None:
    """Audio, video, files and images without a limit raise, in chats and elsewhere, and the error says max_cost=."""
    arguments: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": [{"type": "text", "text": TEXT}, part]}]},
        {"contents": [{"role": "user", "parts": [part]}]},
        {"question": TEXT, "extra": {"deep": [part]}},
    ]
    for given_ in arguments:
        with pytest.raises(UncountableInput, match="max_cost="):
            count_arguments(given_, model="gpt-5")
    assert issubclass(UncountableInput, ConfigError)


def test_a_users_own_mapping_is_no_medium() -> None:
    """Passages that call themselves document, image or file are text; a document of text counts as text."""
    for kind in ("document", "image", "file", "audio", "video"):
        assert counted(passages=[{"type": kind, "text": TEXT, "title": "Refunds"}]) >= 8
    source = {"type": "text", "media_type": "text/plain", "data": TEXT * 10}
    assert counted(messages=[{"role": "user", "content": [{"type": "document", "source": source}]}]) >= 60


@pytest.mark.parametrize(
    "arguments",
    [
        {"input": TEXT, "previous_response_id": "resp_1"},
        {"input": TEXT, "conversation": "conv_1"},
        {"prompt": {"id": "pmpt_1", "version": "2"}},
        {"messages": [USER], "web_search_options": {"user_location": None}},
        {"messages": [USER], "modalities": ["text", "audio"]},
        {"messages": [USER, {"role": "assistant", "audio": {"id": "audio_1"}}]},
        {"messages": [USER], "mcp_servers": [{"url": "https://example.com"}]},
        {"input": TEXT, "tools": [{"type": "web_search"}]},
        {"input": TEXT, "tools": [{"type": "file_search", "vector_store_ids": ["v"]}]},
        {"messages": [USER], "tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
        {"messages": iter([USER])},
    ],
)
def test_input_that_only_the_provider_knows_is_refused(arguments: dict[str, Any]) -> None:
    """A kept conversation, a stored prompt, a hosted tool or an iterator raises: its tokens are not in sight."""
    with pytest.raises(UncountableInput, match="max_cost="):
        count_arguments(arguments, model="gpt-5")


def test_own_tools_are_not_refused() -> None:
    """Tools that the caller runs are counted, also Anthropic's own kinds of them."""
    for kind in ("function", "custom", "bash_20250124", "text_editor_20250728", "memory_20250818"):
        assert counted(tools=[{"type": kind, "name": "t"}]) > 50
    assert counted(conversation=TEXT, question=TEXT) == 12


# --- hostile input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "size"), [("refund ", 10**7), ("a", 10**6), (" ", 10**6), ("\ud800", 10**5), ("世", 10**6)]
)
def test_ten_million_characters(unit: str, size: int) -> None:
    """A prompt of ten million characters is counted in seconds without a multiple of its memory, odd ones too."""
    text = (unit * size)[:size]
    tokens.warm()
    tracemalloc.start()
    begun = time.perf_counter()
    try:
        assert count_arguments({"prompt": text}, model="claude-sonnet-5") > 0
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - begun < 60
    assert peak < 50 * 10**6


def test_a_hundred_thousand_messages() -> None:
    """A chat of 100,000 messages counts as the chat rule says, in seconds."""
    messages = [{"role": "user", "content": f"message {number}"} for number in range(10**5)]
    begun = time.perf_counter()
    found = counted(messages=messages)
    assert time.perf_counter() - begun < 60
    assert found == count_messages(messages, model="gpt-5")


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def looped() -> Any:
    value: dict[str, Any] = {}
    value["me"] = value
    return value


def shared(width: int, depth: int) -> Any:
    value: Any = "refund " * 200
    for _ in range(depth):
        value = [value] * width
    return value


@pytest.mark.parametrize("name", ["passages", "tools", "response_format", "messages", "system"])
@pytest.mark.parametrize("make", [lambda: nested(10_000), looped], ids=["deep", "looped"])
def test_deep_arguments_are_refused(name: str, make: Any) -> None:
    """Ten thousand levels, or a value that contains itself, raise a clear error in every argument."""
    value = make() if name != "messages" else [{"role": "user", "content": make()}]
    with pytest.raises(UncountableInput, match="deeper than 200 levels"):
        count_arguments({name: value}, model="gpt-5")


@pytest.mark.parametrize(
    "arguments",
    [
        {"x": shared(10, 9)},
        {"tools": shared(10, 9)},
        {"x": range(10**9)},
        {"x": ["refund " * 2_000_000] * 1000},
        {"x": "a" * 40_000_001},
        {"x": b"a" * 40_000_001},
        {"messages": [USER] * 1_000_001},
    ],
    ids=["laughs", "tools", "range", "shared", "text", "bytes", "messages"],
)
def test_more_than_any_context_is_refused(arguments: dict[str, Any]) -> None:
    """Values that unfold to more than any model reads are refused in bounded time, before they are unfolded."""
    begun = time.perf_counter()
    with pytest.raises(UncountableInput, match="more than"):
        count_arguments(arguments, model="gpt-5")
    assert time.perf_counter() - begun < 60


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=20),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=8), inside, max_size=4),
    max_leaves=30,
)


@settings(deadline=None, max_examples=200)
@given(st.dictionaries(st.sampled_from(["messages", "tools", "system", "input", "x"]), JSON, max_size=4))
def test_any_value_counts_or_is_refused(arguments: dict[str, Any]) -> None:
    """Whatever the arguments hold, the count is a number or a ConfigError, never another exception."""
    with contextlib.suppress(ConfigError):
        assert count_arguments(arguments, model="gpt-5") >= 0
    asks_hour(arguments)


TEXTS = st.recursive(
    st.text(max_size=60),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=8), inside, max_size=4),
    max_leaves=20,
)


@settings(deadline=None, max_examples=200)
@given(TEXTS)
def test_no_text_is_left_out(value: Any) -> None:
    """All text of a nested value counts: never fewer tokens than its strings have on their own."""

    def strings(inside: Any) -> int:
        if isinstance(inside, str):
            return count(inside, model="gpt-5")
        parts = [*inside, *inside.values()] if isinstance(inside, dict) else inside
        return sum(strings(part) for part in parts)

    if isinstance(value, dict) and {"inline_data", "image", "type"} & set(value):
        return
    assert counted(passages=value) >= strings(value)


def test_an_hour_of_cache_is_seen() -> None:
    """Only a cache_control with a ttl of an hour asks for one, wherever it stands; a text that says 1h does not."""
    hour = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    part = {"type": "text", "text": "back in 1h"}
    for yes in (
        {"messages": [{"role": "user", "content": [{**part, **hour}]}]},
        {"system": [{**part, **hour}]},
        {"tools": [{"name": "t", **hour}]},
        hour,
    ):
        assert asks_hour(yes)
    for no in (
        {"messages": [{"role": "user", "content": [part]}], "prompt": "1h"},
        {"system": [{**part, "cache_control": {"type": "ephemeral"}}]},
        {"x": looped(), "y": nested(10_000), "z": None},
    ):
        assert not asks_hour(no)


# --- correction ------------------------------------------------------------------------------------------


def test_ratios_by_hand() -> None:
    """The mean is reported over counted, the bound the most seen; a call without tokens teaches nothing."""
    ratio = learn(learn(learn(Ratio(), 100, 110), 300, 450), 0, 50)
    assert ratio == Ratio(2, 400, 560, 1.5)
    assert ratio.mean == 1.4
    assert learn(ratio, 5, 0) is learn(ratio, -1, 5) is ratio
    assert Ratio(*ratio) == ratio


def test_bounds_are_cautious_until_enough_is_known() -> None:
    """OpenAI's own models count exactly; others keep a factor of 1.5 until 20 calls have shown a smaller one."""
    none = Ratio()
    assert (none.mean, none.bound("gpt-5-mini"), none.bound("openai/gpt-4o")) == (1.0, 1.0, 1.0)
    assert {none.bound(model) for model in ("claude-opus-4-7", "gpt-oss-20b", "qwen3-8b", None)} == {1.5}
    ratio = Ratio()
    for _ in range(19):
        ratio = learn(ratio, 100, 120)
    assert ratio.bound("qwen3-8b") == 1.5 and ratio.bound("gpt-5") == 1.2
    assert learn(ratio, 100, 90).bound("qwen3-8b") == 1.2
    assert learn(ratio, 100, 200).bound("qwen3-8b") == 2.0
    assert learn(none, 100, 50).bound("gpt-5") == 1.0


@given(st.lists(st.tuples(st.integers(1, 10**6), st.integers(1, 10**6)), min_size=1, max_size=30))
def test_no_call_learned_from_is_over_its_bound(calls: list[tuple[int, int]]) -> None:
    """The bound covers every call that was learned from, and the mean gives their sum back."""
    ratio = Ratio()
    for told in calls:
        ratio = learn(ratio, *told)
    assert all(mine * ratio.bound("m") >= theirs - 1e-6 * theirs for mine, theirs in calls)
    assert round(ratio.mean * ratio.counted) == sum(theirs for _, theirs in calls)


def test_an_estimate_takes_the_ratio() -> None:
    """An estimated usage is corrected by the mean on its input only."""
    usage = tokens.estimate("claude-sonnet-5", TEXT, TEXT, ratio=Ratio(10, 100, 150, 1.9))
    assert (usage.tokens_in, usage.tokens_out, usage.state) == (9, 6, "estimated")
    assert tokens.estimate("claude-sonnet-5", TEXT, TEXT).tokens_in == 6


def test_vocabularies_load_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that race for the first count share one loaded vocabulary."""
    import tiktoken

    from costkit.tokens import vocabulary

    vocabulary.encoding.cache_clear()
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    found: list[tiktoken.Encoding] = []
    start = threading.Barrier(8)

    def load() -> None:
        start.wait(10)
        tokens.warm()
        found.append(vocabulary.encoding("o200k_base"))

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 8 and len({id(one) for one in found}) == 1
