"""What a response says beside its numbers: its text, how it ended, the price variant it was served under."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from costkit.usage.fields import Fields, each, fields_of, strings

COMPLETE = frozenset(
    {
        *("stop", "end_turn", "stop_sequence", "completed", "complete", "eos"),
        *("tool_calls", "tool_use", "tool_call", "function_call"),
    }
)
"""Finish reasons of a whole answer, in lower case; any other, or None, is a cut or refused one."""

_PENDING = frozenset({"queued", "in_progress"})


def word(value: object) -> str | None:
    """A provider's word as a plain string: its SDK may hold it as an enum, which is a string too."""
    return str.__str__(value) if isinstance(value, str) and value else None


def parts_of(content: object) -> list[Fields]:
    """The parts of a content that has some, as Gemini and Bedrock write it."""
    return each((fields_of(content) or {}).get("parts"))


def texts_of(parts: Iterable[Fields]) -> list[str]:
    """The text of every part that is part of the answer: Gemini marks its thoughts."""
    found = [part.get("text") for part in parts if not part.get("thought")]
    return [text for text in found if isinstance(text, str)]


def chat_text(body: Fields) -> str | None:
    """The choices' texts, one a line."""
    texts: list[str] = []
    for choice in each(body.get("choices")):
        content = (fields_of(choice.get("message")) or choice).get("content", choice.get("text"))
        if isinstance(content, list):
            content = "".join(strings(content, "text", "text"))
        texts += [content] if isinstance(content, str) else []
    return "\n".join(texts) if texts else None


def chat_finish(body: Fields) -> str | None:
    """The finish of all choices: the first that is not a whole answer speaks for them."""
    return _worst(_chat_end(choice) for choice in each(body.get("choices")))


def _chat_end(choice: Fields) -> str | None:
    if word((fields_of(choice.get("message")) or {}).get("refusal")):
        return "refusal"
    return word(choice.get("finish_reason"))


def _worst(ends: Iterable[str | None]) -> str | None:
    found = list(ends)
    cut = (end for end in found if end is None or end.lower() not in COMPLETE)
    return next(cut, found[0] if found else None)


def message_text(body: Fields) -> str | None:
    """The text of an Anthropic message, without thinking and tool calls."""
    texts = strings(body.get("content"), "text", "text")
    return "".join(texts) if texts else None


def message_finish(body: Fields) -> str | None:
    """Anthropic's stop reason."""
    return word(body.get("stop_reason"))


def response_text(body: Fields) -> str | None:
    """The output text of an OpenAI response."""
    texts = [
        text
        for item in each(body.get("output"))
        for text in strings(item.get("content"), "output_text", "text")
    ]
    return "".join(texts) if texts else None


def response_finish(body: Fields) -> str | None:
    """The status of an OpenAI response, or why it is incomplete; ``refusal`` where a part of it is one."""
    status = word(body.get("status"))
    details = fields_of(body.get("incomplete_details")) or fields_of(body.get("status_details")) or {}
    if status == "incomplete":
        return word(details.get("reason")) or status
    contents = [each(item.get("content")) for item in each(body.get("output"))]
    refused = any(part.get("type") == "refusal" for parts in contents for part in parts)
    return "refusal" if refused else "in_progress" if status in _PENDING else status


def gemini_text(body: Fields) -> str | None:
    """The candidates' texts without thoughts, one a line."""
    found = [texts_of(parts_of(candidate.get("content"))) for candidate in each(body.get("candidates"))]
    texts = ["".join(texts) for texts in found if texts]
    return "\n".join(texts) if texts else None


def gemini_finish(body: Fields) -> str | None:
    """Why the prompt was blocked, else the finish of all candidates."""
    blocked = fields_of(body.get("promptFeedback") or body.get("prompt_feedback")) or {}
    if why := word(blocked.get("blockReason") or blocked.get("block_reason")):
        return why
    return _worst(
        word(candidate.get("finishReason") or candidate.get("finish_reason"))
        for candidate in each(body.get("candidates"))
    )


def converse_text(body: Fields) -> str | None:
    """The text of a Bedrock Converse answer, without reasoning and tool calls."""
    message = fields_of((fields_of(body.get("output")) or {}).get("message")) or {}
    texts = texts_of(each(message.get("content")))
    return "".join(texts) if texts else None


def converse_finish(body: Fields) -> str | None:
    """Bedrock's stop reason."""
    return word(body.get("stopReason"))


def cohere_text(body: Fields) -> str | None:
    """The text of a Cohere chat answer."""
    texts = strings((fields_of(body.get("message")) or {}).get("content"), "text", "text")
    return "".join(texts) if texts else None


def cohere_finish(body: Fields) -> str | None:
    """Cohere's finish reason."""
    return word(body.get("finish_reason"))


def realtime_text(body: Fields) -> str | None:
    """The text of a realtime response, and the transcript of what it spoke."""
    texts: list[str] = []
    for part in (part for item in each(body.get("output")) for part in each(item.get("content"))):
        text = part.get("text") or part.get("transcript")
        texts += [text] if isinstance(text, str) else []
    return "".join(texts) if texts else None


def whole(body: Fields) -> str | None:
    """The finish of what comes whole or not at all."""
    return "completed"


def no_text(body: Fields) -> str | None:
    """The text of what has none."""
    return None


Tier = dict[str, Any]


def no_tier(body: Fields) -> Tier:
    """Nothing is told of how it was served."""
    return {}


def openai_tier(body: Fields) -> Tier:
    """The service tier, which Mistral and LiteLLM put into the usage; a batch is a way of processing."""
    usage = fields_of(body.get("usage")) or {}
    tier = body.get("service_tier") or usage.get("service_tier")
    if tier == "on_demand":  # Groq's word for its ordinary price
        tier = None
    return {"processing" if tier == "batch" else "service_tier": tier, "speed": usage.get("speed")}


def message_tier(body: Fields) -> Tier:
    """Anthropic's tier and speed; its batches are a way of processing."""
    usage = fields_of(body.get("usage")) or {}
    tier = usage.get("service_tier")
    return {"service_tier" if tier == "priority" else "processing": tier, "speed": usage.get("speed")}


def gemini_tier(body: Fields) -> Tier:
    """Priority or flex, which Gemini tells as a kind of traffic."""
    usage = fields_of(body.get("usageMetadata") or body.get("usage_metadata")) or {}
    kind = word(usage.get("trafficType") or usage.get("traffic_type")) or ""
    return {"service_tier": tier.lower()} if (tier := kind.removeprefix("ON_DEMAND_")) in _TRAFFIC else {}


_TRAFFIC = frozenset({"PRIORITY", "FLEX"})


def converse_tier(body: Fields) -> Tier:
    """Bedrock's service tier."""
    return {"service_tier": (fields_of(body.get("serviceTier")) or {}).get("type")}
