"""The gates beside the rest of the record: report, picture, why and doctor."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import costkit
from costkit.cli import main
from costkit.errors import ConfigError
from costkit.report import Select, daily, examine, make_report, plot, tell
from costkit.report import gates as gates_module
from costkit.report.gates import gates
from costkit.report.gates_course import courses
from costkit.report.gates_plot import draw_gates
from tests.gated import asked, encoder, evidence, gate, shadowed
from tests.recorded import DAY, START, folder_of, query
from tests.reports import shown


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("opened") / "kit"
    asked(folder, 400)
    return folder


def by_hand(path: Path, **changes: Any) -> Path:
    """Two gates: app.ask served one call and audited another a day later, app.other audited one."""
    served = {"saved_by": "semantic", "counterfactual_cost": 700, "at": START}
    return folder_of(
        path,
        gates=[gate(**changes), gate("h", name="app.other")],
        evidence=[
            *shadowed(200), evidence("s", "served", chance=0.05), evidence("a", "audit", wrong=0, at=START + DAY),
            evidence("o", "audit", gate="h", wrong=0),
        ],
        queries=[
            query("s", **served), query("a", provider_cost=300, at=START + DAY),
            query("o", name="app.other", provider_cost=50, at=START),
        ],
    )  # fmt: skip


def test_a_report_shows_the_bound_beside_the_money(opened: Path) -> None:
    """Each gate's line has its bound, what is certified, what it saved, and what its audits cost."""
    report = make_report(opened)
    (line,), (told,) = report.gates, gates(opened)
    assert (line.saved, line.audited, line.certified) == (told.saved, told.audited, told.standing.certified)
    assert (line.hits, line.audits) == (told.standing.hits, told.standing.audits)
    assert line.saved == next(s.saved for s in report.savings if s.kind == "semantic") == report.money.saved
    out = shown(report)
    assert (
        "semantic ask" in out and "5.0% of hits" in out and "audits cost" in out and "but for audits" in out
    )
    json.dumps(report.to_dict(), allow_nan=False)


def test_a_report_counts_only_what_was_asked_for(tmp_path: Path) -> None:
    """Money, hits and audits of a gate are those of the period and function of the report."""
    folder = by_hand(tmp_path / "kit")
    lines = {
        (line.name, line.hits, line.audits, line.saved, line.audited) for line in make_report(folder).gates
    }
    assert lines == {("app.ask", 1, 1, 700, 300), ("app.other", 0, 1, 0, 50)}
    (line,) = make_report(folder, Select(since=START + 1)).gates
    assert (line.name, line.hits, line.audits, line.saved, line.audited) == ("app.ask", 0, 1, 0, 300)
    (line,) = make_report(folder, Select(name="app.other")).gates
    assert line.name == "app.other"


def test_too_much_evidence_for_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gate whose evidence would take long to read keeps its money in the report, and says who reads the rest."""
    folder = by_hand(tmp_path / "kit")
    monkeypatch.setattr(gates_module, "_QUICK", 100)
    lines = {line.name: line for line in make_report(folder).gates}
    assert (lines["app.ask"].state, lines["app.ask"].saved, lines["app.other"].state) == (None, 700, "shadow")
    assert "too much evidence to read for a report" in shown(make_report(folder))
    assert [one.name for one in daily(folder).gates] == ["app.other"]


def test_a_report_without_gates(tmp_path: Path) -> None:
    """Where no lossy saving works nothing is said of gates."""
    report = make_report(folder_of(tmp_path / "kit", queries=[query("q", provider_cost=1)]))
    assert report.gates == () and "audits" not in shown(report)


def test_the_course_ends_where_the_gate_stands(opened: Path) -> None:
    """The last moment says what the gate says now, times go up, and nothing passed before anything was certified."""
    (one,), (told,) = courses(opened), gates(opened)
    last, s = one.moments[-1], told.standing
    assert (last.certified, last.low, last.high) == (s.certified, *s.running) and last.average == s.average
    assert [m.at for m in one.moments] == sorted(m.at for m in one.moments) and 100 < len(one.moments) < 410
    opening = next(n for n, m in enumerate(one.moments) if m.certified is not None)
    assert opening > 10 and all(m.served == 0 for m in one.moments[:opening])
    passed = s.hits + s.audits
    assert 0 < last.served <= 1 and passed / s.requests <= max(m.served for m in one.moments)


def test_a_picture(opened: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands draw gates into a file and say where; with the bound, the risk and the demotions in it."""
    pytest.importorskip("matplotlib")
    target = tmp_path / "gate.svg"
    assert main(["gate", "--folder", str(opened), "--plot", str(target)]) == 0
    assert f"Drawn: {target}" in capsys.readouterr().out and target.stat().st_size > 10_000
    assert main(["report", "--folder", str(opened), "--plot", str(tmp_path / "report.png")]) == 0
    with_gates = (tmp_path / "report.png").read_bytes()
    plain = plot(type(daily(opened))(daily(opened).days), tmp_path / "plain.png").read_bytes()
    assert with_gates[:4] == plain[:4] == b"\x89PNG" and len(with_gates) > len(plain)


def test_a_picture_of_many_gates_and_odd_names(tmp_path: Path) -> None:
    """More gates than fit, a demotion, one row of evidence, and names with formulas in them are drawn."""
    pytest.importorskip("matplotlib")
    wrong = [evidence(f"a{n}", "audit", wrong=1, chance=0.05, at=START + 500 + n) for n in range(40)]
    many = [gate(f"g{n}", name=f"$\\frac{{{n}$\x1b") for n in range(6)]
    rows = [evidence("x", "declined", gate=f"g{n}", wrong=0) for n in range(6)]
    folder = folder_of(tmp_path / "kit", gates=[gate(), *many], evidence=[*shadowed(200), *wrong, *rows])
    told = courses(folder)
    assert [len(one.demoted_at) for one in told] == [1, *[0] * 6]
    assert draw_gates(told, tmp_path / "all.png").stat().st_size > 10_000
    assert draw_gates(told[:1], tmp_path / "first.pdf").stat().st_size > 5_000


@pytest.mark.parametrize(
    ("name", "rows", "said"),
    [
        ("x.gif", 1, "end the name in"), ("none/x.png", 1, "No such file"), ("x.png", 0, "no evidence of any gate"),
    ],
)  # fmt: skip
def test_pictures_that_cannot_be(tmp_path: Path, name: str, rows: int, said: str) -> None:
    """Another ending, a folder that is not there, and nothing to draw are one clear line each."""
    pytest.importorskip("matplotlib")
    folder = folder_of(tmp_path / "kit", gates=[gate()], evidence=shadowed(rows))
    with pytest.raises(ConfigError, match=said):
        draw_gates(courses(folder), tmp_path / name)


def test_times_that_are_none(tmp_path: Path) -> None:
    """Evidence from a clock that no calendar knows is no picture, and says so."""
    pytest.importorskip("matplotlib")
    folder = folder_of(
        tmp_path / "kit", gates=[gate()], evidence=[evidence("x", "declined", wrong=0, at=1e300)]
    )
    with pytest.raises(ConfigError, match="times that are none"):
        draw_gates(courses(folder), tmp_path / "x.png")


def test_why_tells_what_became_of_the_candidate(tmp_path: Path) -> None:
    """A call that ran says what became of its candidate, if it had one, and what the judge said of it."""
    rows = [
        evidence("n", "none"), evidence("d", "declined", wrong=1), evidence("l", "declined"),
        evidence("l", "label", wrong=0), evidence("w", "declined"), evidence("a", "audit", wrong=0),
    ]  # fmt: skip
    folder = folder_of(
        tmp_path / "kit", gates=[gate()], evidence=rows, queries=[query(id, key=id) for id in "ndlwax"]
    )
    said = {id: tell(folder, id).root.reason or "" for id in "ndlwax"}
    assert "nothing was stored under the same other arguments" in said["n"]
    assert "1.0% likely to be wrong, was not served" in said["d"] and "it was wrong" in said["d"]
    assert "it was as good" in said["l"] and "the judge has not spoken" in said["w"]
    assert "would have been served, and was checked by this call instead: it was as good" in said["a"]
    assert "by meaning" not in said["x"]


def lonely(folder: Path, calls: int, *, vary: bool) -> None:
    with costkit.Kit(folder, store_text=True) as kit:
        settings: dict[str, Any] = {"max_error": 0.05, "judge": costkit.judges.same_answer, "name": "rag"}

        @kit.call(costkit.semantic("question", encoder=encoder()), scope=None, **settings)
        def rag(question: str, passages: list[str], style: str = "short") -> str:
            costkit.record(free=True)
            return "yes"

        for number in range(calls):
            rag(f"question {number} topic1", [f"passage {number if vary else 0}"])


def test_why_warns_of_a_namespace_that_never_repeats(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where another argument changes with every call, the command names it and says what to do; gate does so too."""
    lonely(tmp_path / "kit", 120, vary=True)
    (warning,) = tell(tmp_path / "kit", "last").warnings
    assert warning.startswith("120 of the last 120 calls of rag found nothing stored")
    assert "(passages changed each time)" in warning and "sources=" in warning and "ignore=" in warning
    assert main(["why", "last", "--folder", str(tmp_path / "kit")]) == 0
    assert "Warning: 120 of the last" in capsys.readouterr().out
    assert main(["gate", "--folder", str(tmp_path / "kit")]) == 0
    assert "Next: 120 of 120 calls found nothing stored" in capsys.readouterr().out


def test_no_warning_where_questions_repeat(tmp_path: Path) -> None:
    """The same calls with the same passages find each other, and few calls say nothing yet."""
    lonely(tmp_path / "a", 120, vary=False)
    assert tell(tmp_path / "a", "last").warnings == ()
    lonely(tmp_path / "b", 60, vary=True)
    assert tell(tmp_path / "b", "last").warnings == ()


def levels(folder: Path, now: float | None = None) -> dict[str, tuple[str, str]]:
    return {check.what: (check.level, check.found) for check in examine(folder, now=now).checks}


def test_doctor_knows_the_index_and_the_gates(opened: Path, tmp_path: Path) -> None:
    """A sound index is whole and no foreign file; a damaged one, and one that was set aside, are told."""
    found = levels(opened)
    assert found["index"][0] == "ok" and "questions" in found["index"][1]
    assert found["gates"][0] == "ok" and "foreign files" not in found and "set aside" not in found
    folder = tmp_path / "kit"
    shutil.copytree(opened, folder)
    (index,) = (folder / "index").glob("*.db")
    with index.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 8192)
    (folder / "index.damaged-1").mkdir(mode=0o700)
    found = levels(folder)
    assert found["index"][0] == "warn" and found["set aside"] == ("warn", "index.damaged-1")


def test_doctor_sees_labels_that_never_came(tmp_path: Path) -> None:
    """Answers that waited for more than ten minutes for their judge are counted, and rows that nobody can read."""
    folder = folder_of(
        tmp_path / "a", gates=[gate()], evidence=[evidence("x", "declined"), evidence("y", "audit")]
    )
    assert "labels" not in levels(folder, START + 300)
    assert levels(folder, START + 900)["labels"] == (
        "warn",
        "2 answers of app.ask were never judged and count as wrong",
    )
    bad = {**gate(), "bound": "nonsense"}
    found = levels(
        folder_of(tmp_path / "b", gates=[bad], evidence=[evidence("x", "declined", wrong=0)]), START
    )
    assert found["gates"] == ("bad", "1 of 1 cannot be read")
