"""Labels: quick judges, slow ones in the background, judges that fail, labels that never come."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import costkit
from costkit import Kit
from costkit.bound import Bound
from costkit.bound.tended import LABEL, Tended
from costkit.ledger import Evidence, Ledger
from costkit.semantic import judging
from tests.meanings import AUDIT, Model, evidence, gate_of, kit, meaning, model, opened, pool_of, told

__all__ = ["kit", "model"]

ONE, OTHER = "how do I get a refund", "how do I get my refund"


def asked(judge: Callable[..., Any]) -> costkit.judges.Judge:
    return costkit.judges.asked(judge, name="mine", version="1", defines=True)


def labels(kit: Kit) -> list[tuple[str, int | None]]:
    pool = next(iter(kit._pools._pools.values()))
    pool.close()  # waits for the judge
    return told(kit)


def test_a_slow_judge_works_in_the_background(kit: Kit, model: Model) -> None:
    """The call does not wait for a judge that asks a model; its label comes as a row of its own and counts."""
    go = threading.Event()

    @kit.call(meaning(), max_error=0.3, judge=asked(lambda served, reference: go.wait(10)), scope=None)
    def ask(question: str) -> str:
        return model(question)

    ask(ONE)
    ask(OTHER)
    assert told(kit) == [("none", None), ("declined", None)]
    go.set()
    assert labels(kit) == [("none", None), ("declined", None), (LABEL, 0)]
    assert evidence(kit)[1]["query_id"] == evidence(kit)[2]["query_id"]
    assert gate_of(kit, ask).follow().labels == 1


def test_a_judge_faster_than_its_call(kit: Kit) -> None:
    """A label that is written before the row of its call is kept for it, in every process that reads the rows."""
    bound, rung = Bound(0.3), 0
    passage: dict[str, Any] = {
        "kind": "declined", "rung": rung, "risk": 0.1, "features": (1.0,) * 12, "chance": 1.0, "generation": 0,
    }  # fmt: skip
    label: dict[str, Any] = {**passage, "kind": LABEL, "rung": None, "risk": None, "features": None}
    rows = [
        Evidence(gate="g", query_id="q", at=1000.0, wrong=False, **label),
        Evidence(gate="g", query_id="q", at=999.0, wrong=None, **passage),
        Evidence(gate="g", query_id="later", at=99_000.0, wrong=None, **{**passage, "kind": "none"}),
    ]
    kit._ledger.testify(rows)
    kit._ledger.flush()
    gate = Tended("g", bound, (0.0,) * 12, kit._ledger.reader).follow()
    assert (gate.labels, sum(gate.ladder.strata.wrong)) == (1, 0)


def test_a_label_that_never_comes_is_wrong(kit: Kit) -> None:
    """What waits for a label ten minutes of the rows' own time is counted as wrong, however the rows are read."""
    declined = Evidence("g", "q", 1000.0, "declined", 0, 0.1, (1.0,) * 12, 1.0, 0)
    none = Evidence("g", "q2", 1700.0, "none", None, None, None, 1.0, 0)
    late = Evidence("g", "q", 1701.0, LABEL, None, None, None, 1.0, 0, wrong=False)
    stepwise = Tended("g", Bound(0.3), (0.0,) * 12, kit._ledger.reader)
    for row in (declined, none, late):
        kit._ledger.testify([row])
        kit._ledger.flush()
        stepwise.follow()
    at_once = Tended("g", Bound(0.3), (0.0,) * 12, kit._ledger.reader)
    for tended in (stepwise, at_once):
        assert sum(tended.follow().ladder.strata.wrong) == 1 and tended.gate.labels == 1
        tended.close()


def test_a_clock_that_jumps_loses_few_labels(kit: Kit) -> None:
    """One row from a clock far ahead gives up what waits then, and nothing that comes after it."""
    ahead = Evidence("g", "x", 9e9, "none", None, None, None, 1.0, 0)
    rows = [ahead]
    for number in range(20):
        rows.append(Evidence("g", f"q{number}", 1000.0, "declined", 0, 0.1, (1.0,) * 12, 1.0, 0))
        rows.append(Evidence("g", f"q{number}", 1001.0, LABEL, None, None, None, 1.0, 0, wrong=False))
    kit._ledger.testify(rows)
    kit._ledger.flush()
    gate = Tended("g", Bound(0.3), (0.0,) * 12, kit._ledger.reader).follow()
    assert (gate.labels, sum(gate.ladder.strata.wrong)) == (20, 0)


@pytest.mark.parametrize("error", [RuntimeError("secret words"), SystemExit(1)])
def test_a_judge_that_raises(kit: Kit, error: BaseException) -> None:
    """An answer that a judge failed on counts as wrong; a warning names the judge and repeats no text of the error."""

    def judge(served: Any, reference: Any) -> bool:
        raise error

    @kit.call(meaning(), max_error=0.3, judge=asked(judge), scope=None)
    def ask(question: str) -> str:
        return "14 days"

    ask(ONE)
    if isinstance(error, Exception):
        with pytest.warns(RuntimeWarning, match="judge mine: it raised RuntimeError; the answer") as caught:
            ask(OTHER)
            assert labels(kit)[-1] == (LABEL, 1)
        assert not any("secret" in str(warning.message) for warning in caught)
    else:
        ask(OTHER)
        assert labels(kit)[-1] == (LABEL, 1)


def test_a_judge_without_verdict(kit: Kit) -> None:
    """An answer that has no form under the judge counts as wrong."""

    @kit.call(meaning(), max_error=0.3, judge=costkit.judges.same_sources(), scope=None)
    def ask(question: str) -> str:
        return "14 days"

    ask(ONE)
    with pytest.warns(RuntimeWarning, match="counts as wrong"):
        ask(OTHER)
    assert told(kit) == [("none", None), ("declined", 1)]


def test_what_the_caller_does_meanwhile(kit: Kit) -> None:
    """A slow judge sees the answer as it was returned, whatever the caller has made of it since."""
    go, seen = threading.Event(), []

    def judge(served: Any, reference: Any) -> bool:
        go.wait(10)
        seen.append((list(served), list(reference)))
        return True

    @kit.call(meaning(), max_error=0.3, judge=asked(judge), scope=None)
    def ask(question: str) -> list[str]:
        return ["14 days"]

    ask(ONE)
    ask(OTHER).append("changed")
    go.set()
    labels(kit)
    assert seen == [(["14 days"], ["14 days"])]


def test_a_full_queue(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the longest queue an audit counts as wrong; of what was not served the label is left out, not made up."""
    monkeypatch.setattr(judging, "_MOST_WAITING", 1)
    monkeypatch.setattr(judging, "_THREADS", 1)
    go, busy = threading.Event(), threading.Event()

    def judge(served: Any, reference: Any) -> bool:
        busy.set()
        return go.wait(10)

    @kit.call(meaning(), max_error=0.3, judge=asked(judge), scope=None)
    def ask(question: str) -> str:
        return "14 days"

    ask(ONE)
    ask(OTHER)
    assert busy.wait(10)
    ask("how do I get the refund")
    ask("how do I get a good refund")
    opened(kit, ask, coin=AUDIT)
    ask("how do I get one refund")
    ask("how do I get some refund")
    go.set()
    rows = labels(kit)
    assert rows[:5] == [("none", None), *[("declined", None)] * 2, (LABEL, None), ("declined", None)] or (
        sorted(rows[:5], key=str)
        == sorted([("none", None), *[("declined", None)] * 3, (LABEL, None)], key=str)
    )
    assert sorted(rows[5:], key=str) == [("audit", 1), ("audit", None), *[(LABEL, 0)] * 3]
    gate = gate_of(kit, ask)
    assert gate.follow().wrong_audits == 1 and not gate._waiting


def test_audits_are_judged_first(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels of what was not served wait behind every audit, and are left out once they are a minute old."""
    monkeypatch.setattr(judging, "_THREADS", 1)
    go, busy, judged = threading.Event(), threading.Event(), list[Any]()

    def judge(served: Any, reference: Any, question: Any) -> bool:
        judged.append(question)
        busy.set()
        return go.wait(10)

    @kit.call(meaning(), max_error=0.3, judge=asked(judge), scope=None)
    def ask(question: str) -> str:
        return "14 days"

    ask(ONE)
    ask(OTHER)
    assert busy.wait(10)
    ask("how do I get the refund")
    opened(kit, ask, coin=AUDIT)
    ask("how do I get one refund")
    monkeypatch.setattr(judging, "_OTHER_WAITS", 0.0)
    go.set()
    found = labels(kit)
    assert judged == [OTHER, "how do I get one refund"]
    assert [row for row in found if row[0] == LABEL] == [(LABEL, 0), (LABEL, 0), (LABEL, None)]
    gate = gate_of(kit, ask).follow()
    assert (gate.wrong_audits, sum(gate.ladder.strata.wrong)) == (0, 0)


def test_several_answers_are_judged_at_once(kit: Kit) -> None:
    """A judge that takes long is asked by a few threads: three answers take no longer than one."""
    meet = threading.Barrier(3)

    @kit.call(meaning(), max_error=0.3, judge=asked(lambda served, reference: meet.wait(10) >= 0), scope=None)
    def ask(question: str) -> str:
        return "14 days"

    ask(ONE)
    for word in ("my", "the", "one"):
        ask(f"how do I get {word} refund")
    assert [row for row in labels(kit) if row[0] == LABEL] == [(LABEL, 0)] * 3


def test_a_label_that_waited_too_long(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """A judge that comes to a label too late does not judge it any more: an audit is wrong then."""
    judged: list[Any] = []

    def judge(served: Any, reference: Any) -> bool:
        judged.append(served)
        return True

    @kit.call(meaning(), max_error=0.3, judge=asked(judge), scope=None)
    def ask(question: str) -> str:
        return "14 days"

    ask(ONE)
    opened(kit, ask, coin=AUDIT)
    monkeypatch.setattr(judging, "_AUDIT_WAITS", -1.0)
    ask(OTHER)
    assert labels(kit)[-1] == (LABEL, 1) and not judged


def test_a_background_label_demotes(kit: Kit) -> None:
    """Wrong audits judged in the background take the permission back, and old entries with it."""
    right = [True]

    @kit.call(meaning(), max_error=0.3, judge=asked(lambda served, reference: right[0]), scope=None)
    def ask(question: str) -> str:
        return "14 days"

    ask(ONE)
    tended = opened(kit, ask, coin=AUDIT)
    right[0] = False
    for number in range(400):
        ask(f"how do I get refund {'x' * number}")
        pool_of(kit, ask).close()
        kit._ledger.flush()
        if tended.follow().generation:
            break
    assert tended.follow().generation == 1 and not tended.gate.ladder.level
    rows = len(told(kit))
    ask("how do I get a nice refund")
    assert told(kit)[rows:][0] == ("none", None), "an entry of before the demotion is a candidate still"


def test_a_ledger_that_was_replaced(tmp_path: Path) -> None:
    """Where the ledger's file is another, the gate starts anew in shadow: its evidence is gone."""
    with Kit(tmp_path / "kit") as kit:

        @kit.call(meaning(), max_error=0.3, judge=costkit.judges.same_answer, scope=None)
        def ask(question: str) -> str:
            return "14 days"

        ask(ONE)
        opened(kit, ask)
        assert ask.outcome(OTHER).saving == "semantic"
        kit._ledger.flush()
        for end in ("", "-wal", "-shm"):
            (tmp_path / f"kit/ledger.db{end}").unlink(missing_ok=True)
        Ledger(tmp_path / "kit").close()
        assert ask.outcome("how do I get the refund").saving is None
        assert ask.outcome("how do I get one refund").saving is None
        con = kit.ledger()
        assert con.execute("SELECT count(*) FROM gates").fetchone()[0] == 1
        con.close()
        assert {row["kind"] for row in evidence(kit)} == {"declined"}


@pytest.mark.filterwarnings("ignore:costkit. the ledger could not be written")
def test_nothing_is_served_that_nobody_can_check(kit: Kit, model: Model) -> None:
    """While the ledger cannot be written an open gate makes the calls; it serves again once rows go in."""

    @kit.call(meaning(), max_error=0.3, judge=costkit.judges.same_answer, scope=None)
    def ask(question: str) -> str:
        return model(question)

    ask(ONE)
    opened(kit, ask)
    assert ask.outcome(OTHER).saving == "semantic"
    kit._ledger.flush()
    kit._ledger.failing = True
    assert ask.outcome("how do I get the refund").saving is None
    assert told(kit)[-1] == ("declined", 0) and not kit._ledger.failing
    assert ask.outcome("how do I get one refund").saving == "semantic"


def test_a_locked_ledger_is_failing(kit: Kit) -> None:
    """The ledger says when nothing can be written, and when it can again."""
    import sqlite3

    holder = sqlite3.connect(kit._ledger.path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    kit._ledger._connected().execute("PRAGMA busy_timeout = 10")
    kit._ledger.testify([Evidence("g", "q", time.time(), "none", None, None, None, 1.0, 0)])
    end = time.monotonic() + 10
    while not kit._ledger.failing and time.monotonic() < end:
        time.sleep(0.01)
    assert kit._ledger.failing
    holder.execute("ROLLBACK")
    holder.close()
    kit._ledger.flush()
    assert not kit._ledger.failing and told(kit) == [("none", None)]
