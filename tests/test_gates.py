"""``costkit gate``: where the gates of lossy savings stand, folded from the ledger."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import costkit
from costkit.cli import main
from costkit.embed import Encoder, encoder_of
from costkit.report.gates import gates

TOPICS = 8


def _spell(texts: list[str]) -> list[list[float]]:
    return [[1.0 if f"topic{topic} " in text + " " else 0.01 for topic in range(TOPICS)] for text in texts]


@pytest.fixture
def encoder() -> Encoder:
    return encoder_of(_spell, name="topics/1")


def _asked(folder: Path, encoder: Encoder, calls: int, *, wrong_from: int = 10**9) -> None:
    """So many differently worded calls on a few topics; from ``wrong_from`` on answers change with every call."""
    with costkit.Kit(folder) as kit:

        @kit.call(
            costkit.semantic("question", encoder=encoder, veto=()),
            scope=None, name="ask", max_error=0.05, judge=costkit.judges.same_answer,
        )  # fmt: skip
        def ask(question: str) -> str:
            number, topic = question.split()[1:3]
            costkit.record(free=True)
            return topic if int(number) < wrong_from else f"{topic} {number}"

        for number in range(calls):
            ask(f"tell {number} topic{number % TOPICS}")


def test_a_gate_that_opened(tmp_path: Path, encoder: Encoder, capsys: pytest.CaptureFixture[str]) -> None:
    """The command tells the state, the certificate, the audits, the money and what to do next."""
    _asked(tmp_path / "kit", encoder, 400)
    (told,) = gates(tmp_path / "kit")
    assert told.standing.state == "open" and told.standing.hits > 50 and told.opened_at is not None
    assert told.standing.certified is not None and told.standing.certified <= 0.05
    assert main(["gate", "--folder", str(tmp_path / "kit")]) == 0
    shown = capsys.readouterr().out
    for part in ("ask", "at most 5.0%", "open since", "certified", "audits", "money", "judge", "Next:"):
        assert part in shown, part


def test_a_gate_in_shadow(tmp_path: Path, encoder: Encoder, capsys: pytest.CaptureFixture[str]) -> None:
    """Before there is evidence it says that it serves nothing, and how many labels it needs."""
    _asked(tmp_path / "kit", encoder, 40)
    assert main(["gate", "--folder", str(tmp_path / "kit")]) == 0
    shown = capsys.readouterr().out
    assert "in shadow" in shown and "59 labels" in shown and "open since" not in shown


def test_a_gate_that_cannot_open(
    tmp_path: Path, encoder: Encoder, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where near questions have other answers each time it says so, and serves nothing."""
    _asked(tmp_path / "kit", encoder, 300, wrong_from=0)
    (told,) = gates(tmp_path / "kit")
    assert told.standing.state == "shadow" and told.standing.hits == 0
    assert main(["gate", "--folder", str(tmp_path / "kit")]) == 0
    assert "no number of labels" in capsys.readouterr().out or told.standing.next_labels is not None


def test_as_json(tmp_path: Path, encoder: Encoder, capsys: pytest.CaptureFixture[str]) -> None:
    """The data say the same as the text."""
    _asked(tmp_path / "kit", encoder, 60)
    assert main(["gate", "--folder", str(tmp_path / "kit"), "--json", "-"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert (
        told["name"] == "ask" and told["standing"]["state"] == "shadow" and told["bound"]["max_error"] == 0.05
    )
    assert main(["gate", "--folder", str(tmp_path / "kit"), "--json", "-", "--name", "other"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_folder_without_gates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder in which no lossy saving has worked yet is told how to begin; no kit's folder is one clear line."""
    costkit.Kit(tmp_path / "kit").close()
    assert main(["gate", "--folder", str(tmp_path / "kit")]) == 0
    assert "Next: put costkit.semantic" in capsys.readouterr().out
    assert main(["gate", "--folder", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err
