"""What is no response, or a broken one, is read without harm and quickly."""

from __future__ import annotations

import timeit
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from unittest.mock import MagicMock

import openai.types
import openai.types.chat
import openai.types.responses
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costkit.errors import UsageError
from costkit.usage import read_response, read_stream
from tests.usages import CHAT_USAGE, chat, classes, message, response


class Hostile:
    """A user's own class whose every attribute, length and comparison raises."""

    def __getattr__(self, name: str) -> object:
        raise RuntimeError(name)

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("eq")

    def __bool__(self) -> bool:
        raise RuntimeError("bool")

    __hash__ = None  # type: ignore[assignment]


class HostileMapping(Mapping[str, object]):
    """A mapping that cannot be read."""

    def __getitem__(self, key: str) -> object:
        raise RuntimeError(key)

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("iter")

    def __len__(self) -> int:
        return 1


@dataclass(slots=True)
class Answer:
    """A user's own result with names like a provider's."""

    model: str
    usage: int
    choices: list[str]
    object: str = "answer"


class Ran:
    """A class whose property must not run when costkit looks at it."""

    looked = 0

    @property
    def usage(self) -> object:
        Ran.looked += 1
        return None


@pytest.mark.parametrize(
    "thing",
    [
        None,
        "chat.completion",
        b"x",
        3,
        float("nan"),
        [],
        [chat()],
        (),
        {},
        {"object": "order", "usage": "none"},
        {"object": ["chat.completion"], "choices": 1},
        {"type": "message", "content": "hello"},
        {"object": "chat.completion"},
        {1: 2},
        object(),
        type,
        openai.types.chat.ChatCompletion,
        lambda: None,
        (x for x in "ab"),
        MagicMock(),
        Hostile(),
        HostileMapping(),
        Answer("m", 3, []),
        Ran(),
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_what_is_no_response(thing: object) -> None:
    """Anything a user's function may return is None here, and nothing of it raises or runs."""
    assert read_response(thing) is None
    assert read_stream([thing, thing]) is None
    assert Ran.looked == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
OTHERS: list[dict[str, Any]] = [
    {"candidates": [], "usageMetadata": {"promptTokenCount": 1, "totalTokenCount": 1}, "modelVersion": "m"},
    {
        "output": {"message": {"content": []}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 1, "outputTokens": 2},
    },
    {
        "message": {"content": []},
        "finish_reason": "COMPLETE",
        "usage": {"billed_units": {"input_tokens": 1.0}},
    },
]
FIELDS = [
    *(
        "choices",
        "usage",
        "content",
        "output",
        "model",
        "status",
        "id",
        "provider",
        "service_tier",
        "_hidden_params",
    ),
    *(
        "candidates",
        "usageMetadata",
        "promptFeedback",
        "message",
        "finish_reason",
        "stopReason",
        "serviceTier",
    ),
]


@settings(deadline=None)
@given(
    st.sampled_from([chat(), message(), response(CHAT_USAGE), *OTHERS]),
    st.lists(st.tuples(st.sampled_from(FIELDS), JSON)),
)
def test_broken_responses_only_raise_usage_errors(
    body: dict[str, Any], changes: list[tuple[str, Any]]
) -> None:
    """Whatever a gateway breaks in a response, reading it ends in a value or a UsageError."""
    try:
        seen = read_response({**body, **dict(changes)})
    except UsageError:
        return
    assert seen is None or seen.usage is None or min(classes(seen)) >= 0


def test_reading_is_quick() -> None:
    """A ChatCompletion is read in tens of microseconds (bound with room for a busy machine)."""
    made = openai.types.chat.ChatCompletion.model_validate(chat())
    best = min(timeit.repeat(lambda: read_response(made), number=500, repeat=5)) / 500
    assert best < 150e-6
