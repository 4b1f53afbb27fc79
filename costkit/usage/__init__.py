"""A provider's response to what was used: token classes that overlap nowhere.

Providers disagree on what their numbers count, so every response is read by the row of ``shapes.SHAPES`` it
belongs to. Numbers that contradict each other raise UsageError: clipping them would invent a bill.
"""

from __future__ import annotations

from collections.abc import Sequence

from costkit.usage.content import COMPLETE
from costkit.usage.fields import fields_of
from costkit.usage.seen import Seen, see
from costkit.usage.shapes import at, shape_of
from costkit.usage.streams import read_stream_of

__all__ = ["COMPLETE", "Seen", "read_response", "read_stream"]


def read_response(response: object, *, provider: str | None = None) -> Seen | None:
    """What a provider's response tells, or None where the object is no such response.

    Takes OpenAI chat completions, completions, responses, embeddings and a realtime ``response.done``; what
    others write in those formats (Azure, DeepSeek, Mistral, OpenRouter, xAI, vLLM, LiteLLM and more); Anthropic
    messages, Gemini's generateContent, Bedrock's Converse and Cohere's chat. As SDK objects or as dicts; no SDK
    is imported. Raises UsageError where the usage contradicts itself, naming the fields and numbers; anything
    that is not a response never raises.

    >>> seen = read_response({"object": "chat.completion", "model": "gpt-5-mini", "choices": [], "usage": {
    ...     "prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050,
    ...     "prompt_tokens_details": {"cached_tokens": 900}}})
    >>> seen.provider, seen.usage.in_fresh, seen.usage.cache_read, seen.usage.out_text
    ('openai', 100, 900, 50)
    >>> read_response("an answer without its response") is None
    True
    """
    body = fields_of(response)
    if body and body.get("type") == "response.done":
        body = fields_of(body.get("response"))
    shape = shape_of(body) if body else None
    if body is None or shape is None:
        return None
    return see(shape, body, fields_of(at(body, shape.usage)), provider)


def read_stream(chunks: Sequence[object], *, provider: str | None = None) -> Seen | None:
    """What the chunks of one stream tell together, or None where they are no provider's chunks.

    Takes OpenAI chat and completion chunks, the events of OpenAI responses and of a realtime one, of Anthropic
    messages, of Bedrock's ConverseStream and of Cohere's chat, and Gemini's chunks. ``usage`` is None unless the
    stream reported its output, ``finish`` unless it ended. Raises UsageError like :func:`read_response`.

    >>> seen = read_stream([{"object": "chat.completion.chunk", "model": "m", "choices": [
    ...     {"index": 0, "delta": {"content": word}, "finish_reason": None}]} for word in ("Five", " days")])
    >>> seen.text, seen.usage, seen.finish
    ('Five days', None, None)
    """
    return read_stream_of([body for chunk in chunks if (body := fields_of(chunk))], provider)
