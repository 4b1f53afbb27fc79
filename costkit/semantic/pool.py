"""The semantic tier of one wrapped function at work: encoder, index and gate."""

from __future__ import annotations

import hashlib
import json
import struct
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from costkit import codec
from costkit.bound import Bound, Passage
from costkit.bound.tended import LABEL, Tended, evidence_of
from costkit.embed import Encoder, Vectors
from costkit.errors import EncoderError, JudgeError
from costkit.index import Index, Row
from costkit.judges import Judge, joined
from costkit.key import digest
from costkit.ledger import Evidence, GateRow, Ledger
from costkit.semantic.claimed import claimed
from costkit.semantic.features import NEIGHBOURS, PRIOR, Neighbour, Profile, Profiler, choose
from costkit.semantic.settings import Semantic
from costkit.store import Entry, Moment

__all__ = ["Meaning", "Pool", "Sought", "group_of"]

# Answers that wait for a slow judge; those past that are not judged, and so count as wrong.
_MOST_WAITING = 1_000


@dataclass(frozen=True, slots=True)
class Meaning:
    """What is known of the tier before a call: settings, bound, judge, encoder, and the arguments it leaves out."""

    settings: Semantic
    bound: Bound
    judge: Judge
    encoder: Encoder

    @property
    def tested(self) -> Bound:
        """The bound that labels are tested against: what the judge misses is made up for."""
        return replace(self.bound, max_error=self.bound.max_error * self.judge.sensitivity())


@dataclass(frozen=True, slots=True)
class Sought:
    """What was found for one call. ``passage`` is the gate's decision; ``key`` and ``entry`` are the candidate's."""

    gate: str
    passage: Passage
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

    def evidence(self, query_id: str, at: float, wrong: bool | None = None) -> Evidence:
        """The row for the ledger."""
        return evidence_of(self.gate, self.passage, query_id=query_id, at=at, wrong=wrong)


class Pool:
    """Looks for stored answers, admits new ones, and keeps the gates of one function.

    Args:
        name, version: the function's.
        key: what the words of stored questions are digested with.
        get: the entry stored under a scope and key, or None.
        warn: says something once.
    """

    def __init__(
        self,
        meaning: Meaning,
        *,
        name: str,
        version: str,
        index: Index,
        ledger: Ledger,
        key: bytes,
        get: Callable[[str, str, float], Entry | None],
        warn: Callable[[str], None],
    ) -> None:
        self.meaning, self.name, self.version = meaning, name, version
        self.gates: dict[str, Tended] = {}
        self._index, self._ledger, self._get, self._warn = index, ledger, get, warn
        self._profiler = Profiler(key)
        self._lock = threading.Lock()
        self._judging: ThreadPoolExecutor | None = None
        self._waiting = 0

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
            "sightings": settings.sightings,
        }  # fmt: skip
        bound = meaning.tested
        limits = {
            "max_error": bound.max_error, "per": bound.per, "confidence": bound.confidence, "audit": bound.audit,
            "arl": bound.arl, "asked": meaning.bound.max_error,
        }  # fmt: skip
        text = json.dumps(["semantic", self.name, self.version, about, limits], sort_keys=True)
        id = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        with self._lock:
            if (model or "") not in self.gates:
                self._ledger.name_gate(
                    GateRow(id, self.name, self.version, "semantic", limits, about, time.time())
                )
                self.gates[model or ""] = Tended(id, bound, PRIOR, self._ledger.reader)
            return self.gates[model or ""]

    def seek(
        self,
        arguments: Mapping[str, Any],
        *,
        keyed: Mapping[str, Any],
        model: str | None,
        scope_id: str,
        scope: str | None,
        epoch: str,
        moment: Moment,
        stream: bool,
    ) -> Sought | None:
        """What is stored that means the same, and what the gate says; None where the call has no text to go by.

        ``keyed`` are the arguments that must be identical, the claimed one among them; ``scope`` is its label.
        """
        asked = claimed(arguments.get(self.meaning.settings.text))
        if asked is None:
            return None
        text, rest = asked
        try:
            vector = self.meaning.encoder.one(text)
            tended = self.tended(model)
        except EncoderError as exc:
            self._warn(f"{self.name}: a call went without the semantic tier ({exc})")
            return None
        namespace = self._namespace(keyed, rest, f"{tended.id} {tended.generation}")
        profile = self._profiler.of(text)
        near = self._index.search(scope_id, namespace, vector, k=NEIGHBOURS, now=moment.wall, epoch=epoch)
        choice = choose(
            profile, self._neighbours(near.rows, near.similarities.tolist()), self.meaning.settings.veto
        )
        key, entry = None, None
        if choice is not None:
            entry = self._get(scope_id, choice.key, moment.wall)
            usable = entry is not None and entry.usable(moment, epoch) and entry.stream == stream
            if not usable or (entry is not None and entry.failed):
                choice, entry = None, None
            else:
                key = choice.key
        passage = tended.decide(
            None if choice is None else choice.features, veto=choice is not None and choice.veto, scope=scope
        )
        return Sought(tended.id, passage, namespace, vector, profile, text, key, entry)

    def admit(self, sought: Sought, *, scope_id: str, key: str, value: Any, entry: Entry) -> None:
        """Let a stored answer of the reference path stand for calls that mean the same."""
        settings = self.meaning.settings
        answer = joined(value) if entry.stream else value
        if settings.admit is not None and not settings.admit(answer):
            return
        group = group_of(self.meaning.judge, answer)
        if group is None:
            return
        row = Row(
            key=key,
            added=entry.at,
            expires=None if entry.ttl is None else entry.at + entry.ttl,
            epoch=entry.epoch,
            answer=bytes.fromhex(group),
            features=sought.profile.pack(),
        )
        self._index.add(scope_id, sought.namespace, row, sought.vector)

    def judge(self, sought: Sought, value: Any, *, query_id: str, stream: bool) -> bool | None:
        """Whether the candidate was wrong, by the reference answer; None: a slow judge has been asked.

        A judge that fails, or a candidate that cannot be read, counts as wrong.
        """
        if sought.entry is None or not sought.passage.labelled:
            return None
        judge = self.meaning.judge
        if judge.says is None and judge.score is None:
            return self._wrong(sought, value, stream)
        with self._lock:
            if self._waiting >= _MOST_WAITING:
                return True
            self._waiting += 1
            if self._judging is None:
                self._judging = ThreadPoolExecutor(1, thread_name_prefix="costkit-judge")
            self._judging.submit(self._judge_later, sought, value, query_id, stream)
        return None

    def close(self) -> None:
        """Wait for the judge."""
        if self._judging is not None:
            self._judging.shutdown(wait=True)
            self._judging = None
        for tended in self.gates.values():
            tended.close()

    def after_fork(self) -> None:
        """The child has none of the parent's threads."""
        self._lock, self._judging, self._waiting = threading.Lock(), None, 0
        self.meaning.encoder.after_fork()
        for tended in self.gates.values():
            tended.after_fork()

    def _judge_later(self, sought: Sought, value: Any, query_id: str, stream: bool) -> None:
        wrong = self._wrong(sought, value, stream)
        with self._lock:
            self._waiting -= 1
        label = Evidence(
            gate=sought.gate, query_id=query_id, at=time.time(), kind=LABEL, rung=None, risk=None, features=None,
            chance=sought.passage.chance, generation=sought.passage.generation, wrong=wrong,
        )  # fmt: skip
        self._ledger.testify([label])

    def _wrong(self, sought: Sought, value: Any, stream: bool) -> bool:
        assert sought.entry is not None
        try:
            served = sought.entry.value()
            if stream:
                served, value = joined(served), joined(value)
            return not self.meaning.judge.compare(served, value, sought.question)
        except codec.Unreadable:
            return True
        except JudgeError as exc:
            self._warn(f"{self.name}: {exc}; the answer counts as wrong")
            return True

    def _namespace(self, keyed: Mapping[str, Any], rest: Any, gate: str) -> str:
        settings = self.meaning.settings
        same = {name: value for name, value in keyed.items() if name not in (settings.text, settings.sources)}
        return digest(None, self.name, self.version, {**same, "semantic()": [gate, rest]})

    def _neighbours(self, rows: tuple[Row, ...], similarities: list[float]) -> list[Neighbour]:
        found = []
        for row, similarity in zip(rows, similarities, strict=True):
            try:
                profile = Profile.unpack(row.features)
            except struct.error:
                continue
            found.append(Neighbour(row.key, similarity, profile, row.answer.hex()))
        return found


def group_of(judge: Judge, answer: Any) -> str | None:
    """What answers are told apart by: the judge's own form, else their text; None where an answer cannot be stored."""
    group = judge.group(answer)
    if group is not None:
        return group
    try:
        return hashlib.sha256(codec.encode(answer)).hexdigest()[:32]
    except codec.NotStorable:
        return None
