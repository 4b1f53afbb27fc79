"""How every provider says that an answer is whole, or is not."""

from __future__ import annotations

from typing import Any

import pytest

from costkit.usage import COMPLETE, read_response
from tests.provider_answers import Body, chat, cohere, converse, counts, gemini, message, response
from tests.usages import classes


def ended(body: Body) -> str | None:
    seen = read_response(body)
    assert seen is not None
    return seen.finish


def choice(finish: object, **said: Any) -> Body:
    return chat(counts(), "m", choices=[{"index": 0, "finish_reason": finish, "message": said}])


TOOLS = [{"id": "t", "type": "function", "function": {"name": "look", "arguments": "{}"}}]
WHOLE = [
    choice("stop", content="a"),
    choice("tool_calls", content=None, tool_calls=TOOLS),
    choice("function_call", content=None),
    choice("stop", content="a", refusal=None),
    choice("stop", content="a", refusal=""),
    choice("eos", content="a"),
    message(),
    message(stop_reason="stop_sequence"),
    message(stop_reason="tool_use", content=[{"type": "tool_use", "id": "t", "name": "look", "input": {}}]),
    gemini(),
    converse(stopReason="end_turn"),
    converse(stopReason="stop_sequence"),
    cohere(),
    cohere(finish_reason="TOOL_CALL"),
    cohere(finish_reason="STOP_SEQUENCE"),
    response("m", {}),
    response("m", {}, output=[{"type": "function_call", "name": "look", "arguments": "{}"}]),
]
REFUSED = [{"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}]
NOT_WHOLE = [
    (choice("stop", content=None, refusal="No."), "refusal"),
    (choice("length", content="a"), "length"),
    (choice("content_filter", content="a"), "content_filter"),
    (choice("model_length", content="a"), "model_length"),
    (choice("insufficient_system_resource", content="a"), "insufficient_system_resource"),
    (choice("abort", content="a"), "abort"),
    (choice("error", content="a"), "error"),
    (message(stop_reason="refusal"), "refusal"),
    (message(stop_reason="max_tokens"), "max_tokens"),
    (message(stop_reason="pause_turn"), "pause_turn"),
    (response("m", {}, output=REFUSED), "refusal"),
    (response("m", {}, status="queued", usage=None), "in_progress"),
    (response("m", {}, status="in_progress", usage=None), "in_progress"),
    (response("m", {}, status="failed"), "failed"),
    (response("m", {}, status="incomplete", incomplete_details=None), "incomplete"),
    (
        response("m", {}, status="incomplete", incomplete_details={"reason": "content_filter"}),
        "content_filter",
    ),
    (gemini(candidates=[{"finishReason": "SAFETY"}]), "SAFETY"),
    (gemini(candidates=[{"finishReason": "MAX_TOKENS"}]), "MAX_TOKENS"),
    (gemini(candidates=[], promptFeedback={"blockReason": "PROHIBITED_CONTENT"}), "PROHIBITED_CONTENT"),
    (converse(stopReason="max_tokens"), "max_tokens"),
    (converse(stopReason="guardrail_intervened"), "guardrail_intervened"),
    (converse(stopReason="content_filtered"), "content_filtered"),
    (cohere(finish_reason="MAX_TOKENS"), "MAX_TOKENS"),
    (cohere(finish_reason="ERROR"), "ERROR"),
]


@pytest.mark.parametrize("body", WHOLE)
def test_whole_answers(body: Body) -> None:
    """What every provider calls a finished answer is whole, tool calls without text among it."""
    finish = ended(body)
    assert finish is not None and finish.lower() in COMPLETE


@pytest.mark.parametrize(("body", "finish"), NOT_WHOLE)
def test_answers_that_are_not_whole(body: Body, finish: str) -> None:
    """Cut, blocked, refused and unfinished ones are never whole, and keep the provider's own word."""
    assert ended(body) == finish and finish.lower() not in COMPLETE


def test_a_blocked_prompt_has_no_candidates() -> None:
    """Gemini leaves the candidates out where it blocked the prompt; its input is counted still."""
    body = gemini({"promptTokenCount": 12, "totalTokenCount": 12}, promptFeedback={"blockReason": "SAFETY"})
    del body["candidates"]
    seen = read_response(body)
    assert classes(seen) == (12, 0, 0, 0, 0, 0)
    assert seen is not None and (seen.finish, seen.text) == ("SAFETY", None)
