"""The canonical form of a call, and its SHA-256 digest.

The form is a JSON array in which every value carries its type, scope first, arguments sorted by name:

    ["costkit-key/1",SCOPE,NAME,VERSION,[[ARG,VALUE],...]]

so ``1``, ``1.0``, ``True`` and ``"1"`` differ, ``["a,b"]`` and ``["a","b"]`` differ, and the digest is the
same in every process, under every hash seed and keyword order. Text is keyed as it was passed: **no Unicode
normalisation**, because a model's tokenizer sees other tokens for "é" (one code point) and "é" (two), so the
calls are not identical. Lone surrogates are kept apart from the characters they would form.

>>> digest(None, "ask", "1", {"q": "hi", "n": 1}) == digest(None, "ask", "1", {"n": 1, "q": "hi"})
True
>>> digest(None, "ask", "1", {"n": 1}) == digest(None, "ask", "1", {"n": True})
False
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import decimal
import enum
import functools
import hashlib
import re
import uuid
from collections.abc import Callable, Mapping
from json.encoder import encode_basestring as quote
from typing import Any

from .call import class_name, more_state
from .errors import UnkeyableArgument

__all__ = ["canonical", "digest", "encode_value"]

FORMAT = "costkit-key/1"
MAX_DEPTH = 200

# A dict's key that may stand in an error: the name of a field. Any other may be data, an address or a secret.
_FIELD = re.compile(r"[A-Za-z_]{1,40}")


class _Unkeyable(Exception):
    """Carries the path to the offending value while the recursion unwinds."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why
        self.path: list[str] = []


def digest(scope: Mapping[str, Any] | None, name: str, version: str, arguments: Mapping[str, Any]) -> str:
    """SHA-256 (64 hex characters) of :func:`canonical`.

    Raises:
        UnkeyableArgument: a value has no canonical form; the message names the argument and the mend.
    """
    text = canonical(scope, name, version, arguments)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def canonical(scope: Mapping[str, Any] | None, name: str, version: str, arguments: Mapping[str, Any]) -> str:
    """The canonical text of one call.

    >>> canonical({"tenant": "acme"}, "ask", "1", {"question": "hi"})
    '["costkit-key/1",[["tenant",["s","acme"]]],"ask","1",[["question",["s","hi"]]]]'
    """
    who = "null" if scope is None else _named(name, scope)
    return f'["{FORMAT}",{who},{quote(name)},{quote(version)},{_named(name, arguments)}]'


def _named(name: str, values: Mapping[str, Any]) -> str:
    parts = []
    for arg in sorted(values):
        try:
            parts.append(f"[{quote(arg)},{encode_value(values[arg])}]")
        except _Unkeyable as exc:
            where = arg + "".join(reversed(exc.path))
            raise UnkeyableArgument(
                f"{name}(): argument {where} cannot be keyed ({exc.why}). If it does not change the answer, "
                "say "
                f"ignore=[{arg!r}]; else say what identifies it: key={{{arg!r}: lambda {_safe(arg)}: ...}}"
            ) from None
    return "[" + ",".join(parts) + "]"


def _safe(arg: str) -> str:
    return arg if arg.isidentifier() else "value"


def encode_value(value: Any, depth: int = 0) -> str:
    """One value as type-tagged JSON text."""
    encode = _EXACT.get(type(value))
    if encode is not None:
        return encode(value, depth)
    return _encode_other(value, depth)


def _str(value: str, depth: int) -> str:
    return f'["s",{quote(value)}]'


def _int(value: int, depth: int) -> str:
    return f'["i","{value:x}"]'


def _float(value: float, depth: int) -> str:
    return f'["f","{value.hex()}"]'


def _bytes(tag: str) -> Callable[[Any, int], str]:
    return lambda value, depth: f'["{tag}","{base64.b64encode(value).decode()}"]'


def _items(tag: str) -> Callable[[Any, int], str]:
    def encode(value: Any, depth: int) -> str:
        if depth >= MAX_DEPTH:
            raise _Unkeyable(f"nested deeper than {MAX_DEPTH} levels, or containing itself")
        parts = []
        for i, item in enumerate(value):
            try:
                parts.append(encode_value(item, depth + 1))
            except _Unkeyable as exc:
                exc.path.append(f"[{i}]")
                raise
        return f'["{tag}",[{",".join(parts)}]]'

    return encode


def _dict(value: Mapping[Any, Any], depth: int) -> str:
    if depth >= MAX_DEPTH:
        raise _Unkeyable(f"nested deeper than {MAX_DEPTH} levels, or containing itself")
    pairs = []
    for k, v in value.items():
        try:
            pairs.append((encode_value(k, depth + 1), encode_value(v, depth + 1)))
        except _Unkeyable as exc:
            exc.path.append(f"[{k!r}]" if type(k) is str and _FIELD.fullmatch(k) else f"[item {len(pairs)}]")
            raise
    pairs.sort()
    return '["d",[' + ",".join(f"[{k},{v}]" for k, v in pairs) + "]]"


def _set(tag: str) -> Callable[[Any, int], str]:
    return lambda value, depth: f'["{tag}",[{",".join(sorted(encode_value(v, depth + 1) for v in value))}]]'


def _text_of(tag: str, text: Callable[[Any], str]) -> Callable[[Any, int], str]:
    return lambda value, depth: f'["{tag}",{quote(text(value))}]'


def _datetime_text(value: datetime.datetime) -> str:
    return f"{value.isoformat()}/{value.fold}/{value.tzinfo!s}"


_EXACT: dict[type, Callable[[Any, int], str]] = {
    str: _str,
    int: _int,
    float: _float,
    bool: lambda value, depth: '["b",1]' if value else '["b",0]',
    type(None): lambda value, depth: '["n"]',
    bytes: _bytes("y"),
    bytearray: _bytes("Y"),
    list: _items("l"),
    tuple: _items("t"),
    dict: _dict,
    set: _set("S"),
    frozenset: _set("F"),
    datetime.datetime: _text_of("dt", _datetime_text),
    datetime.date: _text_of("da", lambda v: v.isoformat()),
    datetime.time: _text_of("ti", lambda v: f"{v.isoformat()}/{v.fold}/{v.tzinfo!s}"),
    datetime.timedelta: _text_of("td", lambda v: f"{v.days}/{v.seconds}/{v.microseconds}"),
    decimal.Decimal: _text_of("de", str),
    uuid.UUID: _text_of("uu", lambda v: v.hex),
}


def _encode_other(value: Any, depth: int) -> str:
    cls = type(value)
    if isinstance(value, enum.Enum):
        return f'["e",{quote(class_name(cls))},{quote(value.name or str(value.value))}]'
    if isinstance(value, type):
        return _encode_class(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, _BASES):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return _fields("D", value, {**fields, **more_state(value)}, depth)
    if hasattr(cls, "__pydantic_fields__"):
        extra = getattr(value, "__pydantic_extra__", None) or {}
        private = getattr(value, "__pydantic_private__", None) or {}
        own = {**value.__dict__, **extra}
        return _fields("P", value, {**own, ("private",): private} if private else own, depth)
    if cls.__module__.partition(".")[0] == "numpy" and hasattr(value, "tobytes"):
        return _encode_numpy(value)
    for base in _BASES:
        if isinstance(value, base):
            more = getattr(value, "__dict__", None)
            carried = f",{_dict(more, depth)}" if more else ""
            return f'["u",{quote(class_name(cls))},{_EXACT[base](_plain(base, value), depth)}{carried}]'
    raise _Unkeyable(f"type {class_name(cls).replace(':', '.')} has no canonical form")


_BASES = (str, int, float, bytes, list, tuple, dict)


def _plain(base: type, value: Any) -> Any:
    """The value as its base type, whatever its class makes of ``__str__`` or ``__int__``."""
    if base is str:
        return str.__str__(value)
    if base is int:
        return int.__int__(value)
    return float.__float__(value) if base is float else value


def _encode_class(cls: type) -> str:
    if hasattr(cls, "__pydantic_fields__"):
        return f'["c",{quote(class_name(cls))},"{_schema_digest(cls)}"]'
    if cls.__module__ == "builtins":
        return f'["c",{quote(class_name(cls))}]'
    raise _Unkeyable("a class can change without its name changing; only pydantic models carry a schema")


@functools.lru_cache(maxsize=256)
def _schema_digest(cls: Any) -> str:
    return hashlib.sha256(encode_value(cls.model_json_schema()).encode("utf-8", "surrogatepass")).hexdigest()


def _encode_numpy(value: Any) -> str:
    if value.dtype.hasobject:
        raise _Unkeyable("a numpy array of Python objects has no canonical form")
    data = hashlib.sha256(value.tobytes()).hexdigest()
    kind = class_name(type(value))
    return f'["N",{quote(kind)},{quote(str(value.dtype.descr))},{quote(str(value.shape))},"{data}"]'


def _fields(tag: str, value: Any, fields: Mapping[Any, Any], depth: int) -> str:
    try:
        return f'["{tag}",{quote(class_name(type(value)))},{_dict(fields, depth)}]'
    except _Unkeyable as exc:
        if exc.path and exc.path[-1].startswith("['"):
            exc.path[-1] = "." + exc.path[-1][2:-2]
        raise
