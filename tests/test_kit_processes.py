"""A kit's folder in several processes: answers and bumps are shared, forks go on, no row is lost at exit."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from costkit import Kit, exact
from tests import kits
from tests.kits import answer, rows

kit = kits.kit

CHILD = """
import sys, costkit
kit = costkit.Kit(sys.argv[1])
@kit.call(costkit.exact(epoch="kb"), scope="tenant", name="ask", version="1")
def ask(q, *, tenant):
    return {"q": q, "by": sys.argv[2]}
print(ask(sys.argv[3], tenant="acme")["by"], flush=True)
if len(sys.argv) > 4:
    kit.bump("kb")
"""


def test_processes_share_answers_and_bumps(tmp_path: Path) -> None:
    """What one process stored another serves; what one bumped another misses; the record has all of it."""
    folder = str(tmp_path / "kit")

    def child(*args: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", CHILD, folder, *args], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert child("one", "q") == "one"
    assert child("two", "q") == "one"
    with Kit(folder) as kit:
        ask = kit.call(exact(epoch="kb"), scope="tenant", name="ask", version="1")(
            lambda q, *, tenant: {"by": "parent"}
        )
        assert ask("q", tenant="acme") == {"q": "q", "by": "one"}
        assert child("three", "q", "bump") == "one"
        assert ask("q", tenant="acme") == {"by": "parent"}
        assert [r["saved_by"] for r in rows(kit)] == [None, "exact", "exact", "exact", None]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_fork(kit: Kit) -> None:
    """A forked child serves, calls and records on its own, even when forked while threads were busy."""
    ask = kit.call(exact(), scope=None)(answer)
    ask("q")
    stop = threading.Event()

    def busy() -> None:
        while not stop.wait(0.001):
            ask("q")

    thread = threading.Thread(target=busy)
    thread.start()
    children = []
    for i in range(5):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                good = ask.outcome("q").saving == "exact" and ask(f"child{i}") == f"child{i} for t"
                kit.close()
                code = 0 if good else 2
            finally:
                os._exit(code)
        children.append(child)
    codes = [os.waitpid(child, 0)[1] for child in children]
    stop.set()
    thread.join(20)
    assert codes == [0] * 5
    assert ask.outcome("child3").saving == "exact"
    assert sum(r["saved_by"] is None for r in rows(kit)) == 6


def test_used_after_close_and_at_exit(tmp_path: Path) -> None:
    """A program that never closes its kit still finds its rows in the record."""
    code = f"""
    import costkit
    kit = costkit.Kit({str(tmp_path / "kit")!r})
    ask = kit.call(costkit.exact(), scope=None, name="ask", version="1")(lambda q: q)
    for _ in range(50):
        ask("q")
    kit.close()
    ask("q")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    with Kit(tmp_path / "kit") as kit:
        assert len(rows(kit)) == 51
