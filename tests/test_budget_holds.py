"""Reserve and settle in the ledger: never over the cap, and nothing held for good."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from costkit.budget import Hold, Line, Refusal, Settle, line, parse
from costkit.ledger import Ledger, Query

NOW = 1_700_000_000.0
DAY = 86_400.0
CAP = line(parse("0.0000001 USD/day", "budget")[0], "kit", "all calls", NOW)  # 100 nano-dollars


class Clock:
    """A wall clock that tests turn."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def query(id: str, **more: Any) -> Query:
    return Query(id, None, id, "app.ask", "1", None, None, NOW, 0.5, None, None, "call", 0, 0, **more)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    """Its housekeeping does not come between: it is called by hand where a test wants it."""
    made = quiet(tmp_path, clock)
    yield made
    made.close()


def quiet(folder: Path, clock: Clock) -> Ledger:
    made = Ledger(folder, clock=clock)
    made._tended = made._forgot = float("inf")
    return made


def ask(ledger: Ledger, id: str, amount: int, *lines: Line) -> Refusal | None:
    return ledger.hold(Hold(id, amount, lines or (CAP,))).result(30)


def settle(ledger: Ledger, id: str, amount: int, actual: int | None, *lines: Line) -> None:
    hold = Hold(id, amount, lines or (CAP,))
    future = ledger.write(query(id, reserved=amount), (), durable=True, settle=Settle(hold, actual))
    assert future is not None and future.result(30) is None


def stands(ledger: Ledger, which: Line = CAP) -> tuple[int, int, int]:
    """Spent, held, lapsed."""
    row = (
        ledger.read().execute("SELECT spent, held, lapsed FROM budgets WHERE id = ?", (which.id,)).fetchone()
    )
    return tuple(row)


def open_holds(ledger: Ledger) -> int:
    return int(ledger.read().execute("SELECT COUNT(*) FROM holds WHERE lapsed = 0").fetchone()[0])


def test_reserve_and_settle(ledger: Ledger) -> None:
    """A hold counts until its call is settled, then what the call has cost does; the row is written with it."""
    assert ask(ledger, "a", 60) is None and ask(ledger, "b", 30) is None
    refusal = ask(ledger, "c", 11)
    assert refusal == Refusal("all calls", 100, 0, 90, CAP.ends)
    assert refusal is not None and refusal.left == 10
    settle(ledger, "a", 60, 5)
    settle(ledger, "b", 30, None)
    assert stands(ledger) == (35, 0, 0) and open_holds(ledger) == 0
    assert ask(ledger, "d", 65) is None and ask(ledger, "e", 1) is not None
    rows = ledger.read().execute("SELECT id, reserved FROM queries ORDER BY id").fetchall()
    assert [tuple(row) for row in rows] == [("a", 60), ("b", 30)]


def test_released_at_once(ledger: Ledger) -> None:
    """A release gives all back, also of a hold that is still in the queue, and twice is once."""
    assert ask(ledger, "first", 0) is None
    settle(ledger, "first", 0, 0)
    hold = Hold("a", 100, (CAP,))
    with ledger._lock:  # the writer waits, so the hold is still queued
        future = ledger.hold(hold)
        ledger.release(hold)
    assert future.result(30) is None
    ledger.release(hold)
    ledger.flush()
    assert stands(ledger) == (0, 0, 0) and open_holds(ledger) == 0
    assert not ledger._held
    assert ask(ledger, "b", 100) is None


def test_all_or_none(ledger: Ledger) -> None:
    """Where one of several budgets has too little, nothing is held of the others."""
    small = replace(CAP, id="small", cap=10, label="tenant=acme")
    last = replace(CAP, id="last", cap=1000)
    refusal = ask(ledger, "a", 11, CAP, small, last)
    assert refusal is not None and refusal.label == "tenant=acme"
    assert stands(ledger) == (0, 0, 0) and open_holds(ledger) == 0
    assert ask(ledger, "b", 10, CAP, small, last) is None
    assert [stands(ledger, which)[1] for which in (CAP, small, last)] == [10, 10, 10]
    settle(ledger, "b", 10, 7, CAP, small, last)
    assert [stands(ledger, which)[0] for which in (CAP, small, last)] == [7, 7, 7]


def test_the_same_budget_twice(ledger: Ledger) -> None:
    """A budget named twice, with two caps, is held once, under the lower cap."""
    assert ask(ledger, "a", 60, CAP, replace(CAP, cap=50)) is not None
    assert ask(ledger, "b", 40, CAP, replace(CAP, cap=50)) is None
    assert stands(ledger)[1] == 40


def test_another_cap_keeps_what_was_spent(ledger: Ledger) -> None:
    """A raised cap gives its difference, a lowered one refuses; what was spent stays."""
    assert ask(ledger, "a", 100) is None
    settle(ledger, "a", 100, 100)
    assert ask(ledger, "b", 1) is not None
    raised = replace(CAP, cap=150, label="now more")
    assert ask(ledger, "c", 51, raised) is not None and ask(ledger, "d", 50, raised) is None
    assert ask(ledger, "e", 1) is not None
    row = ledger.read().execute("SELECT label, cap, spent FROM budgets").fetchone()
    assert tuple(row) == ("all calls", 100, 100)


def test_more_than_was_held(ledger: Ledger) -> None:
    """A call that cost more than it held is recorded with its cost; then the budget gives nothing but 0."""
    assert ask(ledger, "a", 90) is None
    settle(ledger, "a", 90, 130)
    assert stands(ledger) == (130, 0, 0)
    assert ask(ledger, "b", 1) is not None and ask(ledger, "c", 0) is None
    settle(ledger, "c", 0, 4)
    assert stands(ledger) == (134, 0, 0), "a call said to be free was not"


@pytest.mark.parametrize("huge", [10**18 + 1, 1 << 63, 10**30])
def test_sums_stay_integers(ledger: Ledger, huge: int) -> None:
    """No amount, however large, wraps around or turns the sums into floats."""
    wide = replace(CAP, id="wide", cap=10**18)
    assert ask(ledger, "a", huge, wide) is not None
    assert ask(ledger, "b", 10**18, wide) is None
    settle(ledger, "b", 10**18, huge, wide)
    assert ask(ledger, "c", 10**18, wide) is not None
    spent, held, _ = stands(ledger, wide)
    assert (spent, held, type(spent)) == (10**18, 0, int)


def test_settled_with_the_row_or_not_at_all(ledger: Ledger) -> None:
    """When the transaction fails, neither the row nor its money is written; the hold goes on counting."""
    assert ask(ledger, "a", 60) is None
    other = sqlite3.connect(ledger.path, isolation_level=None)
    other.execute("ALTER TABLE budgets RENAME TO gone")
    future = ledger.write(query("a"), (), durable=True, settle=Settle(Hold("a", 60, (CAP,)), 5))
    assert future is not None and isinstance(future.exception(30), sqlite3.OperationalError)
    other.execute("ALTER TABLE gone RENAME TO budgets")
    assert stands(ledger) == (0, 60, 0) and open_holds(ledger) == 1
    assert ledger.read().execute("SELECT COUNT(*) FROM queries").fetchone()[0] == 0


def test_a_row_that_cannot_be_written_settles_all_the_same(ledger: Ledger) -> None:
    """The money of a row that SQLite cannot hold is counted, alone and beside other rows."""
    for number in (0, 1):
        assert ask(ledger, f"bad{number}", 30) is None
        bad = query(f"bad{number}", response="\ud800")
        with ledger._lock:
            future = ledger.write(bad, (), durable=True, settle=Settle(Hold(bad.id, 30, (CAP,)), 7))
            good = ledger.write(query(f"good{number}"), (), durable=True) if number else None
        assert future is not None and isinstance(future.exception(30), UnicodeEncodeError)
        assert good is None or good.result(30) is None
        ledger.flush()
        assert stands(ledger) == (7 * (number + 1), 0, 0)
    assert ledger.lost == 2


def test_while_the_ledger_is_locked(tmp_path: Path, clock: Clock) -> None:
    """A hold fails and leaves nothing; a settle waits, its hold counting meanwhile, and goes in once it can."""
    ledger = quiet(tmp_path, clock)
    assert ask(ledger, "a", 60) is None
    assert ledger._con is not None
    ledger._con.execute("PRAGMA busy_timeout=50")
    holder = sqlite3.connect(ledger.path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    settled = ledger.write(query("a"), (), durable=True, settle=Settle(Hold("a", 60, (CAP,)), 5))
    assert settled is not None and isinstance(settled.exception(30), sqlite3.OperationalError)
    hold = Hold("b", 10, (CAP,))
    asked = ledger.hold(hold)
    assert isinstance(asked.exception(30), sqlite3.OperationalError)
    ledger.release(hold)
    assert holder.execute("SELECT held FROM budgets").fetchone() == (60,)
    assert ledger._held == {"a"}, "renewed as long as it is not settled"
    holder.execute("ROLLBACK")
    holder.close()
    assert stands(ledger) == (5, 0, 0) and not ledger._held
    ledger.close()


def test_a_dead_owners_hold_lapses(ledger: Ledger, tmp_path: Path, clock: Clock) -> None:
    """What nobody renews counts as spent after the lease: the call may have been paid."""
    dead = quiet(tmp_path, clock)
    assert ask(dead, "a", 60) is None
    dead._held.clear()
    clock.now += 59
    assert ask(ledger, "b", 41) is not None and stands(ledger) == (0, 60, 0)
    clock.now += 2
    assert ask(ledger, "c", 41) is not None and stands(ledger) == (60, 0, 60)
    assert open_holds(ledger) == 0
    assert ask(ledger, "d", 40) is None


def test_a_late_settle_corrects_once(ledger: Ledger, tmp_path: Path, clock: Clock) -> None:
    """Who was stopped longer than the lease settles what the call did cost, exactly once; so does a release."""
    for id in ("a", "b", "c"):
        assert ask(ledger, id, 20) is None
    ledger._held.clear()
    clock.now += 61
    assert ask(ledger, "d", 1) is None and stands(ledger) == (60, 1, 60)
    settle(ledger, "a", 20, 3)
    assert stands(ledger) == (43, 1, 40)
    ledger.write(query("a2"), (), durable=False, settle=Settle(Hold("a", 20, (CAP,)), 3))
    ledger.release(Hold("b", 20, (CAP,)))
    ledger.release(Hold("b", 20, (CAP,)))
    ledger.flush()
    assert stands(ledger) == (23, 1, 20)
    settle(ledger, "c", 20, None)
    assert stands(ledger) == (23, 1, 0)


def test_a_living_owner_renews(tmp_path: Path) -> None:
    """A call longer than the lease keeps its hold, also in a process that does nothing else meanwhile."""
    ledger, other = Ledger(tmp_path, lease=0.6), Ledger(tmp_path, lease=0.6)
    assert ask(ledger, "a", 60) is None
    until = time.monotonic() + 2
    while time.monotonic() < until:
        time.sleep(0.2)
        refusal = ask(other, f"{time.monotonic()}", 41)
        assert refusal is not None and (refusal.spent, refusal.held) == (0, 60)
    settle(ledger, "a", 60, 5)
    assert stands(ledger) == (5, 0, 0)


def test_nothing_is_held_for_good(tmp_path: Path) -> None:
    """A living process that asks for nothing of that budget still lets a dead one's hold lapse."""
    dead, alive = Ledger(tmp_path, lease=0.6), Ledger(tmp_path, lease=0.6)
    assert ask(dead, "a", 60) is None
    dead.close()
    alive.write(query("x"), (), durable=False)
    until = time.monotonic() + 10
    while open_holds(alive) and time.monotonic() < until:
        time.sleep(0.05)
    assert stands(alive) == (60, 0, 60)


@pytest.mark.parametrize("jump", [-DAY, DAY, -400 * DAY, 30 * DAY])
def test_the_clock_jumps(ledger: Ledger, tmp_path: Path, clock: Clock, jump: float) -> None:
    """After any jump the window keeps its cap, and a dead owner's hold lapses within a lease of the next look."""
    dead = quiet(tmp_path, clock)
    assert ask(dead, "dead", 30) is None and ask(ledger, "alive", 50) is None
    dead._held.clear()
    clock.now += jump
    assert ask(ledger, "b", 21) is not None and ask(ledger, "c", 20) is None
    ledger._tend()
    clock.now += 61
    ledger._tend()
    spent, held, lapsed = stands(ledger)
    assert spent + held == 100 and lapsed >= 30 and (held >= 20 or jump > 0)
    row = ledger.read().execute("SELECT lapsed FROM holds WHERE id = 'dead'").fetchone()
    assert tuple(row) == (1,)
    clock.now = NOW
    assert ask(ledger, "d", 1) is not None
    settle(ledger, "alive", 50, 50)
    settle(ledger, "c", 20, 20)
    assert stands(ledger) == (100, 0, 30)
    assert ask(ledger, "e", 1) is not None


def test_old_windows_are_forgotten(ledger: Ledger, clock: Clock) -> None:
    """Weeks after its end a window's row goes, but for one whose call is still under way; others stay."""
    total = line(parse("5 USD/total", "budget")[0], "kit", "all", NOW)
    busy = replace(CAP, id="busy")
    assert (
        ask(ledger, "a", 1) is None
        and ask(ledger, "b", 1, total) is None
        and ask(ledger, "c", 1, busy) is None
    )
    settle(ledger, "a", 1, 1)
    settle(ledger, "b", 1, 1, total)
    ledger._forgot = time.monotonic() - 7200
    clock.now += 2 * DAY
    ledger._tend()
    ledger._forgot = time.monotonic() - 7200
    assert ledger.read().execute("SELECT COUNT(*) FROM budgets").fetchone()[0] == 3
    clock.now += 40 * DAY
    ledger._tend()
    left = {row["id"] for row in ledger.read().execute("SELECT id FROM budgets")}
    assert left == {total.id, "busy"}


def test_a_thousand_holds_at_once(ledger: Ledger) -> None:
    """A thousand calls in fifty threads share a hundred units: exactly a hundred hold one, in few commits."""
    commits: list[int] = []
    transaction = ledger._transaction

    def counted(*args: Any, **more: Any) -> Any:
        commits.append(1)
        return transaction(*args, **more)

    ledger._transaction = counted  # type: ignore[method-assign]
    given: list[str] = []
    ready = threading.Barrier(50)

    def work(t: int) -> None:
        ready.wait(30)
        asked = {f"{t}-{i}": ledger.hold(Hold(f"{t}-{i}", 1, (CAP,))) for i in range(20)}
        given.extend(id for id, future in asked.items() if future.result(30) is None)

    threads = [threading.Thread(target=work, args=(t,)) for t in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(given) == len(set(given)) == 100
    assert stands(ledger) == (0, 100, 0)
    assert len(commits) < 500, "holds are committed in groups"


def test_holds_do_not_wait_for_the_disk(ledger: Ledger) -> None:
    """A commit of holds alone is not synced (a power cut ends the calls too); one with a durable row is."""
    assert ledger._con is not None
    assert ask(ledger, "a", 1) is None
    assert ledger._con.execute("PRAGMA synchronous").fetchone() == (1,)
    settle(ledger, "a", 1, 1)
    assert ledger._con.execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_hold_cannot_be_cancelled(ledger: Ledger) -> None:
    """Whoever stops waiting for a hold still has to release it: the future cannot be cancelled."""
    future = ledger.hold(Hold("a", 1, (CAP,)))
    assert not future.cancel() and future.result(30) is None


def test_no_id_holds_twice(ledger: Ledger) -> None:
    """A second hold under the same id fails, alone, and the first one stands."""
    assert ask(ledger, "a", 10) is None
    with ledger._lock:
        again, other = ledger.hold(Hold("a", 10, (CAP,))), ledger.hold(Hold("b", 10, (CAP,)))
    assert isinstance(again.exception(30), sqlite3.IntegrityError)
    assert other.result(30) is None and stands(ledger) == (0, 20, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_fork_in_the_middle_of_a_commit(tmp_path: Path) -> None:
    """A process that forks while its writer is busy leaves the child a ledger that it can write to."""
    ledger = Ledger(tmp_path, interval=0.001)
    going = threading.Event()

    def work() -> None:
        for number in range(100_000):
            if going.is_set():
                return
            ledger.hold(Hold(f"{number}", 0, (CAP,))).result(30)

    thread = threading.Thread(target=work)
    thread.start()
    for number in range(20):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                future = ledger.write(query(f"child{number}"), (), durable=True)
                code = 0 if future is not None and future.result(5) is None else 2
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
    going.set()
    thread.join(30)
    assert ledger.read().execute("SELECT COUNT(*) FROM queries").fetchone()[0] == 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_both_halves_of_a_fork_hold_for_themselves(tmp_path: Path) -> None:
    """The child does not renew what its parent holds; each holds and settles its own calls."""
    ledger = Ledger(tmp_path, lease=1.5)
    line = replace(CAP, ends=None)
    assert ledger.hold(Hold("parent", 60, (line,))).result(30) is None
    child = os.fork()
    if child == 0:
        code = 1
        try:
            assert not ledger._held
            assert ledger.hold(Hold("child", 30, (line,))).result(30) is None
            future = ledger.write(
                query("child"), (), durable=True, settle=Settle(Hold("child", 30, (line,)), 9)
            )
            code = 0 if future is not None and future.result(30) is None else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert stands(ledger) == (9, 60, 0)
    settle(ledger, "parent", 60, 1, line)
    assert stands(ledger) == (10, 0, 0)
