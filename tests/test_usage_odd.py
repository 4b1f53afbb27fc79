"""Responses of every provider that are odd: usage left out, impossible numbers, users' own dicts."""

from __future__ import annotations

import pytest

from costkit.errors import UsageError
from costkit.usage import read_response, read_stream
from tests.provider_answers import PROVIDERS, Body, chat, cohere, converse, counts, gemini

ALL = [row[2] for row in PROVIDERS]
USAGES = {"usage", "usageMetadata"}


@pytest.mark.parametrize("usage", [None, {}, "none", [], 5, {"other": 1}, {"prompt_tokens": None}])
@pytest.mark.parametrize("body", ALL, ids=[f"{row[0]}-{row[1]}" for row in PROVIDERS])
def test_without_usage(body: Body, usage: object) -> None:
    """A response whose usage is missing or is no usage has None for it, and is a response still, or none at all."""
    name = next(iter(USAGES & body.keys()))
    seen = read_response({**body, name: usage})
    assert seen is None or seen.usage is None
    if body.get("object") or body.get("type") or name != "usage":
        assert seen is not None and seen.text == "Five days."


@pytest.mark.parametrize(
    "number", [-1, True, 2.5, float("nan"), float("-inf"), "12", [1], {"a": 1}, 10**13, 10**400]
)
@pytest.mark.parametrize("body", [gemini(), converse(), cohere()], ids=["gemini", "converse", "cohere"])
def test_impossible_numbers(body: Body, number: object) -> None:
    """What is no count raises a short UsageError that names the field, for every number of every provider."""
    name = next(iter(USAGES & body.keys()))
    usage = body[name]["billed_units"] if "billed_units" in body[name] else body[name]
    for field, told in usage.items():
        if type(told) in (int, float):
            broken = {**usage, field: number}
            broken = {**body[name], "billed_units": broken} if "billed_units" in body[name] else broken
            with pytest.raises(UsageError, match=field) as caught:
                read_response({**body, name: broken})
            assert len(str(caught.value)) < 150


def test_very_many_choices() -> None:
    """A hundred thousand choices are read, in time that grows with their number only."""
    made = chat(
        counts(), "m", choices=[{"index": 0, "finish_reason": "stop", "message": {"content": "a"}}] * 100_000
    )
    seen = read_response(made)
    assert seen is not None and seen.text is not None and len(seen.text) == 199_999
    chunk = {
        "object": "chat.completion.chunk",
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": "a"}}],
    }
    streamed = read_stream([chunk] * 100_000)
    assert streamed is not None and streamed.text == "a" * 100_000


@pytest.mark.parametrize(
    "thing",
    [
        {"candidates": ["ann", "bob"]},
        {"candidates": [], "model": "vote"},
        {"output": "x", "usage": {"cpu": 1}},
        {"message": "hello", "finish_reason": "done", "usage": {"input_tokens": 1}},
        {"message": "hello", "finish_reason": "done", "usage": None},
        {"data": {"candidates": 3}},
        {"messageStart": "now"},
        {"type": "response.done"},
        {"type": "response.done", "response": "yes"},
    ],
)
def test_users_own_dicts(thing: Body) -> None:
    """A user's own dict that has a name or two of a provider's is no response."""
    assert read_response(thing) is None
    seen = read_stream([thing])
    assert seen is None or (seen.usage, seen.finish) == (None, None)
