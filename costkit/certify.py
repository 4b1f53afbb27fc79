"""Certifying a gate before the first call, from a log or from gold tests.

The rows are rehearsed for the function's own settings: nothing is called and nothing spent. What each candidate turned
out to be goes to the gate as evidence, all rows in one transaction, so that every process folds all of it or none. Each
row of evidence carries a digest of its question, answer, scope and namespace: a row is counted once, however often and
in whatever file it comes again.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import codec
from .bound import Passage, Standing
from .bound.tended import Tended, evidence_of
from .errors import ConfigError, CostkitError, FolderError, JudgeError
from .exact import Exact, exact
from .ledger import Evidence, Ledger
from .ledger.evidence import FRESH, tags
from .plan import Plan
from .semantic.claimed import claimed
from .semantic.features import PRIOR
from .semantic.pool import Pool, Sought
from .semantic.rehearsal import Asked, Met, Rehearsal
from .store import Entry, Moment, Store

__all__ = ["Certification", "Certified", "Certifier", "plan_of"]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and of how much."""

_WRITTEN_WITHIN = 60.0  # seconds

# Pairs of answers to one call by which a judge is measured; fewer where it is asked, which may cost.
_MOST_FRESH, _MOST_ASKED = 2_000, 200


@dataclass(frozen=True, slots=True)
class Certified:
    """What the rows did for the gate of one model.

    ``rows`` were of use; ``candidates`` of them had a stored answer that may mean the same, of which ``wrong`` were
    wrong. ``repeats`` are identical calls, ``known`` were counted before; neither is evidence. ``stored`` answers can
    be served from now on.
    """

    gate: str
    model: str | None
    rows: int
    candidates: int
    wrong: int
    repeats: int
    known: int
    stored: int
    standing: Standing


@dataclass(frozen=True, slots=True)
class Certification:
    """What :meth:`Kit.certify` did: one part for each model. ``left_out``: rows of no use, by the reason."""

    name: str
    gates: tuple[Certified, ...]
    left_out: Mapping[str, int]

    @property
    def open(self) -> bool:
        """Whether every gate may serve now."""
        return bool(self.gates) and all(gate.standing.state == "open" for gate in self.gates)


@dataclass(frozen=True, slots=True)
class _Known:
    """A row, bound to the function's arguments."""

    arguments: Mapping[str, Any]
    answer: Any
    scope_id: str
    label: str | None
    key: str
    text: str
    rest: Any
    model: str | None
    at: float | None
    sources: Any


def plan_of(ask: Any, call: str) -> tuple[Plan, tuple[Any, ...]]:
    """The plan of a wrapped function, and what it is bound to where it is a method.

    Raises:
        ConfigError: it is none, or has no lossy saving.
    """
    plan = getattr(ask, "_plan", None)
    if not isinstance(plan, Plan):
        raise ConfigError(
            f"{call}: {ask!r:.80} is not wrapped; give what @kit.call(...) made of the function"
        )
    if plan.meaning is None:
        raise ConfigError(
            f"{call}: {plan.name} has no saving that needs a certificate; add one to its kit.call, such as "
            "costkit.semantic('question')"
        )
    return plan, getattr(ask, "_bound", ())


class Certifier:
    """Certifies the gates of one wrapped function.

    Args:
        plan, bound: the function's, and what it is bound to.
        pool, store, ledger: the kit's.
        resolve, named: a call's scope, and the scope's id and label.
        now: the moment of certification.
    """

    def __init__(
        self,
        plan: Plan,
        bound: tuple[Any, ...],
        *,
        pool: Pool,
        store: Store,
        ledger: Ledger,
        resolve: Callable[[Plan, Mapping[str, Any]], dict[str, Any] | None],
        named: Callable[[Mapping[str, Any] | None], tuple[str, str | None]],
        now: Moment,
    ) -> None:
        self._plan, self._bound, self._pool, self._store, self._ledger = plan, bound, pool, store, ledger
        self._resolve, self._named, self._now = resolve, named, now
        self._exact: Exact = plan.exact or exact()

    def certify(self, rows: Iterable[Any], *, seed_answers: bool, progress: Progress | None) -> Certification:
        """See :meth:`costkit.Kit.certify`."""
        if seed_answers and self._plan.stream:
            raise ConfigError(
                f"kit.certify(seed_answers=True): {self._plan.name} streams, and a log has no chunks; leave it out"
            )
        known, left_out, first = self._known(rows)
        if not known:
            why = ", ".join(f"{count} x {reason}" for reason, count in left_out.items())
            raise ConfigError(
                f"kit.certify(rows): no row can be used ({f'{why}; {first}' if why else 'there is none'}); give "
                f"{self._text!r} and 'answer' in each (costkit certify: --argument {self._text}=COLUMN)"
            )
        models: dict[str | None, list[_Known]] = {}
        for row in _in_order(known):
            models.setdefault(row.model, []).append(row)
        done = [self._one(model, of, seed_answers, progress) for model, of in models.items()]
        for part in done:
            self._testify(self._fresh(part.gate, [row for row in known if row.model == part.model]))
        return Certification(self._plan.name, tuple(done), left_out)

    def _known(self, rows: Iterable[Any]) -> tuple[list[_Known], dict[str, int], str | None]:
        found: list[_Known] = []
        left_out: Counter[str] = Counter()
        first = None
        for number, row in enumerate(rows, 1):
            try:
                read = self._read(row)
            except TypeError as exc:  # of binding: it names arguments only
                read = str(exc)
            except CostkitError as exc:
                read = f"{type(exc).__name__}: {exc}"
            if isinstance(read, str):
                head = read.partition(": ")[0]
                left_out[head if head.isidentifier() else read] += 1
                first = first or f"row {number}: {read}"
            else:
                found.append(read)
        return found, dict(left_out), first

    def _read(self, row: Any) -> _Known | str:
        plan = self._plan
        given = row if isinstance(row, str) else _given(row, self._text)
        if isinstance(given, str):
            return given
        arguments, answer, at = given
        taken = {name: value for name, value in arguments.items() if name in plan.names}
        arguments = plan.bind(self._bound, taken)
        asked = claimed(arguments.get(self._text))
        if asked is None:
            return f"no {self._text}"
        scope = self._resolve(plan, arguments)
        scope_id, label = self._named(scope)
        return _Known(
            arguments,
            answer,
            scope_id,
            label,
            plan.digest(scope, arguments),
            *asked,
            plan.model_of(arguments),
            at,
            arguments.get(self._pool.meaning.settings.sources or ""),
        )

    @property
    def _text(self) -> str:
        return self._pool.meaning.settings.text

    def _one(
        self, model: str | None, known: Sequence[_Known], seed_answers: bool, progress: Progress | None
    ) -> Certified:
        """The gate for one model."""
        pool, ledger = self._pool, self._ledger
        shared = pool.tended(model)
        shared.follow()  # so that the ledger has its name
        own = Tended(shared.id, pool.meaning.tested, PRIOR, ledger.reader)
        try:
            gate = own.follow()
            spaces = [pool.namespace(self._plan.keyed(row.arguments), row.rest, own) for row in known]
        finally:
            own.close()
        asked = self._asked(shared.id, known, spaces)
        rehearsal = Rehearsal(
            pool.meaning, asked, profiler=pool.profiler, admits=lambda value: self._exact.admits(value, None),
            told=_part(progress, "embedding"),
        )  # fmt: skip
        told = _part(progress, "rehearsing")
        (met,) = rehearsal.run([gate], shadow=True, whole=seed_answers, told=told)
        rows = self._evidence(shared.id, met)
        written = self._testify(rows)
        stored = self._seed(known, spaces, rehearsal, shared) if seed_answers else 0
        candidates = [one for one in met if one.kind == "rehearsed" and one.candidate is not None]
        passed = sum(one.kind in ("exact", "known") for one in met)
        old = sum(one.kind == "known" and row.known for one, row in zip(met, asked, strict=True))
        return Certified(
            gate=shared.id, model=model, rows=len(known), candidates=len(candidates),
            wrong=sum(bool(one.wrong) for one in candidates), repeats=passed - old,
            known=old + len(rows) - written, stored=stored, standing=shared.follow().standing(),
        )  # fmt: skip

    def _asked(self, gate: str, known: Sequence[_Known], spaces: Sequence[str]) -> list[Asked]:
        with contextlib.closing(self._ledger.read()) as con:
            before = tags(con, gate)
        named = [self._tag(row) for row in known]
        return [
            Asked(
                row.text,
                row.answer,
                f"{row.scope_id} {space}",
                row.label,
                tag=tag,
                known=tag in before,
                sources=row.sources,
            )
            for row, space, tag in zip(known, spaces, named, strict=True)
        ]

    def _testify(self, rows: Sequence[Evidence]) -> int:
        try:
            return self._ledger.testify_once(rows).result(_WRITTEN_WITHIN)
        except (sqlite3.Error, FolderError, TimeoutError) as exc:
            raise FolderError(
                f"kit.certify(): the ledger could not be written ({type(exc).__name__}: {exc}); certify again once it "
                "can be, rows are counted once; `costkit doctor` looks at the folder"
            ) from exc

    def _evidence(self, gate: str, met: Sequence[Met]) -> list[Evidence]:
        found = []
        for one in met:
            if one.kind == "rehearsed" and one.passage is not None:
                wrong = one.wrong if one.passage.labelled else None
                found.append(evidence_of(gate, one.passage, query_id=None, at=self._now.wall, wrong=wrong))
        return found

    def _fresh(self, gate: str, known: Sequence[_Known]) -> list[Evidence]:
        """What the judge says of two answers to one and the same call: so often it flags what is not wrong.

        No row is in two pairs, so that the pairs are as independent as the rows.
        """
        judge, found = self._pool.meaning.judge, list[Evidence]()
        most = _MOST_FRESH if judge.says is None and judge.score is None else _MOST_ASKED
        single: dict[tuple[str, str], _Known] = {}
        times: Counter[str] = Counter()
        for row in known:
            first = single.pop((row.scope_id, row.key), None)
            if first is None:
                single[row.scope_id, row.key] = row
                continue
            if len(found) == most:
                break
            try:
                differ = not judge.compare(first.answer, row.answer, row.text)
            except JudgeError:
                differ = True
            pair = " ".join(["fresh", *sorted([self._tag(first), self._tag(row)])])
            times[pair] += 1
            told = Evidence(
                gate=gate, query_id=None, at=self._now.wall, kind=FRESH, rung=None, risk=None, features=None,
                chance=1.0, generation=0, scope=row.label, tag=f"{pair} {times[pair]}", wrong=differ,
            )  # fmt: skip
            found.append(told)
        return found

    def _tag(self, row: _Known) -> str:
        """A digest of the call and its answer; keyed where the kit has a secret, so that nobody can try texts on it."""
        try:
            answer = codec.encode(row.answer)
        except codec.NotStorable:
            answer = repr(type(row.answer)).encode()
        parts = (row.scope_id.encode(), row.key.encode(), answer)
        text = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
        return "row " + hmac.new(self._pool.key, text, hashlib.sha256).hexdigest()[:24]

    def _seed(
        self, known: Sequence[_Known], spaces: Sequence[str], rehearsal: Rehearsal, gate: Tended
    ) -> int:
        """Store the answers of the rows, as if they had been called now, or when the row says so."""
        pool, stored = self._pool, 0
        nothing = Passage("none", None, None, None, 1.0, gate.generation)
        for number, row in enumerate(known):
            if not rehearsal.storable(number):
                continue
            entry = self._entry(row)
            if entry is None or not entry.usable(self._now, entry.epoch):
                continue
            self._store.set(row.scope_id, row.key, entry)
            sought = Sought(
                gate.id, nothing, row.scope_id, spaces[number], rehearsal.vector(number), rehearsal.profile(number),
                row.text,
            )  # fmt: skip
            pool.admit(sought, key=row.key, value=row.answer, entry=entry)
            stored += 1
        return stored

    def _entry(self, row: _Known) -> Entry | None:
        same, now = self._exact, self._now
        try:
            payload = codec.encode(row.answer)
        except codec.NotStorable:
            return None
        at = now.wall if row.at is None else min(row.at, now.wall)
        return Entry(
            payload=payload, at=at, ttl=same.ttl, life=same.life, epoch=self._store.epoch(same.epochs, row.scope_id),
            mono=now.mono - (now.wall - at), boot=now.boot,
        )  # fmt: skip


def _in_order(known: list[_Known]) -> list[_Known]:
    """As they were asked, where all rows say when; else shuffled, always alike.

    Files are often sorted by topic. Asked in that order each question follows its like, and the gate would learn of
    traffic that is easier than any.
    """
    if all(row.at is not None for row in known):
        return sorted(known, key=lambda row: row.at or 0.0)
    shuffled = list(known)
    random.Random(len(known)).shuffle(shuffled)
    return shuffled


def _given(row: Any, text: str) -> tuple[Mapping[str, Any], Any, float | None] | str:
    """Arguments, answer and time of a row: a mapping, a pair, or a gold test that says the whole answer."""
    if isinstance(row, Mapping):
        if row.get("answer") is None:
            return "no answer"
        at = row.get("at")
        when = float(at) if isinstance(at, (int, float)) and not isinstance(at, bool) else None
        return {str(name): value for name, value in row.items() if name != "answer"}, row["answer"], when
    if isinstance(row, (tuple, list)) and len(row) == 2:
        return {text: row[0]}, row[1], None
    question, arguments = getattr(row, "question", None), getattr(row, "args", None)
    if isinstance(question, str) and isinstance(arguments, Mapping):
        answer = getattr(row, "equals", None)
        if answer is None:
            return "gold test without the whole answer (equals = ...)"
        return {**arguments, text: question}, answer, None
    return f"{type(row).__name__} is no row (give a mapping with 'answer', or a (question, answer) pair)"


def _part(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(what, done, total)
