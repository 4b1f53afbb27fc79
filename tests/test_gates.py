"""``costkit gate``: where the gates of lossy savings stand, folded from the ledger."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import costkit
from costkit.cli import main
from costkit.report.gates import gates
from tests.gated import asked


def shown(folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    assert main(["gate", "--folder", str(folder), *more]) == 0
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder whose gate has opened, and where the gate of its own process stood."""
    folder = tmp_path_factory.mktemp("opened") / "kit"
    return folder, asked(folder, 400)


def test_it_tells_what_the_process_itself_knew(opened: tuple[Path, Any]) -> None:
    """The gate folded from the ledger stands where the gate stood that decided on the calls."""
    folder, standing = opened
    (told,) = gates(folder)
    assert told.standing == standing and told.state == "open"
    assert standing.hits > 50 and standing.requests == 400 and standing.certified <= 0.05


def test_money_adds_up(opened: tuple[Path, Any]) -> None:
    """What it saved is what served calls did not cost, what audits cost is what those calls were billed."""
    folder, standing = opened
    (told,) = gates(folder)
    assert told.saved == standing.hits * 1_000_000 and told.audited == standing.audits * 1_000_000
    assert standing.audits > 0


def test_a_gate_that_opened(opened: tuple[Path, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """The command tells the state, the certificate, the audits, the money and what to do next."""
    out, s = shown(opened[0], capsys), opened[1]
    assert "ask: semantic, at most 5.0% of served answers wrong" in out
    assert re.search(r"state\s+open since \d{4}-", out) and re.search(
        r"certified\s+at most \d\.\d% wrong now", out
    )
    assert f"{s.hits:,} served, {s.audits:,} audited instead" in out and f"0 of {s.audits:,} wrong [" in out
    assert re.search(rf"saved\s+\${s.hits / 1000:.4f}"[:-1], out) and "but for the audits" in out
    assert "its word is what right means" in out and "should half of what it serves turn wrong at once" in out
    assert out.rstrip().splitlines()[-1].startswith("  Next: nothing; audits go on")


def test_a_gate_in_shadow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before there is evidence it says that it serves nothing, and how many labels it needs."""
    asked(tmp_path / "kit", 40)
    out = shown(tmp_path / "kit", capsys)
    assert "in shadow since" in out and "nothing is served" in out and "Next: wait" in out
    assert "more labels" in out or "59 labels" in out
    assert "certified" not in out and "saved" not in out


def test_a_gate_that_cannot_open(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where near questions have other answers each time it says so, and serves nothing."""
    asked(tmp_path / "kit", 300, wrong_from=0)
    (told,) = gates(tmp_path / "kit")
    assert told.state == "shadow" and told.standing.hits == 0 and told.standing.next_labels is None
    out = shown(tmp_path / "kit", capsys)
    assert "no labels would let it serve more" in out and "nothing it has seen can be certified" in out


def test_a_gate_that_fell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A gate that served, and whose answers then changed, says that it is shut, since when, and to find the change."""
    asked(tmp_path / "kit", 600, wrong_from=400)
    (told,) = gates(tmp_path / "kit")
    assert told.state in ("closed", "shadow") and told.standing.hits > 50
    out = shown(tmp_path / "kit", capsys)
    assert "closed by its alarm" in out or "in shadow again since" in out
    assert "Next: find what changed" in out and "open since" not in out


def test_as_json(opened: tuple[Path, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """The data say the same as the text, in JSON that every reader takes: what has no end is null."""

    def refuse(word: str) -> None:
        raise AssertionError(word)

    (told,) = json.loads(shown(opened[0], capsys, "--json", "-"), parse_constant=refuse)
    assert (told["name"], told["state"], told["bound"]["max_error"]) == ("ask", "open", 0.05)
    assert told["standing"]["hits"] == opened[1].hits and len(told["audit_interval"]) == 2


def test_another_function(opened: tuple[Path, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """A function without a gate is told which ones have one."""
    assert shown(opened[0], capsys, "--name", "ask").startswith("ask: semantic")
    assert main(["gate", "--folder", str(opened[0]), "--name", "other"]) == 2
    assert "this function has no gate; these have one: ask" in capsys.readouterr().err


def test_a_folder_without_gates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder in which no lossy saving has worked yet is told how to begin; no kit's folder is one clear line."""
    costkit.Kit(tmp_path / "kit").close()
    assert "Next: put costkit.semantic" in shown(tmp_path / "kit", capsys)
    assert main(["gate", "--folder", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_a_judge_that_cannot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A log whose identical calls were answered differently shows that the judge cannot certify the bound."""
    with costkit.Kit(tmp_path / "kit") as kit:
        from tests.gated import encoder

        settings: dict[str, Any] = {"max_error": 0.05, "judge": costkit.judges.same_answer, "name": "ask"}

        @kit.call(costkit.semantic("question", encoder=encoder(), veto=()), scope=None, **settings)
        def ask(question: str) -> str:
            raise AssertionError("certifying calls nothing")

        rows = [(f"tell {n % 50} topic{n % 8}", "yes" if n % 3 else "no") for n in range(600)]
        kit.certify(ask, rows)
        kit.certify(ask, rows)
    (told,) = gates(tmp_path / "kit")
    # 200 different questions, each three times with a "no" among them: of each the first two make a pair.
    assert told.fresh == 200 and 100 < told.told_apart < 200
    out = " ".join(shown(tmp_path / "kit", capsys).split())
    assert "it cannot certify max_error=0.05; a judge that compares only what must agree" in out
    assert "Next: take the advice on the judge" in out
