"""The retrieved passages that a call was made with: which documents, and whether one of them has changed since.

A passage is a text, a pair of id and text, a mapping, or an object as retrieval libraries make them, each also beside a
number (its score). Where it has no id
of its own, only that of its document, or none, it can be the same or another one, never a changed one: other parts of a
document may be retrieved for another phrasing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

__all__ = ["Sources", "legible", "sources_of"]

Sources = frozenset[tuple[int, int]]
"""Of each passage, digests of its id and of its text."""

_IDS = ("id", "chunk_id", "node_id", "passage_id", "source_id")
_DOCUMENTS = ("doc_id", "document_id", "source", "url", "path", "title")
_PLACES = ("start_index", "chunk", "chunk_index", "page")
_TEXTS = ("text", "content", "page_content", "passage", "body")
_MOST = 256  # passages


def sources_of(passages: Any, key: bytes) -> Sources:
    """The passages' digests, ``key`` keeping a reader of the folder from looking texts up; empty where there are none.

    >>> old, new = sources_of([{"id": "kb-1", "text": "30 days"}], b"k"), sources_of([("kb-1", "14 days")], b"k")
    >>> {id for id, _ in old} == {id for id, _ in new}, old == new
    (True, False)
    """
    found = set()
    for passage in _listed(passages)[:_MOST]:
        told = _passage(passage)
        if told is not None:
            found.add((_digest(told[0], key), _digest(told[1], key)))
    return frozenset(found)


def legible(passages: Any) -> bool:
    """Whether every passage could be read; what could not must be identical, for nobody could tell that it changed.

    >>> legible([{"id": "kb-1", "text": "30 days"}]), legible({"documents": [["30 days"]]}), legible(None)
    (True, False, True)
    """
    listed = _listed(passages)
    return len(listed) <= _MOST and all(_empty(one) or _passage(one) is not None for one in listed)


def _empty(passage: Any) -> bool:
    return passage is None or (isinstance(passage, str) and not passage)


def _listed(passages: Any) -> list[Any]:
    if passages is None:
        return []
    if isinstance(passages, (str, bytes, Mapping)) or not isinstance(passages, Collection):
        return [passages]  # an iterator is not ours to use up
    return list(passages)


def _passage(passage: Any) -> tuple[str, str] | None:
    """Its id and its text; None for what is no passage."""
    if isinstance(passage, (list, tuple)) and len(passage) == 2 and isinstance(passage[1], (int, float)):
        passage = passage[0]
    if isinstance(passage, str):
        return (passage, passage) if passage else None
    if isinstance(passage, (list, tuple)):
        pair = len(passage) == 2 and all(isinstance(part, str) for part in passage)
        return (passage[0], passage[1]) if pair else None
    text, id = _first(passage, _TEXTS), _first(passage, _IDS)
    if text is not None and id is not None:
        return id, text
    document, place = _first(passage, _DOCUMENTS), _first(passage, _PLACES)
    if text is not None and document is not None and place is not None:
        return f"{document}\x00{place}", text
    only = id or document or text
    return None if only is None else (only, only)


def _first(passage: Any, names: Iterable[str]) -> str | None:
    for part in (passage, _part(passage, "metadata")):
        for name in names:
            value = _part(part, name)
            if isinstance(value, (str, int)) and not isinstance(value, bool) and value != "":
                return str(value)
    return None


def _part(passage: Any, name: str) -> Any:
    if isinstance(passage, Mapping):
        return passage.get(name)
    try:
        return getattr(passage, name, None)
    except Exception:  # noqa: BLE001 - a property of somebody's object; a passage less
        return None


def _digest(text: str, key: bytes) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4, key=key[:64])
    return int.from_bytes(digest.digest(), "little")
