"""Certifying a gate before the first call: evidence for every process, once, and nothing called."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

import costkit
from costkit import Kit
from costkit.cli import main
from costkit.errors import ConfigError, FolderError
from costkit.gold import GoldTest
from costkit.ledger.evidence import Evidence, insert_once

from .meanings import Model, meaning
from .rehearsals import Said, made, write

ROWS = made(500, seed=9)


def wrapped(kit: Kit, model: Callable[[str], str], **settings: Any) -> Any:
    """A function whose gate opens at a generous bound."""

    @kit.call(
        costkit.exact(), meaning(**settings), max_error=0.2, judge=costkit.judges.same_answer, scope="tenant",
        name="desk.ask", version="1",
    )  # fmt: skip
    def ask(question: str, tenant: str = "t0") -> str:
        return model(question)

    return ask


def rows(said: Iterable[Said]) -> list[dict[str, Any]]:
    """Rows as a log holds them."""
    return [{"question": row.question, "answer": row.answer, "tenant": row.tenant} for row in said]


def count(kit: Kit, where: str = "1") -> int:
    """Rows of evidence that gates fold."""
    con = kit.ledger()
    try:
        return int(
            con.execute(f"SELECT COUNT(*) FROM evidence WHERE kind <> 'fresh' AND {where}").fetchone()[0]
        )
    finally:
        con.close()


def test_a_gate_is_open_before_the_first_call(tmp_path: Path) -> None:
    """A log opens the gate, the model is not asked for it, and another kit on the folder serves by it."""
    model = Model()
    with Kit(tmp_path / "kit") as kit:
        ask = wrapped(kit, model)
        done = kit.certify(ask, rows(ROWS))
        assert done.open and model.asked == []
        (gate,) = done.gates
        assert (gate.standing.requests, gate.standing.hits) == (0, 0)
        assert gate.rows == 500 and gate.candidates + gate.repeats + 1 == 500 and gate.known == 0
        assert count(kit, "query_id IS NULL AND kind = 'rehearsed'") == gate.standing.rehearsed == count(kit)
        assert ask.outcome(ROWS[0].question, tenant="t0").saving is None, "no answer was stored"
    with Kit(tmp_path / "kit") as other:
        ask = wrapped(other, model)
        first = [
            ask.outcome(f"how many days for a visa {word}", tenant="t0").saving
            for word in ["aei", "aou", "eeu", "iio", "uua"]
        ]
        assert "semantic" in first[1:]


def test_rows_count_once(tmp_path: Path) -> None:
    """The same rows again, or a longer log that holds them, add no evidence but that of the new rows."""
    with Kit(tmp_path / "kit") as kit:
        ask = wrapped(kit, Model())
        first = kit.certify(ask, rows(ROWS[:300]))
        before = count(kit)
        again = kit.certify(ask, rows(ROWS[:300]))
        assert count(kit) == before and again.gates[0].known == before and again.gates[0].candidates == 0
        assert again.gates[0].standing == first.gates[0].standing
        kit.certify(ask, rows(ROWS))
        longer = count(kit)
        assert before < longer
        con = kit.ledger()
        tags = [tag for (tag,) in con.execute("SELECT tag FROM evidence WHERE kind <> 'fresh'")]
        con.close()
        assert len(tags) == len(set(tags)) == longer
        kit.certify(ask, rows(reversed(ROWS)))
        assert count(kit) - longer <= len({row.question for row in ROWS}) - longer, (
            "only rows that were no evidence yet"
        )


PROGRAM = """
import json, sys
sys.path.insert(0, {root!r})
from costkit import Kit
from tests.meanings import Model
from tests.test_certify import ROWS, rows, wrapped
with Kit({folder!r}) as kit:
    print("ready", flush=True)
    sys.stdin.readline()
    done = kit.certify(wrapped(kit, Model()), rows(ROWS))
    print(done.open, flush=True)
"""


def test_processes_that_certify_at_once_count_rows_once(tmp_path: Path) -> None:
    """Two processes with the same log leave one row of evidence for each row of it."""
    folder, root = str(tmp_path / "kit"), str(Path(__file__).parent.parent)
    Kit(folder).close()
    program = PROGRAM.format(root=root, folder=folder)
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    try:
        for process in running:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        said = [process.communicate("go\n", timeout=60)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert said == ["True\n", "True\n"]
    with Kit(folder) as kit:
        done = kit.certify(wrapped(kit, Model()), rows(ROWS))
        assert count(kit) == count(kit, "tag IN (SELECT DISTINCT tag FROM evidence)")
        con = kit.ledger()
        total, different = con.execute(
            "SELECT COUNT(*), COUNT(DISTINCT tag) FROM evidence WHERE kind <> 'fresh'"
        ).fetchone()
        con.close()
        assert total == different == done.gates[0].known


def test_what_another_process_has_counted_meanwhile_is_left_out(tmp_path: Path) -> None:
    """Rows whose tag their gate has by the time they are written are not written, also not twice in one go."""
    with Kit(tmp_path / "kit") as kit:
        con = sqlite3.connect(kit.folder / "ledger.db")
        both = [_row("gate", "row 1"), _row("gate", "row 2"), _row("gate", "row 1"), _row("other", "row 1")]
        assert insert_once(con, both) == 3
        assert insert_once(con, [*both, _row("gate", "row 3")]) == 1
        con.commit()
        con.close()
        assert count(kit) == 4


def _row(gate: str, tag: str) -> Evidence:
    return Evidence(gate, None, 1.0, "rehearsed", None, None, None, 1.0, 0, tag=tag)


def test_scopes_stay_apart(tmp_path: Path) -> None:
    """What one tenant was answered is no candidate for another one's row, and its evidence has its label."""
    said = made(400, seed=2, tenants=2)
    other = [Said(row.question, f"{row.tenant}: {row.answer}", row.tenant) for row in said]
    with Kit(tmp_path / "kit") as kit:
        (gate,) = kit.certify(wrapped(kit, Model()), rows(other)).gates
        con = kit.ledger()
        labels = {scope for (scope,) in con.execute("SELECT DISTINCT scope FROM evidence")}
        con.close()
    with Kit(tmp_path / "alike") as kit:
        (alike,) = kit.certify(wrapped(kit, Model()), rows(said)).gates
    assert labels == {'{"tenant": "t0"}', '{"tenant": "t1"}'}
    assert (gate.candidates, gate.wrong) == (alike.candidates, alike.wrong)


def test_rehearsed_rows_are_no_calls(tmp_path: Path) -> None:
    """The running average is of calls: a certificate from a log says nothing of it, per request neither."""
    with Kit(tmp_path / "kit") as kit:

        @kit.call(meaning(), max_error=0.2, per="request", judge=costkit.judges.same_answer, scope=None)
        def ask(question: str) -> str:
            raise AssertionError("nothing is called")

        standing = kit.certify(ask, [(row.question, row.answer) for row in ROWS]).gates[0].standing
        assert standing.running == (0.0, 1.0) and standing.requests == 0 and standing.labels > 100


def test_a_seeded_answer_is_as_old_as_it_says(tmp_path: Path) -> None:
    """With ``at`` an answer past its ttl is not stored, and a younger one expires when it would have."""
    with Kit(tmp_path / "kit") as kit:

        @kit.call(
            costkit.exact(ttl="1h"), meaning(), max_error=0.2, judge=costkit.judges.same_answer, scope=None
        )
        def ask(question: str) -> str:
            return "new"

        now = time.time()
        old = {"question": "how long for a visa", "answer": "old", "at": now - 7200}
        young = {"question": "how long for a refund", "answer": "young", "at": now - 60}
        assert kit.certify(ask, [old, young], seed_answers=True).gates[0].stored == 1
        assert (ask("how long for a visa"), ask("how long for a refund")) == ("new", "young")
        entry = kit._store.get("-", ask._plan.digest(None, {"question": "how long for a refund"}), now)
        assert entry is not None and entry.at == now - 60


def test_all_or_nothing(tmp_path: Path) -> None:
    """Where one row of evidence cannot be written none is, the error says so, and the next try counts all."""
    with Kit(tmp_path / "kit") as kit:
        ask = wrapped(kit, Model())
        kit._ledger.flush()
        with sqlite3.connect(kit.folder / "ledger.db") as con:
            con.execute(
                "CREATE TRIGGER no AFTER INSERT ON evidence WHEN (SELECT COUNT(*) FROM evidence) > 50 "
                "BEGIN SELECT RAISE(ABORT, 'no'); END"
            )
        with pytest.raises(FolderError, match=r"kit.certify\(\): the ledger could not be written"):
            kit.certify(ask, rows(ROWS))
        assert count(kit) == 0
        with sqlite3.connect(kit.folder / "ledger.db") as con:
            con.execute("DROP TRIGGER no")
        assert kit.certify(ask, rows(ROWS)).open
        assert count(kit) > 50


def test_seeded_answers_are_served_from_the_first_call(tmp_path: Path) -> None:
    """With seed_answers a question of the log is an exact hit, one in other words a semantic one; the model rests."""
    model = Model()
    with Kit(tmp_path / "kit") as kit:
        ask = wrapped(kit, model)
        done = kit.certify(ask, rows(ROWS), seed_answers=True)
        assert done.gates[0].stored == 500
        known = ask.outcome(ROWS[3].question, tenant="t0")
        assert (known.value, known.saving) in {
            (row.answer, "exact") for row in ROWS if row.question == ROWS[3].question
        }
        new = [
            ask.outcome(f"how many days for a visa {word}", tenant="t0")
            for word in ["aeiu", "aouo", "eeui", "iioa", "uuae"]
        ]
        assert [out.value for out in new if out.saving == "semantic"].count("The visa takes a week.") >= 3
        assert ask.outcome(ROWS[3].question, tenant="somebody else").saving is None
        assert all("visa" in question or question == ROWS[3].question for question in model.asked)


def test_seeding_after_certifying_stores_what_was_counted(tmp_path: Path) -> None:
    """Answers can be stored in a second pass, without their rows counting again."""
    with Kit(tmp_path / "kit") as kit:
        ask = wrapped(kit, Model())
        kit.certify(ask, rows(ROWS))
        before = count(kit)
        done = kit.certify(ask, rows(ROWS), seed_answers=True)
        assert done.gates[0].stored == 500 and count(kit) >= before
        assert ask.outcome(ROWS[0].question, tenant="t0").saving == "exact"


def test_a_demoted_gate_is_not_opened_by_the_same_rows(tmp_path: Path) -> None:
    """What was counted before a demotion is not counted again after it."""
    with Kit(tmp_path / "kit") as kit:
        ask = wrapped(kit, Model())
        assert kit.certify(ask, rows(ROWS)).open
        pool = kit._pools.of(ask._plan)
        assert pool is not None
        gate = pool.tended(None)
        kit._ledger.testify(_failures(gate.id))
        kit._ledger.flush()
        assert gate.generation == 1
        again = kit.certify(ask, rows(ROWS))
        assert not again.open and again.gates[0].standing.labels <= again.gates[0].standing.rehearsed + 60


def _failures(gate: str) -> Sequence[Any]:
    from costkit.bound import Passage
    from costkit.bound.tended import evidence_of

    passage = Passage("audit", 0, 0.01, (1.0,) * 12, 0.05)
    return [evidence_of(gate, passage, query_id=f"q{number}", at=1.0, wrong=True) for number in range(60)]


def test_models_have_gates_of_their_own(tmp_path: Path) -> None:
    """Rows of two models certify two gates."""
    with Kit(tmp_path / "kit") as kit:

        @kit.call(costkit.exact(), meaning(), max_error=0.2, judge=costkit.judges.same_answer, scope=None)
        def ask(question: str, model: str) -> str:
            raise AssertionError("nothing is called")

        half = [{**row, "model": "big" if at % 2 else "small"} for at, row in enumerate(rows(ROWS))]
        done = kit.certify(ask, half)
        assert {gate.model: gate.rows for gate in done.gates} == {"small": 250, "big": 250}
        assert len({gate.gate for gate in done.gates}) == 2


def test_pairs_and_gold_tests_are_rows_too(tmp_path: Path) -> None:
    """(question, answer) pairs and gold tests with the whole answer give the evidence that mappings give."""
    kinds: dict[str, list[Any]] = {
        "mappings": [{"question": row.question, "answer": row.answer} for row in ROWS],
        "pairs": [(row.question, row.answer) for row in ROWS],
        "gold": [GoldTest(row.question, equals=row.answer) for row in ROWS],
    }
    standings = []
    for kind, given in kinds.items():
        with Kit(tmp_path / kind) as kit:
            standings.append(kit.certify(wrapped(kit, Model()), given).gates[0].standing)
    assert standings[0] == standings[1] == standings[2]
    assert standings[0].state == "open"


def test_methods_are_certified(tmp_path: Path) -> None:
    """The rows of a method hold its arguments but self."""
    with Kit(tmp_path / "kit") as kit:

        class Desk:
            @kit.call(
                costkit.exact(),
                meaning(),
                max_error=0.2,
                judge=costkit.judges.same_answer,
                scope=None,
                ignore=("self",),
            )
            def ask(self, question: str) -> str:
                raise AssertionError("nothing is called")

        assert kit.certify(Desk().ask, [(row.question, row.answer) for row in ROWS]).open


def test_rows_of_no_use_are_counted(tmp_path: Path) -> None:
    """A row without an answer, question or argument is left out and told by its reason; the others count."""
    bad: list[Any] = [
        {"question": "what"},
        {"answer": "x"},
        {"question": " ", "answer": "x"},
        7,
        GoldTest("q", contains=("a",)),
    ]
    with Kit(tmp_path / "kit") as kit:
        ask = wrapped(kit, Model())
        done = kit.certify(ask, [*bad, *rows(ROWS[:20])])
        assert done.gates[0].rows == 20 and sum(done.left_out.values()) == 5
        assert "no answer" in done.left_out and "no question" in done.left_out
        with pytest.raises(
            ConfigError,
            match=r"no row can be used \(.*; row 1: no answer\); give 'question'",
        ):
            kit.certify(ask, bad)
        with pytest.raises(ConfigError, match="there is none"):
            kit.certify(ask, [])


def test_what_cannot_be_certified_is_said(tmp_path: Path) -> None:
    """A bare function, one without a lossy saving, another kit's, and seeding a stream are clear errors."""
    with Kit(tmp_path / "kit") as kit, Kit(tmp_path / "other") as other:

        @kit.call(costkit.exact(), scope=None)
        def plain(question: str) -> str:
            return question

        @kit.call(costkit.exact(), meaning(), max_error=0.2, judge=costkit.judges.same_answer, scope=None)
        def stream(question: str) -> Any:
            yield question

        with pytest.raises(ConfigError, match="is not wrapped"):
            kit.certify(len, [("a", "b")])
        with pytest.raises(ConfigError, match=r"costkit.semantic\('question'\)"):
            kit.certify(plain, [("a", "b")])
        with pytest.raises(ConfigError, match="another kit"):
            other.certify(wrapped(kit, Model()), [("a", "b")])
        with pytest.raises(ConfigError, match="streams"):
            kit.certify(stream, [("a", "b")], seed_answers=True)


APP = """
import sys
sys.path.insert(0, {root!r})
from costkit import Kit
from tests.meanings import Model
from tests.test_certify import wrapped
kit = Kit({folder!r})
ask = wrapped(kit, Model())
"""


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`costkit certify` opens a gate from a log with other column names, exits 0, and 1 while it waits for more."""
    root = str(Path(__file__).parent.parent)
    (tmp_path / "certify_app.py").write_text(APP.format(root=root, folder=str(tmp_path / "kit")))
    log = tmp_path / "log.jsonl"
    lines = [{"prompt": row.question, "answer": row.answer, "tenant": "t0", "ts": 1.7e9} for row in ROWS]
    log.write_text("{broken\n" + "".join(json.dumps(line) + "\n" for line in lines))
    few = write(tmp_path / "few.jsonl", ROWS[:20])
    monkeypatch.chdir(tmp_path)
    assert main(["certify", "certify_app:ask", str(few)]) == 1
    assert "in shadow" in capsys.readouterr().out
    named = ["--argument", "question=prompt", "--time", "ts"]
    assert main(["certify", "certify_app:ask", str(log), *named, "--json", "-"]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert told["open"] and told["gates"][0]["rows"] == 500 and sum(told["left_out"].values()) == 1
    assert "desk.ask: open; at most" in err
    assert main(["certify", "certify_app:ask", str(log)]) == 2
    said = capsys.readouterr().err
    assert "500 x missing a required argument: 'question'" in said and "--argument question=COLUMN" in said
    assert main(["certify", "certify_app:ask", str(log), "--argument", "nope=prompt"]) == 2
    assert "no such argument" in capsys.readouterr().err
    sys.modules["certify_app"].kit.close()


CSV_APP = """
from __future__ import annotations
import costkit
from costkit import Kit
from tests.meanings import meaning
kit = Kit({folder!r})
@kit.call(costkit.exact(), meaning(), max_error=0.2, judge=costkit.judges.same_answer, scope=None)
def ask(question: str, top_k: int = 5, share: float | None = None, *, deep=False, tags: list[str] = ()):
    raise AssertionError("nothing is called")
"""


def test_a_csv_seeds_what_calls_ask_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cells of a CSV become the numbers and truth values that the function takes, so that its calls find the answers;
    an empty cell is the default, and a row whose cell is none of these is left out."""
    (tmp_path / "csv_app.py").write_text(CSV_APP.format(folder=str(tmp_path / "kit")))
    log = tmp_path / "log.csv"
    log.write_text(
        "question,answer,top_k,share,deep\nfirst,one,5,0.5,true\nsecond,two,,,0\nthird,three,many,,\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["certify", "csv_app:ask", str(log), "--seed-answers", "--json", "-"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["gates"][0]["stored"] == 2
    assert told["left_out"] == {"an argument is text where the function takes a number or true or false": 1}
    app = sys.modules["csv_app"]
    assert (app.ask("first", 5, 0.5, deep=True), app.ask("second")) == ("one", "two")
    app.kit.close()
