"""Judges that compare by themselves: structure, text, fields, sources, marks and an encoder."""

from __future__ import annotations

import dataclasses
import enum
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

import costkit
from costkit.errors import ConfigError, EncoderError, JudgeError
from costkit.judges import close_text, same_answer, same_json, same_sources, same_text
from costkit.judges.form import form, json_tree


@dataclasses.dataclass
class Answer:
    text: str
    citations: Sequence[str] = ()
    seconds: float = dataclasses.field(default=0.0, compare=False)


class Model(pydantic.BaseModel):
    total: float
    items: list[str] = []


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Other(enum.Enum):
    RED = 1


NAN = float("nan")


@pytest.mark.parametrize(
    ("served", "reference", "same"),
    [
        ({"n": 1}, {"n": 1.0}, True),
        ({"n": 1}, {"n": True}, False),
        ({"n": 0}, {"n": False}, False),
        ({"n": 0}, {"n": None}, False),
        ({"n": 1}, {"n": "1"}, False),
        ({"n": 0.1}, {"n": Decimal("0.10")}, True),
        ({"n": -0.0}, {"n": 0}, True),
        ({"n": 10**400}, {"n": 10**400}, True),
        ({"n": 10**400}, {"n": 10**400 + 1}, False),
        ({"n": NAN}, {"n": NAN}, True),
        ({"n": NAN}, {"n": None}, False),
        ({"n": float("inf")}, {"n": float("-inf")}, False),
        ({"n": np.float32(0.5)}, {"n": 0.5}, True),
        (np.array([1, 2]), [1, 2], True),
        (np.bool_(True), True, True),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ([1, 2], [2, 1], False),
        ([1, 2], (1, 2), True),
        ({1, 2}, {2, 1}, True),
        ({1, 2}, [1, 2], False),
        ({1: "a"}, {"1": "a"}, False),
        ({"a": None}, {}, False),
        (b"ab", bytearray(b"ab"), True),
        (b"ab", "ab", False),
        (None, None, True),
        (None, "", False),
        (None, "None", False),
        ("", "", True),
        ("", " ", True),
        ("", "...", False),
        ("?", "!", False),
        (Colour.RED, Colour.RED, True),
        (Colour.RED, Colour.BLUE, False),
        (Colour.RED, Other.RED, False),
        (date(2026, 5, 3), date(2026, 5, 3), True),
        (date(2026, 5, 3), "2026-05-03", False),
        (Answer("a", ("x",), 0.1), Answer("a", ("x",), 0.9), True),
        (Answer("a", ("x",)), Answer("a", ("y",)), False),
        (Model(total=1), Model(total=1.0), True),
        (Model(total=1), Model(total=2), False),
        (Model(total=1), {"total": 1, "items": []}, False),
        ({"text": "Abc"}, {"text": "abc"}, False),
        ({"text": "abc "}, {"text": "abc"}, True),
    ],
)
def test_structures_are_the_same_by_value(served: Any, reference: Any, same: bool) -> None:
    """Numbers by value and never as bools, keys in any order, lists in theirs; both ways round, and in groups."""
    assert same_answer.compare(served, reference) is same is same_answer.compare(reference, served)
    assert (same_answer.group(served) == same_answer.group(reference)) is same


@pytest.mark.parametrize(
    ("served", "reference", "same"),
    [
        ('{"a": 1, "b": [1.0]}', ' {"b":[1],"a":1}\n', True),
        ('```json\n{"a": 1}\n```', '{"a": 1}', True),
        ('{"a": 1}', '{"a": true}', False),
        ('{"a": 1e400}', '{"a": 10e399}', True),
        ('{"a": 1e400}', '{"a": 1e401}', False),
        ('{"a": NaN}', '{"a": NaN}', True),
        ('{"a": 1, "a": 2}', '{"a": 2}', False),
        ('{"a": 1, "a": 2}', '{"a":1,  "a":2}', False),
        ('{"a": 1, "a": 2}', '{"a": 1, "a": 2}', True),
        ('{"a": "{\\"c\\":1,\\"b\\":2}"}', '{"a": "{\\"b\\": 2, \\"c\\": 1}"}', True),
        ('{"a": "{\\"b\\": 2}"}', '{"a": {"b": 2}}', False),
        ('{"a": 1}', {"a": 1}, False),
        ("[1, 200]", "[1200]", False),
        ("[1,200]", "[1, 200]", True),
        ("{not json}", "{NOT  json}", True),
        ("5.0", "5", False),
        ("true", "1", False),
    ],
)
def test_json_text_is_read_as_what_it_says(served: Any, reference: Any, same: bool) -> None:
    """Layout does not matter, a double key makes it plain text, and text is never the same as an object."""
    assert same_answer.compare(served, reference) is same is same_answer.compare(reference, served)


@pytest.mark.parametrize(
    ("served", "reference", "same"),
    [
        ("Five  Days.", "five days", True),
        ('"Five days."', "Five days", True),
        ("“Five days”.", "five days!", True),
        ("caf\u00e9", "cafe\u0301", True),
        ("5 days", "5 days!", True),
        ("5", "5!", False),
        (".5", "5", False),
        ("-5", "5", False),
        ("$5", "€5", False),
        ("50%", "50", False),
        ("5'", "5", False),
        ("Really?", "Really.", False),
        ("10²", "102", False),
        ("Yes.", "No.", False),
        ("pаypal", "paypal", False),  # a Cyrillic а
        ("\u202e12", "12", False),
        ("a" * 10**6, "A" * 10**6, True),
        ("I cannot help with that.", "It takes 5 days.", False),
        ("", "5 days", False),
    ],
)
def test_texts_are_the_same_but_for_spelling(served: str, reference: str, same: bool) -> None:
    """Case, spaces, outer marks do not matter; signs, look-alikes and question marks do."""
    for judge in (same_text, same_answer):
        assert judge.compare(served, reference) is same is judge.compare(reference, served)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON, JSON)
def test_groups_are_equal_exactly_where_answers_are(one: Any, two: Any) -> None:
    """For any two JSON values a group is equal when compare says so, and compare is reflexive and symmetric."""
    assert same_answer.compare(one, one)
    said = same_answer.compare(one, two)
    assert said is same_answer.compare(two, one)
    assert said is (same_answer.group(one) == same_answer.group(two))


@given(JSON)
def test_a_value_survives_being_written_as_json(value: Any) -> None:
    """What json.dumps writes reads as the same tree in any key order and layout."""
    if isinstance(value, dict | list):
        one, two = json_tree(json.dumps(value)), json_tree(json.dumps(value, indent=3, sort_keys=True))
        assert form(one) == form(two)


def test_depth_is_a_clear_error_and_text_stays_text() -> None:
    """Endless and deep structures raise JudgeError, never RecursionError; deep JSON text is compared as text."""
    loop: list[Any] = []
    loop.append(loop)
    deep: Any = 1
    for _ in range(5000):
        deep = {"a": deep}
    for value in (loop, deep):
        with pytest.raises(JudgeError, match="nested deeper than 200 levels"):
            same_answer.compare(value, value)
        assert same_answer.group(value) is None
    for size in (300, 100_000):
        text = "[" * size + "]" * size
        assert same_answer.compare(text, text) and not same_answer.compare(text, text + " x")
    nested = "[]"
    for _ in range(12):
        nested = json.dumps([nested])
    assert same_answer.compare(nested, nested)


def test_what_has_no_form_is_an_error_not_a_verdict() -> None:
    """A class of the user's without fields cannot be called same or different, and its text is not repeated."""

    class Secret:
        def __repr__(self) -> str:
            return "sk-very-secret"

    class Rude:
        @property
        def text(self) -> str:
            raise ValueError("sk-very-secret")

        @property
        def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
            raise KeyError("sk-very-secret")

    for value in (Secret(), Rude(), {"a": Secret()}, lambda: 1):
        with pytest.raises(JudgeError) as caught:
            same_answer.compare(value, value)
        assert "secret" not in str(caught.value) and same_answer.group(value) is None
    with pytest.raises(JudgeError, match="has no text to compare"):
        same_text.compare({"a": 1}, {"a": 1})


def test_a_huge_answer_is_compared_in_time() -> None:
    """Megabytes of JSON or of text are compared in a few seconds of processor time."""
    rows = json.dumps([{"id": n, "name": f"row {n}", "price": n / 7} for n in range(30_000)])
    started = time.process_time()
    assert same_answer.compare(rows, rows.replace(", ", ",")) and same_text.compare(rows * 3, rows * 3)
    assert time.process_time() - started < 20


@pytest.mark.parametrize(
    ("fields", "served", "reference", "same"),
    [
        (["total"], '{"total": 5, "id": 1}', '{"total": 5.0, "id": 2}', True),
        (["total"], '{"total": 5}', '{"total": true}', False),
        (["total"], '{"sum": 5}', '{"total": 5}', False),
        (["i.*.sku"], {"i": [{"sku": "a"}, {"sku": "b"}]}, {"i": [{"sku": "a", "n": 1}, {"sku": "b"}]}, True),
        (["items.*.sku"], {"items": [{"sku": "b"}, {"sku": "a"}]}, {"items": [{"sku": "a"}, {"sku": "b"}]}, False),
        (["items.1.sku"], {"items": [{"sku": "x"}, {"sku": "a"}]}, {"items": [{"sku": "y"}, {"sku": "a"}]}, True),
        (["text"], Answer("a", ("x",)), Answer("a", ("y",)), True),
        (["total"], Model(total=1, items=["a"]), Model(total=1), True),
        (["a.b"], {"a": '{"b": 1, "c": 2}'}, {"a": {"b": 1}}, True),
        (["a", "b"], {"a": 1}, {"b": 1}, False),
        (["total"], "not json", '{"total": 5}', False),
        (None, '{"a": [1, 2]}', '{"a": [1, 2.0]}', True),
        (None, '{"a": 1}', {"a": 1}, True),
    ],
)  # fmt: skip
def test_same_json_compares_what_it_is_told(fields: Any, served: Any, reference: Any, same: bool) -> None:
    """Only the named paths count, in JSON text, dicts, dataclasses and models alike."""
    judge = same_json(fields)
    assert judge.compare(served, reference) is same
    if judge.group(served) is not None and judge.group(reference) is not None:
        assert (judge.group(served) == judge.group(reference)) is same


def test_same_json_tolerance() -> None:
    """Numbers may be so far apart and no farther; a bool is no number; what is not equal has no common group."""
    judge = same_json(["price"], tolerance=0.01)
    assert judge.compare('{"price": 1.00}', '{"price": 1.01}') and not judge.compare(
        '{"price": 1}', '{"price": 1.011}'
    )
    assert not judge.compare('{"price": 1}', '{"price": true}') and judge.group('{"price": 1}') is None
    assert judge.compare('{"price": NaN}', '{"price": NaN}') and not judge.compare(
        '{"price": NaN}', '{"price": 1}'
    )


def test_same_json_that_compares_nothing_says_so() -> None:
    """A field that neither answer has, or a reference that is not JSON, is an error, not a match."""
    with pytest.raises(JudgeError, match="neither answer has any of the fields totl"):
        same_json(["totl"]).compare('{"total": 5}', '{"total": 6}')
    with pytest.raises(JudgeError, match="the reference answer is not JSON"):
        same_json().compare('{"total": 5}', "sorry")
    assert same_json(["totl"]).group('{"total": 5}') is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: same_json("total"), r'fields=.* list of paths, such as \["total"'),
        (lambda: same_json([]), "fields="),
        (lambda: same_json(["a..b"]), "empty step"),
        (lambda: same_json(tolerance=-1), "tolerance=-1"),
        (lambda: same_json(tolerance=NAN), "tolerance=nan"),
        (lambda: close_text(spell, at=0), r"close_text\(at=0\)"),
        (lambda: close_text(spell, at=NAN), r"close_text\(at=nan\)"),
        (lambda: close_text(spell, at=0.9, kinds=["number"]), "'number' is none of numbers"),
        (lambda: same_sources("citations"), r"same_sources\(sources=\.\.\.\): give a function"),  # type: ignore[arg-type]
    ],
)
def test_wrong_settings_are_refused_before_anything_runs(make: Any, message: str) -> None:
    """The message names the argument and the mend."""
    with pytest.raises(ConfigError, match=message):
        make()


def test_sources() -> None:
    """The same set of ids in any order; where nothing is cited, the answer itself counts."""
    judge = same_sources()
    assert judge.compare(Answer("a", ["k-2", "k-1"]), Answer("b", ("k-1", "k-2", "k-1")))
    assert not judge.compare(Answer("a", ["k-1"]), Answer("a", ["k-1", "k-2"]))
    assert not judge.compare(Answer("a"), Answer("a", ["k-1"])) and not judge.compare(
        Answer("a"), Answer("b")
    )
    assert judge.compare(Answer("a"), Answer("a")) and judge.compare({"sources": ["k"]}, {"sources": ["k"]})
    own = same_sources(lambda answer: answer["cites"])
    assert own.compare({"cites": ["a"]}, {"cites": ("a",)}) and own.id != judge.id
    for wrong in ({"cites": "k-1"}, {"cites": [1]}, {"cites": None}, {}):
        with pytest.raises(JudgeError):
            own.compare(wrong, wrong)
    with pytest.raises(JudgeError, match="has no citations or sources"):
        judge.compare("text", "text")


def spell(texts: list[str]) -> list[list[float]]:
    """Letters counted: an encoder for which anagrams are equal."""
    return [[1.0 + text.lower().count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts]


@pytest.mark.parametrize(
    ("served", "reference", "same"),
    [
        ("Refunds take 5 days.", "refunds take five days", True),
        ("take 5 days Refunds", "Refunds take 5 days.", True),
        ("Refunds take 5 days", "Refunds take 6 days", False),
        ("Refunds take 5 days", "Refunds take 5 weeks", False),
        ("It is refundable to you", "It is not refundable to you", False),
        ("Ask at our desk in Rome", "Ask at our desk in Oslo", False),
        ("Use code KB-1 there", "Use code KB-2 there", False),
        ("Refunds take 5 days", "zzzzzzz 5 days qqqqqqqq", False),
        ("I cannot help with refunds", "I help with refunds, cannot", False),
        ("I cannot help", "I can't help", True),
        ("", "", True),
        ("", "Refunds", False),
    ],
)
def test_close_text_needs_marks_and_meaning(served: str, reference: str, same: bool) -> None:
    """Close vectors are not enough where a number, name, code or negation differs, or one of the two refuses."""
    assert close_text(spell, at=0.9).compare(served, reference) is same


def test_close_text_is_not_right_by_construction() -> None:
    """It has no group and no sensitivity until it is measured, and its id tells encoder and settings apart."""
    judge = close_text(spell, at=0.9)
    assert judge.group("a") is None and judge.sensitivity() == 0 and not judge.measured
    others = [close_text(spell, at=0.8), close_text(spell, at=0.9, kinds=["numbers"])]
    assert len({judge.id, *(other.id for other in others)}) == 3
    one, two = (
        close_text(spell, at=0.9, kinds=kinds) for kinds in (["numbers", "order"], ["order", "numbers"])
    )
    assert one.id == two.id


def test_an_encoder_that_fails_gives_no_verdict() -> None:
    """One that is broken from the start is refused as the judge is made; one that breaks later gives no verdict."""
    with pytest.raises(EncoderError, match="NaN"):
        close_text(always_nan, at=0.9)
    with pytest.raises(JudgeError, match=r"judge close_text: encoder .* returned NaN"):
        close_text(nan_for_rome, at=0.9).compare("rome it is", "it is rome")


def always_nan(texts: list[str]) -> list[list[float]]:
    return [[NAN, 1.0] for _ in texts]


def nan_for_rome(texts: list[str]) -> list[list[float]]:
    return [[NAN if "rome" in text else 2.0, 1.0] for text in texts]


def test_groups_are_golden() -> None:
    """A change of the canonical form changes these digests, and must then change the judge's id as well."""
    assert same_answer.group({"b": [1.0, None, "x"], "a": True}) == "de31b90c4ef2b42e37b468aae69a59dc"
    assert same_text.group(" Five days. ") == "550899dd65da8fefef41edf9b71d333a"
    assert same_answer.group("Five days.") != same_text.group("Five days.")


def test_judges_are_an_attribute_that_loads_on_demand() -> None:
    """`costkit.judges` is there after `import costkit`, and no name that is not."""
    code = "import costkit; print(costkit.judges.same_answer.compare('a', 'A'), hasattr(costkit, 'no_such_name'))"
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert (done.stdout.strip(), done.returncode) == ("True False", 0), done.stderr
    assert costkit.judges.same_answer is same_answer
