"""The course of a gate: what was certified and what came of it at each moment, and how much it served, as data."""

from __future__ import annotations

import os
import sqlite3
from collections import deque
from dataclasses import dataclass

from costkit.report.gates import Named, named_gates
from costkit.report.read import reading

__all__ = ["Course", "Moment", "course", "courses"]

_MOMENTS = 200
_LATELY = 100  # calls


@dataclass(frozen=True, slots=True)
class Moment:
    """One moment of a gate. Risks are in the bound's own unit, None where nothing is certified or audited.

    ``average``, ``low`` and ``high``: the running average as estimated, and its confidence sequence; ``served``: the
    share of the last 100 or more calls that were served, audited ones included.
    """

    at: float
    certified: float | None
    average: float | None
    low: float | None
    high: float | None
    served: float


@dataclass(frozen=True, slots=True)
class Course:
    """One gate over time; ``demoted_at`` in Unix seconds."""

    name: str
    model: str | None
    asked: float
    per: str
    moments: tuple[Moment, ...]
    demoted_at: tuple[float, ...]


def courses(folder: str | os.PathLike[str], name: str | None = None) -> list[Course]:
    """The course of every gate of the folder (of one function), the newest last; reads only.

    Raises:
        FolderError: no kit's folder, or its ledger cannot be read.
    """
    with reading(folder) as con:
        return [] if con is None else [course(con, named) for named in named_gates(con, name)]


def course(con: sqlite3.Connection, named: Named) -> Course:
    """What a gate's evidence says, folded row by row and looked at some 200 times."""
    (rows,) = con.execute("SELECT COUNT(*) FROM evidence WHERE gate = ?", (named.id,)).fetchone()
    tended, moments = named.tended(con), list[Moment]()
    every, seen = max(1, rows // _MOMENTS), deque([(0, 0)])
    for number, (at, gate) in enumerate(tended.trace(), 1):
        if number % every and number != rows:
            continue
        calls = sum(gate.counts.values()) - gate.counts["rehearsed"]
        seen.append((calls, gate.counts["served"] + gate.counts["audit"]))
        while len(seen) > 2 and calls - seen[1][0] >= _LATELY:
            seen.popleft()
        asked, passed = (new - old for new, old in zip(seen[-1], seen[0], strict=True))
        low, high = gate.running() if gate.counts["audit"] else (None, None)
        average = gate.average if gate.counts["audit"] else None
        moments.append(
            Moment(at, gate.ladder.certified(), average, low, high, passed / asked if asked else 0.0)
        )
    demoted = tuple(tended.demoted_at)
    return Course(named.name, named.model, named.asked, named.bound.per, tuple(moments), demoted)
