"""What calls hold of the budgets: each function is one step of the writer's transaction.

Every statement keeps ``spent + held``, or lowers it, but for :func:`hold`, which looks at the cap first, and
for a call that cost more than it held. A hold whose process has not renewed it in time has lapsed: it counts
as spent, for the call may have been paid, until a late settle says what it was.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

from costkit.budget import MOST, Hold, Line, Refusal

# Windows that ended so long ago are forgotten: far longer than a clock may be wrong by.
KEEP = 35 * 86400.0

_OPEN = (
    "INSERT INTO budgets VALUES (?, ?, ?, ?, ?, 0, 0, 0) ON CONFLICT (id) DO UPDATE SET cap = ?, label = ?"
)
_TAKE = "UPDATE budgets SET held = held + ? WHERE id = ? AND (spent + held + ? <= cap OR ? = 0)"
_LAPSED = (
    "UPDATE budgets SET held = held - ?, spent = spent + ?, lapsed = lapsed + ? WHERE id = ?",
    "UPDATE holds SET lapsed = 1 WHERE budget_id = ? AND id = ?",
)


def hold(con: sqlite3.Connection, what: Hold, now: float, expires: float) -> Refusal | None:
    """Hold the amount in every line, or in none and say which one has too little left."""
    lines: dict[str, Line] = {}
    for line in what.lines:  # the same budget twice, with two caps: the lower one holds
        if line.id not in lines or line.cap < lines[line.id].cap:
            lines[line.id] = line
    damaged = damaged_at(con)
    for line in lines.values():
        if damaged is not None and line.starts <= damaged and what.amount:
            return Refusal(line.label, line.cap, 0, 0, line.ends, damaged=True)
    taken: list[Line] = []
    for line in lines.values():
        con.execute(_OPEN, (line.id, line.label, line.cap, line.starts, line.ends, line.cap, line.label))
        _lapse(con, "budget_id = ? AND expires <= ?", (line.id, now))
        take = (what.amount, line.id, what.amount, what.amount)
        if what.amount > MOST or not con.execute(_TAKE, take).rowcount:
            for other in taken:
                con.execute("UPDATE budgets SET held = held - ? WHERE id = ?", (what.amount, other.id))
            spent, held = con.execute("SELECT spent, held FROM budgets WHERE id = ?", (line.id,)).fetchone()
            return Refusal(line.label, line.cap, spent, held, line.ends)
        taken.append(line)
    con.executemany(
        "INSERT INTO holds VALUES (?, ?, ?, ?, 0)",
        [(what.id, line.id, what.amount, expires) for line in taken],
    )
    return None


def settle(con: sqlite3.Connection, id: str, actual: int | None) -> None:
    """What the call held is no longer held: it has cost ``actual`` (None: all of it). Settled again: nothing."""
    rows = con.execute("SELECT budget_id, amount, lapsed FROM holds WHERE id = ?", (id,)).fetchall()
    con.execute("DELETE FROM holds WHERE id = ?", (id,))
    for budget_id, amount, lapsed in rows:
        cost = amount if actual is None else min(actual, MOST)
        if lapsed:
            change = "spent = spent + ? - ?, lapsed = lapsed - ?"
            con.execute(f"UPDATE budgets SET {change} WHERE id = ?", (cost, amount, amount, budget_id))
        else:
            change = "spent = spent + ?, held = held - ?"
            con.execute(f"UPDATE budgets SET {change} WHERE id = ?", (cost, amount, budget_id))


def renew(con: sqlite3.Connection, ids: Collection[str], now: float, lease: float) -> None:
    """Our own calls go on; holds of dead processes lapse, also where the clock has gone back since."""
    con.executemany(
        "UPDATE holds SET expires = ? WHERE id = ? AND lapsed = 0", [(now + lease, id) for id in ids]
    )
    con.execute("UPDATE holds SET expires = ? WHERE lapsed = 0 AND expires > ?", (now + lease, now + lease))
    _lapse(con, "expires <= ?", (now,))


def overdue(con: sqlite3.Connection, now: float, lease: float) -> bool:
    """Whether any hold waits to lapse, or seems to run longer than one can."""
    found = con.execute(
        "SELECT EXISTS (SELECT 1 FROM holds WHERE lapsed = 0 AND (expires <= ? OR expires > ?))",
        (now, now + lease),
    )
    return bool(found.fetchone()[0])


def forget(con: sqlite3.Connection, now: float) -> None:
    """Drop windows that ended long ago, and lapsed holds that nobody has settled since."""
    con.execute("DELETE FROM holds WHERE lapsed = 1 AND expires < ?", (now - KEEP,))
    con.execute(
        "DELETE FROM budgets WHERE ends < ? AND NOT EXISTS (SELECT 1 FROM holds WHERE budget_id = budgets.id)",
        (now - KEEP,),
    )


def learn(con: sqlite3.Connection, *, name: str, model: str, counted: int, reported: int, now: float) -> None:
    """One more call whose input tokens we had counted as well."""
    most = reported / counted
    con.execute(
        "INSERT INTO token_ratios VALUES (?, ?, 1, ?, ?, ?, ?) ON CONFLICT (name, model) "
        "DO UPDATE SET calls = calls + 1, counted = counted + ?, reported = reported + ?, most = MAX(most, ?), at = ?",
        (name, model, counted, reported, most, now, counted, reported, most, now),
    )


def damaged_at(con: sqlite3.Connection) -> float | None:
    """When a damaged ledger was replaced by this one, in Unix seconds; None: never, or its loss was accepted."""
    row = con.execute("SELECT value FROM meta WHERE name = 'damaged_at'").fetchone()
    return None if row is None else float(row[0])


def _lapse(con: sqlite3.Connection, which: str, values: tuple[object, ...]) -> None:
    found = con.execute(f"SELECT amount, budget_id, id FROM holds WHERE lapsed = 0 AND {which}", values)
    for amount, budget_id, id in found.fetchall():
        con.execute(_LAPSED[0], (amount, amount, amount, budget_id))
        con.execute(_LAPSED[1], (budget_id, id))
