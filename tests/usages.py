"""What the tests of reading usage share: responses of OpenAI and Anthropic, and token classes as a tuple."""

from __future__ import annotations

from typing import Any

from costkit.usage import Seen

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


def chat(usage: object = CHAT_USAGE, **changes: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Five days."}}
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "gpt-5-mini-2025-08-07"}
    return {**body, "choices": [choice], "usage": usage, **changes}


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
