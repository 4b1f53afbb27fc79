"""Reading a response's fields, whatever class it is, without running code of that class."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from typing import Any

Fields = Mapping[str, Any]

_PLAIN = frozenset({str, bytes, bytearray, int, float, bool, list, tuple, set, frozenset, type(None)})
_MOST_FIELDS = 64  # no response has more; a user's mapping over a database may, and is left alone
_DEPTH = 8
_MOST_BITS = 1024
_HIDDEN = "_hidden_params"


def fields_of(thing: object) -> Fields | None:
    """The fields of a dict, an SDK object or a dataclass; None for anything else. Never raises.

    Reads the instance's own dict, so no property or ``__getattr__`` of a user's class runs.
    """
    kind = type(thing)
    if kind is dict:
        return thing  # type: ignore[return-value]
    if kind in _PLAIN:
        return None
    try:
        return _read(thing)
    except Exception:  # noqa: BLE001 - a user's class may do anything; then it is no response
        return None


def _read(thing: object) -> Fields | None:
    if isinstance(thing, type):
        return None
    if isinstance(thing, Mapping):
        return dict(thing) if len(thing) <= _MOST_FIELDS else None
    try:
        own: dict[str, Any] = object.__getattribute__(thing, "__dict__")
    except AttributeError:
        if not is_dataclass(thing):
            return None
        return {field.name: getattr(thing, field.name, None) for field in dataclass_fields(thing)}
    if "__pydantic_fields__" not in type(thing).__dict__:
        return own
    more = object.__getattribute__(thing, "__pydantic_extra__")  # where pydantic keeps a gateway's own fields
    try:
        private = object.__getattribute__(thing, "__pydantic_private__")  # and LiteLLM whom it has asked
    except AttributeError:
        private = None
    hidden = private.get(_HIDDEN) if private else None
    if not more and not hidden:
        return own
    read = {**own, **(more or {}), **({_HIDDEN: hidden} if hidden else {})}
    read.pop("__pydantic_extra__", None)  # Mistral's SDK holds it among the fields
    return read


def each(items: object) -> list[Fields]:
    """The items of a list that have fields."""
    return [found for item in items if (found := fields_of(item))] if isinstance(items, list | tuple) else []


def strings(items: object, kind: str, name: str) -> list[str]:
    """The text ``name`` of every item whose type is ``kind``."""
    found = [item.get(name) for item in each(items) if item.get("type") == kind]
    return [text for text in found if isinstance(text, str)]


def as_json(value: object, depth: int = _DEPTH) -> Any:
    """A plain JSON copy, for the record; of what has no JSON form, the name of its type."""
    if type(value) is int and value.bit_length() > _MOST_BITS:
        return f"an integer of {value.bit_length()} bits"  # which has no text: Python refuses to write that many digits
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth == 0:
        return "..."
    if isinstance(value, list | tuple):
        return [as_json(item, depth - 1) for item in value]
    if (found := fields_of(value)) is not None:
        return {str(name): as_json(item, depth - 1) for name, item in found.items()}
    return type(value).__name__
