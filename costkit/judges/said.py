"""What a provider's response says to its reader: text, refusals and tool calls, without ids, usage and thoughts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import JudgeError
from ..usage import content
from ..usage.fields import Fields, each, fields_of
from ..usage.shapes import shape_of

__all__ = ["ToolCall", "Turn", "text_of", "tool_call", "tool_calls", "turns"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool and what it is called with: JSON text as the provider wrote it, or the object."""

    name: str
    arguments: Any


@dataclass(frozen=True, slots=True)
class Turn:
    """One choice of a response. ``others`` are the parts that are none of these, such as images."""

    text: str
    refusal: str
    calls: tuple[ToolCall, ...]
    others: tuple[Mapping[str, Any], ...]


# How the answer was found, not what it is.
_ASIDE = frozenset(
    {
        *(
            "thinking",
            "redacted_thinking",
            "reasoning",
            "server_tool_use",
            "web_search_call",
            "file_search_call",
        ),
        *("web_search_tool_result", "web_fetch_tool_result", "tool_search_tool_result", "mcp_list_tools"),
        *("tool_search_call", "tool_search_output"),
    }
)
_CALLS = frozenset({"function", "custom", "tool_use", "function_call", "custom_tool_call"})
_INSIDE = ("function", "custom", "function_call", "functionCall", "toolUse")
_CALL = frozenset(
    {
        *(
            "type",
            "name",
            "arguments",
            "input",
            "args",
            "id",
            "call_id",
            "toolUseId",
            "index",
            "status",
            "caller",
        ),
        *("thoughtSignature", "thought_signature", "parsed_arguments", *_INSIDE),
    }
)
_MESSAGE = frozenset(
    {
        *(
            "role",
            "content",
            "parts",
            "text",
            "refusal",
            "tool_calls",
            "function_call",
            "audio",
            "annotations",
        ),
        *("id", "type", "name", "status", "phase", "reasoning", "reasoning_content", "parsed"),
    }
)
_PASSING = frozenset({"id", "call_id", "tool_use_id", "status", "index", "signature", "encrypted_content"})


def turns(answer: object) -> tuple[Turn, ...] | None:
    """The choices of a provider's response, or of a message out of one; None for anything else. Never raises.

    >>> turns({"role": "assistant", "content": "Five days."})[0].text
    'Five days.'
    """
    body = fields_of(answer)
    if not body:
        return None
    if body.get("type") == "response.done":
        body = fields_of(body.get("response")) or body
    if (shape := shape_of(body)) is not None:
        read = _READERS.get(shape.text)
        return read(body) if read else None
    spoken = body.get("role") in ("assistant", "model") and _only(body, _MESSAGE)
    return (_message(body),) if spoken else None


def text_of(answer: object) -> tuple[str, bool]:
    """The text of an answer, and whether its provider marks it as a refusal.

    Raises:
        JudgeError: it has no text, or tool calls and other parts beside it, which a text judge would pass over.
    """
    if isinstance(answer, str):
        return answer, False
    said = turns(answer)
    if said is None:
        text = getattr(answer, "text", None)
        if not isinstance(text, str):
            raise JudgeError(
                f"an answer of type {type(answer).__name__} has no text to compare: return a text, an object with "
                ".text or a provider's response, or use a judge such as same_json(...)"
            )
        return text, False
    if any(turn.calls or turn.others for turn in said):
        raise JudgeError(
            "an answer holds tool calls or other parts, which a judge of text does not see: use same_answer or "
            "same_tool_call"
        )
    return "\n".join(turn.text or turn.refusal for turn in said), any(turn.refusal for turn in said)


def tool_call(fields: Fields) -> ToolCall | None:
    """The tool call that a part of a response is, in any provider's form; None where it is none."""
    inner = next((found for name in _INSIDE if (found := fields_of(fields.get(name)))), fields)
    if inner is fields and not (isinstance(kind := fields.get("type"), str) and kind in _CALLS):
        return None
    given = [inner[key] for key in ("arguments", "input", "args") if inner.get(key) is not None]
    # A part that says more than a call does is compared whole.
    if len(given) > 1 or not (_only(fields, _CALL) and _only(inner, _CALL)):
        return None
    name = inner.get("name")
    return ToolCall(name, given[0] if given else None) if isinstance(name, str) else None


def _only(fields: Fields, names: frozenset[str]) -> bool:
    return all(value is None or name in names for name, value in fields.items())


def tool_calls(answer: object) -> tuple[ToolCall, ...]:
    """Every tool call of an answer: a provider's response, a message, one call or a list of them."""
    if (said := turns(answer)) is not None:
        return tuple(call for turn in said for call in turn.calls)
    parts = answer if isinstance(answer, list | tuple) else [answer]
    found = [tool_call(fields) if (fields := fields_of(part)) else None for part in parts]
    return tuple(call for call in found if call) if all(found) else ()


def _turn(parts: Sequence[Fields], refusal: object = None, calls: Sequence[Fields] = ()) -> Turn:
    texts, refusals, found, others = [], [refusal] if isinstance(refusal, str) else [], [], []
    for part in [*parts, *calls]:
        kind = part.get("type")
        text = part.get("text") if kind != "refusal" else None
        if (isinstance(kind, str) and kind in _ASIDE) or part.get("thought") or "reasoningContent" in part:
            continue
        if call := tool_call(part):
            found.append(call)
        elif isinstance(said := part.get("refusal"), str):
            refusals.append(said)
        elif isinstance(text, str):
            texts.append(text)
        elif isinstance(spoken := part.get("transcript"), str):
            texts.append(spoken)
        else:
            others.append({name: value for name, value in part.items() if name not in _PASSING})
    return Turn("".join(texts), "".join(refusals), tuple(found), tuple(others))


def _message(message: Fields) -> Turn:
    """A message of OpenAI's, Anthropic's, Gemini's or Cohere's form."""
    said = message.get("content", message.get("parts", message.get("text")))
    parts: list[Fields] = [{"text": said}] if isinstance(said, str) else each(said)
    calls = each(message.get("tool_calls"))
    if old := fields_of(message.get("function_call")):
        calls = [*calls, {"type": "function_call", **old}]
    if audio := fields_of(message.get("audio")):
        parts = [*parts, {"transcript": audio.get("transcript")}]
    return _turn(parts, message.get("refusal"), calls)


def _chat(body: Fields) -> tuple[Turn, ...]:
    return tuple(_message(fields_of(choice.get("message")) or choice) for choice in each(body.get("choices")))


def _output(body: Fields) -> tuple[Turn, ...]:
    parts: list[Fields] = []
    for item in each(body.get("output")):
        parts += each(item.get("content")) if item.get("type") == "message" else [item]
    return (_turn(parts),)


def _gemini(body: Fields) -> tuple[Turn, ...]:
    return tuple(_turn(content.parts_of(one.get("content"))) for one in each(body.get("candidates")))


def _converse(body: Fields) -> tuple[Turn, ...]:
    return (_message(fields_of((fields_of(body.get("output")) or {}).get("message")) or {}),)


_READERS: dict[Callable[[Fields], str | None], Callable[[Fields], tuple[Turn, ...]]] = {
    content.chat_text: _chat,
    content.message_text: lambda body: (_message(body),),
    content.response_text: _output,
    content.realtime_text: _output,
    content.gemini_text: _gemini,
    content.converse_text: _converse,
    content.cohere_text: lambda body: (_message(fields_of(body.get("message")) or {}),),
}
