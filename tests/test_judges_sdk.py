"""Answers that are a provider's own: the SDKs' objects, raw dicts, tool calls, streams."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from anthropic.types import Message
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response

from costkit.errors import JudgeError
from costkit.judges import joined, same_answer, same_json, same_text, same_tool_call
from costkit.judges.said import turns

Body = dict[str, Any]


def chat(
    content: str | None = "Five days.", *, ident: str = "1", calls: Any = None, refusal: str | None = None
) -> Body:
    message = {"role": "assistant", "content": content, "refusal": refusal, "tool_calls": calls}
    return {
        "id": f"chatcmpl-{ident}", "object": "chat.completion", "created": int(ident), "model": "gpt-5-mini",
        "system_fingerprint": f"fp_{ident}",
        "usage": {"prompt_tokens": 9, "completion_tokens": int(ident), "total_tokens": 9 + int(ident)},
        "choices": [{"index": 0, "finish_reason": "stop", "logprobs": None, "message": message}],
    }  # fmt: skip


def call(name: str = "pay", arguments: str = '{"to": "Anna", "sum": 5}', ident: str = "1") -> Body:
    return {"id": f"call_{ident}", "type": "function", "function": {"name": name, "arguments": arguments}}


def message(*blocks: Body, ident: str = "1") -> Body:
    return {
        "id": f"msg_{ident}", "type": "message", "role": "assistant", "model": "claude", "stop_reason": "end_turn",
        "stop_sequence": None, "content": list(blocks), "usage": {"input_tokens": 9, "output_tokens": int(ident)},
    }  # fmt: skip


def tool(parameters: Body) -> Body:
    return {"type": "function", "function": {"name": "f", "parameters": parameters}}


def block(text: str) -> Body:
    return {"type": "text", "text": text, "citations": None}


def use(name: str = "pay", arguments: Any = None, ident: str = "1") -> Body:
    return {
        "type": "tool_use",
        "id": f"toolu_{ident}",
        "name": name,
        "input": arguments or {"to": "Anna", "sum": 5},
    }


def thought(text: str) -> Body:
    return {"type": "thinking", "thinking": text, "signature": text}


def response(*items: Body, ident: str = "1") -> Body:
    return {
        "id": f"resp_{ident}", "object": "response", "created_at": int(ident), "model": "gpt-5-mini",
        "status": "completed", "output": list(items), "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
        "usage": {"input_tokens": 1, "output_tokens": int(ident), "total_tokens": 1 + int(ident),
                  "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                  "output_tokens_details": {"reasoning_tokens": 0}},
    }  # fmt: skip


def item(text: str, ident: str = "1") -> Body:
    part = {"type": "output_text", "text": text, "annotations": []}
    return {
        "id": f"msg_{ident}",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [part],
    }


def tool_item(arguments: str = '{"to": "Anna"}', ident: str = "1") -> Body:
    return {
        "type": "function_call",
        "id": f"fc_{ident}",
        "call_id": f"c_{ident}",
        "name": "pay",
        "arguments": arguments,
    }


def gemini(text: str, **call: Any) -> Body:
    parts: list[Body] = [
        {"thought": True, "text": "hm"},
        {"text": text},
        *([{"functionCall": call}] if call else []),
    ]
    return {
        "candidates": [{"content": {"role": "model", "parts": parts}}],
        "usageMetadata": {"promptTokenCount": 1},
    }


def converse(text: str, ident: str = "1", **arguments: Any) -> Body:
    tool = {"toolUse": {"toolUseId": ident, "name": "pay", "input": arguments}}
    parts = [{"text": text}, *([tool] if arguments else [])]
    return {
        "output": {"message": {"role": "assistant", "content": parts}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": int(ident)},
    }


def plain(body: Body) -> Any:
    return body


def as_chat(body: Body) -> Any:
    return ChatCompletion.model_validate(body)


def as_message(body: Body) -> Any:
    return Message.model_validate(body)


def as_response(body: Body) -> Any:
    return Response.model_validate(body)


BOTH = {
    "chat": (plain, as_chat),
    "message": (plain, as_message),
    "response": (plain, as_response),
    "other": (plain,),
}
COMPACT = '{"sum":5.0,"to":"Anna"}'
SAYS: Body = {"role": "assistant", "content": "a"}
PAIRS: list[tuple[str, Body, Body, bool]] = [
    ("chat", chat("Five days."), chat("five  days", ident="2"), True),
    ("chat", chat("Five days."), chat("Six days."), False),
    ("chat", chat('{"a": 1, "b": 2}'), chat('{"b": 2, "a": 1.0}', ident="2"), True),
    ("chat", chat("x", refusal=None), chat(None, refusal="x"), False),
    ("chat", chat(None, refusal="I cannot."), chat(None, refusal="I cannot", ident="2"), True),
    ("chat", chat(None, calls=[call()]), chat(None, calls=[call(ident="2", arguments=COMPACT)]), True),
    ("chat", chat(None, calls=[call()]), chat(None, calls=[call(arguments='{"sum": 6, "to": "Anna"}')]), False),
    ("chat", chat(None, calls=[call()]), chat(None, calls=[call("refund")]), False),
    ("chat", chat(None, calls=[call()]), chat(None), False),
    ("chat", chat(None, calls=[call(), call("b")]), chat(None, calls=[call("b"), call()]), False),
    ("chat", chat(None, calls=[call(arguments="")]), chat(None, calls=[call(arguments="{}")]), True),
    ("chat", chat(None, calls=[call(arguments="{bad")]), chat(None, calls=[call(arguments="{bad ")]), False),
    ("message", message(block("Five days.")), message(block("five days"), ident="2"), True),
    ("message", message(block("Five "), block("days.")), message(block("Five days.")), True),
    ("message", message(thought("a"), block("5")), message(thought("b"), block("5"), ident="2"), True),
    ("message", message(block("x"), use()), message(block("x"), use(ident="2")), True),
    ("message", message(block("x"), use()), message(block("x"), use(arguments={"sum": 5})), False),
    ("message", message(block("x"), use()), message(block("x")), False),
    ("response", response(item("Five days.")), response(item("five days", "2"), ident="2"), True),
    ("response", response(item("Five days.")), response(item("Six days.")), False),
    ("response", response(tool_item()), response(tool_item('{"to":"Anna"}', "2"), ident="2"), True),
    ("response", response(tool_item()), response(tool_item('{"to": "Bob"}')), False),
    ("other", gemini("a", name="pay", args={"n": 1}), gemini("A", name="pay", args={"n": 1.0}, id="7"), True),
    ("other", gemini("a", name="pay", args={"n": 1}), gemini("a", name="pay", args={"n": 2}), False),
    ("other", gemini("a"), gemini("a", name="pay", args={}), False),
    ("other", converse("a", n=1), converse("A", "2", n=1), True),
    ("other", converse("a", n=1), converse("a", n=2), False),
    ("other", SAYS, {**SAYS, "content": "A", "tool_calls": None}, True),
    ("other", {**SAYS, "sources": [1]}, {**SAYS, "sources": [2]}, False),
    ("other", call(), call(ident="2", arguments='{"sum": 5, "to": "Anna"}'), True),
    ("other", {**call(), "at": 1}, {**call(), "at": 2}, False),
    ("other", tool({"a": 1}), tool({}), False),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "served", "reference", "same"), PAIRS)
def test_what_a_response_says_is_compared(kind: str, served: Body, reference: Body, same: bool) -> None:
    """Text, refusals and tool calls count; ids, usage, times and thoughts do not: as dicts and as the SDK's objects."""
    for make in BOTH[kind]:
        one, two = make(copy.deepcopy(served)), make(copy.deepcopy(reference))
        assert same_answer.compare(one, two) is same is same_answer.compare(two, one)
        assert (same_answer.group(one) == same_answer.group(two)) is same


@pytest.mark.parametrize(
    ("served", "reference", "same"),
    [
        (
            chat("a", calls=[call()]),
            chat("b", calls=[call(ident="2", arguments='{"sum":5,"to":"Anna"}')]),
            True,
        ),
        (chat(None, calls=[call()]), chat(None, calls=[call("refund")]), False),
        (chat("a", calls=[call()]), chat("a"), False),
        (chat("a"), chat("A"), True),
        (chat("a"), chat("b"), False),
        ([call()], [call(ident="2")], True),
        ([call(), call()], [call()], False),
        (call(), call(ident="2"), True),
        (message(block("x"), use()), message(block("y"), use(ident="2")), True),
    ],
)
def test_tool_calls(served: Any, reference: Any, same: bool) -> None:
    """Names and arguments in their order; text beside them does not count, and counts alone where there are none."""
    assert same_tool_call.compare(served, reference) is same
    assert (same_tool_call.group(served) == same_tool_call.group(reference)) is same


def test_a_judge_of_text_reads_a_responses_text_and_no_more() -> None:
    """Texts compare across forms; tool calls, which it would pass over, are an error."""
    assert same_text.compare(as_chat(chat("Five days.")), as_chat(chat("five days")))
    assert not same_text.compare(chat("x"), chat(None, refusal="x"))
    with pytest.raises(JudgeError, match="tool calls or other parts"):
        same_text.compare(chat(None, calls=[call()]), chat(None, calls=[call("refund")]))


def test_same_json_reads_what_a_response_says() -> None:
    """The paths lie in the answer's own JSON, not in the provider's envelope."""
    judge = same_json(["total"])
    assert judge.compare(as_chat(chat('{"total": 5, "n": 1}')), as_chat(chat('{"total": 5.0}', ident="2")))
    assert not judge.compare(chat('{"total": 5}'), chat('{"total": 6}'))


def delta(ident: int = 0, **said: Any) -> Body:
    return {
        "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{"index": ident, "delta": said, "finish_reason": None}],
    }  # fmt: skip


def tool_delta(**function: Any) -> Body:
    return delta(tool_calls=[{"index": 0, "id": "c", "type": "function", "function": function}])


CUTS: list[Callable[[Body], Any]] = [plain, ChatCompletionChunk.model_validate]


@pytest.mark.parametrize("make", CUTS)
def test_where_a_stream_was_cut_does_not_matter(make: Callable[[Body], Any]) -> None:
    """Chunks make the answer they spell, tool calls too, and equal the whole completion."""
    one = [delta(role="assistant", content=""), delta(content="Five "), delta(content="days.")]
    two = [delta(content="Five days."), delta()]
    first, second = (joined([make(chunk) for chunk in chunks]) for chunks in (one, two))
    assert same_answer.compare(first, second) and same_answer.compare(first, chat("Five days."))
    halves = [tool_delta(name="pay", arguments='{"to": "A'), tool_delta(arguments='nna", "sum": 5}')]
    whole = joined([make(chunk) for chunk in halves])
    assert same_answer.compare(whole, chat(None, calls=[call()])) and same_tool_call.compare(whole, [call()])
    assert not same_answer.compare(whole, first)


def piece(text: str) -> Body:
    return {"type": "input_json_delta", "partial_json": text}


def test_an_anthropic_stream_is_its_message() -> None:
    """Deltas of text and of a tool's input make the blocks they spell."""
    events: list[Body] = [
        {"type": "message_start", "message": message()},
        {"type": "content_block_start", "index": 0, "content_block": block("")},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Five "}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "days."}},
        {"type": "content_block_start", "index": 1, "content_block": {**use(), "input": {}}},
        {"type": "content_block_delta", "index": 1, "delta": piece('{"to": ')},
        {"type": "content_block_delta", "index": 1, "delta": piece('"Anna", "sum": 5}')},
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
    ]  # fmt: skip
    assert same_answer.compare(joined(events), message(block("Five days."), use()))
    assert not same_answer.compare(joined(events), message(block("Five days.")))


def test_other_streams() -> None:
    """Texts and bytes are put together, a response's last event holds it, and what is unknown stays a list."""
    assert joined(["Five ", "days."]) == "Five days." and joined([b"a", b"b"]) == b"ab"
    done = {"type": "response.completed", "response": response(item("Five days."))}
    assert same_answer.compare(joined([{"type": "response.created"}, done]), response(item("five days")))
    assert joined([]) == [] and joined(["a", 1]) == ["a", 1] and joined([{"x": 1}]) == [{"x": 1}]


def test_a_response_that_is_odd_is_read_without_failing() -> None:
    """Missing, null and mistyped parts are read as far as they go; nothing that is no response is taken for one."""
    odd: list[Any] = [
        {"object": "chat.completion", "choices": None},
        {"object": "chat.completion", "choices": [{"message": None}, 3]},
        {"object": "chat.completion", "choices": [{"message": {"content": 3, "tool_calls": "x"}}]},
        {"type": "message", "stop_reason": None, "content": [None, {"type": ["text"]}]},
        {"object": "response", "output": [{"type": "message", "content": "x"}]},
        {"role": "assistant", "content": [{"type": "image", "source": {"data": "a"}}]},
        {"candidates": [{"content": None}], "usageMetadata": {}},
    ]
    for body in odd:
        assert turns(body) is not None and same_answer.compare(body, copy.deepcopy(body))
    for nothing in (None, 3, "text", [], {}, {"role": "user", "content": "x"}, {"content": "x"}, object()):
        assert turns(nothing) is None


def test_pictures_beside_the_text_count() -> None:
    """Parts that are neither text nor calls are compared whole, without their ids."""
    one, two = ({"role": "assistant", "content": [{"type": "image", "id": n, "data": n}]} for n in ("a", "b"))
    assert not same_answer.compare(one, two)
    renamed = json.loads(json.dumps(one).replace('"id": "a"', '"id": "z"'))
    assert same_answer.compare(one, renamed)
