"""Canonical keys: what is the same call, and what is not."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import hashlib
import os
import subprocess
import sys
import uuid
from collections import OrderedDict, namedtuple
from typing import Any

import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costkit.errors import UnkeyableArgument
from costkit.key import canonical, digest, encode_value


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Level(enum.IntEnum):
    LOW = 1


class Flag(enum.Flag):
    A = 1
    B = 2


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


@dataclasses.dataclass
class Place:
    x: int
    y: int = 0


class Model(pydantic.BaseModel):
    a: int
    b: str = "b"


class Other(pydantic.BaseModel):
    a: int
    c: str = "b"


class Loud(str):
    def __str__(self) -> str:
        return "LOUD"


Pair = namedtuple("Pair", "a b")

UTC = datetime.UTC


def key(**arguments: Any) -> str:
    return digest(None, "ask", "1", arguments)


def test_canonical_text_is_written_down() -> None:
    """The form is the documented JSON array: format, scope, name, version, arguments sorted by name."""
    assert canonical({"tenant": 'ac"me'}, "m.ask", "2", {"b": [1, 2.5, True, None], "a": {"k": b"x"}}) == (
        '["costkit-key/1",[["tenant",["s","ac\\"me"]]],"m.ask","2",'
        '[["a",["d",[[["s","k"],["y","eA=="]]]]],'
        '["b",["l",[["i","1"],["f","0x1.4000000000000p+1"],["b",1],["n"]]]]]]'
    )


def test_golden_digests() -> None:
    """Digests stored by earlier releases are still found: a change here empties every user's cache."""
    golden = {
        "plain": digest(None, "ask", "1", {"question": "How long do refunds take?", "n": 1}),
        "scope": digest({"tenant": "acme"}, "ask", "1", {"question": "How long do refunds take?", "n": 1}),
        "unicode": digest(None, "ask", "1", {"q": "é\u0065\u0301 \ud83d 😀"}),
        "messages": digest(
            None,
            "app.complete",
            "v2",
            {
                "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
                "temperature": 0.0,
                "tools": (),
                "seed": None,
                "big": 1 << 80,
            },
        ),
        "rich": digest(
            None,
            "f",
            "1",
            {
                "d": datetime.datetime(2024, 2, 29, 12, 30, tzinfo=UTC),
                "m": decimal.Decimal("1.10"),
                "u": uuid.UUID(int=7),
                "s": {3, 1, 2},
                "f": frozenset("ab"),
                "y": bytearray(b"ab"),
                "t": datetime.timedelta(seconds=90),
            },
        ),
    }
    assert golden == {
        "plain": "19e7ad9c542afa4f48118700591e6acfc60a4b460c15faaffaab368d7e4adb4d",
        "scope": "b4c91408d6b89524b8cff272b0860610c311cfa009939ad7a8e65d73ed659246",
        "unicode": "e423291a34af4f15b0548bfcbbc5b2698d2efe6459cd025624fecaa74607f94c",
        "messages": "8cb97c4db8eca4a2ac7f064be406b4ab65a7ddd8fdd2fbfeaa9d66a081725485",
        "rich": "8eab49f5bea7a8cf5a5a5ff6affc69c5ef7973426f920813ccf2bd0eeb46afde",
    }


def test_digest_is_sha256_of_the_canonical_text() -> None:
    """The digest is what anybody can compute from the canonical text."""
    text = canonical(None, "f", "1", {"a": "\ud800"})
    assert (
        digest(None, "f", "1", {"a": "\ud800"})
        == hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    )


def test_same_in_every_process_and_hash_seed() -> None:
    """Other processes with other hash seeds make the same key, sets, dicts and enums included."""
    code = """
import enum
from costkit.key import digest
value = {"set": {"a", "b", "c", 1, (2, "x")}, "frozen": frozenset("hello"), "dict": {"k": {"z", "y"}, "j": 1}}
print(digest({"tenant": "acme"}, "ask", "1", value))
"""
    seen = set()
    for seed in ("0", "1", "4242"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        seen.add(done.stdout)
    assert len(seen) == 1 and len(seen.pop().strip()) == 64


DIFFERENT: list[Any] = [
    0,
    1,
    -1,
    1.0,
    0.0,
    -0.0,
    True,
    False,
    None,
    "1",
    "",
    "None",
    b"1",
    bytearray(b"1"),
    b"",
    decimal.Decimal("1"),
    decimal.Decimal("1.0"),
    float("nan"),
    float("inf"),
    1 << 70,
    [],
    [1],
    (1,),
    (),
    {},
    {1: 2},
    {"1": 2},
    [[1]],
    [1, [2]],
    [[1], 2],
    [1, 2],
    [2, 1],
    ["1,2"],
    ["1", "2"],
    "[1]",
    ["a", "b"],
    ["a,b"],
    ['a","b'],
    set(),
    {1},
    frozenset({1}),
    {1, 2},
    "é",
    "e\u0301",
    "\ud83d\ude00",
    "😀",
    "\x00",
    "a\x00b",
    Colour.RED,
    Colour.BLUE,
    Level.LOW,
    Flag.A | Flag.B,
    Flag.A,
    Point(1),
    Point(1, 2),
    Place(1),
    Model(a=1),
    Model(a=1, b="c"),
    Other(a=1),
    OrderedDict(a=1),
    {"a": 1},
    Pair(1, 2),
    Loud("1"),
    datetime.date(2024, 1, 1),
    datetime.datetime(2024, 1, 1),
    datetime.datetime(2024, 1, 1, tzinfo=UTC),
    datetime.datetime(2024, 1, 1, fold=1),
    datetime.time(1),
    datetime.timedelta(1),
    "2024-01-01",
    uuid.UUID(int=1),
    Model,
    Other,
    dict,
    "builtins:dict",
    np.array([1]),
    np.array([1.0]),
    np.array([[1]]),
    np.array([1], dtype="int32"),
    np.array(1),
    np.int64(1),
    np.float64(1),
    np.zeros(1, dtype=[("a", "i4")]),
    np.zeros(1, dtype=[("b", "i4")]),
    ["s", "x"],
    'x"]',
    "\\",
    '\\"',
]


def test_different_values_have_different_keys() -> None:
    """No two of these, near twins by type, spelling or nesting, share a key."""
    seen: dict[str, Any] = {}
    for value in DIFFERENT:
        made = key(value=value)
        assert made not in seen, (value, seen[made])
        seen[made] = value


def test_what_a_call_means_does_not_depend_on_order() -> None:
    """Keyword order, dict order and set order do not matter; list order does."""
    assert key(a=1, b=2) == key(b=2, a=1)
    assert key(d={"x": 1, "y": {"p": 1, "q": 2}}) == key(d={"y": {"q": 2, "p": 1}, "x": 1})
    assert key(s={3, 1, 2}) == key(s={2, 3, 1})


def test_scope_name_and_version_part_keys() -> None:
    """The same arguments under another scope, name or version are another call."""
    keys = [
        digest(None, "f", "1", {"q": 1}),
        digest({}, "f", "1", {"q": 1}),
        digest({"t": "a"}, "f", "1", {"q": 1}),
        digest({"t": "b"}, "f", "1", {"q": 1}),
        digest({"u": "a"}, "f", "1", {"q": 1}),
        digest(None, "g", "1", {"q": 1}),
        digest(None, "f", "2", {"q": 1}),
        digest(None, "f", "1", {"p": 1}),
        digest({"q": 1}, "f", "1", {}),
    ]
    assert len(set(keys)) == len(keys)


def test_attributes_carried_by_a_subclass_count() -> None:
    """A str with an attribute of its own is not the same argument as one with another."""

    class Prompt(str):
        pass

    one, two = Prompt("hi"), Prompt("hi")
    assert key(p=one) == key(p=two)
    one.temperature = 0.0  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    two.temperature = 1.0  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    assert key(p=one) != key(p=two)


def test_a_subclass_cannot_hide_its_text() -> None:
    """A str subclass is keyed by its characters, whatever its __str__ says."""
    assert key(p=Loud("a")) != key(p=Loud("b"))


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (object(), "client "),
        ([1, object()], "client[1] "),
        ({"a": {"b": object()}}, "client['a']['b'] "),
        (Point(1, object()), "client.y "),  # type: ignore[arg-type]
        ({"k": [lambda: 1]}, "client['k'][0] "),
        (Point, "client "),
        (np.array([object()]), "client "),
    ],
)
def test_unkeyable_arguments_say_which_and_what_to_do(value: Any, where: str) -> None:
    """The message names the function, the path to the value and both mends."""
    with pytest.raises(UnkeyableArgument) as caught:
        digest(None, "app.ask", "1", {"client": value})
    message = str(caught.value)
    assert message.startswith(f"app.ask(): argument {where}cannot be keyed")
    assert "ignore=['client']" in message and "key={'client': lambda client: ...}" in message


def test_a_value_that_contains_itself_is_refused() -> None:
    """Endless nesting is an error that says so, not a stack overflow."""
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(UnkeyableArgument, match="containing itself"):
        key(a=loop)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def same(a: object, b: object) -> bool:
    """Equality that tells types and signs apart, written without the encoder."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float) and isinstance(b, float):
        return a.hex() == b.hex()
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return bool(a == b)


@given(values, values)
def test_encoding_is_injective(a: Any, b: Any) -> None:
    """Two values have the same text exactly when they are the same value."""
    assert (encode_value(a) == encode_value(b)) == same(a, b)
