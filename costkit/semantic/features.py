"""What is known of a candidate beside its neighbours: the features that the gate's score is made of.

Of a stored question no text is kept, only a :class:`Profile`: keyed digests of its words, marks and sources.
Neighbours whose answers are the same by the judge's own grouping speak for one another: the candidate is the nearest
entry of the answer that the nearest questions agree on, not just the nearest entry.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from costkit.marks import KINDS, marks
from costkit.semantic.sources import Sources, sources_of

__all__ = ["NEIGHBOURS", "PRIOR", "Choice", "Neighbour", "Profile", "Profiler", "choose"]

NEIGHBOURS = 10

# A neighbour this much further in cosine speaks e times more softly.
_SOFTER = 0.1

_SOFT_KINDS = ("negations", "names", "questions", "order")

# Before any label: near, agreed on, alone and alike in words and sources is right; another negation, name or question
# is wrong.
PRIOR = (0.0, 0.5, 0.5, 0.3, 0.5, 0.5, 0.3, 0.2, 0.3, -1.0, -0.5, -0.3, -0.3)


@dataclass(frozen=True, slots=True)
class Profile:
    """Digests of a text's words, one digest for each kind of marks (0: none of them), and the sources at hand."""

    words: frozenset[int]
    marks: tuple[int, ...]
    sources: Sources = field(default_factory=frozenset[tuple[int, int]])

    def pack(self) -> bytes:
        """As bytes, for the index."""
        sources = [number for source in sorted(self.sources) for number in source]
        return struct.pack(
            f"<{len(KINDS)}I{1 + len(sources) + len(self.words)}I",
            *self.marks, len(self.sources), *sources, *sorted(self.words),
        )  # fmt: skip

    @classmethod
    def unpack(cls, body: bytes) -> Profile:
        """The inverse of :meth:`pack`; raises struct.error on anything else."""
        numbers = struct.unpack(f"<{len(body) // 4}I", body)
        known, rest = len(KINDS), numbers[len(KINDS) + 1 :]
        if len(numbers) <= known or 2 * numbers[known] > len(rest):
            raise struct.error("not a profile")
        told, words = rest[: 2 * numbers[known]], rest[2 * numbers[known] :]
        return cls(frozenset(words), numbers[:known], frozenset(zip(told[::2], told[1::2], strict=True)))

    def differs(self, other: Profile, kinds: Sequence[str]) -> bool:
        """Whether the texts differ in one of these kinds of marks."""
        return any(self.marks[KINDS.index(kind)] != other.marks[KINDS.index(kind)] for kind in kinds)

    def outdates(self, other: Profile) -> bool:
        """Whether one of the other's sources is at hand here with another text."""
        if not other.sources or self.sources == other.sources:
            return False
        now = dict(self.sources)
        return any(id in now and (id, text) not in self.sources for id, text in other.sources)


class Profiler:
    """Makes profiles; ``key`` keeps a reader of the folder from looking words up.

    >>> profile = Profiler(b"k").of("Send 2 cards")
    >>> Profile.unpack(profile.pack()) == profile
    True
    """

    _MOST = 50_000

    def __init__(self, key: bytes) -> None:
        self._key = key[:64]
        self._known: dict[str, int] = {}

    def of(self, text: str, passages: Any = None) -> Profile:
        """The profile of a text, and of the passages retrieved for it."""
        found = marks(text)
        kinds = (getattr(found, kind) for kind in KINDS)
        return Profile(
            frozenset(self._digest(word) for word in found.words),
            tuple(self._digest(_plain(kind)) if kind else 0 for kind in kinds),
            self.sources(passages),
        )

    def sources(self, passages: Any) -> Sources:
        """The digests of passages; empty where there are none."""
        return frozenset() if passages is None else sources_of(passages, self._key)

    def _digest(self, text: str) -> int:
        known = self._known.get(text)
        if known is None:
            digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4, key=self._key)
            known = int.from_bytes(digest.digest(), "little") or 1
            if len(self._known) < self._MOST and len(text) < 40:
                self._known[text] = known
        return known


def _plain(kind: object) -> str:
    if isinstance(kind, frozenset):
        return "\x00".join(sorted(kind))
    return "\x00".join(kind) if isinstance(kind, tuple) else str(kind)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A stored question near the one asked: its entry's key, the cosine, its profile, its answer's group.

    ``trusted``: it was seen often enough to be served to others.
    """

    key: str
    similarity: float
    profile: Profile
    group: str
    trusted: bool = True


@dataclass(frozen=True, slots=True)
class Choice:
    """The candidate and its features; ``veto``: it may not be served, as it differs in what it may never differ in."""

    key: str
    features: tuple[float, ...]
    veto: bool


def choose(profile: Profile, neighbours: Sequence[Neighbour], veto: Sequence[str]) -> Choice | None:
    """The candidate among the neighbours, nearest first; None where there is none."""
    if not neighbours:
        return None
    nearest = neighbours[0].similarity
    voices: dict[str, float] = {}
    for n in neighbours:
        voices[n.group] = voices.get(n.group, 0.0) + math.exp((n.similarity - nearest) / _SOFTER)
    best = max(voices, key=lambda group: voices[group])
    own = [n for n in neighbours if n.group == best]
    others = [n for n in neighbours if n.group != best]
    allowed = [
        n
        for n in own
        if n.trusted and not profile.differs(n.profile, veto) and not profile.outdates(n.profile)
    ]
    candidate = (allowed or own)[0]
    overlaps = {n.key: _overlap(profile.words, n.profile.words) for n in neighbours}
    rival = others[0].similarity if others else neighbours[-1].similarity
    rival_words = max((overlaps[n.key] for n in others), default=min(overlaps.values()))
    cosine, vote = candidate.similarity, voices[best] / sum(voices.values())
    first = neighbours[:6]
    features = (
        1.0,
        (cosine - 0.8) * 10,
        (own[0].similarity - rival) * 10,
        (sum(n.group == best for n in first) / len(first) - 0.5) * 2,
        (vote - 0.7) * 4,
        min(cosine, 0.9) * vote * 4 - 2.5,
        (overlaps[candidate.key] - 0.4) * 3,
        (max(overlaps[n.key] for n in own) - rival_words) * 4,
        _shared(profile.sources, candidate.profile.sources),
        *(float(profile.differs(candidate.profile, (kind,))) for kind in _SOFT_KINDS),
    )
    return Choice(candidate.key, features, not allowed)


def _shared(one: Sources, other: Sources) -> float:
    """How many sources are the same, from -1 to 1; 0 where nobody said what they are."""
    return 2.0 * len(one & other) / len(one | other) - 1.0 if one or other else 0.0


def _overlap(one: frozenset[int], other: frozenset[int]) -> float:
    shared = len(one & other)
    return shared / max(1, len(one) + len(other) - shared)
