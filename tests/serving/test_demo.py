"""The demo: its traffic, its figures, and the whole of it on a small stream."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from serving.assistant.documents import load_questions
from serving.demo.__main__ import ASSISTANT, main
from serving.demo.arm import Sample
from serving.demo.summary import saved_by, summarise
from serving.demo.traffic import Traffic, repeats, stream


def sample(
    at: float, latency: float, cost: int, saving: str | None = None, right: bool | None = None
) -> Sample:
    return Sample(at, str(at), latency, cost, saving, saving is None, right)


def test_the_stream_is_seeded_and_ordered() -> None:
    """The same seed gives the same stream, another seed another one, and time only goes forward."""
    questions = load_questions(ASSISTANT / "questions")
    one, same, other = (stream(questions, Traffic(count=200, seed=s)) for s in (1, 1, 2))
    assert one == same != other
    assert all(a.at < b.at for a, b in pairwise(one))
    assert 0 < repeats(one) < len(one)


def test_bursts_are_faster_than_the_rest() -> None:
    """With bursts the busiest ten seconds hold far more questions than the average ten seconds."""
    questions = load_questions(ASSISTANT / "questions")
    arrivals = stream(questions, Traffic(count=500, rate=1.0, burst_factor=5.0, seed=3))
    counts = [sum(t <= a.at < t + 10 for a in arrivals) for t in range(int(arrivals[-1].at))]
    assert max(counts) > 2.0 * (sum(counts) / len(counts))


def test_a_stream_needs_questions() -> None:
    """Nothing to draw from, or nothing to draw, is refused."""
    with pytest.raises(ValueError, match="questions"):
        stream([], Traffic())


def test_the_figures_are_those_of_the_samples() -> None:
    """Mean cost, order statistics and the share right are what a hand count gives; a free hit counts in the mean."""
    without = [sample(i, 1.0 + i / 100, 2_000_000, right=i % 2 == 0) for i in range(100)]
    with_ = [sample(i, 0.01, 0, "exact", right=i % 2 == 0) if i >= 50 else without[i] for i in range(100)]
    arm = summarise(with_)
    assert arm.cost.value == pytest.approx(1.0)
    assert arm.p50.value == pytest.approx(0.01)
    assert arm.p95.value == pytest.approx(1.44)
    assert arm.right.value == 0.5 and arm.judged == 100 and arm.model_calls == 50
    (saved,) = saved_by(without, with_)
    assert (saved.kind, saved.queries, saved.nano) == ("exact", 50, 100_000_000)


def test_the_demo_runs_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A short run on the committed recording answers every question in both arms, costs less with costkit, changes no
    judged answer, and leaves a picture and the figures."""
    picture, figures = tmp_path / "demo.png", tmp_path / "demo.json"
    code = main(
        ["--count", "80", "--people", "0", "--speed", "20", "--picture", str(picture), "--json", str(figures)]
    )
    printed = capsys.readouterr().out
    assert code == 0, printed
    told = json.loads(figures.read_text())
    assert told["without"]["errors"] == told["with"]["errors"] == 0
    assert told["without"]["queries"] == told["with"]["queries"] == 80
    saved = sum(s["queries"] for s in told["saved_by"].values())
    assert 0 < saved <= told["repeats"]
    cost = "usd_per_1000_queries"
    assert told["with"][cost]["value"] < told["without"][cost]["value"]
    assert told["with"]["gold_right"]["value"] == told["without"]["gold_right"]["value"]
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 20_000
    assert "next:" in printed and "recorded" in told["source"]


def test_unrecorded_documents_are_refused_before_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A user's own folder is not answered from the recording: one line says what to do, and no arm starts."""
    docs, questions = tmp_path / "docs", tmp_path / "q.jsonl"
    docs.mkdir()
    (docs / "a.md").write_text("# Opening hours\n\nThe shop opens at 9 and closes at 18 on weekdays.\n")
    asked = {"id": "1", "tenant": "default", "intent": "hours", "kind": "answerable"}
    questions.write_text(
        json.dumps({**asked, "question": "when does the shop open?", "sources": ["a"]}) + "\n"
    )
    assert main(["--docs", str(docs), "--questions", str(questions)]) == 2
    message = capsys.readouterr().err
    assert "1 of 1 prompts are not in the recording" in message and "LIVE=1" in message
