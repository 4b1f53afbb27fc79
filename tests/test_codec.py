"""Values to bytes and back to what they were, running nothing on the way."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import decimal
import enum
import json
import math
import uuid
from pathlib import Path
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costkit.codec import NotStorable, Unreadable, decode, encode


class Colour(enum.Enum):
    RED = "r"


class Flag(enum.Flag):
    A = 1
    B = 2


@dataclasses.dataclass
class Source:
    id: str
    score: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    text: str
    sources: tuple[Source, ...]
    made: datetime.datetime | None = None


@dataclasses.dataclass
class Strict:
    n: int

    def __post_init__(self) -> None:
        LOUD.append("ran")


LOUD: list[str] = []


class Part(pydantic.BaseModel):
    text: str


class Reply(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")

    parts: list[Part]
    n: int = 0
    _hidden: int = pydantic.PrivateAttr(default=7)

    @pydantic.field_validator("n")
    @classmethod
    def check(cls, n: int) -> int:
        LOUD.append("validated")
        return n


class Generic(pydantic.BaseModel):
    data: dict[str, Any]


WHOLE: list[Any] = [
    "",
    "text",
    "é😀\ud800\x00",
    b"",
    b"\x00\xff",
    None,
    True,
    0,
    -1,
    1 << 63,
    -(1 << 200),
    0.0,
    -0.0,
    1e308,
    float("inf"),
    [],
    [1, "a", None],
    {},
    {"a": {"b": [1]}},
    {"$": "t", "v": []},
    {1: "a", None: 2, (1, 2): 3},
    (1, (2,), []),
    {1, 2, "x"},
    frozenset({"a"}),
    [b"x"],
    decimal.Decimal("1.10"),
    uuid.UUID(int=5),
    datetime.datetime(2024, 5, 1, 12, tzinfo=datetime.UTC),
    datetime.date(2024, 5, 1),
    datetime.time(1, 2, 3),
    Colour.RED,
    Source("a", 0.5),
    Answer("x", (Source("a"), Source("b", 1.0)), datetime.datetime(2024, 1, 1)),
    Reply.model_validate({"parts": [{"text": "hi"}], "n": 2, "vendor": {"k": [1]}}),
    Generic(data={"a": (1, b"x")}),
    [Reply(parts=[])],
    {"k": Part(text="x")},
]


def like(a: object, b: object) -> bool:
    """Equal and of the same types all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(like(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(like, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return a.hex() == b.hex()
    return bool(a == b)


@pytest.mark.parametrize("value", WHOLE, ids=lambda v: f"{type(v).__name__}-{v!r:.30}")
def test_comes_back_as_what_it_was(value: Any) -> None:
    """Every supported value returns equal, of the same types, and as a new object if it is mutable."""
    back = decode(encode(value))
    assert like(back, value)
    if isinstance(value, (list, dict, set, Source, pydantic.BaseModel)):
        assert back is not value


def test_nan_comes_back() -> None:
    """NaN, which equals nothing, returns as NaN."""
    back = decode(encode([float("nan")]))[0]
    assert isinstance(back, float) and math.isnan(back)


def test_pydantic_models_keep_what_was_set_and_stay_alive() -> None:
    """Fields set, extras and private defaults survive, and the model can be used, copied and dumped."""
    value = Reply.model_validate({"parts": [{"text": "hi"}], "vendor": 1})
    back = decode(encode(value))
    assert back.model_fields_set == value.model_fields_set == {"parts", "vendor"}
    assert back.model_extra == {"vendor": 1} and back._hidden == 7
    assert back.model_dump() == value.model_dump() and back.model_copy() == value
    assert repr(back) == repr(value)


def test_openai_and_anthropic_responses_come_back() -> None:
    """Response objects of the SDKs return as the SDK's own classes with all that they carried."""
    chat = pytest.importorskip("openai.types.chat")
    anthropic = pytest.importorskip("anthropic.types")
    completion = chat.ChatCompletion.model_validate(
        {
            "id": "c1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "stop",
                    "logprobs": None,
                    "message": {"role": "assistant", "content": "hi", "refusal": None},
                }
            ],
            "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
            "vllm_extra": {"a": 1},
        }
    )
    message = anthropic.Message.model_validate(
        {
            "id": "m1",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "content": [{"type": "text", "text": "hi", "citations": None}],
            "usage": {"input_tokens": 1, "output_tokens": 2},
        }
    )
    for value in (completion, message):
        back = decode(encode(value))
        assert type(back) is type(value) and back == value and back.model_dump() == value.model_dump()
    assert decode(encode(completion)).choices[0].message.content == "hi"


def test_nothing_of_the_value_runs_on_the_way_back() -> None:
    """Neither __init__, __post_init__ nor a validator runs when a value is read."""
    data = [encode(Strict(1)), encode(Reply(parts=[], n=3))]
    LOUD.clear()
    assert decode(data[0]).n == 1 and decode(data[1]).n == 3
    assert LOUD == []


class Unhashable:
    pass


def local_class() -> object:
    @dataclasses.dataclass
    class Local:
        a: int

    return Local(1)


@dataclasses.dataclass
class Slotless:
    a: int

    def __getattribute__(self, name: str) -> Any:
        if name == "a":
            raise RuntimeError("no")
        return super().__getattribute__(name)


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    "value",
    [
        object(),
        lambda: 1,
        Path("x"),
        [object()],
        LOOP,
        local_class(),
        Flag.A | Flag.B,
        Slotless(1),
        (i for i in [1]),
        type("Str", (str,), {})("x"),
        datetime.datetime(2024, 1, 1, fold=1),
        Source,
    ],
    ids=lambda v: type(v).__name__,
)
def test_what_would_not_come_back_is_not_storable(value: Any) -> None:
    """A value that would return as something else is refused with NotStorable, never with another error."""
    with pytest.raises(NotStorable):
        encode(value)


def hostile() -> list[bytes]:
    trees: list[Any] = [
        {"$": "?"},
        {"$": "D", "c": "os:system", "v": {}},
        {"$": "D", "c": "os:nothing", "v": {}},
        {"$": "D", "c": "builtins:dict", "v": {}},
        {"$": "P", "c": "pathlib:Path", "v": {}, "x": None, "s": []},
        {"$": "e", "c": "builtins:str", "v": "x"},
        {"$": "e", "c": f"{__name__}:Colour", "v": "BLUE"},
        {"$": "D", "c": f"{__name__}:Source", "v": {"id": "x", "__class__": 1}},
        {"$": "i", "v": "zz"},
        {"$": "D", "c": f"{__name__}:Source", "v": {"id": "x"}},
        {"$": "D", "c": 5, "v": {}},
        {"$": "t", "v": 5},
        {"$": "S", "v": [[1]]},
        {"$": "y", "v": "***"},
        {"$": "dt", "v": "soon"},
        {"$": "de", "v": "x"},
        {"$": []},
        {"$": "D", "c": "antigravity:x", "v": {}},
        {"$": "P", "c": f"{__name__}:Part", "v": {"nope": 1}, "s": []},
    ]
    packed = [b"j" + json.dumps(tree).encode() for tree in trees]
    return [*packed, b"", b"x", b"j", b"j{", b"s\xff", b"j" + b"[" * 100_000, b"jNaN!"]


@pytest.mark.parametrize("data", hostile(), ids=lambda d: str(d[:40]))
def test_hostile_bytes_are_unreadable(data: bytes) -> None:
    """Damaged or planted bytes raise Unreadable and import nothing."""
    with pytest.raises(Unreadable):
        decode(data)


@given(st.binary(max_size=60))
def test_any_bytes_read_or_are_unreadable(data: bytes) -> None:
    """Random bytes never raise anything but Unreadable."""
    for prefix in (b"", b"j", b"s", b'j{"$":'):
        with contextlib.suppress(Unreadable):
            decode(prefix + data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner)
    ),
    max_leaves=10,
)


@given(json_values)
def test_round_trip_of_any_value(value: Any) -> None:
    """Any nesting of plain values returns as it was, dict order included."""
    assert like(decode(encode(value)), value)
