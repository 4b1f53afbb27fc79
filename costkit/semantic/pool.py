"""The semantic tier of one wrapped function at work: encoder, index and gate."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from costkit import codec
from costkit.bound import Bound, Passage
from costkit.bound.ladder import rungs_of
from costkit.bound.tended import LABEL, Tended, evidence_of
from costkit.embed import Encoder, Vectors
from costkit.embed.encoder import MOST_CHARS
from costkit.errors import EncoderError, JudgeError
from costkit.index import Index, Row
from costkit.judges import Judge, joined
from costkit.judges.identity import identity
from costkit.judges.said import text_of
from costkit.key import digest
from costkit.ledger import Evidence, GateRow, Ledger
from costkit.semantic.claimed import claimed, readable
from costkit.semantic.features import NEIGHBOURS, PRIOR, Neighbour, Profile, Profiler, choose
from costkit.semantic.judging import Judging
from costkit.semantic.settings import Semantic
from costkit.semantic.sources import legible
from costkit.store import Entry, Moment
from costkit.texts import refuses

__all__ = ["Meaning", "Pool", "Sought", "group_of", "may_enter"]

# What labels are counted by: features, marks, rungs, the way the score is fitted. Another way is another gate.
_FORM = 2


@dataclass(frozen=True, slots=True)
class Meaning:
    """What is known of the tier before a call: settings, bound, judge, encoder, and the arguments it leaves out."""

    settings: Semantic
    bound: Bound
    judge: Judge
    encoder: Encoder

    @property
    def tested(self) -> Bound:
        """The bound that labels are tested against: what the judge misses is made up for.

        Where its sensitivity was measured, half of what the confidence leaves open is spent on that.
        """
        if self.judge.exact:
            return self.bound
        confidence = (1 + self.bound.confidence) / 2
        missed = self.bound.max_error * self.judge.sensitivity(confidence)
        return replace(self.bound, max_error=missed, confidence=confidence)


@dataclass(frozen=True, slots=True)
class Sought:
    """What was found for one call. ``passage`` is the gate's decision; ``key`` and ``entry`` are the candidate's."""

    gate: str
    passage: Passage
    scope_id: str
    namespace: str
    vector: Vectors
    profile: Profile
    question: Any
    key: str | None = None
    entry: Entry | None = None

    @property
    def serves(self) -> bool:
        """Whether the candidate may be served to this call."""
        return self.passage.kind == "served" and self.entry is not None

    @property
    def audits(self) -> bool:
        """Whether the candidate would have been served, and is checked instead."""
        return self.passage.kind == "audit"

    def unserved(self) -> Sought:
        """The same where the candidate could not be read after all: there was none."""
        passage = replace(self.passage, kind="none", rung=None, risk=None, features=None, chance=1.0)
        return replace(self, passage=passage, key=None, entry=None)

    def unlabelled(self) -> Sought:
        """The same where no answer of the reference path tells what the candidate was."""
        if self.passage.kind == "audit":
            return replace(self, passage=replace(self.passage, kind="unanswered"))
        if self.passage.kind == "declined":
            return replace(self, passage=replace(self.passage, kind="unlabelled"))
        return self

    def evidence(self, query_id: str, at: float, wrong: bool | None = None) -> Evidence:
        """The row for the ledger."""
        return evidence_of(self.gate, self.passage, query_id=query_id, at=at, wrong=wrong)


class Pool:
    """Looks for stored answers, admits new ones, and keeps the gates of one function.

    Args:
        name, version: the function's.
        rules: what else decides which answers may stand for which calls: who shares, what is left out, what is stored
            and for how long; functions among them.
        known: the kit's gates by their id, for functions that are wrapped more than once.
        key: what the words of stored questions are digested with.
        get: the entry stored under a scope and key, or None.
        warn: says something once.
        reads: what the judge is shown of an answer, or of a stream's chunk (None: nothing), where it is not the thing
            itself.
    """

    def __init__(
        self,
        meaning: Meaning,
        *,
        name: str,
        version: str,
        rules: tuple[object, ...] = (),
        index: Index,
        ledger: Ledger,
        known: dict[str, Tended],
        key: bytes,
        get: Callable[[str, str, float], Entry | None],
        warn: Callable[[str], None],
        reads: Callable[[Any], Any] | None = None,
    ) -> None:
        self.meaning, self.name, self.version = meaning, name, version
        self._rules = identity(rules, meaning.settings.admit)
        self._reads = reads
        self.gates: dict[str, Tended] = {}
        self._known = known
        self._index, self._ledger, self._get, self._warn = index, ledger, get, warn
        self.key, self.profiler = key, Profiler(key)
        self._lock = threading.Lock()
        self._judging = Judging(self._wrong, self.label)

    def tended(self, model: str | None) -> Tended:
        """The gate for calls to this model; another encoder, judge, setting or version is another gate."""
        found = self.gates.get(model or "")
        if found is None:
            found = self._open(model)
        return found

    def _open(self, model: str | None) -> Tended:
        meaning, settings = self.meaning, self.meaning.settings
        about = {
            "encoder": meaning.encoder.id, "judge": meaning.judge.id, "judge_name": meaning.judge.name,
            "model": model, "text": settings.text, "sources": settings.sources, "veto": sorted(settings.veto),
            "sightings": settings.sightings, "rules": self._rules,
            "form": identity(_FORM, PRIOR, rungs_of(meaning.bound)),
        }  # fmt: skip
        bound = meaning.tested
        limits = {
            "max_error": bound.max_error, "per": bound.per, "confidence": bound.confidence, "audit": bound.audit,
            "arl": bound.arl, "asked": meaning.bound.max_error,
        }  # fmt: skip
        text = json.dumps(["semantic", self.name, self.version, about, limits], sort_keys=True)
        id = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        row = GateRow(id, self.name, self.version, "semantic", limits, about, time.time())

        def connect() -> sqlite3.Connection:
            self._ledger.name_gate(row)  # the file may be another one than last time
            return self._ledger.reader()

        with self._lock:
            if (model or "") not in self.gates:
                made = Tended(id, bound, PRIOR, connect, self._ledger.keep_state)
                self.gates[model or ""] = self._known.setdefault(id, made)
            return self.gates[model or ""]

    def seek(
        self,
        arguments: Mapping[str, Any],
        *,
        keyed: Mapping[str, Any],
        model: str | None,
        scope_id: str,
        scope: str | None,
        tag: str | None = None,
        epoch: str,
        moment: Moment,
        stream: bool,
        ttl: float | None = None,
        renews: bool = False,
    ) -> Sought | None:
        """What is stored that means the same, and what the gate says; None where the call has no text to go by.

        ``keyed`` are the arguments that must be identical, the claimed one among them; ``scope`` and ``tag`` are
        labels; ``ttl`` is what now holds, for an entry may have been made under a longer one. ``renews``: only to find
        where the answer will stand, no call of anybody's.
        """
        read = self._read(arguments, model)
        if read is None:
            return None
        text, rest, vector, tended = read
        namespace = self.namespace(keyed, rest, tended)
        passages = arguments.get(self.meaning.settings.sources or "")
        profile = self.profiler.of(text, passages)
        if renews:
            nothing = Passage("none", None, None, None, 1.0, tended.generation, scope, tag)
            return Sought(tended.id, nothing, scope_id, namespace, vector, profile, text)
        near = self._index.search(scope_id, namespace, vector, k=NEIGHBOURS, now=moment.wall, epoch=epoch)
        added = {row.key: row.added for row in near.rows}
        neighbours = self._neighbours(near.rows, near.similarities.tolist())
        choice, entry = choose(profile, neighbours, self.meaning.settings.veto), None
        while choice is not None:
            found = choice.key
            entry = self._get(scope_id, found, moment.wall)
            if entry is None:
                self._index.drop(scope_id, namespace, found)  # its answer is gone from the store
            # What now stands under the key may be another answer than the one that was let in: a refusal, a failure.
            elif entry.at == added[found] and entry.stream == stream and _fresh(entry, moment, epoch, ttl):
                break
            neighbours = [one for one in neighbours if one.key != found]
            choice, entry = choose(profile, neighbours, self.meaning.settings.veto), None
        key = None if choice is None else choice.key
        passage = tended.decide(
            None if choice is None else choice.features,
            veto=choice is not None and choice.veto,
            scope=scope,
            tag=tag,
            pair=None if entry is None else self.profiler.pair(text, f"{key} {entry.at}"),
        )
        if passage.kind == "served" and self._ledger.failing:
            passage = replace(passage, kind="declined", chance=1.0)  # what nobody can check is not served
        return Sought(tended.id, passage, scope_id, namespace, vector, profile, text, key, entry)

    def _read(
        self, arguments: Mapping[str, Any], model: str | None
    ) -> tuple[str, Any, Vectors, Tended] | None:
        """The claimed text, what must be identical of its argument, its vector and the gate; None without a text."""
        value = arguments.get(self.meaning.settings.text)
        asked = claimed(value)
        if asked is None:
            if not readable(value):
                self._warn(
                    f"{self.name}: {self.meaning.settings.text!r} is neither text nor a list of messages as mappings, "
                    "so such calls have no semantic tier; name another argument in costkit.semantic(...)"
                )
            return None
        text, rest = asked
        if len(text) > MOST_CHARS:
            self._warn(
                f"{self.name}: calls with texts of more than {MOST_CHARS} characters have no semantic tier"
            )
            return None
        try:
            return text, rest, self.meaning.encoder.one(text), self.tended(model)
        except EncoderError as exc:
            self._warn(f"{self.name}: a call went without the semantic tier ({exc})")
            return None

    def namespace(self, keyed: Mapping[str, Any], rest: Any, tended: Tended) -> str:
        """A digest of all that must be identical, and of the gate and its demotions; raises UnkeyableArgument.

        Words that were digested with another key are another's: their shares could not be told.
        """
        settings, gate = self.meaning.settings, f"{tended.id} {tended.generation}"
        apart = {settings.text, settings.sources}
        if settings.sources and not legible(keyed.get(settings.sources)):
            self._warn(
                f"{self.name}: not all of {settings.sources!r} reads as passages (texts, pairs of id and text, "
                "mappings or objects with id and text), so it must be identical for an answer to be served by meaning"
            )
            apart.discard(settings.sources)
        same = {name: value for name, value in keyed.items() if name not in apart}
        return digest(None, self.name, self.version, {**same, "semantic()": [gate, self.key, rest]})

    def admit(self, sought: Sought, *, key: str, value: Any, entry: Entry) -> None:
        """Let a stored answer of the reference path stand for calls that mean the same."""
        settings = self.meaning.settings
        answer = self._answer(value, entry.stream)
        group = group_of(self.meaning.judge, answer) if may_enter(settings, answer) else None
        if group is None:
            self._index.drop(sought.scope_id, sought.namespace, key)
            return
        row = Row(
            key=key,
            added=entry.at,
            expires=None if entry.ttl is None else entry.at + entry.ttl,
            epoch=entry.epoch,
            answer=bytes.fromhex(group),
            features=sought.profile.pack(),
        )
        self._index.add(sought.scope_id, sought.namespace, row, sought.vector)

    def judge(self, sought: Sought, value: Any, *, query_id: str, stream: bool) -> bool | None:
        """Whether the candidate was wrong, by the reference answer; None: a slow judge has been asked.

        A judge that fails, or a candidate that cannot be read, counts as wrong.
        """
        if sought.entry is None or not sought.passage.labelled:
            return None
        judge = self.meaning.judge
        if judge.says is None and judge.score is None:
            return self._wrong(sought, value, stream)
        if self._judging.ask(sought, value, query_id=query_id, stream=stream):
            return None
        if sought.audits:
            return True
        self.label(sought, query_id, None)
        return None

    def close(self) -> None:
        """Wait for the judge."""
        self._judging.close()
        for tended in list(self.gates.values()):
            tended.close()

    def after_fork(self) -> None:
        """The child has none of the parent's threads."""
        self._lock = threading.Lock()
        self._judging.after_fork()
        self.meaning.encoder.after_fork()
        for tended in self.gates.values():
            tended.after_fork()

    def label(self, sought: Sought, query_id: str, wrong: bool | None) -> None:
        """Say by itself what a candidate turned out to be; None: nobody will."""
        label = Evidence(
            gate=sought.gate, query_id=query_id, at=time.time(), kind=LABEL, rung=None, risk=None, features=None,
            chance=sought.passage.chance, generation=sought.passage.generation, wrong=wrong,
        )  # fmt: skip
        self._ledger.testify([label])

    def _wrong(self, sought: Sought, value: Any, stream: bool) -> bool:
        assert sought.entry is not None and sought.key is not None
        try:
            served, reference = (self._answer(one, stream) for one in (sought.entry.value(), value))
            right = self.meaning.judge.compare(served, reference, sought.question)
        except codec.Unreadable:
            return True
        except JudgeError as exc:
            self._warn(f"{self.name}: {exc}; the answer counts as wrong")
            return True
        place = sought.scope_id, sought.namespace, sought.key
        if not right and sought.audits:
            self._index.drop(*place)  # it would have been served, and would be again
        elif right and self.meaning.settings.sightings > 1:
            self._index.confirm(*place)
        return not right

    def _answer(self, value: Any, stream: bool) -> Any:
        """What judges compare: the answer, of a stream the one that its chunks make."""
        reads = self._reads
        if not stream:
            return value if reads is None else reads(value)
        chunks = value if reads is None else [told for chunk in value if (told := reads(chunk)) is not None]
        return joined(chunks)

    def _neighbours(self, rows: tuple[Row, ...], similarities: list[float]) -> list[Neighbour]:
        found, sightings = list[Neighbour](), self.meaning.settings.sightings
        for row, similarity in zip(rows, similarities, strict=True):
            try:
                profile = Profile.unpack(row.features)
            except struct.error:
                continue
            found.append(
                Neighbour(row.key, similarity, profile, row.answer.hex(), row.trust + 1 >= sightings)
            )
        return found


def may_enter(settings: Semantic, answer: Any) -> bool:
    """Whether an answer may stand for other calls: no refusal, and none that the user's ``admit`` keeps out."""
    return not _is_refusal(answer) and (settings.admit is None or bool(settings.admit(answer)))


def group_of(judge: Judge, answer: Any) -> str | None:
    """What answers are told apart by: the judge's own form, else their text; None where an answer cannot be stored."""
    group = judge.group(answer)
    if group is not None:
        return group
    try:
        return hashlib.sha256(codec.encode(answer)).hexdigest()[:32]
    except codec.NotStorable:
        return None


def _fresh(entry: Entry, moment: Moment, epoch: str, ttl: float | None) -> bool:
    """Whether an answer may stand for other calls: neither failed nor past its ttl, or the one that holds now."""
    if entry.failed or not entry.usable(moment, epoch):
        return False
    age = entry.age(moment)
    return all(limit is None or age < limit for limit in (entry.ttl, ttl))


def _is_refusal(answer: Any) -> bool:
    if answer is None:
        return True
    try:
        text, refused = text_of(answer)
    except JudgeError:  # it has no text of its own
        return False
    return refused or refuses(text)
