"""costkit.bound.tended: a gate's state is a fold over the ledger's rows, whoever reads them, however odd they are."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from costkit.bound.tended import LABEL, Tended
from costkit.ledger import Evidence, Ledger
from tests.tended_worker import BOUND, PRIOR, stands

ROOT = Path(__file__).parent.parent
SURE = (1.0, 9.0)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(tmp_path)
    yield made
    made.close()


def tend(ledger: Ledger) -> Tended:
    return Tended("gate", BOUND, PRIOR, ledger.reader)


def row(
    kind: str = "declined", *, at: float = 1e9, id: str | None = None, wrong: bool | None = False, **more: Any
) -> Evidence:
    settings: dict[str, Any] = {
        "rung": 0,
        "risk": 0.0001,
        "features": SURE,
        "chance": 1.0,
        "generation": 0,
        **more,
    }
    return Evidence(gate="gate", query_id=id, at=at, kind=kind, wrong=wrong, **settings)


def label(id: str, wrong: bool, *, at: float = 1e9, generation: int = 0) -> Evidence:
    return row(LABEL, at=at, id=id, wrong=wrong, rung=None, risk=None, features=None, generation=generation)


def put(ledger: Ledger, *rows: Evidence) -> None:
    ledger.testify(rows)
    ledger.flush()


def labels(tended: Tended) -> tuple[int, int]:
    strata = tended.follow().ladder.strata
    return sum(strata.labels), sum(strata.wrong)


def story(seed: int, count: int) -> list[Evidence]:
    """Rows of every kind in an order as it may come: late labels, early ones, lost ones, long pauses, demotions."""
    rand, rows, at, owed = random.Random(seed), list[Evidence](), 1e9, list[str]()
    for number in range(count):
        at += rand.choice([0.1, 1.0, 5.0]) if rand.random() < 0.99 else 700.0
        if owed and rand.random() < 0.4:
            rows.append(label(owed.pop(rand.randrange(len(owed))), rand.random() < 0.3, at=at))
            continue
        kind = rand.choice(["none", "declined", "declined", "declined", "audit", "served"])
        wrong = rand.random() < 0.25 if kind in ("declined", "audit") and rand.random() < 0.7 else None
        rung = None if kind == "none" else rand.randrange(7)
        x = rand.uniform(-3, 9)
        rows.append(
            row(
                kind, at=at, id=f"q{number}", wrong=wrong, rung=rung, generation=rand.choice([0, 0, 0, 1, 2]),
                features=None if kind == "none" else (1.0, x), chance=0.05 if kind in ("audit", "served") else 1.0,
                scope=rand.choice([None, "a", "b"]),
            )
        )  # fmt: skip
        if kind in ("declined", "audit") and wrong is None and rand.random() < 0.8:
            owed.append(f"q{number}")
    return rows


@pytest.mark.parametrize("seed", range(5))
def test_the_fold_does_not_depend_on_how_many_rows_are_read_at_once(ledger: Ledger, seed: int) -> None:
    """Read row by row, in handfuls or all at once, 1,500 rows of every kind leave the same state to the last bit."""
    rand, rows = random.Random(seed), story(seed, 1500)
    each, some = tend(ledger), tend(ledger)
    while rows:
        size = rand.choice([1, 1, 2, 30])
        put(ledger, *rows[:size])
        del rows[:size]
        each.decide(SURE)
        if rand.random() < 0.05:
            some.decide(None)
    assert stands(each) == stands(some) == stands(tend(ledger))


@pytest.mark.parametrize("seed", range(3))
def test_a_torn_fold_is_made_anew(ledger: Ledger, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted in the midst of a row, or forked there, a gate counts nothing twice: it is as one that began anew."""
    rows = story(seed, 300)
    tended = tend(ledger)
    put(ledger, *rows[:150])
    tended.decide(SURE)
    put(ledger, *rows[150:])
    whole = tended.gate.see

    def torn(*given: Any) -> bool:
        whole(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(tended.gate, "see", torn)
    with pytest.raises(KeyboardInterrupt):
        tended.decide(SURE)
    tended.after_fork()
    tended.decide(SURE)
    assert stands(tended) == stands(tend(ledger))


def test_a_late_label_counts_and_a_lost_one_is_wrong(ledger: Ledger) -> None:
    """A label within 600 s by the rows' own clock is what it says; one that has not come by then is wrong, once."""
    tended = tend(ledger)
    put(ledger, row(id="late", wrong=None), row(id="lost", wrong=None, at=1e9 + 1))
    assert labels(tended) == (0, 0)
    put(ledger, label("late", False, at=1e9 + 599))
    assert labels(tended) == (1, 0)
    put(ledger, row("none", at=1e9 + 600.9, wrong=None, rung=None))
    assert labels(tended) == (1, 0)
    put(ledger, row("none", at=1e9 + 601, wrong=None, rung=None))
    assert labels(tended) == (2, 1)
    put(ledger, label("lost", False, at=1e9 + 602))
    assert labels(tended) == (2, 1) == labels(tend(ledger))


def test_labels_are_lost_by_a_clock_set_back_too(ledger: Ledger) -> None:
    """After a clock was set back a day, labels that never come are wrong ten minutes later, and late ones count."""
    tended = tend(ledger)
    put(ledger, row(id="before", wrong=None))
    back = 1e9 - 86_400.0
    put(ledger, *(row(id=f"lost {n}", wrong=None, at=back + 10 * n) for n in range(50)))
    put(ledger, row(id="late", wrong=None, at=back + 490), label("late", False, at=back + 900))
    put(ledger, row("none", at=back + 1091, wrong=None, rung=None))
    assert labels(tended) == (52, 51) == labels(tend(ledger))


def test_an_unanswered_audit_waits_for_no_label(ledger: Ledger) -> None:
    """It counts as wrong with the next one that was answered, not as a label that is late."""
    tended = tend(ledger)
    put(ledger, row("unanswered", id="a", wrong=None, chance=0.05))
    assert labels(tended) == (0, 0) and not tended._waiting
    put(ledger, row("audit", id="b", chance=0.05))
    standing = tended.follow().standing()
    assert labels(tended) == (2, 1) and (standing.audits, standing.wrong_audits) == (2, 1)
    assert (standing.lost_audits, standing.unanswered) == (1, 0)


def test_a_label_before_its_row_counts(ledger: Ledger) -> None:
    """A judge that is faster than the call's own row loses nothing."""
    tended = tend(ledger)
    put(ledger, label("early", True), row(id="early", wrong=None))
    assert labels(tended) == (1, 1)


def test_a_label_written_twice_counts_once(ledger: Ledger) -> None:
    """The second is of no row that waits."""
    tended = tend(ledger)
    put(ledger, row(id="q", wrong=None), label("q", True), label("q", True), label("q", False))
    assert labels(tended) == (1, 1)


def test_what_is_of_an_older_generation_counts_no_more(ledger: Ledger) -> None:
    """After a demotion neither rows nor late labels of before it move the gate."""
    tended = tend(ledger)
    put(ledger, row("audit", id="before", wrong=None, chance=0.05))
    while tended.generation == 0:
        put(ledger, *(row("audit", wrong=True, chance=0.05) for _ in range(10)))
    before = labels(tended)
    put(ledger, label("before", True), row(wrong=True), row("audit", wrong=True, chance=0.05))
    assert (labels(tended), tended.generation) == (before, 1)
    put(ledger, row(wrong=True, generation=1))
    assert labels(tended) == (before[0] + 1, before[1] + 1)
    assert len(tended.demoted_at) == 1


DAMAGE: list[tuple[str, Any]] = [
    ("kind", "'toast'"), ("kind", "x'00ff'"), ("rung", "99"), ("rung", "-1"), ("rung", "'two'"), ("rung", "0.5"),
    ("rung", "NULL"), ("risk", "'high'"), ("risk", "7"), ("chance", "0"), ("chance", "-1"), ("chance", "1e9"),
    ("chance", "'often'"), ("chance", "0.001"), ("generation", "'old'"), ("generation", "-3"), ("at", "'noon'"),
    ("at", "9e999"), ("features", "'text'"), ("features", "x'0102'"), ("features", "x''"), ("query_id", "7"),
    ("scope", "x'ff'"), ("scope", "CAST(x'ff' AS TEXT)"), ("tag", "1.5"), ("wrong", "'maybe'"),
    ("features", "zeroblob(80000)"), ("features", "x'000000000000f87f000000000000f87f'"),
]  # fmt: skip


@pytest.mark.parametrize(("column", "value"), DAMAGE)
def test_a_damaged_row_stops_nothing(ledger: Ledger, column: str, value: str) -> None:
    """A row with any value in any column, served or audited: those after it are read, and decisions go on."""
    put(
        ledger,
        *(row() for _ in range(100)),
        row("audit", id="odd", chance=0.05),
        *(row() for _ in range(100)),
    )
    with sqlite3.connect(ledger.path) as con:
        con.execute(f"UPDATE evidence SET {column} = {value} WHERE query_id = 'odd'")
    con.close()
    tended = tend(ledger)
    tended.decide(SURE)
    assert 200 <= labels(tended)[0] <= 201 and tended.generation == 0
    put(ledger, row(at=1e9 + 5))
    assert labels(tended)[0] >= 201 and tended.follow().standing().requests >= 201


def test_a_gate_that_hears_nothing_serves_nothing(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where for a minute and a hundred decisions no row comes back, no alarm could go off: it stops until one comes."""
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    tended = tend(ledger)
    put(ledger, *(row() for _ in range(300)))
    served = {tended.decide(SURE).kind for _ in range(200)}
    assert served <= {"served", "audit"}, "many decisions within a minute are no silence"
    clock[0] += 61
    assert tended.decide(SURE).kind == "declined"
    put(ledger, row())
    assert {tended.decide(SURE).kind for _ in range(50)} <= {"served", "audit"}
    clock[0] += 3600
    assert tended.decide(SURE).kind in ("served", "audit"), "a quiet hour is no silence of the ledger's"


def test_a_ledger_that_cannot_be_read_leaves_the_gate_as_it_is(ledger: Ledger) -> None:
    """No connection, no error: the decision is that of the evidence there was, here none."""

    def refuses() -> sqlite3.Connection:
        raise sqlite3.OperationalError("unable to open database file")

    assert Tended("gate", BOUND, PRIOR, refuses).decide(SURE).kind == "declined"


def test_two_processes_agree(tmp_path: Path) -> None:
    """Two that write to one ledger at once, and a third that reads it afterwards, have the same gate to the bit."""
    Ledger(tmp_path).close()
    command = [sys.executable, "-m", "tests.tended_worker", str(tmp_path)]
    started = [
        subprocess.Popen(
            [*command, seed, "600"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        for seed in "12"
    ]
    try:
        for process in started:
            assert process.stdout is not None and process.stdout.readline() == "written\n"
        said = [process.communicate("\n", timeout=30)[0].strip() for process in started]
    finally:
        for process in started:
            process.kill()
    with_own = Ledger(tmp_path)
    mine = tend(with_own)
    assert said[0] == said[1] == stands(mine)
    assert mine.follow().standing().requests == 1200 and mine.follow().ladder.level > 0
    with_own.close()


@pytest.mark.soak
def test_a_long_ledger_is_read_in_seconds(ledger: Ledger) -> None:
    """A process that starts on 50,000 rows has its gate within 3 s."""
    rand = random.Random(1)
    for _ in range(50):
        rows = []
        for _ in range(1000):
            x = rand.uniform(-2, 9)
            rows.append(row(rung=rand.randrange(7), features=(1.0, x), wrong=rand.random() < 0.2 * (x < 2)))
        put(ledger, *rows)
    tended, start = tend(ledger), time.perf_counter()
    tended.follow()
    assert time.perf_counter() - start < 3.0
    assert tended.follow().standing().requests == 50_000
