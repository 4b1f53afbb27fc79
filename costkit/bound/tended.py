"""A gate that follows its evidence in the ledger: every process that reads the same rows has the same gate."""

from __future__ import annotations

import contextlib
import math
import os
import random
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import get_args

from costkit.bound.gate import Gate, Kind, Passage
from costkit.bound.kept import NoState, about, packed, unpacked
from costkit.bound.risk import Bound
from costkit.ledger.evidence import Evidence, GateState, kept_state, since

__all__ = ["LABEL", "Tended", "evidence_of", "passage_of"]

LABEL = "label"

# A label that has not come for so long, in seconds, is taken as lost with its process, and lost is wrong.
_LOST = 600.0
_MOST_WAITING = 10_000

# Decisions, and seconds, after which a gate that hears of none of them serves nothing.
_BLIND, _BLIND_FOR = 100, 60.0

# Rows folded until the state is kept: half a second of work for whoever starts.
_KEPT_EVERY = 20_000

_KINDS = (*get_args(Kind), LABEL)


class Tended:
    """One gate at work in this process.

    Args:
        id: of the gate, as in the ledger.
        bound, prior: as of :class:`Gate`.
        connect: a read-only connection to the ledger.
        keep: keeps where the fold has come, now and then, for processes that start later.
    """

    def __init__(
        self,
        id: str,
        bound: Bound,
        prior: Sequence[float],
        connect: Callable[[], sqlite3.Connection],
        keep: Callable[[GateState], None] | None = None,
    ) -> None:
        self.id = id
        self.bound, self._prior = bound, prior
        self.gate = Gate(bound, prior)
        self.demoted_at: list[float] = []
        self.opened_at: float | None = None
        self._connect, self._keep = connect, keep
        self._con: sqlite3.Connection | None = None
        self._path = ""
        self._file: tuple[int, int] | None = None
        self._inherited: tuple[sqlite3.Connection | None, ...] = ()
        self._last, self._version, self._at = 0, -1, 0.0
        self._clock, self._ahead = (
            -math.inf,
            0.0,
        )  # of the rows, never set back; and by how much it is ahead of them
        self._kept = 0  # rows folded since the state was kept
        self._torn = False  # a row is being folded
        self._waiting: OrderedDict[str, tuple[float, Passage]] = OrderedDict()
        self._early: OrderedDict[str, bool | None] = OrderedDict()  # a judge may be faster than its call
        self._lock = threading.Lock()
        self._random = random.Random()
        self._unheard, self._heard_at = 0, time.monotonic()

    def decide(
        self,
        features: tuple[float, ...] | None,
        *,
        veto: bool = False,
        scope: str | None = None,
        tag: str | None = None,
        pair: str | None = None,
    ) -> Passage:
        """What happens to a call with this candidate, on all evidence committed by now."""
        with self._lock:
            self._follow()
            self._unheard += 1
            veto = veto or self._blind()
            coin = self._random.random()
            return self.gate.decide(features, coin=coin, veto=veto, scope=scope, tag=tag, pair=pair)

    @property
    def generation(self) -> int:
        """Demotions so far, on all evidence committed by now."""
        with self._lock:
            self._follow()
            return self.gate.generation

    def follow(self) -> Gate:
        """The gate, on all evidence committed by now."""
        with self._lock:
            self._follow()
            return self.gate

    def trace(self) -> Iterator[tuple[float, Gate]]:
        """The gate after each row, and the row's time, for whoever draws its course; it must not have followed yet."""
        for row in since(self._connected(), self.id, 0):
            self._take(row)
            yield row.at, self.gate

    def after_fork(self) -> None:
        """A connection must not be used, nor closed, by a process that inherited it."""
        # A fold that another thread was in the midst of is half a fold here.
        self._inherited = (*self._inherited, self._con)
        self._lock, self._con, self._version = threading.Lock(), None, -1
        self._random = random.Random()

    def _blind(self) -> bool:
        """Whether decisions were made for long, and none of them has come back as evidence: no alarm could go off."""
        return self._unheard > _BLIND and time.monotonic() - self._heard_at > _BLIND_FOR

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._shut()

    def _shut(self) -> None:
        con, self._con, self._version = self._con, None, -1
        if con is not None:
            con.close()

    def _follow(self) -> None:
        """Fold in what is new; where the ledger cannot be read the gate stays as it is."""
        with contextlib.suppress(sqlite3.Error):
            if self._torn:  # by an interrupt, or a fork
                self._anew()
            con = self._connected()
            version = con.execute("PRAGMA data_version").fetchone()[0]
            if version == self._version:
                return
            if not self._last:
                self._resume(con)
            for row in since(con, self.id, self._last):
                self._take(row)
                self._kept += 1
                self._unheard, self._heard_at = 0, time.monotonic()
            self._version = version
            if self.opened_at is None and self._last and self.gate.ladder.level:
                self.opened_at = self._at
            if self._keep is not None and self._kept >= _KEPT_EVERY:
                self._store(con, self._keep)

    def _resume(self, con: sqlite3.Connection) -> None:
        """Go on where a process before this one had come; without that, all rows are folded."""
        with contextlib.suppress(sqlite3.Error, NoState):
            state = kept_state(con, self.id, about(self.bound, self._prior))
            if state is not None:
                found = unpacked(state.body)
                if not (isinstance(found, tuple) and len(found) == 8 and isinstance(found[0], Gate)):
                    return
                self.gate, self.demoted_at, self.opened_at, self._at, self._clock, self._ahead = found[:6]
                self._waiting, self._early = found[6:]
                self._last, self._kept = state.upto, 0

    def _store(self, con: sqlite3.Connection, keep: Callable[[GateState], None]) -> None:
        """Keep where the fold has come, unless another process has just done so."""
        self._kept = 0
        with contextlib.suppress(sqlite3.Error, NoState):
            of = about(self.bound, self._prior)
            known = con.execute(
                "SELECT upto FROM gate_states WHERE gate = ? AND about = ?", (self.id, of)
            ).fetchone()
            if known is None or known[0] <= self._last - _KEPT_EVERY // 2:
                times = self.demoted_at, self.opened_at, self._at, self._clock, self._ahead
                parts = self.gate, *times, self._waiting, self._early
                keep(GateState(self.id, self._last, of, packed(parts)))

    def _take(self, row: Evidence) -> None:
        self._torn = True
        if _sound(row, self.gate):
            self._fold(row)
        self._last = row.id
        self._torn = False

    def _anew(self) -> None:
        """As if no row had been folded."""
        self.gate, self.demoted_at, self.opened_at = Gate(self.bound, self._prior), [], None
        self._last, self._version, self._at, self._kept = 0, -1, 0.0, 0
        self._clock, self._ahead, self._torn = -math.inf, 0.0, False
        self._waiting, self._early = OrderedDict(), OrderedDict()

    def _connected(self) -> sqlite3.Connection:
        """The connection; where another file is in the ledger's place, the gate starts anew."""
        if self._con is not None and _stamp(self._path) == self._file:
            return self._con
        self._shut()
        con = self._connect()
        con.text_factory = _text
        self._path = con.execute("PRAGMA database_list").fetchone()[2]
        stamp = _stamp(self._path)
        if self._file not in (None, stamp):
            self._anew()
        self._con, self._file = con, stamp
        return con

    def _fold(self, row: Evidence) -> None:
        self._at = row.at
        self._pass(row.at)
        if row.kind == LABEL:
            self._labelled(row.query_id or "", row)
        else:
            passage, id, wrong = passage_of(row), row.query_id, row.wrong
            if passage.kind in ("audit", "served") and passage.generation == self.gate.generation:
                self.opened_at = self.opened_at or row.at
            if passage.labelled and wrong is None and id is not None:
                if id in self._early:
                    wrong = self._early.pop(id)
                else:
                    self._waiting[id] = (self._clock, passage)
            self._turned(self.gate.see(passage, wrong), row.at)
        self._give_up(row.at)

    def _pass(self, at: float) -> None:
        """Let the rows' clock go on to this row's time; where theirs was set back it goes on from where it was."""
        if at + self._ahead < self._clock - _LOST:
            self._ahead = self._clock - at
        self._clock = max(self._clock, at + self._ahead)

    def _labelled(self, id: str, row: Evidence) -> None:
        """A label that came by itself; one without a verdict says that none will come."""
        found = self._waiting.pop(id, None)
        if found is None:
            self._early[id] = row.wrong
            if len(self._early) > _MOST_WAITING:
                self._early.popitem(last=False)
        elif row.wrong is not None:
            self._turned(self.gate.label(found[1], row.wrong), row.at)

    def _turned(self, demoted: bool, at: float) -> None:
        if demoted:
            self.demoted_at.append(at)
            self.opened_at = None

    def _give_up(self, at: float) -> None:
        """Labels that went down with a process: counted as wrong, by the clock of the rows themselves.

        After each row, so that it does not matter how many of them a process reads at once.
        """
        while self._waiting:
            id, (then, passage) = next(iter(self._waiting.items()))
            if self._clock - then < _LOST and len(self._waiting) <= _MOST_WAITING:
                return
            del self._waiting[id]
            self._turned(self.gate.label(passage, True), at)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")  # a row with damaged text must not hide those after it


def _stamp(path: str) -> tuple[int, int] | None:
    """Which file stands there."""
    try:
        info = os.stat(path)
    except OSError:
        return None
    return info.st_dev, info.st_ino


def _sound(row: Evidence, gate: Gate) -> bool:
    """Whether a row can be what a gate wrote; SQLite keeps any type in any column."""
    whole = (
        isinstance(row.generation, int)
        and isinstance(row.at, float)
        and math.isfinite(row.at)
        and row.kind in _KINDS
    )
    on = row.rung is None or (isinstance(row.rung, int) and 0 <= row.rung <= len(gate.ladder.edges))
    risk = row.risk is None or (isinstance(row.risk, float) and 0 <= row.risk <= 1)
    chance = isinstance(row.chance, float) and gate.bound.audit <= row.chance <= 1
    names = all(
        name is None or isinstance(name, str) for name in (row.query_id, row.scope, row.tag, row.pair)
    )
    served = row.kind not in ("declined", "audit", "unanswered", "served") or row.rung is not None
    return (
        whole and on and risk and chance and names and served and (row.wrong is None or row.kind != "served")
    )


def passage_of(row: Evidence) -> Passage:
    """The passage that a row tells of."""
    return Passage(
        kind=row.kind,  # type: ignore[arg-type]
        rung=row.rung,
        risk=row.risk,
        features=row.features,
        chance=row.chance,
        generation=row.generation,
        scope=row.scope,
        tag=row.tag,
        pair=row.pair,
    )


def evidence_of(
    gate: str, passage: Passage, *, query_id: str | None, at: float, wrong: bool | None = None
) -> Evidence:
    """The row that tells of a passage."""
    return Evidence(
        gate=gate, query_id=query_id, at=at, kind=passage.kind, rung=passage.rung, risk=passage.risk,
        features=passage.features, chance=passage.chance,
        generation=passage.generation, scope=passage.scope, tag=passage.tag, wrong=wrong, pair=passage.pair,
    )  # fmt: skip
