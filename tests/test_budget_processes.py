"""One budget for many real processes: never over the cap, nothing held by the dead, the row and its money together."""

from __future__ import annotations

import importlib
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from costkit.budget import Hold, line, parse
from costkit.ledger import Ledger

budget: Any = importlib.import_module("tests.benchmarks.budget")
ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("kills", [0, 8])
def test_sixteen_processes_spend_exactly_the_cap(tmp_path: Path, kills: int) -> None:
    """All of the cap is spent and not one call more is made, also when processes are killed in their calls."""
    run = budget.spend(tmp_path, processes=16, kills=kills, seed=kills)
    assert run["kills"] == kills
    assert (run["spent"], run["over"], run["left_held"]) == (budget.CAP, 0, 0)
    # Killed between hold and call, nobody has paid; killed between call and settle, somebody has.
    assert run["rows"] + run["lapsed"] == budget.CAP and run["rows"] <= run["calls"] <= budget.CAP
    assert run["lapsed"] <= kills


def test_holds_of_one_process_go_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand holds asked for while the writer is busy are written in a few transactions, not in a thousand."""
    ledger, batches = Ledger(tmp_path), list[int]()
    commit = ledger._commit

    def counted(batch: list[Any]) -> list[Any]:
        batches.append(len(batch))
        return commit(batch)

    plan = line(parse("5000 USD/total", "budget")[0], "kit", "all calls", 0)
    assert ledger.hold(Hold("first", 1, (plan,))).result(30) is None
    monkeypatch.setattr(ledger, "_commit", counted)
    with ledger._lock:
        asked = [ledger.hold(Hold(str(n), 1, (plan,))) for n in range(1000)]
    assert {future.result(30) for future in asked} == {None}
    assert sum(batches) == 1000 and len(batches) <= 10
    ledger.close()


KILLED = """
import os, signal, sys
from pathlib import Path
from costkit.budget import Hold, Settle, line, parse
from costkit.ledger import Ledger, Query, holds, rows, writer
folder, when = Path(sys.argv[1]), sys.argv[2]
ledger = Ledger(folder)
budget = line(parse("5 USD/total", "budget")[0], "kit", "all calls", 0)
hold = Hold("a", 100, (budget,))
assert ledger.hold(hold).result(30) is None
settle, insert = holds.settle, rows.insert
def dies(*args, **more):
    if when == "after the settle":
        settle(*args, **more)
    os.kill(os.getpid(), signal.SIGKILL)
if when == "after the commit":
    done = ledger.write(Query("a", None, "a", "f", "1", None, None, 0, 0, None, None, "call", 7, 7), (),
                        durable=True, settle=Settle(hold, 7))
    done.result(30)
    os.kill(os.getpid(), signal.SIGKILL)
holds.settle = dies
ledger.write(Query("a", None, "a", "f", "1", None, None, 0, 0, None, None, "call", 7, 7), (),
             durable=True, settle=Settle(hold, 7)).result(30)
"""


@pytest.mark.parametrize("when", ["before the settle", "after the settle", "after the commit"])
def test_killed_while_settling(tmp_path: Path, when: str) -> None:
    """A process killed between a row and its settle leaves both or neither, never one."""
    code = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path), when]
    done = subprocess.run(code, cwd=ROOT, timeout=60)
    assert done.returncode == -signal.SIGKILL
    con = sqlite3.connect(tmp_path / "ledger.db")
    rows = con.execute("SELECT COUNT(*) FROM queries").fetchone()[0]
    stands = con.execute("SELECT spent, held FROM budgets").fetchone()
    assert (rows, stands) == ((1, (7, 0)) if when == "after the commit" else (0, (0, 100)))


def test_a_killed_holder_is_counted_by_the_next(tmp_path: Path) -> None:
    """After kill -9 in the middle of a call another process counts the hold as spent once the lease is over."""
    code = f"""
    import os, signal, time
    from pathlib import Path
    from costkit.budget import Hold, line, parse
    from costkit.ledger import Ledger
    budget = line(parse("5 USD/total", "budget")[0], "kit", "all calls", 0)
    ledger = Ledger(Path({str(tmp_path)!r}), clock=lambda: 1000.0)
    assert ledger.hold(Hold("a", 100, (budget,))).result(30) is None
    os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, timeout=60)
    assert done.returncode == -signal.SIGKILL
    now = [1059.0]
    ledger = Ledger(tmp_path, clock=lambda: now[0])
    total = line(parse("5 USD/total", "budget")[0], "kit", "all calls", 0)
    assert ledger.hold(Hold("b", 1, (total,))).result(30) is None
    con = ledger.read()
    assert tuple(con.execute("SELECT spent, held FROM budgets").fetchone()) == (0, 101)
    now[0] = 1060.0
    assert ledger.hold(Hold("c", 1, (total,))).result(30) is None
    assert tuple(con.execute("SELECT spent, held, lapsed FROM budgets").fetchone()) == (100, 2, 100)
    assert con.execute("SELECT id FROM holds WHERE lapsed = 0 AND id = 'a'").fetchone() is None
    ledger.close()
