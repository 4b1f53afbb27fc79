"""What the record says about cost, latency and savings, as data; the numbers behind ``costkit report``."""

from __future__ import annotations

import os
import sqlite3
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..stats import bootstrap_mean, quantile, quantile_interval
from . import facts
from .advice import Signs, advise
from .facts import AttemptFacts, Floats, Select
from .gates import GateLine, gate_lines
from .groups import By, Group, Spender, groups, spenders
from .read import reading

__all__ = ["BudgetLine", "Counts", "Latency", "Money", "Report", "Saving", "Tokens", "make_report"]

Interval = tuple[float, float]
_BLOCKS = 1000


@dataclass(frozen=True, slots=True)
class Counts:
    """Outermost queries: every one is in ``queries``, and in one of good, failed, incomplete and refused.

    ``hits`` were answered by a saving without asking any model, ``helped`` had a nested call answered so and asked a
    model too.
    """

    queries: int = 0
    hits: int = 0
    helped: int = 0
    good: int = 0
    failed: int = 0
    incomplete: int = 0
    refused: int = 0
    unknown: int = 0  # queries with a call of unknown cost inside

    @property
    def hit_rate(self) -> float | None:
        """Hits over all queries: failed, refused and uncacheable ones included."""
        return self.hits / self.queries if self.queries else None


@dataclass(frozen=True, slots=True)
class Money:
    """Nano-dollars paid: by queries, and apart from them by ``reference`` calls and by ``refresh`` calls of stale
    answers. ``reported`` and ``estimated`` split all of it; ``missing`` and ``unpriced`` are numbers of model calls
    whose cost is unknown, for want of usage or of a price.
    """

    queries: int = 0
    reference: int = 0
    refresh: int = 0
    reported: int = 0
    estimated: int = 0
    attempts: int = 0
    missing: int = 0
    unpriced: int = 0
    without: int = 0  # what the same queries would have cost without savings, where known
    overhead: int = 0
    mean: float | None = None  # of the queries whose cost is known
    interval: Interval | None = None
    per_success: float | None = None  # all queries' spend over the good ones

    @property
    def total(self) -> int:
        """All that was paid."""
        return self.queries + self.reference + self.refresh

    @property
    def saved(self) -> int:
        """What savings took off the queries' cost, refreshes and overhead paid for; may be negative."""
        return self.without - self.queries - self.overhead - self.refresh

    @property
    def estimated_share(self) -> float | None:
        """The share of the known spend that rests on counted text instead of reported usage."""
        known = self.reported + self.estimated
        return self.estimated / known if known else None


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds as callers waited, 95 % order-statistic intervals; None where there are too few values."""

    label: str
    queries: int
    p50: float | None = None
    p50_interval: Interval | None = None
    p95: float | None = None
    p95_interval: Interval | None = None


@dataclass(frozen=True, slots=True)
class Saving:
    """Calls, nested ones too, that one kind of saving answered; nano-dollars. ``unknown``: calls without a known
    counterfactual. ``share``: saved over what all queries would have cost.
    """

    kind: str
    calls: int
    counterfactual: int
    saved: int
    unknown: int
    share: float | None


@dataclass(frozen=True, slots=True)
class Tokens:
    """``saved`` stood behind hits (``unknown_hits``: saved calls whose tokens no recorded call tells), ``asked`` went
    through models, ``input`` and ``cache_read`` are those in, and those of them read from the provider's cache.
    """

    saved: int = 0
    unknown_hits: int = 0
    asked: int = 0
    input: int = 0
    cache_read: int = 0

    @property
    def hit_rate(self) -> float | None:
        """Saved tokens over all tokens; a lower limit while ``unknown_hits`` is not 0."""
        every = self.saved + self.asked
        return self.saved / every if every else None

    @property
    def cache_share(self) -> float | None:
        """Input tokens that the provider's own cache served."""
        return self.cache_read / self.input if self.input else None


@dataclass(frozen=True, slots=True)
class BudgetLine:
    """A budget in force, nano-dollars; ``ends`` is the Unix time at which it starts anew, None: never."""

    label: str
    cap: int
    spent: int
    held: int
    lapsed: int
    ends: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """One period of a record; ``since`` and ``until`` are Unix seconds (None: from the start)."""

    since: float | None
    until: float
    counts: Counts = Counts()
    money: Money = Money()
    latency: tuple[Latency, ...] = ()
    savings: tuple[Saving, ...] = ()
    tokens: Tokens = Tokens()
    top: dict[str, tuple[Spender, ...]] = field(default_factory=dict)
    budgets: tuple[BudgetLine, ...] = ()
    by: By | None = None
    groups: tuple[Group, ...] = ()
    gates: tuple[GateLine, ...] = ()
    next_steps: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON: money in nano-dollars, times in Unix seconds, durations in seconds, null means unknown."""
        told = asdict(self)
        told["counts"]["hit_rate"] = self.counts.hit_rate
        m = self.money
        told["money"] |= {"total": m.total, "saved": m.saved, "estimated_share": m.estimated_share}
        told["tokens"] |= {"hit_rate": self.tokens.hit_rate, "cache_share": self.tokens.cache_share}
        return {"units": {"money": "nano-dollars", "time": "seconds"}, **told}


def make_report(
    folder: str | os.PathLike[str],
    select: Select | None = None,
    *,
    by: By | None = None,
    now: float | None = None,
) -> Report:
    """The report of a kit's folder; reads one moment of the record and writes nothing.

    Raises:
        FolderError: no kit's folder, or its ledger cannot be read.
        LedgerVersionError: a newer costkit wrote it.

    >>> import costkit, tempfile
    >>> kit = costkit.Kit(tempfile.mkdtemp() + "/kit")
    >>> shout = kit.call(costkit.exact(), scope=None)(lambda text: text.upper())
    >>> _ = shout("hi"), shout("hi"), kit.close()
    >>> make_report(kit.folder).counts.hit_rate
    0.5
    """
    select = select or Select()
    until = time.time() if now is None else now
    with reading(folder) as con:
        if con is None:
            return Report(select.since, until, next_steps=advise(Signs()))
        facts.pick(con, select)
        return _report(con, select, by, until)


def _report(con: sqlite3.Connection, select: Select, by: By | None, until: float) -> Report:
    attempts = facts.attempts(con)
    counts = _counts(con)
    money = _money(con, attempts, counts)
    savings = _savings(con, money)
    budgets = _budgets(con, until)
    top = {what: spenders(con, what, attempts, money.total) for what in ("name", "scope", "model")}
    signs = _signs(con, attempts, counts, money, top)
    return Report(
        select.since,
        until,
        counts,
        money,
        _latencies(con),
        savings,
        _tokens(con, attempts, bool(savings)),
        top,
        budgets,
        by,
        () if by is None else groups(con, by),
        gate_lines(con),
        advise(signs),
    )


def _counts(con: sqlite3.Connection) -> Counts:
    found = facts.rows(
        con,
        "SELECT COUNT(*) AS queries, SUM(hit) AS hits, SUM(helped AND NOT hit) AS helped, SUM(ended = 'good') AS good,"
        " SUM(ended = 'failed') AS failed, SUM(ended = 'incomplete') AS incomplete,"
        " SUM(ended = 'refused') AS refused, SUM(unknown > 0) AS unknown FROM trees WHERE role = 'call'",
    )[0]
    return Counts(**{name: int(value or 0) for name, value in found.items()})


def _money(con: sqlite3.Connection, attempts: Sequence[AttemptFacts], counts: Counts) -> Money:
    roles = {
        role: (paid, without, overhead)
        for role, paid, without, overhead in con.execute(
            "SELECT role, SUM(paid), SUM(without), SUM(overhead) FROM trees GROUP BY role"
        )
    }
    paid, without, overhead = roles.get("call", (0, 0, 0))
    known = facts.values(
        con,
        "SELECT paid FROM trees WHERE role = 'call' AND ran AND unknown = 0 ORDER BY at",
    )
    return Money(
        queries=paid,
        reference=roles.get("reference", (0,))[0],
        refresh=roles.get("refresh", (0,))[0],
        reported=sum(a.cost for a in attempts if a.state == "reported"),
        estimated=sum(a.cost for a in attempts if a.state == "estimated"),
        attempts=sum(a.count for a in attempts),
        missing=sum(a.count for a in attempts if a.state == "missing"),
        unpriced=sum(a.count for a in attempts if a.state != "missing" and not a.priced),
        without=without,
        overhead=overhead,
        mean=float(known.mean()) if known.size else None,
        interval=_mean_interval(known),
        per_success=paid / counts.good if counts.good else None,
    )


def _mean_interval(ordered: Floats) -> Interval | None:
    """Bootstrap of the mean; many queries are drawn as blocks of neighbours, which keeps bursts together."""
    if ordered.size < 2:
        return None
    if ordered.size > 2 * _BLOCKS:
        ordered = np.array([block.mean() for block in np.array_split(ordered, _BLOCKS)])
    return bootstrap_mean(ordered, repeats=2000)


def _latencies(con: sqlite3.Connection) -> tuple[Latency, ...]:
    # A refused query did not run: its microseconds would flatter every quantile.
    ran = "FROM trees WHERE role = 'call' AND ran"
    parts = (
        ("all queries", f"SELECT latency {ran}"),
        ("hits", f"SELECT latency {ran} AND hit"),
        ("misses", f"SELECT latency {ran} AND NOT hit"),
        ("streams, to the first chunk", f"SELECT ttft {ran}"),
    )
    found = [_latency(label, facts.values(con, sql)) for label, sql in parts]
    return tuple(part for part in found if part.queries)


def _latency(label: str, seconds: Floats) -> Latency:
    if not seconds.size:
        return Latency(label, 0)
    ordered = np.sort(seconds)
    return Latency(
        label,
        int(ordered.size),
        quantile(ordered, 0.5),
        quantile_interval(ordered, 0.5),
        quantile(ordered, 0.95),
        quantile_interval(ordered, 0.95),
    )


def _savings(con: sqlite3.Connection, money: Money) -> tuple[Saving, ...]:
    found = con.execute(
        "SELECT q.saved_by, COUNT(*), COALESCE(SUM(q.counterfactual_cost), 0), COALESCE(SUM(q.saving), 0),"
        " SUM(q.counterfactual_cost IS NULL) FROM queries q JOIN trees t ON t.root_id = q.root_id"
        " WHERE q.saved_by IS NOT NULL AND t.role = 'call' GROUP BY q.saved_by ORDER BY 4 DESC, 1"
    )
    return tuple(
        Saving(str(kind), calls, without, saved, unknown, saved / money.without if money.without else None)
        for kind, calls, without, saved, unknown in found
    )


def _tokens(con: sqlite3.Connection, attempts: Sequence[AttemptFacts], any_saved: bool) -> Tokens:
    calls = [a for a in attempts if a.role == "call"]
    saved, unknown = facts.saved_tokens(con) if any_saved else (0, 0)
    return Tokens(
        saved,
        unknown,
        sum(a.tokens_in + a.tokens_out for a in calls),
        sum(a.tokens_in for a in calls),
        sum(a.cache_read for a in calls),
    )


def _budgets(con: sqlite3.Connection, now: float) -> tuple[BudgetLine, ...]:
    found = con.execute(
        "SELECT label, CAST(cap AS INTEGER), CAST(spent AS INTEGER), CAST(held AS INTEGER), CAST(lapsed AS INTEGER),"
        " CAST(ends AS REAL) FROM budgets WHERE ends IS NULL OR ends > ?"
        " ORDER BY (spent + held) * 1.0 / MAX(cap, 1) DESC, label LIMIT 1000",
        (now,),
    )
    return tuple(BudgetLine(str(label), *numbers) for label, *numbers in found)


def _signs(
    con: sqlite3.Connection,
    attempts: Sequence[AttemptFacts],
    counts: Counts,
    money: Money,
    top: dict[str, tuple[Spender, ...]],
) -> Signs:
    unpriced: Counter[str] = Counter()
    for a in attempts:
        if a.state != "missing" and not a.priced:
            unpriced[a.model or ""] += a.count
    cut = sum(a.count for a in attempts if (a.finish or "").lower() in {"length", "max_tokens", "incomplete"})
    return Signs(
        queries=counts.queries,
        attempts=money.attempts,
        spend=money.total,
        refused=counts.refused,
        failed=counts.failed,
        missing=money.missing,
        unpriced=tuple(unpriced.most_common(5)),
        estimated_share=money.estimated_share or 0.0,
        estimated_streams=sum(a.count for a in attempts if a.state == "estimated" and a.stream),
        cut=cut,
        hits=counts.hits + counts.helped,
        repeats=tuple(
            (r["name"], r["made"], r["again"], bool(r["keyed"]), r["paid"]) for r in facts.repeats(con)
        ),
        unsaved=_unsaved(con),
        top=tuple(top["name"]),
    )


def _unsaved(con: sqlite3.Connection) -> tuple[tuple[str, int], ...]:
    """Functions that spend and never had a key: no saving is set on them, nor on a call around them."""
    found = con.execute(
        "SELECT q.name, COUNT(*) FROM queries q JOIN trees t ON t.root_id = q.root_id"
        " WHERE t.role = 'call' AND q.provider_cost > 0 GROUP BY q.name HAVING MAX(q.key IS NOT NULL) = 0"
        " ORDER BY SUM(q.provider_cost) DESC, 1 LIMIT 3"
    )
    return tuple((str(name), int(count)) for name, count in found)
