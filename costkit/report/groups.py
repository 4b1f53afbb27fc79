"""The report's lists: who spends most, and one row per function, scope, model or day."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from ..stats import quantile
from . import facts
from .facts import AttemptFacts

__all__ = ["BYS", "By", "Group", "Spender", "groups", "spenders"]

By = Literal["name", "scope", "model", "day"]
BYS: tuple[By, ...] = get_args(By)
_MOST_GROUPS = 1000
_TOP = 5


@dataclass(frozen=True, slots=True)
class Spender:
    """A function (its own model calls), a scope or a model, with its spend in nano-dollars; None: no scope, or no
    model named.
    """

    label: str | None
    calls: int
    spend: int
    share: float | None


@dataclass(frozen=True, slots=True)
class Group:
    """Outermost queries of one label, or for ``--by model`` model calls (then hits and savings have no meaning: None).

    Nano-dollars and seconds; ``unknown`` counts those without a known cost.
    """

    label: str | None
    calls: int
    hits: int | None
    spend: int
    saved: int | None
    unknown: int
    p50: float | None
    p95: float | None


def spenders(
    con: sqlite3.Connection, what: str, attempts: Sequence[AttemptFacts], total: int
) -> tuple[Spender, ...]:
    """The few that spend most, whatever their calls were for."""
    if what == "model":
        sums: dict[str | None, list[int]] = defaultdict(lambda: [0, 0])
        for a in attempts:
            sums[a.model][0] += a.count
            sums[a.model][1] += a.cost
        found = sorted(((m, n, cost) for m, (n, cost) in sums.items()), key=lambda r: (-r[2], str(r[0])))
    else:
        sql = {
            "name": "SELECT q.name, COUNT(*), SUM(q.provider_cost) FROM queries q"
            " JOIN trees t ON t.root_id = q.root_id GROUP BY q.name",
            "scope": "SELECT scope, COUNT(*), SUM(paid) FROM trees GROUP BY scope",
        }[what]
        found = con.execute(f"{sql} ORDER BY 3 DESC, 1 LIMIT {_TOP}").fetchall()
    return tuple(
        Spender(label, calls, spend, spend / total if total else None)
        for label, calls, spend in found[:_TOP]
        if spend
    )


def groups(con: sqlite3.Connection, by: By) -> tuple[Group, ...]:
    """Every label, the dearest first (days in their order), at most 1,000."""
    return _models(con) if by == "model" else _queries(con, by)


def _queries(con: sqlite3.Connection, by: By) -> tuple[Group, ...]:
    label = facts.dates()[by]
    # The latest days, then in their order; else the dearest.
    order = "1 DESC" if by == "day" else "spend DESC, 1"
    found = con.execute(
        f"SELECT {label}, COUNT(*), SUM(hit), SUM(paid) AS spend, SUM(without - paid - overhead), SUM(unknown > 0)"
        f" FROM trees WHERE role = 'call' GROUP BY 1 ORDER BY {order} LIMIT {_MOST_GROUPS}"
    ).fetchall()
    ran = facts.quantiles_by(con, label, "role = 'call' AND ran")
    quantiles = {name: (quantile(values, 0.5), quantile(values, 0.95)) for name, values in ran}
    made = [
        Group(name, calls, hits, spend, saved, unknown, *quantiles.get(name, (None, None)))
        for name, calls, hits, spend, saved, unknown in found
    ]
    return tuple(reversed(made)) if by == "day" else tuple(made)


def _models(con: sqlite3.Connection) -> tuple[Group, ...]:
    found = con.execute(
        "SELECT a.model, COUNT(*), COALESCE(SUM(a.cost), 0) AS spend, SUM(a.cost IS NULL)"
        " FROM attempts a JOIN trees t ON t.root_id = a.root_id WHERE t.role = 'call'"
        f" GROUP BY a.model ORDER BY spend DESC, 1 LIMIT {_MOST_GROUPS}"
    ).fetchall()
    made = []
    for model, calls, spend, unknown in found:
        ran = facts.values(
            con,
            "SELECT CAST(a.latency AS REAL) FROM attempts a JOIN trees t ON t.root_id = a.root_id"
            " WHERE t.role = 'call' AND a.model IS ?",
            model,
        )
        p50, p95 = (quantile(ran, 0.5), quantile(ran, 0.95)) if ran.size else (None, None)
        made.append(Group(model, calls, None, spend, None, unknown, p50, p95))
    return tuple(made)
