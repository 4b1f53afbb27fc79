"""What is read of a gate: money, waiting labels, scopes, the judge, and rows that a hand has spoilt."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from costkit.report.gates import GateTold, gates
from costkit.report.gates_text import to_text
from tests.gated import evidence, gate, shadowed
from tests.recorded import START, folder_of, query

SERVED: dict[str, Any] = {"saved_by": "semantic", "counterfactual_cost": 700}


def told(tmp_path: Path, rows: list[dict[str, Any]], queries: Any = (), **gate_row: Any) -> GateTold:
    (found,) = gates(folder_of(tmp_path / "kit", gates=[gate(**gate_row)], evidence=rows, queries=queries))
    return found


def text(gate_told: GateTold, **console: Any) -> str:
    out = StringIO()
    Console(file=out, width=120, highlight=False, **console).print(to_text([gate_told]))
    return out.getvalue()


def test_audits_of_an_outer_call_cost_what_it_called(tmp_path: Path) -> None:
    """What an audit cost is with the calls inside it, each once, and nothing of its neighbours in the same query."""
    found = told(
        tmp_path,
        [
            evidence("s", "served", chance=0.05),
            evidence("a", "audit", wrong=0),
            evidence("b", "audit", wrong=0),
        ],
        [
            query("s", **SERVED),
            query("top", provider_cost=5),
            query("a", parent_id="top", root_id="top", provider_cost=10),
            query("a1", parent_id="a", root_id="top", provider_cost=20),
            query("a2", parent_id="a1", root_id="top", provider_cost=40),
            query("aside", parent_id="top", root_id="top", provider_cost=80),
            query("b", parent_id="a", root_id="top", provider_cost=160),
        ],
    )
    assert (found.saved, found.audited) == (700, 10 + 20 + 40 + 160)


def test_unknown_costs_stay_unknown(tmp_path: Path) -> None:
    """An audit whose cost nobody knows makes the sum unknown, never smaller."""
    found = told(
        tmp_path,
        [evidence("a", "audit", wrong=0)],
        [query("a", provider_cost=5), query("x", parent_id="a", root_id="a", unknown_costs=1)],
    )
    assert found.audited is None and "unknown" in text(found)


def test_labels_under_way_and_lost(tmp_path: Path) -> None:
    """Answers that wait for their judge are apart from those for which it never spoke; a label by itself ends both."""
    rows = [
        evidence("old", "declined"),
        evidence("told", "declined"),
        evidence("told", "label", wrong=0, at=START + 1),
        evidence("given up", "declined"),
        evidence("given up", "label", at=START + 1),
        evidence("new", "declined", at=START + 900),
        evidence("newer", "audit", at=START + 1000),
        evidence("none", "none", at=START + 1000),
    ]
    found = told(tmp_path, rows)
    assert (found.waiting, found.lost) == (2, 1)
    assert "2 answers wait for it" in text(found) and "1 answers were never judged" in text(found)


def test_since_when(tmp_path: Path) -> None:
    """Open since the first answer that it let pass; before that, in shadow since it has been known."""
    shadow = shadowed(100)
    assert told(tmp_path / "a", shadow[:50]).since == START
    passed = [evidence(f"s{n}", "served", chance=0.05, at=START + 200 + n) for n in range(20)]
    found = told(tmp_path / "b", shadow + passed)
    assert (found.state, found.since) == ("open", START + 200)


def test_closed_by_the_alarm(tmp_path: Path) -> None:
    """Wrong audits one after the other close it; it says when, counts it, and is open again on fresh evidence only."""
    wrong = [evidence(f"a{n}", "audit", wrong=1, chance=0.05, at=START + 500 + n) for n in range(40)]
    found = told(tmp_path / "a", shadowed(200) + wrong)
    assert (found.state, found.standing.demotions) == ("closed", 1)
    assert found.demoted_at == (found.since,) and START + 500 < found.since < START + 540
    assert "closed by its alarm" in text(found) and "Next: find what changed" in text(found)
    served = evidence("s", "served", chance=0.05, generation=1, at=START + 9000)
    later = [*shadowed(200, generation=1), served]
    again = told(tmp_path / "b", shadowed(200) + wrong + later)
    assert (again.state, again.since) == ("open", START + 9000)
    assert "closed by its alarm before, once" in text(again)


def test_the_worst_scopes_come_first(tmp_path: Path) -> None:
    """A scope whose own alarm went off is first, then by the lower limit: one unlucky audit is not the worst."""
    rows = [evidence("o", "audit", wrong=1, scope='{"tenant": "one"}')]
    for n in range(60):
        rows.append(evidence(f"s{n}", "audit", wrong=int(n < 10), scope='{"tenant": "some"}'))
        rows += [evidence(f"c{n}-{k}", "audit", wrong=0, scope='{"tenant": "calm"}') for k in range(100)]
    found = told(tmp_path, shadowed(300) + rows)
    assert [scope.label for scope in found.groups] == [
        f'{{"tenant": "{name}"}}' for name in ("some", "one", "calm")
    ]
    worst = found.groups[0]
    assert (worst.audits, worst.wrong) == (60, 10) and worst.interval[0] < 10 / 60 < worst.interval[1]
    assert "tenant=some: 10 of 60 audits wrong" in text(found)


def test_a_scope_closed_for_itself(tmp_path: Path) -> None:
    """A scope's own alarm closes it alone, and it is told so while the gate is open for others."""
    calm = [evidence(f"c{n}", "audit", wrong=0, scope="others") for n in range(400)]
    bad = [
        row
        for n in range(12)
        for row in [evidence(f"b{n}", "audit", wrong=1, scope="bad"), *calm[n * 30 : (n + 1) * 30]]
    ]
    found = told(tmp_path, shadowed(300) + bad)
    assert found.state == "open" and [(scope.label, scope.closed) for scope in found.groups] == [
        ("bad", True),
        ("others", False),
    ]
    assert "closed for it alone" in text(found)


def test_what_the_judge_misses(tmp_path: Path) -> None:
    """A measured judge says what it is vouched to flag, and what labels are tested against instead of the bound."""
    found = told(tmp_path, shadowed(20), bound={"max_error": 0.0465})
    assert round(found.sensitivity, 3) == 0.93 and found.unfit is None
    assert "at least 93.0% of wrong answers, so 4.7% is the test" in text(
        found
    ) or "4.6% is the test" in text(found)
    assert "at most 5.0% of served answers wrong" in text(found)


def test_a_judge_that_agrees_with_itself(tmp_path: Path) -> None:
    """Fresh pairs that agree are told, and hold nothing against the judge; no gate takes them for evidence."""
    pairs = [evidence(None, "fresh", wrong=int(n == 0), tag=f"p{n}") for n in range(200)]
    found = told(tmp_path, pairs)
    assert (found.fresh, found.told_apart, found.unfit) == (200, 1, None)
    assert (found.standing.labels, found.standing.requests) == (0, 0)
    assert "1 of 200 pairs of fresh answers to one question told apart" in text(found)


@pytest.mark.parametrize("column", ["bound", "about"])
@pytest.mark.parametrize(
    "spoilt", ["", "[]", "{", "null", '{"max_error": 7}', "[" * 100_000, '{"max_error": "0.05"}']
)
def test_a_row_spoilt_by_hand(tmp_path: Path, column: str, spoilt: str) -> None:
    """A row of gates that says nonsense is left out; the others are told, and nothing raises."""
    bad = {**gate("bad"), column: spoilt}
    found = gates(folder_of(tmp_path / "kit", gates=[bad, gate()], evidence=shadowed(3)))
    assert "g" in [one.id for one in found] and (column == "about" or len(found) == 1)


def test_hostile_rows_of_evidence(tmp_path: Path) -> None:
    """Evidence of any type in any column is left out of the fold, whatever it says."""
    odd: list[dict[str, Any]] = [
        evidence("x", "declined", rung="high"), evidence("x", "declined", at="now"), evidence("x", "nonsense"),
        evidence("x", "audit", chance=0.0), evidence("x", "declined", features=b"123"), evidence(7, "served", wrong=1),  # type: ignore[arg-type]
        evidence("x", "declined", rung=10**9), evidence("x", "declined", generation="0"),
    ]  # fmt: skip
    found = told(tmp_path, odd + shadowed(70))
    assert found.standing.labels >= 70 and found.standing.hits == 0
    text(found)


def test_names_cannot_steer_a_terminal(tmp_path: Path) -> None:
    """Control codes and markup in names, models, scopes and judges are shown as text."""
    nasty = "\x1b[2J[red]boo\u202e"
    rows = [*shadowed(300), *(evidence(f"a{n}", "audit", wrong=1, scope=nasty) for n in range(2))]
    found = told(tmp_path, rows, name=nasty, about={"model": nasty, "encoder": nasty, "judge_name": nasty})
    out = text(found)
    assert "\x1b" not in out and "\u202e" not in out and "[red]boo" in out


def test_in_colour_and_in_a_table(tmp_path: Path) -> None:
    """On a terminal states are coloured; several gates begin with one table of all."""
    found = told(tmp_path, shadowed(100))
    assert "\x1b[" in text(found, force_terminal=True, color_system="standard")
    out = StringIO()
    Console(file=out, width=140).print(to_text([found, found]))
    assert "running average" in out.getvalue() and out.getvalue().count("Next:") == 2


def test_audits_without_an_answer_are_told(tmp_path: Path) -> None:
    """What counted as wrong for want of an answer, and what was left out, is said; so is that nothing is served."""
    lost = [evidence("u", "unanswered", chance=0.05), evidence("a", "audit", wrong=0, chance=0.05)]
    found = told(
        tmp_path / "one", [*shadowed(600), *lost], [query("u", provider_cost=7), query("a", provider_cost=8)]
    )
    out = " ".join(text(found).split())
    assert "1 audits got no answer and count as wrong" in out and "left out" not in out
    assert found.audited == 15
    silent = [evidence(f"u{n}", "unanswered", chance=0.05) for n in range(3)]
    out = " ".join(text(told(tmp_path / "two", [*shadowed(600), *silent])).split())
    assert "serves nothing now" in out and "3 are left out" in out and "see why calls fail" in out


def test_audits_that_callers_left_are_what_to_mend(tmp_path: Path) -> None:
    """Where audits count as wrong because they got no answer, that is what to do next; one of many is not."""

    def audits(left: int, wrong: int) -> str:
        rows = [*shadowed(600), *(evidence(f"w{n}", "audit", wrong=1, chance=0.5) for n in range(wrong))]
        for n in range(left):
            rows += [
                evidence(f"u{n}", "unanswered", chance=0.5),
                evidence(f"b{n}", "audit", wrong=0, chance=0.5),
            ]
        found = told(tmp_path / f"{left}-{wrong}", rows)
        assert (found.standing.lost_audits, found.standing.wrong_audits) == (left, left + wrong)
        return " ".join(text(found).split())

    assert "callers leave early" in audits(4, 0) and "callers leave early" in audits(4, 2)
    assert "callers leave early" not in audits(1, 0) and "callers leave early" not in audits(3, 4)


def test_a_slow_judge_and_a_nested_tier_are_told(tmp_path: Path) -> None:
    """Answers that the judge was too slow for are counted; so are those that a lossy saving inside made."""
    skipped = [evidence("d", "declined"), evidence("d", "label")]
    assert "judge too slow: 1 answers were left out" in " ".join(
        text(told(tmp_path / "one", skipped)).split()
    )
    nested = [evidence(f"n{n}", "unlabelled") for n in range(30)]
    out = " ".join(text(told(tmp_path / "two", nested)).split())
    assert "30 whose answer a lossy saving inside had a part in" in out and "keep one of the two" in out


def test_it_only_reads(tmp_path: Path) -> None:
    """Reading the gates changes no byte of the ledger."""
    folder = folder_of(tmp_path / "kit", gates=[gate()], evidence=shadowed(100))
    before = (folder / "ledger.db").read_bytes()
    assert gates(folder)[0].standing.labels == 100
    assert (folder / "ledger.db").read_bytes() == before
    json.dumps([one.to_dict() for one in gates(folder)], allow_nan=False)
