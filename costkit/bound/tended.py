"""A gate that follows its evidence in the ledger: every process that reads the same rows has the same gate."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

from costkit.bound.gate import Gate, Passage
from costkit.bound.risk import Bound
from costkit.ledger.evidence import Evidence, since

__all__ = ["LABEL", "Tended", "evidence_of", "passage_of"]

LABEL = "label"

# A label that has not come for so long, in seconds, is taken as lost with its process, and lost is wrong.
_LOST = 600.0
_MOST_WAITING = 10_000


class Tended:
    """One gate at work in this process.

    Args:
        id: of the gate, as in the ledger.
        bound, prior: as of :class:`Gate`.
        connect: a read-only connection to the ledger.
    """

    def __init__(
        self, id: str, bound: Bound, prior: Sequence[float], connect: Callable[[], sqlite3.Connection]
    ) -> None:
        self.id = id
        self.gate = Gate(bound, prior)
        self.demoted_at: list[float] = []
        self.opened_at: float | None = None
        self._connect = connect
        self._con: sqlite3.Connection | None = None
        self._last, self._version = 0, -1
        self._waiting: OrderedDict[str, tuple[float, Passage]] = OrderedDict()
        self._early: OrderedDict[str, bool] = OrderedDict()  # a judge may be faster than its call
        self._lock = threading.Lock()
        self._random = random.Random()

    def decide(
        self, features: tuple[float, ...] | None, *, veto: bool = False, scope: str | None = None
    ) -> Passage:
        """What happens to a call with this candidate, on all evidence committed by now."""
        with self._lock:
            self._follow()
            return self.gate.decide(features, coin=self._random.random(), veto=veto, scope=scope)

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

    def after_fork(self) -> None:
        """A connection must not be used by a process that inherited it."""
        self._lock, self._con, self._version = threading.Lock(), None, -1

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            con, self._con = self._con, None
            if con is not None:
                con.close()

    def _follow(self) -> None:
        """Fold in what is new; where the ledger cannot be read the gate stays as it is."""
        with contextlib.suppress(sqlite3.Error):
            if self._con is None:
                self._con = self._connect()
            version = self._con.execute("PRAGMA data_version").fetchone()[0]
            if version == self._version:
                return
            newest = 0.0
            for row in since(self._con, self.id, self._last):
                self._fold(row)
                self._last, newest = row.id, max(newest, row.at)
            self._version = version
            self._give_up(newest)

    def _fold(self, row: Evidence) -> None:
        gate = self.gate
        if row.kind == LABEL:
            found = self._waiting.pop(row.query_id or "", None)
            demoted = found is not None and row.wrong is not None and gate.label(found[1], row.wrong)
        else:
            passage = passage_of(row)
            demoted = gate.see(passage, row.wrong)
            if passage.labelled and row.wrong is None and row.query_id is not None:
                self._waiting[row.query_id] = (row.at, passage)
        if demoted:
            self.demoted_at.append(row.at)
            self.opened_at = None
        elif gate.ladder.level and self.opened_at is None:
            self.opened_at = row.at

    def _give_up(self, now: float) -> None:
        """Labels that went down with a process: counted as wrong, by the clock of the rows themselves."""
        while self._waiting:
            id, (at, passage) = next(iter(self._waiting.items()))
            if now - at < _LOST and len(self._waiting) <= _MOST_WAITING:
                return
            del self._waiting[id]
            self.gate.label(passage, True)


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
    )


def evidence_of(
    gate: str, passage: Passage, *, query_id: str | None, at: float, wrong: bool | None = None
) -> Evidence:
    """The row that tells of a passage; what was served unchecked keeps no features."""
    return Evidence(
        gate=gate, query_id=query_id, at=at, kind=passage.kind, rung=passage.rung, risk=passage.risk,
        features=passage.features if passage.labelled else None, chance=passage.chance,
        generation=passage.generation, scope=passage.scope, tag=passage.tag, wrong=wrong,
    )  # fmt: skip
