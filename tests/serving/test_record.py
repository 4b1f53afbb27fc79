"""The committed recording fits the workload it stands for."""

from __future__ import annotations

from pathlib import Path

import pytest

import costkit
from serving.assistant.documents import load_questions
from serving.demo.servers import fit_machine
from serving.record import FOLDER, HERE, SLOTS, workload, workload_digest
from serving.simulated.recording import load_recording

DOCS, QUESTIONS = HERE / "assistant" / "docs", HERE / "assistant" / "questions"


@pytest.fixture(scope="module")
def digests() -> set[str]:
    return set(workload(DOCS, QUESTIONS))


def test_the_recording_is_not_stale(digests: set[str]) -> None:
    """Every prompt of today's documents and questions is in the recording, and nothing else is: else `make record`."""
    recording = load_recording(FOLDER)
    assert digests == set(recording.answers), (
        "documents, questions or prompt changed: run `make serve`, `make record`"
    )
    assert recording.meta["prompts_sha256"] == workload_digest(digests)


def test_the_recording_says_where_it_comes_from() -> None:
    """Date, model, weights, engine, machine and settings stand in meta.json."""
    meta = load_recording(FOLDER).meta
    for field in (
        "date",
        "model",
        "weights_sha256",
        "engine",
        "machine",
        "concurrency",
        "temperature",
        "loaded",
    ):
        assert meta.get(field) is not None, field


def test_the_recorded_machine_is_a_plausible_one() -> None:
    """A prompt token costs less than an output token, and both some fraction of a second."""
    recording = load_recording(FOLDER)
    machine = fit_machine(recording)
    assert 1e-5 < machine.prefill < machine.decode < 1.0
    assert 1.0 <= machine.stretch < 4.0


def test_the_price_adds_up_to_the_measured_machine_time() -> None:
    """The 1,277 answers cost what the machine's hour costs for the time they take with four at a time."""
    recording = load_recording(FOLDER)
    machine = fit_machine(recording)
    prices = costkit.Prices({recording.model: machine.price(0.10)})
    rows = recording.answers.values()
    priced = sum(
        prices.price(
            costkit.Usage(
                in_fresh=a.prompt_tokens - a.cached_tokens,
                cache_read=a.cached_tokens,
                out_text=a.completion_tokens,
            ),
            model=recording.model,
        ).cost
        for a in rows
    )
    seconds = sum(a.e2e_s for a in rows) * machine.stretch / SLOTS
    assert priced / 1e9 == pytest.approx(seconds * 0.10 / 3600, rel=0.01)


def test_a_changed_article_makes_the_recording_stale(tmp_path: Path, digests: set[str]) -> None:
    """One changed sentence in one article changes prompts, so the freshness test above can fail."""
    docs = tmp_path / "docs"
    docs.mkdir()
    for path in DOCS.iterdir():
        text = path.read_text(encoding="utf-8")
        (docs / path.name).write_text(text.replace("30 days", "31 days"), encoding="utf-8")
    assert set(workload(docs, QUESTIONS)) != digests


def test_the_workload_is_as_large_as_promised() -> None:
    """At least 800 questions, from three tenants."""
    questions = load_questions(QUESTIONS)
    assert len(questions) >= 800
    assert {q.tenant for q in questions} == {"acme", "northwind", "meridian"}
