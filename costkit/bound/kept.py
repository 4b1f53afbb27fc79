"""A gate's state as bytes, so that a process that starts need not fold all of its history again.

What is kept is what the fold itself reached, number for number: every object that a gate is made of, by its
attributes, whichever they are. It counts only for the same gate, the same code and the same rows before it; whatever is
odd about it is as if there were none, and then all rows are folded.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from collections import OrderedDict, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from costkit.bound.risk import Bound

__all__ = ["NoState", "about", "packed", "unpacked"]

# Where the classes of which a gate is made are, and the code that folds.
_HOMES = ("costkit.bound.", "costkit.stats.")
_FOLDERS = ("bound", "stats")
_DTYPES = ("<f8", "<i8", "|b1")
_PLAIN: dict[str, Any] = {made.__name__: made for made in (list, tuple, set, dict, OrderedDict, deque)}


class NoState(ValueError):
    """Bytes that are no state, or a state that cannot be told as bytes."""


def _code() -> str | None:
    """A digest of the code that folds, as it is when it is loaded; None where its source is not to be had."""
    digest = hashlib.sha256(np.__version__.encode())
    folder = Path(__file__).parent.parent
    try:
        for path in sorted(path for name in _FOLDERS for path in (folder / name).glob("*.py")):
            digest.update(path.read_bytes())
    except OSError:
        return None
    return digest.hexdigest()


_CODE = _code()


def about(bound: Bound, prior: Sequence[float]) -> str:
    """What a state holds for: this bound, this prior, this code; raises NoState where the code cannot be told."""
    if _CODE is None:
        raise NoState("the source of costkit cannot be read")
    return hashlib.sha256(f"{_CODE} {bound!r} {list(prior)!r}".encode()).hexdigest()


def packed(state: Any) -> bytes:
    """The state with a checksum before it; raises NoState for what a gate is never made of."""
    body = json.dumps(_told(state), separators=(",", ":")).encode()
    return hashlib.sha256(body).digest() + body


def unpacked(raw: bytes) -> Any:
    """The inverse of :func:`packed`; raises NoState on anything else."""
    if hashlib.sha256(raw[32:]).digest() != raw[:32]:
        raise NoState("the checksum does not fit")
    try:
        return _made(json.loads(raw[32:]))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as exc:
        raise NoState(f"not a state ({type(exc).__name__})") from exc


def _told(value: Any) -> Any:
    """As JSON: a list says first what it is."""
    kind: Any = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is np.ndarray and value.dtype.str in _DTYPES:
        body = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode("ascii")
        return ["array", value.dtype.str, list(value.shape), body]
    if kind in _PLAIN.values():
        of = value.items() if kind in (dict, OrderedDict) else value
        of = sorted(of, key=repr) if kind is set else of
        limit = [value.maxlen] if kind is deque else []
        return [kind.__name__, *limit, *map(_told, of)]
    if not kind.__module__.startswith(_HOMES):
        raise NoState(f"a gate is not made of {kind.__name__}")
    slots = getattr(kind, "__slots__", None)
    of = vars(value) if slots is None else {name: getattr(value, name) for name in slots}
    return [f"{kind.__module__}:{kind.__name__}", *map(_told, of.items())]


def _made(told: Any) -> Any:
    if type(told) is not list:
        return told
    kind, rest = told[0], told[1:]
    if kind == "array":
        dtype, shape, body = rest
        if dtype not in _DTYPES:
            raise NoState(f"an array of {dtype}")
        return np.frombuffer(base64.b64decode(body), dtype).reshape(shape).copy()
    if kind == "deque":
        return deque(map(_made, rest[1:]), maxlen=rest[0])
    if kind in _PLAIN:
        return _PLAIN[kind](map(_made, rest))
    module, _, name = kind.partition(":")
    made = getattr(sys.modules[module], name) if module.startswith(_HOMES) else None
    if not isinstance(made, type) or made.__module__ != module:
        raise NoState(f"a gate is not made of {kind}")
    value: Any = object.__new__(made)
    for attribute, of in map(_made, rest):
        object.__setattr__(value, attribute, of)
    return value
