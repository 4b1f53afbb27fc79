"""The chunks of a stream to the one response they make, by each provider's own protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from costkit.usage.content import parts_of, texts_of
from costkit.usage.fields import Fields, each, fields_of, strings
from costkit.usage.seen import Seen, see
from costkit.usage.shapes import CHAT, COHERE, CONVERSE, MESSAGE, REALTIME, RESPONSE, at, shape_of

Reader = Callable[[Sequence[Fields], str | None], Seen | None]


def read_stream_of(bodies: Sequence[Fields], provider: str | None) -> Seen | None:
    """What the chunks tell together; the first that is a provider's says whose protocol it is."""
    bodies = [_unwrapped(body) for body in bodies]
    for body in bodies:
        if (reader := _reader(body)) is not None:
            return reader(bodies, provider)
    return None


def _unwrapped(body: Fields) -> Fields:
    """Mistral's SDK hands each chunk out as the data of an event."""
    return (fields_of(body["data"]) or body) if len(body) == 1 and "data" in body else body


def _reader(body: Fields) -> Reader | None:
    for name in ("object", "type"):
        kind = body.get(name)
        reader = _READERS.get((name, kind)) if isinstance(kind, str) else None
        if reader is not None:
            return reader
    if fields_of(body.get("messageStart")):
        return _converse_events
    shape = shape_of(body)
    return _gemini_chunks if shape is not None and shape.provider == "google" else None


def _openai_chunks(bodies: Sequence[Fields], provider: str | None) -> Seen:
    choices: dict[int, dict[str, Any]] = {}
    whole: dict[str, Any] = {}
    usage: Fields | None = None
    for body in bodies:
        whole.update((name, body[name]) for name in _KEPT if body.get(name) is not None)
        usage = _chunk_usage(body) or usage  # cumulative where it comes more than once
        for choice in each(body.get("choices")):
            number = index if isinstance(index := choice.get("index"), int) else 0
            held = choices.setdefault(number, {"texts": [], "refusals": [], "finish_reason": None})
            delta = fields_of(choice.get("delta")) or choice
            _keep(held["texts"], _delta_text(delta))
            _keep(held["refusals"], delta.get("refusal"))
            held["finish_reason"] = choice.get("finish_reason") or held["finish_reason"]
            if "content_filter_results" in choice:
                held["content_filter_results"] = choice["content_filter_results"]
    for held in choices.values():
        held["message"] = {"content": "".join(held["texts"]), "refusal": "".join(held["refusals"])}
    whole["choices"] = [choices[number] for number in sorted(choices)]
    told = {**whole, "object": "chat.completion", "usage": usage}
    return see(shape_of(told) or CHAT, told, usage, provider)


_KEPT = (
    "id",
    "model",
    "service_tier",
    "provider",
    "x_groq",
    "time_info",
    "prompt_filter_results",
    "_hidden_params",
)


def _keep(texts: list[str], text: object) -> None:
    if isinstance(text, str):
        texts.append(text)


def _delta_text(delta: Fields) -> object:
    content = delta.get("content") or delta.get("text")
    return "".join(strings(content, "text", "text")) if isinstance(content, list) else content


def _chunk_usage(body: Fields) -> Fields | None:
    """The chunk's usage; Groq puts it into a field of its own, Moonshot into the last choice."""
    found = fields_of(body.get("usage")) or fields_of(at(body, ("x_groq", "usage")))
    if found is None and (choices := each(body.get("choices"))):
        found = fields_of(choices[0].get("usage"))
    return found


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
        whole = fields_of(body.get("response")) or whole
        if body.get("type") in _DELTAS:
            _keep(texts, body.get("delta"))
    shape = REALTIME if whole.get("object") == "realtime.response" else RESPONSE
    seen = see(shape, whole, fields_of(whole.get("usage")), provider)
    if seen.finish == "in_progress":
        seen = replace(
            seen, finish=None
        )  # of a response still being made, the stream has ended before its end
    return replace(seen, text="".join(texts)) if seen.text is None and texts else seen


_DELTAS = frozenset(
    {"response.output_text.delta", "response.text.delta", "response.output_audio_transcript.delta"}
)


def _gemini_chunks(bodies: Sequence[Fields], provider: str | None) -> Seen | None:
    """Every chunk is a whole response with the next piece of text; its counts are of all so far."""
    whole: dict[str, Any] = {}
    usage: Fields | None = None
    texts: dict[int, list[str]] = {}
    ends: dict[int, Any] = {}
    for body in bodies:
        whole.update({name: value for name, value in body.items() if value is not None})
        for name in ("usageMetadata", "usage_metadata"):
            usage = fields_of(body.get(name)) or usage
        for candidate in each(body.get("candidates")):
            number = index if isinstance(index := candidate.get("index"), int) else 0
            texts.setdefault(number, []).extend(texts_of(parts_of(candidate.get("content"))))
            end = candidate.get("finishReason") or candidate.get("finish_reason")
            ends[number] = end or ends.get(number)
    whole["candidates"] = [
        {"content": {"parts": [{"text": "".join(texts[n])}]}, "finishReason": ends[n]} for n in sorted(texts)
    ]
    shape = shape_of(whole)
    if shape is None:
        return None
    seen = see(shape, whole, usage, provider)
    return seen if seen.finish is not None else replace(seen, usage=None)


def _converse_events(bodies: Sequence[Fields], provider: str | None) -> Seen:
    whole: dict[str, Any] = {}
    texts: list[str] = []
    for body in bodies:
        if (delta := fields_of(at(body, ("contentBlockDelta", "delta")))) is not None:
            _keep(texts, delta.get("text"))
        whole.update(fields_of(body.get("messageStop")) or {})
        whole.update(fields_of(body.get("metadata")) or {})
    content = [{"text": "".join(texts)}] if texts else []
    whole["output"] = {"message": {"content": content}}
    return see(CONVERSE, whole, fields_of(whole.get("usage")), provider)


def _cohere_events(bodies: Sequence[Fields], provider: str | None) -> Seen:
    whole: dict[str, Any] = {}
    texts: list[str] = []
    for body in bodies:
        delta = fields_of(body.get("delta")) or {}
        if body.get("type") == "content-delta":
            _keep(texts, at(delta, ("message", "content", "text")))
        elif body.get("type") == "message-end":
            whole.update(delta)
    whole["message"] = {"content": [{"type": "text", "text": "".join(texts)}]}
    return see(COHERE, whole, fields_of(at(whole, COHERE.usage)), provider)


_READERS: dict[tuple[str, str], Reader] = {
    ("object", "chat.completion.chunk"): _openai_chunks,
    ("object", "text_completion"): _openai_chunks,
    ("type", "message_start"): _anthropic_events,
    ("type", "message-start"): _cohere_events,
    ("type", "response.created"): _response_events,
    ("type", "response.done"): _response_events,
}
