"""The chunks of a stream tell what the whole response would."""

from __future__ import annotations

from typing import Any

import anthropic.types
import openai.types.chat

from costkit.usage import Seen, read_stream

CHAT_USAGE: dict[str, Any] = {
    "prompt_tokens": 1200,
    "completion_tokens": 300,
    "total_tokens": 1500,
    "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 256, "audio_tokens": 0},
}
MESSAGE_USAGE: dict[str, Any] = {
    "input_tokens": 50,
    "output_tokens": 300,
    "cache_read_input_tokens": 1000,
    "cache_creation_input_tokens": 400,
    "cache_creation": {"ephemeral_5m_input_tokens": 150, "ephemeral_1h_input_tokens": 250},
    "service_tier": "standard",
}


def message(usage: object = MESSAGE_USAGE, **changes: Any) -> dict[str, Any]:
    content = [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "Five "},
        {"type": "text", "text": "days."},
    ]
    body = {"id": "m", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5-20250929"}
    ended = {"stop_reason": "end_turn", "stop_sequence": None}
    return {**body, **ended, "content": content, "usage": usage, **changes}


def response(usage: object, **changes: Any) -> dict[str, Any]:
    text = {"type": "output_text", "text": "Five days.", "annotations": []}
    item = {"id": "o", "type": "message", "role": "assistant", "status": "completed", "content": [text]}
    body = {"id": "r", "object": "response", "created_at": 1, "model": "gpt-5", "status": "completed"}
    return {**body, "output": [item], "usage": usage, **changes}


def classes(seen: Seen | None) -> tuple[int, ...]:
    assert seen is not None and seen.usage is not None
    usage = seen.usage
    return (
        usage.in_fresh,
        usage.cache_read,
        usage.cache_write_5m,
        usage.cache_write_1h,
        usage.out_text,
        usage.out_reasoning,
    )


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
