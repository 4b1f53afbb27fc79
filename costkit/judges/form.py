"""Answers as trees that can be compared: one form for each meaning, whatever class or spelling carries it.

A tree is None, a bool, a Decimal, a text, a Leaf, a list, or a dict. Numbers are equal by value (1 is 1.0) and never
equal to a bool; a list and a tuple are the same; the order of keys says nothing; ids and usage of a provider's
response are no part of its answer.
"""

from __future__ import annotations

import dataclasses
import json
import unicodedata
from collections.abc import Mapping, Sequence
from decimal import Decimal
from enum import Enum
from json.encoder import encode_basestring as quote
from typing import Any, NamedTuple

from ..call import class_name
from ..errors import JudgeError
from ..key import encode_value
from ..texts import plain
from ..usage.fields import fields_of
from .said import Turn, tool_call, turns

__all__ = ["Leaf", "Tree", "answer_tree", "arguments_tree", "form", "json_tree", "near", "pick", "text_form"]

Tree = Any
MAX_DEPTH = 200


class Leaf(NamedTuple):
    """A value that is compared as it is written."""

    kind: str
    text: str


_PAIRS = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "`": "`", "„": "“"}
_ENDS = ".…,;"


def text_form(text: str) -> str:
    """A text without case, extra spaces, a closing full stop, and quotation marks around the whole.

    >>> text_form(' "Five  days." '), text_form("5!"), text_form(".5"), text_form("...")
    ('five days', '5!', '.5', '...')
    """
    form = plain(text)
    while True:
        bare = form.rstrip(_ENDS).rstrip()
        if bare.endswith("!") and not bare[:-1].endswith(tuple("0123456789!)")):
            bare = bare[:-1]
        if len(bare) > 2 and _PAIRS.get(bare[0]) == bare[-1] and not {bare[0], bare[-1]} & {*bare[1:-1]}:
            bare = bare[1:-1].strip()
        if not bare or bare == form:
            return form
        form = bare


def answer_tree(answer: object) -> Tree:
    """The tree of a whole answer.

    Raises:
        JudgeError: a value in it has no form that could be compared, or it is nested deeper than 200 levels.
    """
    if isinstance(answer, str):
        return _text_tree(answer)
    if (said := turns(answer)) is not None:
        return {"said": [_turn_tree(turn) for turn in said]}
    return _tree(answer, 0)


def arguments_tree(arguments: object) -> Tree:
    """What a tool is called with: JSON text is what it says; no arguments are the same as an empty object."""
    if isinstance(arguments, str):
        found = json_tree(arguments)
        return Leaf("text", arguments) if found is None and arguments.strip() else found or {}
    return _tree(arguments, 0) if arguments is not None else {}


def json_tree(text: str, depth: int = 0) -> Tree | None:
    """The tree of a text that is a JSON object or array, in a code fence or not; None where it is none.

    A key that comes twice has no one meaning, so such a text is no JSON here.
    """
    text = text.strip()
    if text.startswith("```") and text.endswith("```"):
        text = text[3:-3].removeprefix("json").strip()
    if text[:1] + text[-1:] not in ("{}", "[]"):
        return None
    try:
        parsed = json.loads(text, parse_float=Decimal, parse_int=Decimal, object_pairs_hook=_once)
        return _tree(parsed, depth)
    except (ValueError, RecursionError, ArithmeticError, JudgeError):
        return None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key comes twice")
    return found


def _text_tree(text: str) -> Tree:
    found = json_tree(text)
    return Leaf("text", text_form(text)) if found is None else {("json",): found}


def _turn_tree(turn: Turn) -> Tree:
    return {
        "text": _text_tree(turn.text),
        "refusal": Leaf("text", text_form(turn.refusal)),
        "calls": [[call.name, arguments_tree(call.arguments)] for call in turn.calls],
        "others": [_tree(part, 0) for part in turn.others],
    }


def _tree(value: object, depth: int) -> Tree:
    if depth > MAX_DEPTH:
        raise JudgeError(f"an answer is nested deeper than {MAX_DEPTH} levels, or contains itself")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return Leaf(class_name(type(value)), value.name or str(value.value))
    if isinstance(value, int | float | Decimal):
        return Decimal(repr(float(value))) if isinstance(value, float) else Decimal(value)
    if isinstance(value, str):
        return _string(str.__str__(value), depth)
    if isinstance(value, bytes | bytearray | memoryview):
        return Leaf("bytes", bytes(value).hex())
    if isinstance(value, Mapping):
        if (call := tool_call(value)) is not None:
            return {"tool": call.name, "arguments": arguments_tree(call.arguments)}
        return {_key(key): _tree(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_tree(item, depth + 1) for item in value]
    if isinstance(value, set | frozenset):
        return {("set",): sorted((_tree(item, depth + 1) for item in value), key=form)}
    return _object(value, depth)


def _string(text: str, depth: int) -> Tree:
    """A text inside an answer, exact but for outer spaces; JSON text is what it says."""
    found = json_tree(text, depth + 1)
    return unicodedata.normalize("NFC", text.strip()) if found is None else {("json",): found}


def _key(key: object) -> object:
    return key if isinstance(key, str) else ("key", form(_tree(key, 0)))


def _object(value: object, depth: int) -> Tree:
    cls = type(value)
    plain = getattr(value, "tolist", None) if cls.__module__.partition(".")[0] == "numpy" else None
    if callable(plain):
        return _tree(plain(), depth + 1)
    if (said := turns(value)) is not None:
        return {"said": [_turn_tree(turn) for turn in said]}
    fields: Mapping[str, Any] | None = None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.compare
        }
    elif hasattr(cls, "__pydantic_fields__"):
        fields = fields_of(value)
    if fields is not None:
        if (call := tool_call(fields)) is not None:
            return {"tool": call.name, "arguments": arguments_tree(call.arguments)}
        return {
            ("class",): class_name(cls),
            **{name: _tree(item, depth + 1) for name, item in fields.items()},
        }
    try:
        return Leaf(class_name(cls), encode_value(value))
    except Exception as exc:  # a class without a canonical form, or one whose own code fails
        raise JudgeError(
            f"a value of type {class_name(cls)} cannot be compared: return JSON, text, a dataclass or a pydantic "
            "model, or give a judge of your own"
        ) from exc


def form(tree: Tree) -> str:
    """The one text of a tree: equal texts are equal trees."""
    if isinstance(tree, Leaf):
        return f"<{quote(tree.kind)}{quote(tree.text)}>"
    if tree is None or isinstance(tree, bool):
        return str(tree)
    if isinstance(tree, Decimal):
        return _number(tree)
    if isinstance(tree, str):
        return quote(tree)
    if isinstance(tree, list):
        return "[" + ",".join(map(form, tree)) + "]"
    return "{" + ",".join(sorted(f"{_name(key)}:{form(item)}" for key, item in tree.items())) + "}"


def _name(key: object) -> str:
    return quote(key) if isinstance(key, str) else str(key)


def _number(value: Decimal) -> str:
    if not value.is_finite():
        return "nan" if value.is_nan() else str(value)
    sign, digits, exponent = value.as_tuple()
    text = "".join(map(str, digits)).lstrip("0")
    bare = text.rstrip("0")
    return f"{'-' * sign}{bare}e{int(exponent) + len(text) - len(bare)}" if bare else "0"


def near(one: Tree, two: Tree, tolerance: Decimal) -> bool:
    """Whether two trees are equal where numbers may be ``tolerance`` apart."""
    if isinstance(one, Decimal) and isinstance(two, Decimal) and one.is_finite() and two.is_finite():
        return form(one) == form(two) or abs(one - two) <= tolerance
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(near(a, b, tolerance) for a, b in zip(one, two, strict=True))
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(near(one[key], two[key], tolerance) for key in one)
    return form(one) == form(two)


def pick(tree: Tree, path: Sequence[str]) -> list[Tree]:
    """What lies at a path of keys and positions, "*" for every one; nothing where there is nothing.

    >>> pick({"items": [{"n": 1}, {"n": 2}]}, ["items", "*", "n"])
    [1, 2]
    """
    while isinstance(tree, dict) and ("json",) in tree:
        tree = tree["json",]
    if not path:
        return [tree]
    step, rest = path[0], path[1:]
    inner: list[Tree] = []
    if isinstance(tree, dict):
        inner = [item for key, item in tree.items() if key == step or (step == "*" and isinstance(key, str))]
    elif isinstance(tree, list):
        at = int(step) if step.isdecimal() and len(step) < 10 else len(tree)
        inner = tree if step == "*" else tree[at : at + 1]
    return [found for item in inner for found in pick(item, rest)]
