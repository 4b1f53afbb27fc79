"""The gates of lossy savings: where each stands, on what evidence, and what it saved and cost."""

from __future__ import annotations

import json
import os
import sqlite3
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from costkit.bound import PER_REQUEST, Bound, Standing
from costkit.bound.tended import Tended
from costkit.report.read import clean, percent, reading, usd, when
from costkit.semantic.features import PRIOR
from costkit.stats import binomial_limits

if TYPE_CHECKING:
    from rich.console import Group

__all__ = ["GateTold", "gates", "to_text"]

# A namespace in which so large a share of calls finds no stored question at all hardly repeats.
_LONELY, _ENOUGH = 0.9, 100


@dataclass(frozen=True, slots=True)
class GateTold:
    """One gate. Money is nano-dollars; ``saved`` is what served answers did not cost, ``audited`` what audits did.

    ``asked`` is the bound as the user said it, ``bound`` what labels are tested against: less, where the judge misses
    some. ``waiting`` counts answers whose judge has not spoken.
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
    opened_at: float | None
    demoted_at: tuple[float, ...]
    alone: int
    closed_scopes: tuple[str, ...]
    saved: int
    audited: int
    waiting: int

    @property
    def lonely(self) -> bool:
        """Whether nearly no call finds a stored question near it."""
        return self.standing.requests >= _ENOUGH and self.alone >= _LONELY * self.standing.requests

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


def gates(folder: str | os.PathLike[str], name: str | None = None) -> list[GateTold]:
    """Every gate of the folder (of one function), the newest last; reads only.

    Raises:
        ConfigError: the folder is none of costkit's.
    """
    with reading(folder) as con:
        if con is None:
            return []
        columns = ("id", "name", "version", "bound", "about", "saving")
        rows = con.execute(f"SELECT {', '.join(columns)} FROM gates ORDER BY at").fetchall()
        named: list[dict[str, str]] = [dict(zip(columns, row, strict=True)) for row in rows]
        return [_told(con, row) for row in named if name in (None, row["name"])]


def _told(con: sqlite3.Connection, row: dict[str, str]) -> GateTold:
    limits, about = json.loads(row["bound"]), json.loads(row["about"])
    bound = Bound(*(limits[part] for part in ("max_error", "per", "confidence", "audit", "arl")))
    tended = Tended(row["id"], bound, PRIOR, lambda: con)
    gate = tended.follow()
    money = con.execute(
        "SELECT SUM(CASE WHEN e.kind = 'served' THEN q.saving ELSE 0 END),"
        " SUM(CASE WHEN e.kind = 'audit' THEN q.provider_cost ELSE 0 END)"
        " FROM evidence e JOIN queries q ON q.id = e.query_id WHERE e.gate = ? AND e.kind IN ('served', 'audit')",
        (row["id"],),
    ).fetchone()
    waiting = con.execute(
        "SELECT COUNT(*) FROM evidence e WHERE gate = ? AND kind IN ('declined', 'audit') AND wrong IS NULL"
        " AND NOT EXISTS (SELECT 1 FROM evidence l WHERE l.gate = e.gate AND l.kind = 'label'"
        " AND l.query_id = e.query_id)",
        (row["id"],),
    ).fetchone()
    return GateTold(
        id=row["id"], name=row["name"], version=row["version"], saving=row["saving"], bound=bound,
        asked=limits.get("asked", bound.max_error), judge=str(about.get("judge_name", "")),
        encoder=str(about.get("encoder", "")), model=about.get("model"), standing=gate.standing(),
        opened_at=tended.opened_at, demoted_at=tuple(tended.demoted_at), alone=gate.counts["none"],
        closed_scopes=tuple(sorted(scope or "" for scope in gate.closed_scopes)),
        saved=money[0] or 0, audited=money[1] or 0, waiting=waiting[0],
    )  # fmt: skip


def to_text(told: list[GateTold]) -> Group:
    """The gates for people, and what to do next."""
    from rich.console import Group
    from rich.text import Text

    if not told:
        lines = ["No lossy saving has worked in this folder yet."]
        lines.append(
            "Next: put costkit.semantic('question') with max_error= and judge= on a function (README)."
        )
        return Group(*(Text(line) for line in lines))
    blocks: list[Text] = []
    for gate in told:
        blocks.append(Text(_title(gate), style="bold"))
        blocks += [Text("  " + line) for line in _lines(gate)]
        blocks.append(Text("  Next: " + _next(gate), style="bold"))
    return Group(*blocks)


def _title(gate: GateTold) -> str:
    model = f", {clean(gate.model, 60)}" if gate.model else ""
    of = "all calls" if gate.bound.per == PER_REQUEST else "served answers"
    if gate.standing.state == "open":
        state = "open since " + when(gate.opened_at)
    else:
        state = "closed by its alarm, in shadow" if gate.demoted_at else "in shadow"
    return f"{clean(gate.name, 80)}{model} · {gate.saving} · at most {percent(gate.asked)} of {of} wrong · {state}"


def _lines(gate: GateTold) -> list[str]:
    s = gate.standing
    lines = [
        f"calls      {s.requests:,}: {s.hits:,} served, {s.audits:,} audited instead, "
        f"{s.would_be_hits:,} more would have been candidates; {s.labels:,} labels"
        + (f"; rehearsed beforehand: {s.rehearsed:,} rows" if s.rehearsed else "")
    ]
    if s.audits:
        low, high = binomial_limits(s.wrong_audits, s.audits, gate.bound.confidence)
        lines.append(
            f"audits     {s.wrong_audits:,} of {s.audits:,} wrong [{percent(low)} – {percent(high)}]"
        )
    if s.certified is not None:
        lines.append(
            f"bound      certified at most {percent(s.certified)} ({percent(gate.bound.confidence)} confidence); "
            f"serves {percent(s.share)} of calls; running average {percent(s.running[0])} – {percent(s.running[1])}"
        )
    if gate.bound.max_error < gate.asked:
        lines.append(f"           tested against {percent(gate.bound.max_error)}, for the judge misses some")
    if s.next_labels is not None and s.next_share is not None:
        lines.append(
            f"waits for  about {s.next_labels:,} more labels, then {percent(s.next_share)} of calls may be served"
        )
    if s.state == "open":
        expected = f"{s.before_demotion:,.0f}" if s.before_demotion != float("inf") else "very many"
        lines.append(
            f"alarm      {expected} wrong answers to expect before it closes, if half became wrong at once"
        )
    if s.demotions:
        lines.append(f"           it has closed {s.demotions:,} times, last {when(gate.demoted_at[-1])}")
    worst = [scope for scope in s.scopes if scope[2]][:3]
    for scope, audits, wrong in worst:
        shut = ", closed for it alone" if scope in gate.closed_scopes else ""
        lines.append(
            f"worst      {clean(scope or 'everybody', 60)}: {wrong:,} of {audits:,} audits wrong{shut}"
        )
    lines.append(
        f"money      {usd(gate.saved)} saved by served answers, {usd(gate.audited)} spent on audits: "
        f"{usd(gate.saved - gate.audited)} left"
    )
    lines.append(f"judge      {clean(gate.judge, 60)}   encoder {clean(gate.encoder, 70)}")
    if gate.waiting:
        lines.append(
            f"           {gate.waiting:,} answers wait for the judge; lost ones count as wrong after 10 minutes"
        )
    return lines


def _next(gate: GateTold) -> str:
    s = gate.standing
    if gate.lonely:
        return (
            f"{gate.alone:,} of {s.requests:,} calls found no stored question at all: some argument never repeats; "
            "name passages with sources=, what does not matter with ignore=, or put semantic on the outer function"
        )
    if s.state == "open":
        return "nothing; costkit report shows the money, and the audits go on"
    if gate.demoted_at and not s.labels:
        return "find what changed (model, prompt, documents); it starts over by itself"
    if s.next_labels is None and s.labels >= gate.bound.least_labels:
        return (
            "on what it has seen no number of labels would open it: near questions have other answers too often; try a "
            "larger max_error, or see which with costkit replay"
        )
    return f"wait: it needs at least {gate.bound.least_labels:,} labels; or costkit certify MODULE:function LOG.jsonl"
