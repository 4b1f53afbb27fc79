"""Scopes as people name them on a command line, found again as a kit labelled them.

A kit's label is the scope's values as sorted JSON, or a digest where ``Kit(scope_labels=False)``.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..errors import ConfigError
from ..scope import NOBODY, label, scope_id

__all__ = ["NOBODY", "Scope", "candidates", "label", "labels_of", "parse", "scope_id"]

Scope = Mapping[str, Any]
_MOST = 64


def parse(words: Sequence[str]) -> dict[str, str] | dict[str, Any] | None:
    """A scope from ``name=value`` words, or one JSON object; None for ``-``, which names scope=None.

    Raises:
        ConfigError: a word is neither.

    >>> parse(["tenant=acme", "user=7"]), parse(['{"user": 7}']), parse(["-"])
    ({'tenant': 'acme', 'user': '7'}, {'user': 7}, None)
    """
    if list(words) == [NOBODY]:
        return None
    if len(words) == 1 and words[0].lstrip().startswith("{"):
        try:
            found = json.loads(words[0])
        except (ValueError, RecursionError) as exc:
            raise ConfigError(f"--scope {words[0]!r:.80}: not JSON ({exc}); say --scope tenant=acme") from exc
        return dict(found)
    pairs: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise ConfigError(f"--scope {word!r:.80}: say name=value, such as tenant=acme; - for scope=None")
        if name in pairs:
            raise ConfigError(f"--scope: {name!r:.80} is given twice")
        pairs[name] = value
    return pairs


def candidates(scope: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What a program may have passed where ``scope`` says text: the text, a number, a UUID.

    >>> list(candidates({"user": "7"}))
    [{'user': '7'}, {'user': 7}]
    """
    forms = [_forms(value) for value in scope.values()]
    for values in itertools.islice(itertools.product(*forms), _MOST):
        yield dict(zip(scope, values, strict=True))


def _forms(value: Any) -> list[Any]:
    forms = [value]
    if isinstance(value, str):
        try:
            told = json.loads(value)
        except (ValueError, RecursionError):
            told = None
        if isinstance(told, (int, float)) and math.isfinite(told):
            forms.append(told)
        with contextlib.suppress(ValueError):
            forms.append(uuid.UUID(value))
    return forms


def labels_of(scope: Mapping[str, Any], known: Iterable[str | None]) -> list[str]:
    """Those of the ``known`` labels that hold every pair of ``scope``, perhaps with others, or are its digest.

    >>> labels_of({"user": "7"}, ['{"tenant": "a", "user": 7}', '{"user": 8}', None])
    ['{"tenant": "a", "user": 7}']
    """
    digests = {scope_id(form) for form in candidates(scope)}
    return [text for text in known if text is not None and (text in digests or _holds(text, scope))]


def _holds(text: str, scope: Mapping[str, Any]) -> bool:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return False
    if not isinstance(told, dict):
        return False
    return all(name in told and _same(told[name], value) for name, value in scope.items())


def _same(told: Any, value: Any) -> bool:
    if type(told) is type(value):
        return bool(told == value)
    return isinstance(value, str) and json.dumps(told) == value
