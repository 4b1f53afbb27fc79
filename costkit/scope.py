"""Who may share answers: how it is said, and the id and label of a scope."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import ScopeError
from .key import digest

__all__ = ["NOBODY", "UNSAID", "Scopes", "Unsaid", "label", "scope_id", "shared_by"]

NOBODY = "-"  # the id of scope=None

_MOST = 10_000  # scopes remembered


class Unsaid:
    """What ``scope`` is until it is said."""

    def __repr__(self) -> str:
        return "<unsaid>"


UNSAID = Unsaid()


def shared_by(scope: str | Sequence[str] | Unsaid | None) -> tuple[str, ...] | None:
    """The names that say who may share answers; raises ScopeError where nobody said it."""
    if isinstance(scope, Unsaid):
        raise ScopeError(
            'kit.call(): say who may share answers: scope="tenant" (an argument of the function), or scope=None if '
            "everybody may"
        )
    if scope is not None and not scope:
        raise ScopeError(
            "kit.call(scope=...): empty; name an argument, or say scope=None if everybody may share"
        )
    return (scope,) if isinstance(scope, str) else scope if scope is None else _names(scope)


def _names(scope: Sequence[str]) -> tuple[str, ...]:
    if not isinstance(scope, (list, tuple)) or not all(isinstance(name, str) for name in scope):
        raise ScopeError(
            f'kit.call(scope=...): {scope!r:.80} names no argument; say scope="tenant", or a list'
        )
    return tuple(scope)


def scope_id(scope: Mapping[str, Any] | None) -> str:
    """The digest under which a scope's answers are kept."""
    return NOBODY if scope is None else digest(scope, "scope", "", {})[:32]


def label(scope: Mapping[str, Any]) -> str:
    """A scope for people to read: its values as sorted JSON."""
    return json.dumps(scope, default=str, sort_keys=True)


class Scopes:
    """The ids and labels of a kit's scopes; ``readable`` False makes the label a digest as well.

    >>> Scopes(readable=True).named({"tenant": "acme"})[1]
    '{"tenant": "acme"}'
    """

    def __init__(self, *, readable: bool) -> None:
        self._readable = readable
        self._known: dict[tuple[tuple[str, Any], ...], tuple[str, str | None]] = {}

    def named(self, scope: Mapping[str, Any] | None) -> tuple[str, str | None]:
        """The id and the label of a scope; those of text values are remembered."""
        if scope is None:
            return NOBODY, None
        if not all(type(value) is str for value in scope.values()):
            return scope_id(scope), self.label(scope)
        parts = tuple(scope.items())
        found = self._known.get(parts)
        if found is None:
            if len(self._known) >= _MOST:
                self._known.clear()
            found = self._known[parts] = scope_id(scope), self.label(scope)
        return found

    def label(self, scope: Mapping[str, Any] | None) -> str | None:
        """What the ledger shows of a scope: its values as sorted JSON, or its id."""
        if scope is None:
            return None
        return label(scope) if self._readable else scope_id(scope)
