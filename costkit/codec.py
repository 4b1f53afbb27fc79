"""A Python value to bytes and back to what it was, without pickle and without running the value's code.

Plain text and bytes are kept as they are; everything else is JSON in which types that JSON lacks carry a tag.
Dataclasses and pydantic models (an SDK's response objects among them) are rebuilt field by field: no
``__init__``, no validator and no import runs on the way back, and a class is looked up only among modules
already imported.

>>> decode(encode({"ids": (1, 2), "raw": b"x"}))
{'ids': (1, 2), 'raw': b'x'}
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import decimal
import enum
import json
import math
import sys
import uuid
from collections.abc import Callable
from typing import Any, cast

from .call import class_name, more_state

__all__ = ["NotStorable", "Unreadable", "decode", "encode"]

_TAG = "$"
MAX_DEPTH = 200
_BIG = 1 << 63


class NotStorable(Exception):
    """The value would not come back as what it is."""


class Unreadable(Exception):
    """The bytes are not an encoded value, or its class is not loaded."""


def encode(value: Any) -> bytes:
    """The value as bytes.

    Raises:
        NotStorable: the value, or something in it, would not come back as what it is.
    """
    if type(value) is str:
        return b"s" + value.encode("utf-8", "surrogatepass")
    if type(value) is bytes:
        return b"y" + value
    try:
        data = _dump(_pack(value, 0))
        same = _dump(_pack(_read(data), 0)) == data
    except NotStorable:
        raise
    except Exception as exc:
        raise NotStorable(f"{class_name(type(value))}: {type(exc).__name__}: {exc}") from exc
    if not same:
        raise NotStorable(f"{class_name(type(value))} does not survive a round trip")
    return b"j" + data


def decode(data: bytes) -> Any:
    """The value that :func:`encode` was given.

    Raises:
        Unreadable: damaged bytes, or a class that is not loaded in this process.
    """
    try:
        if data[:1] == b"s":
            return data[1:].decode("utf-8", "surrogatepass")
        if data[:1] == b"y":
            return data[1:]
        if data[:1] == b"j":
            return _read(data[1:])
    except NotStorable as exc:
        raise Unreadable(str(exc)) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ArithmeticError) as exc:
        raise Unreadable(f"damaged value: {type(exc).__name__}") from None
    raise Unreadable("unknown kind of value")


def _dump(packed: Any) -> bytes:
    text = json.dumps(packed, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "surrogatepass")


def _read(data: bytes) -> Any:
    return _unpack(json.loads(data.decode("utf-8", "surrogatepass")))


def _pack(value: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise NotStorable(f"nested deeper than {MAX_DEPTH} levels, or containing itself")
    cls = type(value)
    if cls is str or cls is bool or value is None:
        return value
    if cls is int:
        return value if -_BIG < value < _BIG else {_TAG: "i", "v": f"{value:x}"}
    if cls is float:
        return value if math.isfinite(value) else {_TAG: "f", "v": value.hex()}
    if cls is list:
        return [_pack(v, depth + 1) for v in value]
    if cls is dict:
        if all(type(k) is str for k in value) and _TAG not in value:
            return {k: _pack(v, depth + 1) for k, v in value.items()}
        return {_TAG: "d", "v": [[_pack(k, depth + 1), _pack(v, depth + 1)] for k, v in value.items()]}
    return _pack_tagged(value, cls, depth)


def _pack_tagged(value: Any, cls: type, depth: int) -> Any:
    if cls is tuple:
        return {_TAG: "t", "v": [_pack(v, depth + 1) for v in value]}
    if cls is set or cls is frozenset:
        items = sorted((_pack(v, depth + 1) for v in value), key=lambda p: json.dumps(p, sort_keys=True))
        return {_TAG: "S" if cls is set else "F", "v": items}
    if cls in _TEXT:
        tag, to_text, _ = _TEXT[cls]
        return {_TAG: tag, "v": to_text(value)}
    if isinstance(value, enum.Enum):
        return {_TAG: "e", "c": _loaded_name(cls), "v": value.name}
    if dataclasses.is_dataclass(value):
        if more := more_state(value):
            raise NotStorable(f"{class_name(cls)} carries {next(iter(more))}, which is no field of it")
        state = {f.name: _pack(getattr(value, f.name), depth + 1) for f in dataclasses.fields(value)}
        return {_TAG: "D", "c": _loaded_name(cls), "v": state}
    if hasattr(cls, "__pydantic_fields__"):
        extra = getattr(value, "__pydantic_extra__", None)
        return {
            _TAG: "P",
            "c": _loaded_name(cls),
            "v": {k: _pack(v, depth + 1) for k, v in value.__dict__.items()},
            "x": None if extra is None else {k: _pack(v, depth + 1) for k, v in extra.items()},
            "s": sorted(value.__pydantic_fields_set__),
        }
    raise NotStorable(f"{class_name(cls)} is neither JSON, bytes, a dataclass nor a pydantic model")


def _unpack(packed: Any) -> Any:
    if type(packed) is list:
        return [_unpack(v) for v in packed]
    if type(packed) is not dict:
        return packed
    tag = packed.get(_TAG)
    if tag is None:
        return {k: _unpack(v) for k, v in packed.items()}
    return _UNPACK[tag](packed)


def _loaded_name(cls: type) -> str:
    name = class_name(cls)
    if _resolve(name) is not cls:
        raise NotStorable(f"{name} cannot be found again by its name (a class made inside a function?)")
    return name


def _resolve(name: str) -> Any:
    module, _, qualname = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, "__dict__", {}).get(part)
    if not isinstance(found, type):
        raise NotStorable(f"{name} is not a class loaded in this process")
    return found


def _dataclass(packed: dict[str, Any]) -> Any:
    cls = _resolve(packed["c"])
    if not dataclasses.is_dataclass(cls):
        raise NotStorable(f"{packed['c']} is not a dataclass")
    value: Any = object.__new__(cast(type, cls))
    state = packed["v"]
    if {f.name for f in dataclasses.fields(cls)} != state.keys():
        raise NotStorable(f"{packed['c']} has other fields now")
    for name, item in state.items():
        object.__setattr__(value, name, _unpack(item))
    return value


def _pydantic(packed: dict[str, Any]) -> Any:
    cls = _resolve(packed["c"])
    if not hasattr(cls, "__pydantic_fields__"):
        raise NotStorable(f"{packed['c']} is not a pydantic model")
    value = object.__new__(cls)
    extra = packed["x"]
    # SDKs keep notes of their own beside the fields (_request_id); they start with an underscore.
    names = {name for name in packed["v"] if not name.startswith("_")}
    if not names <= cls.__pydantic_fields__.keys():
        raise NotStorable(f"{packed['c']} has other fields now")
    object.__setattr__(value, "__dict__", {k: _unpack(v) for k, v in packed["v"].items()})
    object.__setattr__(value, "__pydantic_fields_set__", set(packed["s"]))
    unpacked = None if extra is None else {k: _unpack(v) for k, v in extra.items()}
    object.__setattr__(value, "__pydantic_extra__", unpacked)
    object.__setattr__(value, "__pydantic_private__", _private_defaults(cls))
    return value


def _private_defaults(cls: Any) -> dict[str, Any] | None:
    private = getattr(cls, "__private_attributes__", None)
    if not private:
        return None
    made = ((name, attribute.get_default()) for name, attribute in private.items())
    return {name: default for name, default in made if type(default).__name__ != "PydanticUndefinedType"}


def _enum(packed: dict[str, Any]) -> Any:
    cls = _resolve(packed["c"])
    if not issubclass(cls, enum.Enum):
        raise NotStorable(f"{packed['c']} is not an enum")
    return cls.__members__[packed["v"]]


def _moment(value: datetime.datetime | datetime.time) -> str:
    if value.fold or type(value.tzinfo) not in (type(None), datetime.timezone):
        raise NotStorable("a time in a named zone would come back with a fixed offset; convert it to UTC")
    return value.isoformat()


_TEXT: dict[type, tuple[str, Callable[[Any], str], Callable[[str], Any]]] = {
    bytes: ("y", lambda v: base64.b64encode(v).decode(), lambda s: base64.b64decode(s, validate=True)),
    datetime.datetime: ("dt", _moment, datetime.datetime.fromisoformat),
    datetime.date: ("da", lambda v: v.isoformat(), datetime.date.fromisoformat),
    datetime.time: ("ti", _moment, datetime.time.fromisoformat),
    decimal.Decimal: ("de", str, decimal.Decimal),
    uuid.UUID: ("uu", lambda v: v.hex, uuid.UUID),
}

_UNPACK: dict[str, Callable[[dict[str, Any]], Any]] = {
    "i": lambda p: int(p["v"], 16),
    "f": lambda p: float.fromhex(p["v"]),
    "t": lambda p: tuple(_unpack(v) for v in p["v"]),
    "S": lambda p: {_unpack(v) for v in p["v"]},
    "F": lambda p: frozenset(_unpack(v) for v in p["v"]),
    "d": lambda p: {_unpack(k): _unpack(v) for k, v in p["v"]},
    "e": _enum,
    "D": _dataclass,
    "P": _pydantic,
    **{tag: (lambda p, read=read: read(p["v"])) for tag, _, read in _TEXT.values()},  # type: ignore[misc]
}
