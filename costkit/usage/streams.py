"""The chunks of a stream to the one response they make, by each provider's own protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from costkit.usage.fields import Fields, each, fields_of, strings
from costkit.usage.seen import Seen, see
from costkit.usage.shapes import CHAT, MESSAGE, RESPONSE


def read_stream_of(bodies: Sequence[Fields], provider: str | None) -> Seen | None:
    """What the chunks tell together; the first that is a provider's says whose protocol it is."""
    for body in bodies:
        for name in ("object", "type"):
            kind = body.get(name)
            reader = _READERS.get((name, kind)) if isinstance(kind, str) else None
            if reader is not None:
                return reader(bodies, provider)
    return None


def _openai_chunks(bodies: Sequence[Fields], provider: str | None) -> Seen:
    texts: dict[int, list[str]] = {}
    ends: dict[int, Any] = {}
    whole: dict[str, Any] = {}
    usage: Fields | None = None
    for body in bodies:
        for name in ("model", "service_tier"):
            whole[name] = body.get(name) or whole.get(name)
        usage = fields_of(body.get("usage")) or usage  # cumulative where it comes more than once
        for choice in each(body.get("choices")):
            number = index if isinstance(index := choice.get("index"), int) else 0
            delta = fields_of(choice.get("delta")) or choice
            pieces = texts.setdefault(number, [])
            if isinstance(piece := delta.get("content") or delta.get("text"), str):
                pieces.append(piece)
            ends[number] = choice.get("finish_reason") or ends.get(number)
    whole["choices"] = [
        {"message": {"content": "".join(texts[n])}, "finish_reason": ends[n]} for n in sorted(texts)
    ]
    return see(CHAT, whole, usage, provider)


def _anthropic_events(bodies: Sequence[Fields], provider: str | None) -> Seen:
    whole: dict[str, Any] = {}
    usage: dict[str, Any] = {}
    ended = False
    texts: list[str] = []
    for body in bodies:
        kind = body.get("type")
        if kind == "message_start":
            whole = dict(fields_of(body.get("message")) or {})
            usage = dict(fields_of(whole.get("usage")) or {})
        elif kind == "content_block_start":
            texts += strings([body.get("content_block")], "text", "text")
        elif kind == "content_block_delta":
            texts += strings([body.get("delta")], "text_delta", "text")
        elif kind == "message_delta":
            whole["stop_reason"] = (fields_of(body.get("delta")) or {}).get("stop_reason")
            told = fields_of(body.get("usage")) or {}
            _update(usage, told)
            ended = "output_tokens" in told
    whole["content"] = [{"type": "text", "text": "".join(texts)}]
    # Before message_delta the output count is a place-holder: a stream cut there has not reported its usage.
    return see(MESSAGE, whole, usage if ended else None, provider)


def _update(usage: dict[str, Any], told: Fields) -> None:
    """The later, cumulative numbers over the first. Only the first split cache writes by their lifetime."""
    usage.update({name: value for name, value in told.items() if value is not None})
    written, split = told.get("cache_creation_input_tokens"), fields_of(usage.get("cache_creation"))
    if split and isinstance(written, int) and "cache_creation" not in told:
        long = split.get("ephemeral_1h_input_tokens")
        if isinstance(long, int) and long <= written:
            usage["cache_creation"] = {**split, "ephemeral_5m_input_tokens": written - long}


def _response_events(bodies: Sequence[Fields], provider: str | None) -> Seen:
    whole: Fields = {}
    texts: list[str] = []
    for body in bodies:
        kind = body.get("type")
        whole = fields_of(body.get("response")) or whole
        if kind == "response.output_text.delta" and isinstance(piece := body.get("delta"), str):
            texts.append(piece)
    seen = see(RESPONSE, whole, fields_of(whole.get("usage")), provider)
    if seen.text is not None or not texts:
        return seen
    return replace(seen, text="".join(texts))


_READERS: dict[tuple[str, str], Callable[[Sequence[Fields], str | None], Seen]] = {
    ("object", "chat.completion.chunk"): _openai_chunks,
    ("object", "text_completion"): _openai_chunks,
    ("type", "message_start"): _anthropic_events,
    ("type", "response.created"): _response_events,
}
