"""What doctor says of the two databases, the ledger and the cache."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from ..ledger import APPLICATION_ID, MIGRATIONS
from .check import Check
from .gates import named_gates, unjudged
from .read import clean, connect_to_read, usd, when

__all__ = ["cache_checks", "index_checks", "ledger_checks"]

_MIB = 1 << 20
_SLACK = 300.0
_ASIDE = "move ledger.db (and -wal, -shm) aside; the next kit starts a new one, what was spent before is then unknown"


def ledger_checks(folder: Path, now: float) -> Iterator[Check]:
    """The ledger: whole, ours, not from the future, its money adding up, nothing held for good."""
    path = folder / "ledger.db"
    if not path.exists():
        yield Check("ok", "ledger", "nothing recorded yet")
        return
    try:
        con = connect_to_read(path)
    except sqlite3.Error as exc:
        yield Check("bad", "ledger", str(exc), _ASIDE)
        return
    with contextlib.closing(con):
        try:
            yield _whole(con, path)
            ours = _ours(con)
            yield ours
            if ours.level == "ok":
                yield from _record(con, now)
        except sqlite3.Error as exc:
            yield Check("bad", "ledger", str(exc), _ASIDE)
    wal = path.with_name("ledger.db-wal")
    size = wal.stat().st_size if wal.exists() else 0
    if size > 64 * _MIB:
        yield Check("warn", "ledger's log", f"{size / _MIB:,.0f} MiB", "some process reads for long: end it")


def _whole(con: sqlite3.Connection, path: Path) -> Check:
    found = [str(row[0]) for row in con.execute("PRAGMA quick_check(3)")]
    if found != ["ok"]:
        return Check("bad", "ledger", "; ".join(found), _ASIDE)
    return Check("ok", "ledger", f"whole, {path.stat().st_size / _MIB:,.1f} MiB")


def _ours(con: sqlite3.Connection) -> Check:
    owner, version = (
        con.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
    )
    if owner != APPLICATION_ID:
        return Check(
            "bad", "ledger's owner", "another program's database", "name another folder, or move it out"
        )
    if version > len(MIGRATIONS):
        found = f"version {version}, this costkit knows {len(MIGRATIONS)}"
        return Check("bad", "ledger's version", found, "pip install -U costkit")
    return Check("ok", "ledger's version", str(version))


def _record(con: sqlite3.Connection, now: float) -> Iterator[Check]:
    count, newest = con.execute("SELECT COUNT(*), MAX(at) FROM queries").fetchone()
    if newest is not None and newest > now + _SLACK:
        ahead = con.execute("SELECT COUNT(*) FROM queries WHERE at > ?", (now + _SLACK,)).fetchone()[0]
        found = f"{ahead} rows lie in the future, up to {when(newest)}"
        yield Check("warn", "clock", found, "set this machine's clock, and the one that wrote them (NTP)")
    else:
        yield Check("ok", "clock", f"{count:,} rows, the newest of {when(newest)}" if count else "no rows")
    rows, paid, unknown = con.execute(
        "SELECT COUNT(*), COALESCE(SUM(provider_cost), 0), COALESCE(SUM(unknown_costs), 0) FROM queries"
    ).fetchone()
    cost, without = con.execute(
        "SELECT COALESCE(SUM(cost), 0), COALESCE(SUM(cost IS NULL), 0) FROM attempts"
    ).fetchone()
    if (paid, unknown) != (cost, without):
        found = f"queries say {usd(paid)} and {unknown} unknown, their attempts {usd(cost)} and {without}"
        yield Check(
            "bad", "money", found, "rows were lost or changed by hand: do not trust totals before now"
        )
    elif rows:
        yield Check("ok", "money", f"{usd(paid)} in both tables")
    yield from _budgets(con, now)
    yield from _gates(con, now)


def _gates(con: sqlite3.Connection, now: float) -> Iterator[Check]:
    """Gates of lossy savings: readable, and their answers judged."""
    (every,) = con.execute("SELECT COUNT(*) FROM gates").fetchone()
    if not every:
        return
    named = {gate.id: gate.name for gate in named_gates(con)}
    if len(named) < every:
        found = f"{every - len(named)} of {every} cannot be read"
        yield Check(
            "bad", "gates", found, "changed by hand: delete those rows of gates; their functions start anew"
        )
    lost = {id: lost for id, (_, lost) in unjudged(con, now).items() if lost and id in named}
    for id, count in sorted(lost.items(), key=lambda item: -item[1])[:5]:
        yield Check(
            "warn", "labels", f"{count:,} answers of {clean(named[id], 60)} were never judged and count as wrong",
            "let processes end with kit.close(); see that the judge answers, and within five minutes",
        )  # fmt: skip
    if len(named) == every and not lost:
        yield Check("ok", "gates", f"{every} on record, their answers judged; `costkit gate` tells more")


def _budgets(con: sqlite3.Connection, now: float) -> Iterator[Check]:
    damaged = con.execute("SELECT value FROM meta WHERE name = 'damaged_at'").fetchone()
    if damaged is not None:
        yield Check(
            "bad",
            "budgets",
            f"the ledger was damaged and started anew ({damaged[0]}): what was spent before is unknown, budgets that "
            "began before refuse",
            "wait for their next window, or accept the loss: costkit doctor --accept-loss",
        )
    stuck = con.execute(
        "SELECT COUNT(*) FROM holds WHERE lapsed = 0 AND expires < ?", (now - _SLACK,)
    ).fetchone()[0]
    lapsed, amount = con.execute(
        "SELECT COUNT(*), COALESCE(SUM(amount), 0) FROM holds WHERE lapsed = 1"
    ).fetchone()
    if stuck:
        yield Check(
            "ok", "held", f"{stuck} of calls that died; the next call under their budget counts them as spent"
        )
    if lapsed:
        yield Check(
            "warn",
            "lapsed",
            f"{lapsed} calls died holding {usd(amount)}, counted as spent",
            "nothing, or raise the cap by what your provider did not bill",
        )
    wrong = con.execute(
        "SELECT COUNT(*) FROM budgets b WHERE held <> (SELECT COALESCE(SUM(amount), 0) FROM holds h"
        " WHERE h.budget_id = b.id AND h.lapsed = 0)"
    ).fetchone()[0]
    if wrong:
        yield Check(
            "bad",
            "held",
            f"{wrong} budgets hold another sum than their calls do",
            "changed by hand: start a new window",
        )


def index_checks(folder: Path) -> Iterator[Check]:
    """The index of questions: whole, and how large."""
    mend = "nothing: the next kit sets it aside; questions are stored anew as they are asked"
    for path in sorted((folder / "index").glob("*.db")):
        try:
            with contextlib.closing(connect_to_read(path)) as con:
                found = [str(row[0]) for row in con.execute("PRAGMA quick_check(3)")]
                count = con.execute("SELECT COUNT(*) FROM entries").fetchone()[0]
        except sqlite3.Error as exc:
            found, count = [str(exc)], 0
        whole = found == ["ok"]
        said = (
            f"whole, {count:,} questions, {path.stat().st_size / _MIB:,.1f} MiB"
            if whole
            else "; ".join(found)
        )
        yield Check("ok" if whole else "warn", "index", said, "" if whole else mend)


def cache_checks(folder: Path) -> Iterator[Check]:
    """The cache: whole, and how full."""
    path = folder / "cache" / "cache.db"
    if not path.exists():
        yield Check("ok", "cache", "nothing stored yet")
        return
    mend = "nothing: the next kit sets it aside and starts afresh; every call is a miss once"
    try:
        with contextlib.closing(connect_to_read(path)) as con:
            found = [str(row[0]) for row in con.execute("PRAGMA quick_check(3)")]
            if found != ["ok"]:
                yield Check("warn", "cache", "; ".join(found), mend)
                return
            count = con.execute("SELECT COUNT(*) FROM Cache").fetchone()[0]
            planted = con.execute(
                "SELECT COUNT(*) FROM Cache WHERE filename IS NOT NULL OR mode <> 1"
            ).fetchone()[0]
    except sqlite3.Error as exc:
        yield Check("warn", "cache", str(exc), mend)
        return
    if planted:
        found_text = f"{planted} of {count:,} rows are none of ours"
        yield Check(
            "bad", "cache", found_text, "somebody writes here: find out who, then delete the cache folder"
        )
    else:
        yield Check("ok", "cache", f"whole, {count:,} answers, {path.stat().st_size / _MIB:,.1f} MiB")
