"""What a function is: a digest that changes when its code or its settings do."""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
from types import CodeType, FunctionType
from typing import Any

from ..call import class_name
from ..key import encode_value

__all__ = ["identity"]

_DEEPEST = 8


def identity(*parts: object) -> str:
    """A digest of functions and settings, the same in every process of one Python version.

    Of a function it covers its code, defaults, what it closes over, the constants of its module that it names (a
    prompt, a threshold) and the functions of its own package that it calls. What it reaches otherwise (a model behind
    a client, an object's state) is not seen: give the judge another ``version=`` when that changes.

    >>> identity("a", 1) == identity("a", 1), identity("a", 1) == identity("a", 2)
    (True, False)
    """
    text = "\n".join(_what(part, (), 0) for part in parts)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _what(thing: Any, above: tuple[object, ...], depth: int) -> str:
    if depth > _DEEPEST or any(thing is one for one in above):
        return "again"
    above = (*above, thing)
    if isinstance(thing, functools.partial):
        inner = [thing.func, thing.args, tuple(sorted(thing.keywords.items()))]
        return "partial" + "".join(_what(part, above, depth + 1) for part in inner)
    if inspect.ismethod(thing):
        return _what(thing.__func__, above, depth + 1) + _what(thing.__self__, above, depth + 1)
    if isinstance(thing, FunctionType):
        return _function(thing, above, depth)
    if isinstance(thing, tuple | list):
        return "(" + ",".join(_what(item, above, depth + 1) for item in thing) + ")"
    try:
        return encode_value(thing)
    except Exception:  # noqa: BLE001 - it has no canonical form, or its own code fails: its class stands for it
        return _instance(thing, above, depth)


def _instance(thing: Any, above: tuple[object, ...], depth: int) -> str:
    named = getattr(thing, "id", None)
    known = f"{class_name(type(thing))}{named if isinstance(named, str) else ''}"
    call = getattr(type(thing), "__call__", None)  # noqa: B004 - the method itself is wanted
    return known + (_what(call, above, depth + 1) if isinstance(call, FunctionType) else "")


def _function(function: FunctionType, above: tuple[object, ...], depth: int) -> str:
    code = function.__code__
    said = [f"{function.__module__}:{function.__qualname__}", f"{sys.version_info[:2]}", _code(code)]
    held = [cell.cell_contents for cell in function.__closure__ or () if _filled(cell)]
    for part in (
        function.__defaults__ or (),
        tuple(sorted((function.__kwdefaults__ or {}).items())),
        tuple(held),
    ):
        said.append(_what(part, above, depth + 1))
    package = function.__module__.partition(".")[0]
    for name in sorted(_names(code)):
        named = function.__globals__.get(name)
        ours = isinstance(named, FunctionType) and named.__module__.partition(".")[0] == package
        constant = isinstance(named, str) or (name.isupper() and named is not None)
        if ours or constant:
            said.append(f"{name}={_what(named, above, depth + 1)}")
    return "\n".join(said)


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - an empty cell raises
    except ValueError:
        return False
    return True


def _names(code: CodeType) -> set[str]:
    inner = [_names(part) for part in code.co_consts if isinstance(part, CodeType)]
    return set(code.co_names).union(*inner)


def _code(code: CodeType) -> str:
    """The instructions and constants, without line numbers and file names."""
    constants = [_code(part) if isinstance(part, CodeType) else _constant(part) for part in code.co_consts]
    return f"{code.co_code.hex()}{code.co_names}{code.co_varnames}[{','.join(constants)}]"


def _constant(value: object) -> str:
    if isinstance(value, frozenset):
        return f"{{{','.join(sorted(map(_constant, value)))}}}"  # its order differs between processes
    if isinstance(value, tuple):
        return f"({','.join(map(_constant, value))})"
    return f"{type(value).__name__}{value!r}"
