"""Part two of the demo: its invented traffic, and the semantic tier on it."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace

import pytest

from costkit.bound import tended
from serving.assistant.documents import load_questions
from serving.demo import meaning, meaning_show, servers
from serving.demo.__main__ import ASSISTANT
from serving.demo.people import Asked, answer_of, crowd
from serving.simulated.recording import load_recording


def asked(count: int, seed: int = 7) -> list[Asked]:
    return crowd(load_questions(ASSISTANT / "questions"), count, seed=seed)


def test_the_crowd_is_seeded_and_words_things_anew() -> None:
    """The same seed asks the same, another one does not, most texts are distinct, and a tenant keeps its own."""
    one, same, other = asked(600), asked(600), asked(600, seed=8)
    assert one == same != other
    assert len({(a.tenant, a.text) for a in one}) > 450
    known = {(q.tenant, q.intent) for q in load_questions(ASSISTANT / "questions")}
    assert {(a.tenant, a.intent) for a in one} <= known


def test_wording_keeps_the_numbers() -> None:
    """No change of words touches a digit: the numbers of each text are those of one phrasing of its meaning."""
    numbers: dict[tuple[str, str], set[str]] = {}
    for q in load_questions(ASSISTANT / "questions"):
        numbers.setdefault((q.tenant, q.intent), set()).add("".join(sorted(filter(str.isdigit, q.question))))
    for one in asked(1_500):
        assert "".join(sorted(filter(str.isdigit, one.text))) in numbers[one.tenant, one.intent], one


def test_about_half_of_the_answers_change() -> None:
    """The change gives between 40 and 60 % of the meanings another answer, and leaves the others as they were."""
    meanings = {(q.tenant, q.intent) for q in load_questions(ASSISTANT / "questions")}
    other = sum(answer_of(*m, changed=True) != answer_of(*m, changed=False) for m in meanings)
    assert 0.4 < other / len(meanings) < 0.6


def test_nothing_to_ask_is_refused() -> None:
    """No questions, or none wanted, is an error that says so."""
    with pytest.raises(ValueError, match="crowd"):
        crowd([], 5)
    with pytest.raises(ValueError, match="crowd"):
        asked(0)


def story(count: int) -> meaning.Story:
    pytest.importorskip("onnxruntime")
    recording = load_recording(servers.RECORDING)
    return meaning.told(asked(count), servers.machine_prices(), servers.usual_answer(recording))


def test_a_short_stream_stays_in_shadow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Forty requests prove nothing: nothing is served by meaning, the text says so, and the picture is drawn."""
    found = story(40)
    assert "semantic" not in found.savings and found.opened is None and found.closed is None
    assert found.spent > 0
    meaning_show.print_story(found)
    assert "stayed in shadow" in capsys.readouterr().out
    meaning_show.draw(tmp_path / "a.png", found)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_whole_story(monkeypatch: pytest.MonkeyPatch) -> None:
    """It opens before the change, keeps its bound until then, and stops serving after it.

    Seeded coins: drawn anew in each run, audits may by chance alone miss for some hundred requests what changed.
    """
    monkeypatch.setattr(tended, "random", SimpleNamespace(Random=lambda: random.Random(7)))
    found = story(2_100)
    assert found.opened is not None and found.opened < found.changed
    hits = [found.wrong[i] for i in range(found.changed) if found.savings[i] == "semantic"]
    assert len(hits) > 200 and sum(hits) / len(hits) < meaning.MAX_ERROR
    assert found.closed is not None and found.closed - found.changed < 300
    assert found.saved > 0


def test_a_gate_that_was_shut_at_the_change_has_not_closed_because_of_it() -> None:
    """Closing is told only of a gate that was open at its last look before the change."""
    marks = [meaning.Mark(10, 0.01), meaning.Mark(20, None), meaning.Mark(30, None)]
    assert meaning._moments(marks, 20) == (10, None)
    assert meaning._moments([meaning.Mark(10, 0.01), meaning.Mark(20, 0.01), meaning.Mark(30, None)], 20) == (
        10,
        30,
    )
