"""Kill -9, fork and jumping clocks: what was acknowledged stays, once and whole."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

import costkit
from costkit import Kit, exact, forks
from tests.benchmarks import crash

ROOT = Path(__file__).parent.parent


def test_a_crash_loses_nothing_acknowledged() -> None:
    """Twenty rounds of two writers killed at random: no acknowledged row lost or torn, no wrong answer served."""
    command = [sys.executable, "-m", "tests.benchmarks.crash", "--rounds", "20", "--acked", "2000", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=100)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    failures = {k: found[k] for k in ("lost", "torn", "integrity_failed", "reopen_failed", "wrong")}
    assert failures == dict.fromkeys(failures, 0)
    assert found["acknowledged"] > 500 and found["kills"] == 40 and found["hits"] > 10


@pytest.mark.parametrize(
    ("harm", "what"),
    [
        ("DELETE FROM queries WHERE id = ?", "lost"),
        ("DELETE FROM attempts WHERE query_id = ?", "torn"),
        ("UPDATE queries SET provider_cost = 1 WHERE id = ?", "torn"),
        ("UPDATE queries SET complete = 0 WHERE id = ?", "torn"),
        (
            "INSERT INTO attempts (query_id, root_id, role, at, usage_state, cost, model) "
            "SELECT query_id, root_id, role, at, usage_state, cost, model FROM attempts WHERE query_id = ?",
            "torn",
        ),
    ],
)
def test_the_check_sees_what_it_looks_for(tmp_path: Path, harm: str, what: str) -> None:
    """A row that is missing, half there, changed or there twice is counted as such."""
    with Kit(tmp_path / "kit", prices=crash.RATES) as kit:
        ask = crash.wrapped(kit, spends=True)
        acks = [(ask.outcome(q, tenant=crash.tenant(q)).query_id, q) for q in ("0.0.1.0", "0.0.2.0")]  # type: ignore[attr-defined]
    seen = Counter[str]()
    crash.check(tmp_path / "kit", acks, seen, whole=True)
    assert (seen["lost"], seen["torn"], seen["integrity_failed"], seen["rows_in_ledger"]) == (0, 0, 0, 2)
    con = sqlite3.connect(tmp_path / "kit" / "ledger.db", isolation_level=None)
    con.execute(harm, (acks[0][0],))
    con.close()
    crash.check(tmp_path / "kit", acks, seen, whole=False)
    assert {k: seen[k] for k in ("lost", "torn")} == {"lost": 0, "torn": 0, what: 1}


FORK = """
import os, sys, threading, warnings
import costkit
warnings.simplefilter("ignore")
children, calls = int(sys.argv[2]), int(sys.argv[3])
kit = costkit.Kit(sys.argv[1], prices={"m": costkit.Rates(1, 2)})

@kit.call(costkit.exact(ttl="1d"), scope=None, name="ask", version="1")
def ask(i):
    costkit.record(usage=costkit.Usage(in_fresh=1000, out_text=500), model="m")
    return f"answer {i}"

stop = threading.Event()
def busy():  # the parent's threads hold locks, connections and the writer's queue while it forks
    i = 0
    while not stop.is_set() and i < 20_000:
        assert ask(f"parent {i % 50}") == f"answer parent {i % 50}"
        i += 1
threads = [threading.Thread(target=busy) for _ in range(3)]
for t in threads: t.start()

def child(n):
    # Two calls in ten are cold and spend; the others are hits of the child's own.
    for i in range(calls):
        asked = f"{n}.{i % (calls // 5)}"
        assert ask(asked) == f"answer {asked}"
    kit.close()

pids = []
for n in range(children):
    pid = os.fork()
    if not pid:
        code = 1
        try:
            child(n)
            code = 0
        except BaseException as exc:
            sys.stderr.write(f"{type(exc).__name__}: {exc}\\n")
        finally:
            os._exit(code)
    pids.append(pid)
failed = sum(os.waitpid(pid, 0)[1] != 0 for pid in pids)
stop.set()
for t in threads: t.join()
kit.close()
sys.exit(failed)
"""


@pytest.mark.parametrize(("children", "calls"), [(8, 200), pytest.param(8, 1000, marks=pytest.mark.slow)])
def test_fork_after_open(tmp_path: Path, children: int, calls: int) -> None:
    """Children forked while the parent's threads are calling answer, pay once a cold call, and record every call."""
    command = [sys.executable, "-c", FORK, str(tmp_path / "kit"), str(children), str(calls)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=110)
    assert done.returncode == 0, done.stderr
    with Kit(tmp_path / "kit") as kit:
        con = kit.ledger()
        mine = con.execute(
            "SELECT COUNT(*), COUNT(DISTINCT id), SUM(saved_by IS NULL), SUM(provider_cost) FROM queries"
        ).fetchone()
        spent = con.execute("SELECT COUNT(*), SUM(cost) FROM attempts").fetchone()
        assert con.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        con.close()
        assert kit.health() == dict.fromkeys(kit.health(), 0)
    cold = children * (calls // 5)
    assert mine[0] == mine[1] >= children * calls and mine[2] == spent[0] and mine[3] == spent[1]
    assert cold < spent[0] <= cold + 50, "each cold key is paid for once"


def test_a_fork_waits_for_threads_inside_sqlite(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork waits until no thread of ours is inside SQLite, but not for ever; the child starts with nobody inside."""
    monkeypatch.setattr(forks, "PATIENCE", 0.3)
    for leave_after, longest in ((0.1, 0.29), (1.0, 0.9)):
        entered, left = threading.Event(), threading.Event()

        def stay(
            leave_after: float = leave_after, entered: threading.Event = entered, left: threading.Event = left
        ) -> None:
            with forks.inside:
                entered.set()
                time.sleep(leave_after)
                left.set()

        thread = threading.Thread(target=stay)
        thread.start()
        entered.wait()
        began = time.monotonic()
        pid = os.fork()
        if not pid:
            os._exit(forks.inside._threads)
        took = time.monotonic() - began
        assert left.is_set() == (leave_after < 0.3) and 0.05 < took < longest
        with forks.inside:
            pass
        thread.join()
        assert os.waitpid(pid, 0)[1] == 0 and forks.inside._threads == 0


def test_clocks_that_jump_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wall clock a day off, either way, makes no answer live longer than its ttl, and no latency negative."""
    real = time.time
    shift, paid = [0.0], Counter[str]()
    monkeypatch.setattr(time, "time", lambda: real() + shift[0])
    with Kit(tmp_path / "kit", prices=crash.RATES) as kit:

        @kit.call(exact(ttl=0.5), scope=None)
        def ask(question: str) -> str:
            paid[question] += 1
            shift[0] += {"back": -86_400, "forth": 86_400}.get(
                question, 0
            )  # the clock jumps while the call runs
            costkit.record(usage=crash.USAGE, model="m")
            return question

        for question in ("back", "forth", "still"):
            began = time.monotonic()
            assert ask(question) == question
            shift[0] += {"back": 86_400, "forth": -86_400}.get(question, 0)
            for jump in (-86_400, 86_400, 0):
                shift[0] += jump
                assert ask(question) == question
                shift[0] -= jump
            while time.monotonic() < began + 0.6:
                time.sleep(0.05)
            before = paid[question]
            shift[0] -= 86_400  # set back a day after the ttl has run out: it must not come to life again
            outcome = ask.outcome(question)
            assert outcome.saving is None and paid[question] == before + 1, question
            assert outcome.latency >= 0
            shift[0] = 0.0
        con = kit.ledger()
        assert con.execute("SELECT COUNT(*) FROM queries WHERE latency < 0 OR ttft < 0").fetchone()[0] == 0
        assert (
            con.execute(
                "SELECT COUNT(*) FROM attempts WHERE latency < 0 OR cost != ?", (crash.COST,)
            ).fetchone()[0]
            == 0
        )
        con.close()


def test_threads_of_one_kit_share_it(tmp_path: Path) -> None:
    """Sixteen threads that spend at once: every call on record, once, in groups of one commit."""
    with Kit(tmp_path / "kit", prices=crash.RATES) as kit:
        ask = crash.wrapped(kit, spends=True)
        threads = [
            threading.Thread(target=lambda n=n: [ask(f"0.0.{n}.{i}", tenant=f"t{n}") for i in range(50)])
            for n in range(16)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        con = kit.ledger()
        assert con.execute("SELECT COUNT(*), COUNT(DISTINCT query_id), SUM(cost) FROM attempts").fetchone()[:] == (
            800, 800, 800 * crash.COST,
        )  # fmt: skip
        con.close()
    assert os.path.exists(tmp_path / "kit" / "ledger.db")


SECOND = """
import sys, costkit
from tests.benchmarks import crash
with costkit.Kit(sys.argv[1], prices=crash.RATES) as kit:
    crash.wrapped(kit, spends=True)("0.0.9.0", tenant="t9")
"""


def test_a_second_kit_in_the_process_loses_nothing(tmp_path: Path) -> None:
    """Opening a folder again drops none of the locks that the first kit's connections hold: when another process
    leaves, it must not take the log from under them."""
    home = tmp_path / "kit"
    with Kit(home, prices=crash.RATES) as first:
        ask = crash.wrapped(first, spends=True)
        for i in range(5):
            ask(f"0.0.0.{i}", tenant="t0")
        logs = {name: os.stat(home / name).st_ino for name in ("ledger.db-wal", "cache/cache.db-wal")}
        with Kit(home, prices=crash.RATES):
            subprocess.run([sys.executable, "-c", SECOND, str(home)], check=True, cwd=ROOT, timeout=60)
            for i in range(5, 10):
                ask(f"0.0.0.{i}", tenant="t0")
        assert {name: os.stat(home / name).st_ino for name in logs} == logs
        acks = [(ask.outcome(q := f"0.0.0.{i}", tenant="t0").query_id, q) for i in range(10, 12)]  # type: ignore[attr-defined]
    seen = Counter[str]()
    crash.check(home, acks, seen, whole=True)
    assert (seen["lost"], seen["torn"], seen["integrity_failed"], seen["rows_in_ledger"]) == (0, 0, 0, 13)
