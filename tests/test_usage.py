"""Responses of every provider to token classes that overlap nowhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import anthropic.types
import openai.types
import openai.types.chat
import openai.types.responses
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costkit.errors import UsageError
from costkit.usage import COMPLETE, read_response
from tests.usages import CHAT_USAGE, MESSAGE_USAGE, chat, classes, message, response


@pytest.mark.parametrize(
    "made",
    [
        chat(),
        openai.types.chat.ChatCompletion.model_validate(chat()),
        openai.types.chat.ChatCompletion.construct(**chat()),
        SimpleNamespace(**chat(SimpleNamespace(**CHAT_USAGE))),
    ],
    ids=["dict", "validated", "constructed", "attributes"],
)
def test_openai_chat(made: object) -> None:
    """OpenAI's prompt tokens include the cached ones and its completion tokens the reasoning."""
    seen = read_response(made)
    assert classes(seen) == (176, 1024, 0, 0, 44, 256)
    assert seen is not None and seen.usage is not None
    assert (seen.model, seen.provider) == ("gpt-5-mini-2025-08-07", "openai")
    assert (seen.finish, seen.text, seen.usage.state) == ("stop", "Five days.", "reported")
    raw = json.loads(json.dumps(seen.usage.raw, allow_nan=False))
    assert raw["prompt_tokens_details"]["cached_tokens"] == 1024


def test_openai_cache_writes_are_inside_the_prompt() -> None:
    """Cache writes that OpenAI reports are taken out of the fresh input, not added to it."""
    usage = {**CHAT_USAGE, "prompt_tokens_details": {"cached_tokens": 1000, "cache_write_tokens": 150}}
    assert classes(read_response(chat(usage))) == (50, 1000, 150, 0, 44, 256)
    typed = openai.types.chat.ChatCompletion.model_validate(chat(usage))
    assert classes(read_response(typed)) == (50, 1000, 150, 0, 44, 256)


def test_vllm_unknown_detail_is_not_zero() -> None:
    """vLLM's null detail counts all input as fresh, and the raw usage still says null."""
    usage = {"prompt_tokens": 31, "completion_tokens": 7, "total_tokens": 38, "prompt_tokens_details": None}
    seen = read_response(chat(usage, model="HuggingFaceTB/SmolLM2-135M-Instruct", prompt_logprobs=None))
    assert classes(seen) == (31, 0, 0, 0, 7, 0)
    assert seen is not None and seen.usage is not None and seen.usage.raw == usage
    assert seen.provider is None
    asked = {**usage, "prompt_tokens_details": {"cached_tokens": 16}}
    assert classes(read_response(chat(asked))) == (15, 16, 0, 0, 7, 0)


def test_openai_responses() -> None:
    """The responses API counts like chat, under other names; a cut one tells why it was cut."""
    usage = {
        "input_tokens": 328,
        "input_tokens_details": {"cached_tokens": 128, "cache_write_tokens": 64},
        "output_tokens": 52,
        "output_tokens_details": {"reasoning_tokens": 40},
        "total_tokens": 380,
    }
    typed = openai.types.responses.Response.construct(**response(usage))
    for made in (response(usage), typed):
        seen = read_response(made)
        assert classes(seen) == (136, 128, 64, 0, 12, 40)
        assert seen is not None and (seen.finish, seen.text) == ("completed", "Five days.")
    cut = response(usage, status="incomplete", incomplete_details={"reason": "max_output_tokens"})
    seen = read_response(cut)
    assert seen is not None and seen.finish == "max_output_tokens" and seen.finish not in COMPLETE


def test_openai_completion_and_embedding() -> None:
    """Legacy completions and embeddings are read too; a page of models is no response."""
    usage = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
    body = {"id": "x", "object": "text_completion", "created": 1, "model": "m", "usage": usage}
    choice = {"index": 0, "text": " days", "finish_reason": "length", "logprobs": None}
    typed = openai.types.Completion.model_validate({**body, "choices": [choice]})
    seen = read_response(typed)
    assert classes(seen) == (5, 0, 0, 0, 7, 0)
    assert seen is not None and (seen.text, seen.finish) == (" days", "length")
    embedding = {"object": "list", "data": [], "model": "text-embedding-3-small"}
    made = read_response({**embedding, "usage": {"prompt_tokens": 8, "total_tokens": 8}})
    assert classes(made) == (8, 0, 0, 0, 0, 0)
    assert made is not None and made.provider == "openai"
    assert read_response({"object": "list", "data": []}) is None


@pytest.mark.parametrize(
    "made",
    [
        message(),
        anthropic.types.Message.model_validate(message()),
        anthropic.types.Message.construct(**message()),
    ],
    ids=["dict", "validated", "constructed"],
)
def test_anthropic_message(made: object) -> None:
    """Anthropic's input tokens exclude what was read from and written to the cache."""
    seen = read_response(made)
    assert classes(seen) == (50, 1000, 150, 250, 300, 0)
    assert seen is not None and seen.usage is not None
    assert seen.usage.tokens_in == 1450
    assert (seen.provider, seen.finish, seen.text) == ("anthropic", "end_turn", "Five days.")


def test_anthropic_variants() -> None:
    """Writes without a split count as five minutes; thinking tokens are part of the output."""
    usage = {**MESSAGE_USAGE, "cache_creation": None, "output_tokens_details": {"thinking_tokens": 120}}
    assert classes(read_response(message(usage))) == (50, 1000, 400, 0, 180, 120)
    bare = {"input_tokens": 50, "output_tokens": 3}
    assert classes(read_response(message(bare))) == (50, 0, 0, 0, 3, 0)
    nulls = {**bare, "cache_read_input_tokens": None, "cache_creation_input_tokens": None}
    assert classes(read_response(message(nulls))) == (50, 0, 0, 0, 3, 0)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (
            chat({**CHAT_USAGE, "prompt_tokens_details": {"cached_tokens": 1201}}),
            r"prompt_tokens_details\.cached_tokens 1201 exceed prompt_tokens 1200",
        ),
        (
            chat({**CHAT_USAGE, "prompt_tokens_details": {"cached_tokens": 1000, "cache_write_tokens": 300}}),
            r"cached_tokens 1000 \+ .*cache_write_tokens 300 exceed prompt_tokens 1200",
        ),
        (
            chat({**CHAT_USAGE, "completion_tokens_details": {"reasoning_tokens": 301}}),
            r"reasoning_tokens 301 exceed completion_tokens 300",
        ),
        (
            chat({**CHAT_USAGE, "total_tokens": 1501}),
            r"prompt_tokens 1200 \+ completion_tokens 300 do not add up to total_tokens 1501",
        ),
        (
            message({**MESSAGE_USAGE, "cache_creation_input_tokens": 401}),
            r"5m_input_tokens 150 \+ .*1h_input_tokens 250 do not add up to cache_creation_input_tokens 401",
        ),
        (
            message({**MESSAGE_USAGE, "output_tokens_details": {"thinking_tokens": 301}}),
            r"thinking_tokens 301 exceed output_tokens 300",
        ),
    ],
)
def test_contradictions_raise(body: dict[str, Any], told: str) -> None:
    """A part larger than its whole raises with the fields and numbers, and is never clipped."""
    with pytest.raises(UsageError, match=told):
        read_response(body)


@pytest.mark.parametrize(
    "number", [-1, True, 2.5, float("nan"), float("inf"), "12", [1], 10**13, 10**400, -1e300]
)
@pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens", "total_tokens"])
def test_numbers_that_count_nothing_raise(name: str, number: object) -> None:
    """What is no count of tokens raises, naming the field, with a short message."""
    with pytest.raises(UsageError, match=name) as caught:
        read_response(chat({**CHAT_USAGE, name: number}))
    assert len(str(caught.value)) < 150


def test_whole_floats_are_taken() -> None:
    """Some gateways write counts as floats; 3.0 tokens are 3 tokens, as integers."""
    usage = {"prompt_tokens": 12.0, "completion_tokens": 3.0, "total_tokens": 15}
    assert classes(read_response(chat(usage))) == (12, 0, 0, 0, 3, 0)
    assert all(type(number) is int for number in classes(read_response(chat(usage))))


@pytest.mark.parametrize("usage", [None, {}, "none", {"prompt_tokens": 5}, {"completion_tokens": 5}])
def test_missing_usage_is_not_zero(usage: object) -> None:
    """A response without a usage, or with half of one, has None for it and is a response still."""
    seen = read_response(chat(usage))
    assert seen is not None and seen.usage is None and seen.text == "Five days."


def test_several_choices() -> None:
    """All choices' texts are kept, and one cut choice makes the whole response a cut one."""
    choices = [
        {"index": 0, "finish_reason": "stop", "message": {"content": "a"}},
        {"index": 1, "finish_reason": "length", "message": {"content": [{"type": "text", "text": "b"}]}},
    ]
    seen = read_response(chat(choices=choices))
    assert seen is not None and (seen.text, seen.finish) == ("a\nb", "length")


@pytest.mark.parametrize(
    ("body", "tier"),
    [
        (chat(), None),
        (chat(service_tier="flex"), {"service_tier": "flex"}),
        (message(), {"processing": "standard"}),
        (message({**MESSAGE_USAGE, "service_tier": "batch"}), {"processing": "batch"}),
        (message({**MESSAGE_USAGE, "service_tier": "priority"}), {"service_tier": "priority"}),
        (message({**MESSAGE_USAGE, "speed": "fast"}), {"processing": "standard", "speed": "fast"}),
    ],
)
def test_served_tier(body: dict[str, Any], tier: Mapping[str, str] | None) -> None:
    """The tier a call was served under, which may not be the one asked for, comes as a price context."""
    seen = read_response(body)
    assert seen is not None and seen.tier == tier


COUNTS = st.integers(0, 10**7)


@given(COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)
def test_openai_classes_sum_to_the_totals(fresh: int, read: int, write: int, text: int, thought: int) -> None:
    """The classes of an OpenAI usage add up to its prompt and completion tokens, and each is what it was."""
    usage = {
        "prompt_tokens": fresh + read + write,
        "completion_tokens": text + thought,
        "total_tokens": fresh + read + write + text + thought,
        "prompt_tokens_details": {"cached_tokens": read, "cache_write_tokens": write},
        "completion_tokens_details": {"reasoning_tokens": thought},
    }
    seen = read_response(chat(usage))
    assert classes(seen) == (fresh, read, write, 0, text, thought)
    assert seen is not None and seen.usage is not None
    assert (seen.usage.tokens_in, seen.usage.tokens_out) == (fresh + read + write, text + thought)


@given(st.tuples(COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS))
def test_anthropic_classes_are_added(counts: tuple[int, ...]) -> None:
    """The three input fields of an Anthropic usage add up to the input; none contains another."""
    f, r, short, long, text, thought = counts
    usage = {
        "input_tokens": f,
        "cache_read_input_tokens": r,
        "cache_creation_input_tokens": short + long,
        "cache_creation": {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long},
        "output_tokens": text + thought,
        "output_tokens_details": {"thinking_tokens": thought},
    }
    assert classes(read_response(message(usage))) == counts


def test_given_provider_wins() -> None:
    """What the caller says about the provider stands above what the model's name suggests."""
    seen = read_response(chat(), provider="azure")
    assert seen is not None and seen.provider == "azure"
