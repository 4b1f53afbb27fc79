"""The semantic tier without calls: what it would have done with questions whose answers are known.

Rows go through the same choice and the same gate as calls do, in their order; nothing is stored and nobody is asked.
Identical rows are exact hits, rows that are served do not enter the pool. Of a block of rows all similarities are
computed at once, for every gate that is rehearsed: what each has in its pool is a mask over them, and the search exact.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from costkit.bound import Gate, Passage
from costkit.embed import Vectors
from costkit.errors import JudgeError
from costkit.semantic.features import NEIGHBOURS, Neighbour, Profile, Profiler, choose
from costkit.semantic.pool import Meaning, group_of, may_enter
from costkit.semantic.sources import Sources

__all__ = ["Asked", "Met", "Rehearsal"]

Told = Callable[[int, int], None]
"""Called with how much is done, and of how much."""

_BLOCK, _EMBEDDED = 256, 256
_ABSENT = np.float32(-4.0)  # added to a cosine it is below every other


@dataclass(frozen=True, slots=True)
class Asked:
    """One row: what was asked, and what the answer was.

    ``text`` is the claimed text, ``same`` stands for all that must be identical besides, ``scope`` says who may share
    answers, ``at`` is in Unix seconds. ``tag`` names the row in the evidence; ``known``: the gate has seen it;
    ``sources`` are the passages at hand.
    """

    text: str
    answer: Any
    same: str = ""
    scope: str | None = None
    at: float = 0.0
    tag: str | None = None
    known: bool = False
    sources: Any = None


@dataclass(frozen=True, slots=True)
class Met:
    """What the tier would have done with one row.

    ``kind``: "exact" (the identical row was stored), "known" (put into the pool, no more), or the passage's.
    ``candidate`` is the number of the row whose answer would stand in, ``wrong`` what the judge says of it (None:
    no candidate, or not asked), ``similarity`` the cosine to it.
    """

    kind: str
    passage: Passage | None = None
    candidate: int | None = None
    wrong: bool | None = None
    similarity: float | None = None


@dataclass(slots=True)
class _Room:
    """The different texts (with what was at hand) of one scope and namespace, in the order they were first asked."""

    texts: list[int] = field(default_factory=list[int])
    places: dict[int, int] = field(default_factory=dict[int, int])
    vectors: Vectors = field(default_factory=lambda: np.empty((0, 0), np.float32))


class Rehearsal:
    """Rows made ready: embedded, profiled, their answers grouped. Any number of gates may go through them.

    Args:
        meaning: the tier's settings, judge and encoder.
        rows: in the order they were asked.
        profiler: makes the profiles of the texts.
        admits: whether the exact tier would have stored an answer.
        ttl: seconds for which a stored answer is served; None: no limit.
        told: of the progress of embedding.

    Raises:
        EncoderError: the encoder gave no usable vectors.
    """

    def __init__(
        self,
        meaning: Meaning,
        rows: Sequence[Asked],
        *,
        profiler: Profiler | None = None,
        admits: Callable[[Any], bool] | None = None,
        ttl: float | None = None,
        told: Told | None = None,
    ) -> None:
        self.meaning, self.rows, self.ttl = meaning, rows, ttl
        self._admits = admits
        self._profiler = profiler = Profiler(b"") if profiler is None else profiler
        numbers: dict[tuple[str, Sources], int] = {}
        self._text = [
            numbers.setdefault((row.text, profiler.sources(row.sources)), len(numbers)) for row in rows
        ]
        self.profiles: list[Profile] = [
            profiler.of(text)._replace(sources=sources) for text, sources in numbers
        ]
        self.vectors = _embedded(meaning, [text for text, _ in numbers], told)
        self._lay_out()
        answers: dict[str, tuple[str | None, str | None]] = {}
        self._groups = [_groups_of(meaning, row.answer, answers) for row in rows]
        self._verdicts: dict[tuple[int, int], bool] = {}

    def run(
        self,
        gates: Sequence[Gate],
        *,
        shadow: bool = False,
        whole: bool = False,
        seed: int = 0,
        told: Told | None = None,
    ) -> list[list[Met]]:
        """What each gate does with each row: as with calls, or in ``shadow``, where each candidate is labelled.

        The gates learn as they go. ``seed`` is of the coins that choose audits. In shadow the pool holds what it would
        hold if what may be served were; ``whole``: every answer.
        """
        tiers = [_Tier(self, gate, shadow, whole, random.Random(seed)) for gate in gates]
        for start in range(0, len(self.rows), _BLOCK):
            numbers = range(start, min(start + _BLOCK, len(self.rows)))
            near = self._near(numbers)
            for number in numbers:
                for tier in tiers:
                    tier.meet(number, near[number])
                if told is not None:
                    told(number + 1, len(self.rows))
        return [tier.met for tier in tiers]

    def place(self, number: int) -> tuple[int, int]:
        """Of a row: the number of its room, and its text's place there."""
        room = self._room[number]
        return room, self.rooms[room].places[self._text[number]]

    def profile(self, number: int) -> Profile:
        """The profile of a row's text."""
        return self.profiles[self._text[number]]

    def vector(self, number: int) -> Vectors:
        """The unit vector of a row's text."""
        vector: Vectors = self.vectors[self._text[number]]
        return vector

    def pair(self, number: int, candidate: int) -> str:
        """A digest of a row's text and the row whose answer was found for it."""
        return self._profiler.pair(self.rows[number].text, f"{candidate} {self.rows[candidate].text}")

    def group(self, number: int) -> str | None:
        """What a row's answer is told apart by in the pool; None where it may not enter it."""
        return self._groups[number][0]

    def storable(self, number: int) -> bool:
        """Whether the exact tier would have stored the row's answer."""
        return self._admits is None or self._admits(self.rows[number].answer)

    def wrong(self, candidate: int, number: int) -> bool:
        """Whether the candidate's answer is wrong for this row; a judge that fails says so."""
        judge = self.meaning.judge
        if judge.says is None and judge.score is None:
            one, other = self._groups[candidate][1], self._groups[number][1]
            return one is None or one != other
        found = self._verdicts.get((candidate, number))
        if found is None:
            row = self.rows[number]
            try:
                found = not judge.compare(self.rows[candidate].answer, row.answer, row.text)
            except JudgeError:
                found = True
            self._verdicts[candidate, number] = found
        return found

    def _lay_out(self) -> None:
        rooms: dict[tuple[str | None, str], int] = {}
        self.rooms: list[_Room] = []
        self._room: list[int] = []
        for row, text in zip(self.rows, self._text, strict=True):
            number = rooms.setdefault((row.scope, row.same), len(rooms))
            if number == len(self.rooms):
                self.rooms.append(_Room())
            room = self.rooms[number]
            if text not in room.places:
                room.places[text] = len(room.texts)
                room.texts.append(text)
            self._room.append(number)
        for room in self.rooms:
            whole = room.texts == list(range(len(self.vectors)))
            room.vectors = self.vectors if whole else self.vectors[room.texts]

    def _near(self, numbers: range) -> dict[int, Vectors]:
        """Of each row, the cosine to every text of its room that was asked until the end of this block."""
        of_room: dict[int, list[int]] = {}
        for number in numbers:
            of_room.setdefault(self._room[number], []).append(number)
        near: dict[int, Vectors] = {}
        for at, asked in of_room.items():
            vectors = self.rooms[at].vectors
            places = [self.place(number)[1] for number in asked]
            similar = vectors[places] @ vectors[: max(places) + 1].T
            near.update(zip(asked, similar, strict=True))
        return near


class _Tier:
    """One gate, with what it would have in its pool and in the exact tier."""

    def __init__(self, of: Rehearsal, gate: Gate, shadow: bool, whole: bool, coins: random.Random) -> None:
        self._of, self._gate, self._shadow, self._whole, self._coins = of, gate, shadow, whole, coins
        self._serves = False
        self.met: list[Met] = []
        self._tags: set[str] = set()
        self._stored: list[dict[int, int]] = [
            {} for _ in of.rooms
        ]  # a text's place to the row that was stored
        self._pooled = [np.full(len(room.texts), -1, np.int64) for room in of.rooms]
        self._absent = [np.full(len(room.texts), _ABSENT, np.float32) for room in of.rooms]
        self._added = [np.full(len(room.texts), -np.inf) for room in of.rooms]
        self._seen: list[dict[int, int]] = [{} for _ in of.rooms]  # how often a place's answer was given

    def meet(self, number: int, near: Vectors) -> None:
        """The next row; ``near`` are the cosines to the texts of its room."""
        of, row = self._of, self._of.rows[number]
        room, place = of.place(number)
        stored = self._stored[room].get(place)
        if stored is not None and not self._is_old(of.rows[stored].at, row.at):
            quick = of.meaning.judge.says is None and of.meaning.judge.score is None
            self.met.append(Met("exact", None, stored, of.wrong(stored, number) if quick else None))
            return
        met = self._sought(number, room, near)
        self.met.append(met)
        demoted = False
        if met.passage is not None:
            demoted = self._gate.see(met.passage, met.wrong if met.passage.labelled else None)
            if demoted:
                self._empty()
        if not (self._serves and not self._whole) and of.storable(number):
            self._stored[room][place] = number
            # What a call admits goes to the namespace that it looked in, which a demotion leaves behind.
            if of.group(number) is not None and not demoted:
                self._pooled[room][place], self._added[room][place] = number, row.at
                self._absent[room][place] = 0.0
                self._seen[room][place] = 1

    def _sought(self, number: int, room: int, near: Vectors) -> Met:
        of, row, gate = self._of, self._of.rows[number], self._gate
        self._serves = False
        if row.known or (row.tag is not None and row.tag in self._tags):
            return Met("known")
        if row.tag is not None:
            self._tags.add(row.tag)
        neighbours = self._neighbours(room, near, row.at)
        choice = choose(of.profile(number), neighbours, of.meaning.settings.veto)
        coin = self._coins.random()
        if choice is None:
            passage = gate.decide(None, coin=coin, scope=row.scope, tag=row.tag)
        else:
            passage = gate.decide(choice.features, coin=coin, veto=choice.veto, scope=row.scope, tag=row.tag)
            passage = replace(passage, pair=of.pair(number, int(choice.key)))
        self._serves = passage.kind == "served"
        if self._shadow:
            passage = replace(passage, kind="rehearsed", chance=1.0)
        if choice is None:
            return Met(passage.kind, passage)
        candidate = int(choice.key)
        similarity = next(n.similarity for n in neighbours if n.key == choice.key)
        wrong = of.wrong(candidate, number)
        place = of.place(candidate)[1]
        if passage.kind == "audit" and wrong:
            self._absent[room][place] = _ABSENT
        elif passage.labelled and not wrong:
            self._seen[room][place] += 1
        return Met(passage.kind, passage, candidate, wrong, similarity)

    def _neighbours(self, room: int, near: Vectors, now: float) -> list[Neighbour]:
        of, pooled = self._of, self._pooled[room]
        cosines = near + self._absent[room][: len(near)]
        if of.ttl is not None:
            cosines[self._old(room, len(near), now)] = _ABSENT
        found = []
        for _ in range(min(NEIGHBOURS, len(cosines))):
            place = int(cosines.argmax())
            cosine = float(cosines[place])
            if cosine < -2.0:
                break
            cosines[place] = _ABSENT
            number = int(pooled[place])
            trusted = self._seen[room][place] >= of.meaning.settings.sightings
            found.append(Neighbour(str(number), cosine, of.profile(number), of.group(number) or "", trusted))
        return found

    def _old(self, room: int, size: int, now: float) -> npt.NDArray[np.bool_]:
        assert self._of.ttl is not None
        old: npt.NDArray[np.bool_] = self._added[room][:size] + self._of.ttl <= now
        return old

    def _is_old(self, at: float, now: float) -> bool:
        return self._of.ttl is not None and at + self._of.ttl <= now

    def _empty(self) -> None:
        """A demoted gate looks in another namespace, which is empty at first; the exact tier stays."""
        for absent in self._absent:
            absent.fill(_ABSENT)


def _embedded(meaning: Meaning, texts: list[str], told: Told | None) -> Vectors:
    parts = []
    for start in range(0, len(texts), _EMBEDDED):
        parts.append(meaning.encoder.encode(texts[start : start + _EMBEDDED]))
        if told is not None:
            told(min(start + _EMBEDDED, len(texts)), len(texts))
    return np.concatenate(parts) if parts else np.empty((0, 1), np.float32)


def _groups_of(
    meaning: Meaning, answer: Any, known: dict[str, tuple[str | None, str | None]]
) -> tuple[str | None, str | None]:
    """What an answer is told apart by in the pool, and by the judge's own form."""
    found = known.get(answer) if type(answer) is str else None
    if found is None:
        group = group_of(meaning.judge, answer) if may_enter(meaning.settings, answer) else None
        found = group, meaning.judge.group(answer)
        if type(answer) is str:
            known[answer] = found
    return found
