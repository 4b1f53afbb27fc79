"""The one answer that the chunks of a stream make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..usage.fields import Fields, each, fields_of

__all__ = ["joined"]


def joined(chunks: Sequence[Any]) -> Any:
    """The answer that chunks make together, so that it does not matter where they were cut.

    Text and bytes are put together; chunks of OpenAI chat completions and responses and of Anthropic messages become
    the message they make, tool calls and all. Any other chunks come back as the list they are.

    >>> joined(["Five ", "days."])
    'Five days.'
    """
    if chunks and all(isinstance(chunk, str) for chunk in chunks):
        return "".join(chunks)
    if chunks and all(isinstance(chunk, bytes) for chunk in chunks):
        return b"".join(chunks)
    bodies = [body for chunk in chunks if (body := fields_of(chunk))]
    if not bodies or len(bodies) < len(chunks):
        return list(chunks)
    if all(body.get("object") == "chat.completion.chunk" for body in bodies):
        return _chat(bodies)
    if bodies[0].get("type") == "message_start":
        return _message(bodies)
    last = next((body for body in bodies if body.get("type") == "response.completed"), None)
    return list(chunks) if last is None else last.get("response")


def _chat(bodies: Sequence[Fields]) -> dict[str, Any]:
    choices: dict[int, dict[str, Any]] = {}
    for choice in (choice for body in bodies for choice in each(body.get("choices"))):
        delta = fields_of(choice.get("delta")) or {}
        message = choices.setdefault(_index(choice), {"role": "assistant", "tool_calls": {}})
        for name in ("content", "refusal"):
            _append(message, name, delta.get(name))
        for call in [*each(delta.get("tool_calls")), *each([delta.get("function_call")])]:
            held = message["tool_calls"].setdefault(_index(call), {"name": None, "arguments": ""})
            told = fields_of(call.get("function")) or fields_of(call.get("custom")) or call
            held["name"] = told.get("name") or held["name"]
            _append(held, "arguments", told.get("arguments", told.get("input")))
    for message in choices.values():
        calls = message["tool_calls"]
        message["tool_calls"] = [{"type": "function", "function": calls[at]} for at in sorted(calls)]
    whole = [{"index": at, "message": choices[at]} for at in sorted(choices)]
    return {"object": "chat.completion", "choices": whole}


def _message(bodies: Sequence[Fields]) -> dict[str, Any]:
    blocks: dict[int, dict[str, Any]] = {}
    for body in bodies:
        held = blocks.setdefault(_index(body), {})
        if block := fields_of(body.get("content_block")):
            held.update(block)
        delta = fields_of(body.get("delta")) or {}
        _append(held, "text", delta.get("text"))
        _append(held, "written", delta.get("partial_json"))
    content = []
    for at in sorted(blocks):
        written = blocks[at].pop("written", None)
        content += (
            [{**blocks[at], "input": written} if written else blocks[at]] if blocks[at].get("type") else []
        )
    return {"role": "assistant", "content": content}


def _append(held: dict[str, Any], name: str, text: object) -> None:
    if isinstance(text, str):
        held[name] = (held.get(name) or "") + text


def _index(fields: Fields) -> int:
    return index if isinstance(index := fields.get("index"), int) else 0
