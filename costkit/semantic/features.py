"""What is known of a candidate beside its neighbours: the features that the gate's score is made of.

Of a stored question no text is kept, only a :class:`Profile`: keyed digests of its words, marks and sources.
Neighbours whose answers are the same by the judge's own grouping speak for one another: the candidate is the nearest
entry of the answer that the nearest questions agree on, not just the nearest entry.
"""

from __future__ import annotations

import functools
import hashlib
import math
import struct
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from costkit.marks import KINDS, marks
from costkit.semantic.sources import Sources, sources_of

__all__ = ["NEIGHBOURS", "PRIOR", "Choice", "Neighbour", "Profile", "Profiler", "choose"]

NEIGHBOURS = 10
_MARKS = len(KINDS)
_KINDS_OF = attrgetter(*KINDS)
_NO_SOURCES: Sources = frozenset()

# A neighbour this much further in cosine speaks e times more softly.
_SOFTER = 0.1

_SOFT = tuple(map(KINDS.index, ("negations", "names", "questions", "order")))

# Before any label: near, agreed on, alone and alike in words and sources is right; another negation, name or question
# is wrong.
PRIOR = (0.0, 0.5, 0.5, 0.3, 0.5, 0.5, 0.3, 0.2, 0.3, -1.0, -0.5, -0.3, -0.3)


class Profile(NamedTuple):
    """Digests of a text's words (ascending), one for each kind of marks (0: none), and the sources at hand.

    A tuple, as :class:`Neighbour`: ten of each are made for one call.
    """

    words: tuple[int, ...]
    marks: tuple[int, ...]
    sources: Sources = _NO_SOURCES

    def pack(self) -> bytes:
        """As bytes, for the index."""
        sources = [number for source in sorted(self.sources) for number in source]
        return struct.pack(
            f"<{len(KINDS)}I{1 + len(sources) + len(self.words)}I",
            *self.marks, len(self.sources), *sources, *self.words,
        )  # fmt: skip

    @classmethod
    def unpack(cls, body: bytes) -> Profile:
        """The inverse of :meth:`pack`; raises struct.error on anything else."""
        numbers = _numbers(len(body) // 4).unpack(body)
        if len(numbers) <= _MARKS:
            raise struct.error("not a profile")
        end = _MARKS + 1 + 2 * numbers[_MARKS]
        if end == _MARKS + 1:
            return cls(numbers[end:], numbers[:_MARKS], _NO_SOURCES)
        if end > len(numbers):
            raise struct.error("not a profile")
        told = zip(numbers[_MARKS + 1 : end : 2], numbers[_MARKS + 2 : end : 2], strict=True)
        return cls(numbers[end:], numbers[:_MARKS], frozenset(told))

    def differs(self, other: Profile, kinds: Sequence[int]) -> bool:
        """Whether the texts differ in one of these kinds of marks, by their places in ``KINDS``."""
        one, two = self.marks, other.marks
        for kind in kinds:  # noqa: SIM110 - any() would make a generator for each neighbour
            if one[kind] != two[kind]:
                return True
        return False

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
        found, digest, known = marks(text), self._digest, self._known
        return Profile(
            tuple(sorted({known.get(word) or digest(word) for word in found.words})),
            tuple([digest(_plain(kind)) if kind else 0 for kind in _KINDS_OF(found)]),
            self.sources(passages),
        )

    def sources(self, passages: Any) -> Sources:
        """The digests of passages; empty where there are none."""
        return _NO_SOURCES if passages is None else sources_of(passages, self._key)

    def pair(self, text: str, candidate: str) -> str:
        """A digest of a question and the stored answer found for it."""
        told = f"{len(text)} {text}{candidate}".encode("utf-8", "surrogatepass")
        return hashlib.blake2b(told, digest_size=8, key=self._key).hexdigest()

    def _digest(self, text: str) -> int:
        known = self._known.get(text)
        if known is None:
            digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4, key=self._key)
            known = int.from_bytes(digest.digest(), "little") or 1
            if len(self._known) < self._MOST and len(text) < 40:
                self._known[text] = known
        return known


@functools.lru_cache(maxsize=256)
def _numbers(count: int) -> struct.Struct:
    return struct.Struct(f"<{count}I")


def _plain(kind: object) -> str:
    if isinstance(kind, frozenset):
        return "\x00".join(sorted(kind))
    return "\x00".join(kind) if isinstance(kind, tuple) else str(kind)


class Neighbour(NamedTuple):
    """A stored question near the one asked: its entry's key, the cosine, its profile, its answer's group.

    ``trusted``: it was seen often enough to be served to others.
    """

    key: str
    similarity: float
    profile: Profile
    group: str
    trusted: bool = True


class Choice(NamedTuple):
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
    best = max(voices, key=voices.__getitem__)
    own = [n for n in neighbours if n.group == best]
    others = [n for n in neighbours if n.group != best]
    kinds = [KINDS.index(kind) for kind in veto]
    allowed = next((n for n in own if n.trusted and _may_stand(profile, n.profile, kinds)), None)
    candidate = allowed or own[0]
    words = frozenset(profile.words)
    alike, others_alike = _overlaps(words, own), _overlaps(words, others)
    rival = others[0].similarity if others else neighbours[-1].similarity
    cosine, vote = candidate.similarity, voices[best] / sum(voices.values())
    agree = sum([n.group == best for n in neighbours[:6]]) / min(6, len(neighbours))
    marks_here, marks_there = profile.marks, candidate.profile.marks
    features = (
        1.0,
        (cosine - 0.8) * 10,
        (own[0].similarity - rival) * 10,
        (agree - 0.5) * 2,
        (vote - 0.7) * 4,
        min(cosine, 0.9) * vote * 4 - 2.5,
        (alike[own.index(candidate)] - 0.4) * 3,
        (max(alike) - max(others_alike, default=min(alike))) * 4,
        _shared(profile.sources, candidate.profile.sources),
        *[float(marks_here[kind] != marks_there[kind]) for kind in _SOFT],
    )
    return Choice(candidate.key, features, allowed is None)


def _may_stand(profile: Profile, other: Profile, kinds: Sequence[int]) -> bool:
    return not profile.differs(other, kinds) and not profile.outdates(other)


def _shared(one: Sources, other: Sources) -> float:
    """How many sources are the same, from -1 to 1; 0 where nobody said what they are."""
    return 2.0 * len(one & other) / len(one | other) - 1.0 if one or other else 0.0


def _overlaps(words: frozenset[int], neighbours: Sequence[Neighbour]) -> list[float]:
    """Of each, the words that both texts have as a share of those that either has."""
    found, size = list[float](), len(words)
    for n in neighbours:
        both = len(words.intersection(n.profile.words))
        found.append(both / (size + len(n.profile.words) - both or 1))
    return found
