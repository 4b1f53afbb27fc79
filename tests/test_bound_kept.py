"""costkit.bound.kept: a process that starts goes on where another one had come, to the same gate as a whole fold."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import costkit
from costkit.bound import Bound, Gate, kept, tended
from costkit.bound.tended import Tended
from costkit.ledger import Evidence, GateState, Ledger
from costkit.ledger.evidence import insert, keep_state
from tests.meanings import WORDS, Model, meaning, opened
from tests.tended_worker import BOUND, PRIOR, stands
from tests.test_bound_tended import put, story


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(tmp_path)
    yield made
    made.close()


def whole(of: Tended) -> bytes:
    """All of a gate's state, number for number."""
    assert stands(of)  # some of it is worked out when it is asked for
    return kept.packed((of.gate, of.demoted_at, of._at, of._waiting, of._early))


def tend(ledger: Ledger, *, keeps: bool = False, bound: Bound = BOUND) -> Tended:
    return Tended("gate", bound, PRIOR, ledger.reader, ledger.keep_state if keeps else None)


def states(ledger: Ledger) -> list[tuple[int, int]]:
    """Of each state kept: up to which row, and its size."""
    with ledger.read() as con:
        return [tuple(row) for row in con.execute("SELECT upto, length(body) FROM gate_states")]


def folded(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """What a process has that folds all rows one by one."""
    with monkeypatch.context() as patched:
        patched.setattr(tended, "kept_state", lambda *_: None)
        return whole(tend(ledger))


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each state that is gone on from."""
    used = list[int]()

    def unpacked(raw: bytes) -> Any:
        used.append(len(raw))
        return kept.unpacked(raw)

    monkeypatch.setattr(tended, "unpacked", unpacked)
    return used


@pytest.mark.parametrize("seed", range(6))
def test_who_goes_on_has_the_gate_of_who_folds_all(
    ledger: Ledger, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a state kept anywhere in a history of every kind of row, a new process's gate is the same in every bit."""
    monkeypatch.setattr(tended, "_KEPT_EVERY", 150)
    resumed = counted(monkeypatch)
    rows, keeper = story(seed, 1500), tend(ledger, keeps=True)
    for start in range(0, len(rows), 130):
        put(ledger, *rows[start : start + 130])
        keeper.follow()
        ledger.flush()
        newcomer = tend(ledger)
        assert whole(newcomer) == folded(ledger, monkeypatch) == whole(keeper)
        assert stands(newcomer) == stands(keeper)
    assert len(resumed) >= 8, "the states were not used"


def spoil(ledger: Ledger, statement: str, *values: object) -> None:
    with sqlite3.connect(ledger.path) as con:
        con.execute(statement, values)
    con.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE gate_states SET body = substr(body, 1, length(body) - 1)",
        "UPDATE gate_states SET body = x'00'",
        "UPDATE gate_states SET body = 'text'",
        "UPDATE gate_states SET upto = 'many'",
        "UPDATE gate_states SET upto = 10000000",
        "UPDATE gate_states SET about = 'other code'",
        "DROP TABLE gate_states",
    ],
)
def test_a_state_that_is_odd_is_none(ledger: Ledger, statement: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged state, one of other code or of rows that are not there is passed over, and all rows are folded."""
    monkeypatch.setattr(tended, "_KEPT_EVERY", 100)
    put(ledger, *story(1, 400))
    tend(ledger, keeps=True).follow()
    assert len(states(ledger)) == 1
    spoil(ledger, statement)
    assert whole(tend(ledger)) == folded(ledger, monkeypatch)


@pytest.mark.parametrize(
    "forged",
    [None, [], ["tuple", 1, 2], ["os:system"], ["costkit.bound.gate:math"], ["array", "|O8", [1], "AAAAAAAAAAA="]],
)  # fmt: skip
def test_a_forged_state_makes_nothing(
    ledger: Ledger, forged: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state with a right checksum that is none makes no object of any class but a gate's, and is passed over."""
    import hashlib
    import json

    put(ledger, *story(2, 300))
    body = json.dumps(forged).encode()
    state = GateState("gate", 100, kept.about(BOUND, PRIOR), hashlib.sha256(body).digest() + body)
    with sqlite3.connect(ledger.path) as con:
        keep_state(con, state)
    con.close()
    assert whole(tend(ledger)) == folded(ledger, monkeypatch)


def test_another_bound_folds_for_itself(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was reached under one bound says nothing under another."""
    monkeypatch.setattr(tended, "_KEPT_EVERY", 100)
    put(ledger, *story(3, 400))
    tend(ledger, keeps=True).follow()
    ledger.flush()
    other = tend(ledger, bound=Bound(0.2))
    assert other.follow().bound == Bound(0.2) and other.gate.ladder.bound == Bound(0.2)


def test_one_process_of_many_keeps_the_state(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of processes that follow the same rows, one writes; one that is behind never replaces what is further on."""
    monkeypatch.setattr(tended, "_KEPT_EVERY", 100)
    wrote = list[GateState]()

    def keep(state: GateState) -> None:
        wrote.append(state)
        ledger.keep_state(state)

    put(ledger, *story(4, 250))
    behind = tend(ledger)
    for _ in range(4):
        Tended("gate", BOUND, PRIOR, ledger.reader, keep).follow()
        ledger.flush()
    assert len(wrote) == 1 and [upto for upto, _ in states(ledger)] == [wrote[0].upto]
    old = GateState("gate", 5, wrote[0].about, b"old")
    ledger.keep_state(old)
    ledger.flush()
    assert [upto for upto, _ in states(ledger)] == [wrote[0].upto]
    assert stands(behind) == stands(tend(ledger))


def test_an_older_ledger_gets_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger made before states were kept is brought up to date, its evidence as it was."""
    monkeypatch.setattr(tended, "_KEPT_EVERY", 100)
    old = Ledger(tmp_path)
    put(old, *story(5, 300))
    before = whole(tend(old))
    old.close()
    spoil(old, "DROP TABLE gate_states")
    spoil(old, "PRAGMA user_version = 1")
    new = Ledger(tmp_path)
    tend(new, keeps=True).follow()
    assert len(states(new)) == 1 and whole(tend(new)) == before
    new.close()


def test_without_its_source_all_is_folded(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where costkit's source cannot be read, nothing is kept and nothing gone on from."""
    monkeypatch.setattr(tended, "_KEPT_EVERY", 100)
    put(ledger, *story(6, 300))
    with monkeypatch.context() as patched:
        patched.setattr(kept, "_CODE", None)
        told = whole(tend(ledger, keeps=True))
        assert not states(ledger)
    assert whole(tend(ledger)) == told


def test_a_kit_goes_on_where_the_last_one_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the public decorator: a kit opened later serves from the state that the last one kept."""
    monkeypatch.setattr(tended, "_KEPT_EVERY", 200)
    for turn in range(2):
        with costkit.Kit(tmp_path / "kit") as kit:
            ask = kit.call(
                meaning(), scope=None, name="ask", max_error=0.3, judge=costkit.judges.same_answer, audit=0.01
            )(Model().__call__)  # fmt: skip
            if not turn:
                opened(kit, ask)
                ask("Where is my refund?")
                continue
            used = counted(monkeypatch)
            assert {ask.outcome(f"Where is my refund, {name}?").saving for name in WORDS} & {"semantic"}
            assert used, "the state was not used"


def test_a_fresh_gate_is_told_in_full() -> None:
    """Whatever a gate is made of can be kept: none of it is of a kind that would silently never be."""
    gate = Gate(BOUND, PRIOR)
    assert kept.packed(kept.unpacked(kept.packed(gate))) == kept.packed(gate)
    with pytest.raises(kept.NoState, match="not made of"):
        kept.packed(random.Random())


@pytest.mark.soak
def test_a_million_rows_are_gone_on_from_at_once(ledger: Ledger) -> None:
    """A process that starts on a million rows of evidence, all but 1,000 of them folded before, has its gate in 1 s."""
    rand, rows = random.Random(1), list[Evidence]()
    for number in range(1_000_000):
        x = rand.uniform(-2, 9)
        rows.append(
            Evidence(
                "gate", None, 1e9 + number, "declined", rand.randrange(7), 0.01, (1.0, x), 1.0, 0,
                wrong=rand.random() < 0.2 * (x < 2),
            )
        )  # fmt: skip
    with sqlite3.connect(ledger.path) as con:
        insert(con, rows[:-1000])
    con.close()
    before = tend(ledger, keeps=True)
    before.follow()
    ledger.flush()
    put(ledger, *rows[-1000:])
    newcomer, start = tend(ledger), time.perf_counter()
    newcomer.follow()
    assert time.perf_counter() - start < 1.0
    assert whole(newcomer) == whole(before)
