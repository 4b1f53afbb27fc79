"""The text of a call whose meaning may stand for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["Claimed", "claimed", "readable"]

Claimed = tuple[str, Any]
"""The claimed text, and what of the same argument must be identical (earlier turns, roles, images)."""


def claimed(value: Any) -> Claimed | None:
    """What may be asked in other words, of a text or of chat messages; None where there is no such text.

    Of messages it is the text of the last one, if that is the user's. Earlier turns belong to what is asked: they stay
    as they are, in the second part.

    >>> claimed("How long?")
    ('How long?', None)
    >>> claimed([{"role": "system", "content": "Be brief"}, {"role": "user", "content": "How long?"}])
    ('How long?', [{'role': 'system', 'content': 'Be brief'}, {'role': 'user', 'content': None}])
    """
    if isinstance(value, str):
        return (value, None) if value.strip() else None
    if not isinstance(value, (list, tuple)) or not value:
        return None
    last = value[-1]
    if not isinstance(last, Mapping) or last.get("role") not in (None, "user"):
        return None
    content = last.get("content")
    if isinstance(content, str):
        text, rest = content, {**last, "content": None}
    else:
        found = _parts(content)
        if found is None:
            return None
        text, rest = found[0], {**last, "content": found[1]}
    return (text, [*value[:-1], rest]) if text.strip() else None


def _parts(content: Any) -> tuple[str, list[Any]] | None:
    """The text of content parts and those that are no text."""
    if not isinstance(content, (list, tuple)):
        return None
    texts, others = [], []
    for part in content:
        text = part.get("text") if isinstance(part, Mapping) else None
        if isinstance(text, str) and part.get("type") in (None, "text", "input_text"):
            texts.append(text)
            others.append({**part, "text": None})
        else:
            others.append(part)
    return "\n".join(texts), others


def readable(value: Any) -> bool:
    """Whether it is of a kind that may hold such a text: text, messages as mappings, or nothing yet.

    >>> readable([]), readable({"question": "How long?"})
    (True, False)
    """
    messages = isinstance(value, (list, tuple)) and (not value or isinstance(value[-1], Mapping))
    return value is None or isinstance(value, str) or messages
