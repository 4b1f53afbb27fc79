"""The gates of lossy savings: where each stands, on what evidence, and what it saved and cost, as data."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from costkit.bound import Bound, Standing, bound_of
from costkit.bound.tended import Tended
from costkit.errors import CostkitError
from costkit.judges import Disagreement, Judge
from costkit.report.read import reading, storable
from costkit.semantic.features import PRIOR
from costkit.stats import binomial_limits

__all__ = [
    "GateLine",
    "GateTold",
    "Named",
    "deciding",
    "gate_lines",
    "gates",
    "gates_of",
    "lonely",
    "named_gates",
    "unjudged",
]

# A namespace in which so large a share of calls finds nothing stored at all hardly repeats.
_LONELY, _ENOUGH = 0.9, 100

# Seconds after which an answer that waits for its judge counts as wrong, as for the gate itself.
_LOST = 600.0

# Rows of evidence that a report folds: some five seconds.
_QUICK = 100_000


@dataclass(frozen=True, slots=True)
class Grouped:
    """Audits of one scope or tag (its label in the ledger, None: neither), and the exact interval of their share wrong.

    ``closed``: its own alarm went off, and nothing is served there until the gate starts anew.
    """

    label: str | None
    audits: int
    wrong: int
    interval: tuple[float, float]
    closed: bool


@dataclass(frozen=True, slots=True)
class GateTold:
    """One gate. Money is nano-dollars, times are Unix seconds.

    ``saved`` is what served answers did not cost; ``audited`` what the calls cost that were made to check answers
    instead of serving them, None where some of it is unknown. ``asked`` is the bound as the user said it, ``bound``
    what labels are tested against: less, where the judge misses some. ``alone`` counts calls for which nothing was
    stored. ``waiting`` answers are with their judge; ``lost`` ones were never judged, and count as wrong; ``skipped``
    ones the judge was too slow for, and count neither way.
    ``fresh`` and ``told_apart``: pairs of fresh answers to one question, and those of them the judge told apart.
    """

    id: str
    name: str
    version: str
    saving: str
    bound: Bound
    asked: float
    judge: str
    encoder: str
    model: str | None
    standing: Standing
    since: float
    demoted_at: tuple[float, ...]
    alone: int
    groups: tuple[Grouped, ...]
    saved: int
    audited: int | None
    waiting: int
    lost: int
    fresh: int = 0
    told_apart: int = 0
    skipped: int = 0

    @property
    def state(self) -> Literal["shadow", "open", "closed"]:
        """Closed: by its alarm, and it has not opened again; it is in shadow, too."""
        if self.standing.state == "open":
            return "open"
        return "closed" if self.demoted_at else "shadow"

    @property
    def audit_interval(self) -> tuple[float, float] | None:
        """Exact (Clopper-Pearson) limits of the share of audited answers that were wrong; None before an audit."""
        s = self.standing
        return binomial_limits(s.wrong_audits, s.audits, self.bound.confidence) if s.audits else None

    @property
    def sensitivity(self) -> float:
        """The share of wrong answers that the judge is vouched to flag; 1 where its word is what right means."""
        return self.bound.max_error / self.asked

    @property
    def unfit(self) -> str | None:
        """Why this judge cannot certify this bound, and what would help; None where nothing says so."""
        if not self.fresh:
            return None
        judge = Judge(self.judge, "", exact=True)
        found = Disagreement(judge, self.told_apart, self.fresh, 0, self.bound.confidence)
        return found.can_certify(self.bound.max_error)

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it; what has no end is null."""
        told = asdict(self)
        if not math.isfinite(self.standing.before_demotion):
            told["standing"]["before_demotion"] = None
        more = {"state": self.state, "audit_interval": self.audit_interval, "sensitivity": self.sensitivity}
        return {**told, **more, "judge_unfit": self.unfit}


@dataclass(frozen=True, slots=True)
class GateLine:
    """A gate beside the money of one report: ``hits``, ``audits``, ``saved`` and ``audited`` (what those
    calls cost, nano-dollars, None: unknown) are of its queries; the state and the risks are of now, None where its
    evidence is too long to be read for a report.
    """

    name: str
    model: str | None
    saving: str
    asked: float
    per: str
    state: str | None
    certified: float | None
    running: tuple[float, float] | None
    hits: int
    audits: int
    saved: int
    audited: int | None


def gate_lines(con: sqlite3.Connection) -> tuple[GateLine, ...]:
    """The gates that decided on queries of the temporary table ``trees``, those that saved most first."""
    found = []
    for named in named_gates(con):
        hits, audits, decided = con.execute(
            "SELECT COALESCE(SUM(e.kind = 'served'), 0), COALESCE(SUM(e.kind = 'audit'), 0), COUNT(*) FROM evidence e"
            " JOIN queries q ON q.id = e.query_id JOIN trees t ON t.root_id = q.root_id WHERE e.gate = ?",
            (named.id,),
        ).fetchone()
        if decided:
            found.append(_line(con, named, hits, audits))
    return tuple(sorted(found, key=lambda line: (-line.saved, line.name, line.model or "")))


def deciding(con: sqlite3.Connection) -> list[Named]:
    """The gates that decided on queries of ``trees`` and whose evidence is not too long to be read for a report."""
    return [
        named
        for named in named_gates(con)
        if _short(con, named)
        and con.execute(
            "SELECT 1 FROM evidence e JOIN queries q ON q.id = e.query_id JOIN trees t ON t.root_id = q.root_id"
            " WHERE e.gate = ? LIMIT 1",
            (named.id,),
        ).fetchone()
    ]


def _short(con: sqlite3.Connection, named: Named) -> bool:
    (rows,) = con.execute("SELECT COUNT(*) FROM evidence WHERE gate = ?", (named.id,)).fetchone()
    return int(rows) <= _QUICK


def _line(con: sqlite3.Connection, named: Named, hits: int, audits: int) -> GateLine:
    saved, audited = _money(con, named.id, " JOIN trees t ON t.root_id = q.root_id")
    told = _told(con, named, 0, 0) if _short(con, named) else None
    served = told is not None and told.standing.audits > 0
    return GateLine(
        named.name, named.model, named.saving, named.asked, named.bound.per, None if told is None else told.state,
        None if told is None else told.standing.certified, told.standing.running if told and served else None,
        hits, audits, saved, audited,
    )  # fmt: skip


def gates(folder: str | os.PathLike[str], name: str | None = None) -> list[GateTold]:
    """Every gate of the folder (of one function), the newest last; reads only.

    Raises:
        FolderError: no kit's folder, or its ledger cannot be read.

    >>> import costkit, tempfile
    >>> kit = costkit.Kit(tempfile.mkdtemp() + "/kit")
    >>> gates(kit.folder)
    []
    """
    with reading(folder) as con:
        return [] if con is None else gates_of(con, name)


def gates_of(con: sqlite3.Connection, name: str | None = None) -> list[GateTold]:
    """As :func:`gates`, from a ledger that is open."""
    named = named_gates(con, name)
    late = unjudged(con) if named else {}
    return [_told(con, one, *late.get(one.id, (0, 0))) for one in named]


@dataclass(frozen=True, slots=True)
class Named:
    """A row of ``gates``, read: whose gate it is, its bound, and what else its digest stands for."""

    id: str
    name: str
    version: str
    saving: str
    bound: Bound
    asked: float
    about: Mapping[str, Any]
    at: float

    @property
    def model(self) -> str | None:
        """The model whose calls it decides on, where an argument names one."""
        return None if self.about.get("model") is None else str(self.about["model"])

    def tended(self, con: sqlite3.Connection) -> Tended:
        """The gate, before it has read any evidence."""
        return Tended(self.id, self.bound, PRIOR, lambda: con)


def named_gates(con: sqlite3.Connection, name: str | None = None) -> list[Named]:
    """The rows of ``gates`` (of one function), the newest last; one that a hand has spoilt is left out."""
    found = []
    for row in con.execute(
        "SELECT id, name, version, saving, bound, about, at FROM gates ORDER BY at, id"
    ).fetchall():
        id, function, version, saving, limits, about, at = row
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError, CostkitError):
            told, more = json.loads(limits), json.loads(about)
            checked = bound_of(
                *(told[part] for part in ("max_error", "per", "confidence", "audit")), where="gates"
            )
            bound = replace(checked, arl=float(told["arl"]))
            asked = max(bound.max_error, float(told.get("asked", bound.max_error)))
            words = str(id), str(function), str(version), str(saving)
            found.append(Named(*words, bound, asked, dict(more), float(at)))
    return [one for one in found if name is None or one.name == storable(name)]


def lonely(requests: int, alone: int) -> bool:
    """Whether nearly no call of many finds anything stored.

    >>> lonely(200, 190), lonely(50, 50)
    (True, False)
    """
    return requests >= _ENOUGH and alone >= _LONELY * requests


def _told(con: sqlite3.Connection, row: Named, waiting: int, lost: int) -> GateTold:
    tended, about = row.tended(con), row.about
    gate = tended.follow()
    standing = gate.standing()
    saved, audited = _money(con, row.id)
    fresh, told_apart = con.execute(
        "SELECT COUNT(*), COALESCE(SUM(wrong), 0) FROM evidence WHERE gate = ? AND kind = 'fresh'", (row.id,)
    ).fetchone()
    (skipped,) = con.execute(
        "SELECT COUNT(*) FROM evidence WHERE gate = ? AND kind = 'label' AND wrong IS NULL", (row.id,)
    ).fetchone()
    return GateTold(
        id=row.id, name=row.name, version=row.version, saving=row.saving, bound=row.bound, asked=row.asked,
        judge=str(about.get("judge_name", "")), encoder=str(about.get("encoder", "")),
        model=row.model, standing=standing,
        since=_since(con, tended, standing, row.at), demoted_at=tuple(tended.demoted_at),
        alone=gate.counts["none"], groups=_groups(standing, gate.closed, row.bound.confidence),
        saved=saved, audited=audited, waiting=waiting, lost=lost, fresh=fresh, told_apart=told_apart,
        skipped=skipped,
    )  # fmt: skip


def _since(con: sqlite3.Connection, tended: Tended, standing: Standing, named: float) -> float:
    """When its state began: open, with the first answer that its generation let pass; in shadow, with the last."""
    if standing.state == "open" and tended.opened_at is not None:
        return tended.opened_at
    if tended.demoted_at:
        return tended.demoted_at[-1]
    (last,) = con.execute(
        "SELECT MAX(at) FROM evidence WHERE gate = ? AND kind IN ('served', 'audit')", (tended.id,)
    ).fetchone()
    return named if last is None else float(last)


def _groups(standing: Standing, closed: set[str], confidence: float) -> tuple[Grouped, ...]:
    """Those with audits, the worst first: by the lower limit, so that one unlucky audit is not the worst of all."""
    found = [
        Grouped(label or None, audits, wrong, binomial_limits(wrong, audits, confidence), label in closed)
        for label, audits, wrong in standing.groups
    ]  # fmt: skip
    return tuple(
        sorted(found, key=lambda one: (not one.closed, -one.interval[0], -one.interval[1], one.label or ""))
    )


def _money(con: sqlite3.Connection, gate: str, only: str = "") -> tuple[int, int | None]:
    """What served answers saved, and what audited ones cost with the calls inside them (None: partly unknown)."""
    (saved,) = con.execute(
        "SELECT COALESCE(SUM(q.saving), 0) FROM evidence e JOIN queries q ON q.id = e.query_id"
        f"{only} WHERE e.gate = ? AND e.kind = 'served'",
        (gate,),
    ).fetchone()
    paid, unknown = con.execute(
        "WITH RECURSIVE below(id, root) AS (SELECT q.id, q.root_id FROM evidence e JOIN queries q ON q.id = e.query_id"
        f"{only} WHERE e.gate = ? AND e.kind IN ('audit', 'unanswered')"
        " UNION SELECT c.id, c.root_id FROM below JOIN queries c ON c.root_id = below.root AND c.parent_id = below.id)"
        " SELECT COALESCE(SUM(provider_cost), 0), COALESCE(SUM(unknown_costs), 0) FROM queries"
        " WHERE id IN (SELECT id FROM below)",
        (gate,),
    ).fetchone()
    return int(saved), None if unknown else int(paid)


def unjudged(con: sqlite3.Connection, now: float | None = None) -> dict[str, tuple[int, int]]:
    """By gate: answers that wait for their judge, and those that waited too long by ``now`` (None: the newest row)."""
    found = con.execute(
        "SELECT gate, SUM(late = 0), SUM(late) FROM"
        " (SELECT gate, at < COALESCE(?, (SELECT MAX(at) FROM evidence)) - ? AS late FROM evidence"
        " WHERE kind IN ('declined', 'audit') AND wrong IS NULL AND query_id IS NOT NULL"
        " AND (gate, query_id) NOT IN (SELECT gate, query_id FROM evidence WHERE kind = 'label'"
        " AND query_id IS NOT NULL)) GROUP BY gate",
        (now, _LOST),
    )
    return {str(gate): (int(waiting), int(lost)) for gate, waiting, lost in found}
