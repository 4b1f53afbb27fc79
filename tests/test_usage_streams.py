"""The chunks of a stream tell what the whole response would."""

from __future__ import annotations

from typing import Any

import anthropic.types
import openai.types.chat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costkit.errors import UsageError
from costkit.usage import COMPLETE, read_response, read_stream
from tests.usages import CHAT_USAGE, MESSAGE_USAGE, classes, message, response


def chunk(content: str | None = None, finish: str | None = None, **changes: Any) -> dict[str, Any]:
    delta = {} if content is None else {"content": content}
    body = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-2024-08-06"}
    return {
        **body,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        "usage": None,
        **changes,
    }


OPENAI_STREAM = [chunk("", None), chunk("Five"), chunk(" days."), chunk(None, "stop")]
ANTHROPIC_STREAM: list[dict[str, Any]] = [
    {
        "type": "message_start",
        "message": message({**MESSAGE_USAGE, "output_tokens": 1}, content=[], stop_reason=None),
    },
    {"type": "ping"},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Five"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " days."}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 300},
    },
    {"type": "message_stop"},
]


def test_openai_stream_equals_the_response() -> None:
    """A stream with a usage chunk tells the very numbers the same response would, cached detail included."""
    bodies = [*OPENAI_STREAM, {**chunk(), "choices": [], "usage": CHAT_USAGE}]
    typed = [openai.types.chat.ChatCompletionChunk.model_validate(body) for body in bodies]
    for chunks in (bodies, typed):
        seen = read_stream(chunks)
        assert classes(seen) == (176, 1024, 0, 0, 44, 256)
        assert seen is not None and (seen.text, seen.finish) == ("Five days.", "stop")
        assert (seen.model, seen.provider) == ("gpt-4o-2024-08-06", "openai")


def test_openai_stream_without_usage() -> None:
    """A stream that reports no usage has None for it; one cut in the middle has no finish either."""
    seen = read_stream(OPENAI_STREAM)
    assert seen is not None and seen.usage is None and seen.finish == "stop"
    cut = read_stream(OPENAI_STREAM[:2])
    assert cut is not None and (cut.usage, cut.finish, cut.text) == (None, None, "Five")


def test_repeated_usage_is_cumulative() -> None:
    """Where every chunk carries the usage so far, the last one counts, not their sum."""
    first = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
    last = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    seen = read_stream([chunk("a", usage=first), chunk("b", "stop", usage=last)])
    assert classes(seen) == (5, 0, 0, 0, 2, 0)


def test_completion_stream() -> None:
    """The chunks of a legacy completion are read like chat chunks."""
    body = {"id": "x", "object": "text_completion", "model": "m", "usage": None}
    chunks = [{**body, "choices": [{"index": 0, "text": text, "finish_reason": None}]} for text in ("a", "b")]
    seen = read_stream(chunks)
    assert seen is not None and (seen.text, seen.finish) == ("ab", None)


def test_anthropic_stream() -> None:
    """Input from message_start and the final output from message_delta make the message's own numbers."""
    makers: dict[str, Any] = {
        "message_start": anthropic.types.RawMessageStartEvent,
        "content_block_start": anthropic.types.RawContentBlockStartEvent,
        "content_block_delta": anthropic.types.RawContentBlockDeltaEvent,
        "message_delta": anthropic.types.RawMessageDeltaEvent,
    }
    typed = [
        makers[body["type"]].model_validate(body) if body["type"] in makers else body
        for body in ANTHROPIC_STREAM
    ]
    for chunks in (ANTHROPIC_STREAM, typed):
        seen = read_stream(chunks)
        assert classes(seen) == (50, 1000, 150, 250, 300, 0)
        assert seen is not None and (seen.text, seen.finish) == ("Five days.", "end_turn")
        assert (seen.provider, seen.tier) == ("anthropic", {"processing": "standard"})


def test_cut_anthropic_stream() -> None:
    """Before its end a message reports one output token as a place-holder; that is no usage."""
    seen = read_stream(ANTHROPIC_STREAM[:4])
    assert seen is not None and (seen.usage, seen.finish, seen.text) == (None, None, "Five")


def test_anthropic_stream_that_writes_more_later() -> None:
    """Cache writes added after the start keep the hour's share and put the rest at five minutes."""
    usage = {"output_tokens": 300, "cache_creation_input_tokens": 500, "input_tokens": 60}
    end = {**ANTHROPIC_STREAM[6], "usage": usage}
    assert classes(read_stream([*ANTHROPIC_STREAM[:6], end])) == (60, 1000, 250, 250, 300, 0)


def test_responses_stream() -> None:
    """The last event of a responses stream holds the whole response; a cut one has its deltas."""
    usage = {"input_tokens": 9, "output_tokens": 4, "total_tokens": 13}
    begun = response(None, status="in_progress", output=[])
    events = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_text.delta", "delta": "Five"},
        {"type": "response.output_text.delta", "delta": " days."},
        {"type": "response.completed", "response": response(usage)},
    ]
    seen = read_stream(events)
    assert classes(seen) == (9, 0, 0, 0, 4, 0)
    assert seen is not None and (seen.text, seen.finish) == ("Five days.", "completed")
    cut = read_stream(events[:2])
    assert cut is not None and (cut.usage, cut.finish, cut.text) == (None, None, "Five")


def test_streams_of_other_things() -> None:
    """A stream of text, or an empty one, is no provider's stream."""
    assert read_stream([]) is None
    assert read_stream(["Five", " days."]) is None


# --- other protocols

GEMINI_USAGE: dict[str, Any] = {
    "promptTokenCount": 1200,
    "cachedContentTokenCount": 1024,
    "candidatesTokenCount": 44,
    "thoughtsTokenCount": 256,
    "totalTokenCount": 1500,
}


def gemini(text: str, finish: str | None = None, usage: object = None, **part: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": [{"text": text, **part}]}, "index": 0}
    body = {"candidates": [{**candidate, "finishReason": finish} if finish else candidate]}
    return {**body, "usageMetadata": usage, "modelVersion": "gemini-2.5-flash"}


GEMINI_STREAM = [
    gemini("hm", None, {"promptTokenCount": 1200, "totalTokenCount": 1200}, thought=True),
    gemini("Five", None, {"promptTokenCount": 1200, "candidatesTokenCount": 1, "totalTokenCount": 1201}),
    gemini(" days.", "STOP", GEMINI_USAGE),
]


def test_gemini_stream() -> None:
    """The counts of Gemini's chunks are of all so far: the last ones are the call's, and only at its end."""
    seen = read_stream(GEMINI_STREAM)
    assert classes(seen) == (176, 1024, 0, 0, 44, 256)
    assert seen is not None and (seen.text, seen.finish, seen.provider) == ("Five days.", "STOP", "google")
    assert seen == read_response(gemini("Five days.", "STOP", GEMINI_USAGE))
    cut = read_stream(GEMINI_STREAM[:2])
    assert cut is not None and (cut.usage, cut.finish, cut.text) == (None, None, "Five")


def test_gemini_stream_that_was_blocked() -> None:
    """A prompt that Gemini blocks streams one chunk without candidates."""
    usage = {"promptTokenCount": 12, "totalTokenCount": 12}
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": usage, "modelVersion": "m"}
    seen = read_stream([blocked])
    assert classes(seen) == (12, 0, 0, 0, 0, 0)
    assert seen is not None and seen.finish == "SAFETY"


CONVERSE_STREAM: list[dict[str, Any]] = [
    {"messageStart": {"role": "assistant"}},
    {"contentBlockDelta": {"delta": {"reasoningContent": {"text": "hm"}}, "contentBlockIndex": 0}},
    {"contentBlockDelta": {"delta": {"text": "Five"}, "contentBlockIndex": 1}},
    {"contentBlockDelta": {"delta": {"text": " days."}, "contentBlockIndex": 1}},
    {"contentBlockStop": {"contentBlockIndex": 1}},
    {"messageStop": {"stopReason": "end_turn"}},
    {
        "metadata": {
            "usage": {
                "inputTokens": 50,
                "outputTokens": 300,
                "totalTokens": 1750,
                "cacheReadInputTokens": 1000,
                "cacheWriteInputTokens": 400,
                "cacheDetails": [{"ttl": "1h", "inputTokens": 250}, {"ttl": "5m", "inputTokens": 150}],
            },
            "metrics": {"latencyMs": 7},
        }
    },
]


def test_converse_stream() -> None:
    """ConverseStream tells its stop reason in one event and its usage in the next and last."""
    seen = read_stream(CONVERSE_STREAM)
    assert classes(seen) == (50, 1000, 150, 250, 300, 0)
    assert seen is not None and (seen.text, seen.finish, seen.provider) == ("Five days.", "end_turn", "aws")
    unpaid = read_stream(CONVERSE_STREAM[:-1])
    assert unpaid is not None and (unpaid.usage, unpaid.finish) == (None, "end_turn")
    cut = read_stream(CONVERSE_STREAM[:3])
    assert cut is not None and (cut.usage, cut.finish, cut.text) == (None, None, "Five")


def test_cohere_stream() -> None:
    """Cohere's last event holds the finish and what is billed."""
    usage = {"billed_units": {"input_tokens": 12, "output_tokens": 3}, "tokens": {"input_tokens": 80}}
    events: list[dict[str, Any]] = [
        {"type": "message-start", "id": "c", "delta": {"message": {"role": "assistant"}}},
        {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "Five"}}}},
        {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": " days."}}}},
        {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": usage}},
    ]
    seen = read_stream(events)
    assert classes(seen) == (12, 0, 0, 0, 3, 0)
    assert seen is not None and (seen.text, seen.finish, seen.provider) == (
        "Five days.",
        "COMPLETE",
        "cohere",
    )
    cut = read_stream(events[:2])
    assert cut is not None and (cut.usage, cut.finish, cut.text) == (None, None, "Five")


@pytest.mark.parametrize(
    "last",
    [
        {**chunk(None, "stop"), "usage": CHAT_USAGE},
        {**chunk(None, "stop"), "x_groq": {"id": "q", "usage": CHAT_USAGE}},
        {**chunk(), "choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": CHAT_USAGE}]},
    ],
    ids=["openai", "groq", "moonshot"],
)
def test_where_the_last_chunk_keeps_its_usage(last: dict[str, Any]) -> None:
    """Groq and Moonshot put the usage of a stream into places of their own."""
    seen = read_stream([*OPENAI_STREAM[:3], last])
    assert classes(seen) == (176, 1024, 0, 0, 44, 256)
    assert seen is not None and (seen.finish, seen.text) == ("stop", "Five days.")
    assert seen.provider == ("groq" if "x_groq" in last else "openai")


def test_mistral_events() -> None:
    """Mistral's SDK wraps each chunk in an event; its text may come in parts."""
    parts = [{"type": "text", "text": " days."}]
    delta = {"index": 0, "delta": {"content": parts}, "finish_reason": "stop"}
    chunks = [chunk("Five", model="mistral-large-latest"), {**chunk(usage=CHAT_USAGE), "choices": [delta]}]
    seen = read_stream([{"data": body} for body in chunks])
    assert classes(seen) == (176, 1024, 0, 0, 44, 256)
    assert seen is not None and seen.text == "Five days."


def test_openrouter_stream() -> None:
    """The host and the charge that OpenRouter streams are told as those of a whole response."""
    named = {"id": "gen-1", "provider": "Groq", "model": "openai/gpt-oss-120b"}
    end = {**chunk(), **named, "choices": [], "usage": {**CHAT_USAGE, "cost": 0.5}}
    seen = read_stream([{**body, **named} for body in OPENAI_STREAM] + [end])
    assert seen is not None and seen.usage is not None and seen.usage.raw is not None
    assert (seen.provider, seen.cost, seen.usage.raw["upstream_provider"]) == (
        "openrouter",
        500_000_000,
        "Groq",
    )


def test_refusals_in_streams() -> None:
    """A refusal that is streamed is no whole answer, whatever the finish reason says."""
    refusing = {**chunk(), "choices": [{"index": 0, "delta": {"refusal": "No."}, "finish_reason": None}]}
    seen = read_stream([chunk(""), refusing, chunk(None, "stop")])
    assert seen is not None and seen.finish == "refusal" and seen.finish not in COMPLETE
    item = {"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}
    begun = response(None, status="in_progress", output=[])
    done = {"type": "response.completed", "response": response(None, output=[item])}
    seen = read_stream([{"type": "response.created", "response": begun}, done])
    assert seen is not None and seen.finish == "refusal"


EVENTS: list[list[dict[str, Any]]] = [OPENAI_STREAM, ANTHROPIC_STREAM, GEMINI_STREAM, CONVERSE_STREAM]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(EVENTS), st.data())
def test_broken_streams_only_raise_usage_errors(events: list[dict[str, Any]], data: st.DataObject) -> None:
    """Chunks lost, doubled, out of order or broken end in a value or a UsageError."""
    chosen = data.draw(st.lists(st.sampled_from(events), max_size=8))
    broken = [
        {**body, data.draw(st.sampled_from(sorted(body))): data.draw(JSON)}
        if data.draw(st.booleans())
        else body
        for body in chosen
    ]
    try:
        seen = read_stream(broken)
    except UsageError:
        return
    assert seen is None or seen.usage is None or min(classes(seen)) >= 0


@pytest.mark.parametrize("events", EVENTS)
def test_streams_cut_anywhere(events: list[dict[str, Any]]) -> None:
    """A stream cut before it said how it ended never says that it is whole."""
    for length in range(len(events)):
        seen = read_stream(events[:length])
        told = any(
            word in str(events[:length])
            for word in ("'stop'", "'end_turn', 'stop_seq", "'STOP'", "stopReason")
        )
        assert seen is None or told or seen.finish is None
