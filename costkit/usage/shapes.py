"""Where each kind of response keeps its numbers and its text: one row a kind.

Another provider is another row. What differs between providers is what a number counts: OpenAI's prompt
tokens include the cached ones (``gross``), Anthropic's do not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from costkit.usage.fields import Fields, each, fields_of, strings

Path = tuple[str, ...]

COMPLETE = frozenset(
    {"stop", "end_turn", "stop_sequence", "completed", "tool_calls", "tool_use", "function_call"}
)
"""Finish reasons of a whole answer, as providers write them; any other, or None, is a cut one."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One kind of response. A path of () is a number this kind does not have."""

    tag: tuple[str, str]  # the field and value by which the response is known
    also: str  # a field that must be there too
    prompt: Path
    completion: Path
    text: Callable[[Fields], str | None]
    finish: Callable[[Fields], str | None]
    tier: Callable[[Fields], dict[str, object]]
    gross: bool = True  # prompt counts the cached tokens too
    cache_read: Path = ()
    cache_write: Path = ()
    cache_write_5m: Path = ()
    cache_write_1h: Path = ()
    reasoning: Path = ()  # counted inside completion
    total: Path = ("total_tokens",)
    completion_optional: bool = False


def shape_of(body: Fields) -> Shape | None:
    """The row a response belongs to, or None where it is no provider's response."""
    for shape in SHAPES:
        name, value = shape.tag
        found = body.get(name)
        if isinstance(found, str) and found == value and shape.also in body:
            if shape is EMBEDDING and not isinstance(body.get("model"), str):
                continue  # OpenAI calls every list page "list"; only embeddings carry a model
            return shape
    return None


def _chat_text(body: Fields) -> str | None:
    texts: list[str] = []
    for choice in each(body.get("choices")):
        content = (fields_of(choice.get("message")) or choice).get("content", choice.get("text"))
        if isinstance(content, list):
            content = "".join(strings(content, "text", "text"))
        texts += [content] if isinstance(content, str) else []
    return "\n".join(texts) if texts else None


def _chat_finish(body: Fields) -> str | None:
    """The finish of all choices: the first that is not a whole answer speaks for them."""
    found = [choice.get("finish_reason") for choice in each(body.get("choices"))]
    ends = [end if isinstance(end, str) else None for end in found]
    worst = [end for end in ends if end not in COMPLETE] or ends
    return worst[0] if worst else None


def _message_text(body: Fields) -> str | None:
    texts = strings(body.get("content"), "text", "text")
    return "".join(texts) if texts else None


def _message_finish(body: Fields) -> str | None:
    reason = body.get("stop_reason")
    return reason if isinstance(reason, str) else None


def _response_text(body: Fields) -> str | None:
    parts = [strings(item.get("content"), "output_text", "text") for item in each(body.get("output"))]
    texts = [text for part in parts for text in part]
    return "".join(texts) if texts else None


def _response_finish(body: Fields) -> str | None:
    status = body.get("status")
    why = (fields_of(body.get("incomplete_details")) or {}).get("reason")
    if status == "incomplete" and isinstance(why, str):
        return why
    return status if isinstance(status, str) and status not in ("queued", "in_progress") else None


def _openai_tier(body: Fields) -> dict[str, object]:
    return {"service_tier": body.get("service_tier")}


def _message_tier(body: Fields) -> dict[str, object]:
    usage = fields_of(body.get("usage")) or {}
    tier = usage.get("service_tier")
    return {"service_tier" if tier == "priority" else "processing": tier, "speed": usage.get("speed")}


CHAT = Shape(
    tag=("object", "chat.completion"),
    also="choices",
    prompt=("prompt_tokens",),
    completion=("completion_tokens",),
    cache_read=("prompt_tokens_details", "cached_tokens"),
    cache_write=("prompt_tokens_details", "cache_write_tokens"),
    reasoning=("completion_tokens_details", "reasoning_tokens"),
    text=_chat_text,
    finish=_chat_finish,
    tier=_openai_tier,
)
COMPLETION = replace(CHAT, tag=("object", "text_completion"))
RESPONSE = Shape(
    tag=("object", "response"),
    also="output",
    prompt=("input_tokens",),
    completion=("output_tokens",),
    cache_read=("input_tokens_details", "cached_tokens"),
    cache_write=("input_tokens_details", "cache_write_tokens"),
    reasoning=("output_tokens_details", "reasoning_tokens"),
    text=_response_text,
    finish=_response_finish,
    tier=_openai_tier,
)
MESSAGE = Shape(
    tag=("type", "message"),
    also="stop_reason",
    prompt=("input_tokens",),
    completion=("output_tokens",),
    gross=False,
    cache_read=("cache_read_input_tokens",),
    cache_write=("cache_creation_input_tokens",),
    cache_write_5m=("cache_creation", "ephemeral_5m_input_tokens"),
    cache_write_1h=("cache_creation", "ephemeral_1h_input_tokens"),
    reasoning=("output_tokens_details", "thinking_tokens"),
    text=_message_text,
    finish=_message_finish,
    tier=_message_tier,
)
EMBEDDING = Shape(
    tag=("object", "list"),
    also="data",
    prompt=("prompt_tokens",),
    completion=("completion_tokens",),
    text=lambda body: None,
    finish=lambda body: "completed",  # an embedding comes whole or not at all
    tier=_openai_tier,
    completion_optional=True,
)
SHAPES = (CHAT, MESSAGE, RESPONSE, COMPLETION, EMBEDDING)
