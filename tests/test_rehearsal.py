"""The semantic tier without calls: it must do with rows what the real one does with calls."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import costkit
from costkit.bound import Bound, Gate, Passage
from costkit.errors import EncoderError, JudgeError
from costkit.judges import Judge
from costkit.semantic.features import PRIOR
from costkit.semantic.rehearsal import Asked, Met, Rehearsal

from .meanings import bag, meaning
from .rehearsals import asked, made, tier


def distinct(texts: list[str]) -> list[list[float]]:
    """As :func:`bag`, without two cosines that are equal: which of two equals comes first is not for a test to say."""
    return [
        [value + 0.05 * random.Random(f"{text} {at}").random() for at, value in enumerate(vector)]
        for text, vector in zip(texts, bag(texts), strict=True)
    ]


def run(
    rows: list[Asked], bound: Bound | None = None, *, of: Any = None, ttl: float | None = None, **how: Any
) -> list[Met]:
    """What one gate does with the rows."""
    bound = bound or Bound(0.1)
    (met,) = Rehearsal(of or tier(), rows, ttl=ttl).run([Gate(bound, PRIOR)], **how)
    return met


@pytest.mark.parametrize("sightings", [1, 2])
def test_it_does_what_calls_do(tmp_path: Path, sightings: int) -> None:
    """The same rows, asked through the public decorator with the same coins, give the same kinds and labels."""
    rows, bound = made(900, tenants=2, seed=3), Bound(0.2)
    answers = {row.question: row.answer for row in rows}
    with costkit.Kit(tmp_path / "kit") as kit:

        @kit.call(
            costkit.exact(),
            meaning(sightings=sightings, encoder=distinct),
            max_error=0.2,
            judge=costkit.judges.same_answer,
            scope="tenant",
        )
        def ask(question: str, *, tenant: str) -> str:
            return answers[question]

        pool = kit._pools.of(ask._plan)
        assert pool is not None
        pool.tended(None)._random = random.Random(7)
        saved = []
        for row in rows:
            saved.append(ask.outcome(row.question, tenant=row.tenant).saving)
            kit._ledger.flush()  # rows of free hits are written a little later, and the gate sees them then
        con = kit.ledger()
        found = [(kind, wrong) for kind, wrong in con.execute("SELECT kind, wrong FROM evidence ORDER BY id")]
        con.close()
    met = run(asked(rows), bound, of=tier(sightings=sightings, encoder=distinct), seed=7)
    assert [one.kind for one in met if one.kind != "exact"] == [kind for kind, _ in found]
    labels = [
        (one.kind, int(bool(one.wrong)) if one.passage is not None and one.passage.labelled else None)
        for one in met
        if one.kind != "exact"
    ]
    assert labels == found
    assert [one.kind == "exact" for one in met] == [saving == "exact" for saving in saved]
    assert [one.kind == "served" for one in met] == [saving == "semantic" for saving in saved]
    assert Counter(one.kind for one in met).keys() == {"none", "declined", "audit", "served", "exact"}


def test_gates_side_by_side_do_what_each_does_alone() -> None:
    """Gates that go through the rows together do not touch one another."""
    rows, bounds = asked(made(600, seed=1)), [Bound(0.02), Bound(0.1), Bound(0.1, "request")]
    together = Rehearsal(tier(), rows).run([Gate(bound, PRIOR) for bound in bounds], seed=2)
    assert together == [run(rows, bound, seed=2) for bound in bounds]
    assert len({sum(one.kind == "served" for one in met) for met in together}) > 1


def test_the_search_is_exact_across_blocks() -> None:
    """Each candidate is among the nearest of all rows that were in the pool by then, however many blocks ago."""
    rows = asked(made(700, seed=5))
    rehearsal = Rehearsal(tier(), rows)
    (met,) = rehearsal.run([Gate(Bound(0.01), PRIOR)], shadow=True, whole=True)
    stored: list[int] = []
    for number, one in enumerate(met):
        if one.candidate is not None and one.kind != "exact":
            cosines = sorted(
                (float(rehearsal.vector(at) @ rehearsal.vector(number)) for at in stored), reverse=True
            )
            assert one.candidate in stored
            assert one.similarity is not None and one.similarity >= cosines[:10][-1] - 1e-5
        if one.kind != "exact":
            stored.append(number)


def test_in_shadow_all_is_labelled_and_nothing_served() -> None:
    """A rehearsal for a certificate labels every candidate and lets no row count as a call."""
    gate = Gate(Bound(0.2), PRIOR)
    (met,) = Rehearsal(tier(), asked(made(500))).run([gate], shadow=True)
    assert {one.kind for one in met} == {"rehearsed", "exact"}
    assert all(one.wrong is not None for one in met if one.candidate is not None)
    standing = gate.standing()
    assert (standing.requests, standing.hits, standing.audits) == (0, 0, 0)
    assert standing.rehearsed == sum(one.kind == "rehearsed" for one in met)
    labels = [
        (number, None) if one.wrong else (row.text, one.candidate)  # rightly answered, a pair counts once
        for number, (row, one) in enumerate(zip(asked(made(500)), met, strict=True))
        if one.candidate is not None and one.kind == "rehearsed"
    ]
    assert standing.labels == len(set(labels)) < len(labels)
    assert standing.state == "open"


def test_in_shadow_the_pool_is_the_one_that_will_be() -> None:
    """What would be served does not enter the pool, unless every answer is to be stored."""
    rows = asked(made(900, seed=4))
    partly, whole = run(rows, shadow=True), run(rows, shadow=True, whole=True)
    first = {rows[number].text: number for number in reversed(range(len(rows)))}
    repeats = len(rows) - len(first)
    assert sum(one.kind == "exact" for one in whole) == repeats
    assert sum(one.kind == "exact" for one in partly) < repeats


@pytest.mark.parametrize("apart", ["scope", "same"])
def test_nothing_leaves_its_namespace(apart: str) -> None:
    """A candidate, and an exact hit, have the scope of the row and all that must be identical with it."""
    coins = random.Random(1)
    said = [(row, f"x{coins.randrange(3)}") for row in made(600)]
    rows = [
        Asked(row.question, row.answer, part if apart == "same" else "", part if apart == "scope" else "s")
        for row, part in said
    ]
    met = run(rows)
    candidates = [(number, one.candidate) for number, one in enumerate(met) if one.candidate is not None]
    assert len(candidates) > 400
    for number, candidate in candidates:
        assert (rows[candidate].scope, rows[candidate].same) == (rows[number].scope, rows[number].same)
        assert candidate < number


def test_an_old_answer_is_none() -> None:
    """Past its ttl an answer is neither an exact hit nor a candidate, and the new one takes its place."""
    texts = [
        "how long for a refund",
        "how long for a refund",
        "how long for my refund",
        "how long for a refund",
    ]
    rows = [Asked(text, "A week.", at=at) for text, at in zip(texts, (0.0, 50.0, 101.0, 150.0), strict=True)]
    assert [one.kind for one in run(rows, ttl=100.0)] == ["none", "exact", "none", "declined"]
    assert [one.kind for one in run(rows)] == ["none", "exact", "declined", "exact"]


def test_refusals_and_what_admit_keeps_out_are_no_candidates() -> None:
    """An answer that refuses, or that the user's admit turns down, stands for no other call."""
    rows = [
        Asked("how long for a refund", "I'm sorry, I cannot answer that."),
        Asked("how long for a visa", "secret"),
        Asked("how long for my refund", "A week."),
        Asked("how long for the visa", "A week."),
    ]
    met = run(rows, of=tier(admit=lambda answer: answer != "secret"))
    assert [(one.kind, one.candidate) for one in met[:3]] == [("none", None)] * 3
    assert met[3].candidate == 2


def test_a_judge_that_fails_says_wrong_and_is_asked_once() -> None:
    """A judge's trouble counts as an error, and no pair is judged twice for several gates."""
    pairs: Counter[tuple[str, str]] = Counter()

    def says(served: Any, reference: Any, question: Any) -> bool:
        pairs[question, served] += 1
        if "visa" in question:
            raise RuntimeError("down")
        return bool(served == reference)

    judge = Judge("mine", "mine/1", exact=True, says=says)
    rows = asked(made(300, seed=2))
    mets = Rehearsal(tier(judge=judge), rows).run([Gate(Bound(0.1), PRIOR), Gate(Bound(0.1), PRIOR)], seed=1)
    assert mets[0] == mets[1]
    assert all(
        one.wrong
        for one, row in zip(mets[0], rows, strict=True)
        if one.candidate is not None and "visa" in row.text and one.kind != "exact"
    )
    sought = sum(one.candidate is not None and one.kind != "exact" for one in mets[0])
    assert sum(pairs.values()) == sought > 200
    with pytest.raises(JudgeError):
        judge.compare("a", "b", "my visa")


class Alarmed(Gate):
    """A gate whose alarm goes off at its 200th row."""

    def see(self, passage: Passage, wrong: bool | None = None) -> bool:
        super().see(passage, wrong)
        if sum(self.counts.values()) == 200:
            self._demote()
            return True
        return False


@pytest.mark.parametrize("seed", range(4))
def test_a_demoted_gate_starts_with_an_empty_pool(seed: int) -> None:
    """After the alarm nothing stored before is a candidate, nor the row that raised it; identical calls are hits."""
    gate = Alarmed(Bound(0.01), PRIOR)
    (met,) = Rehearsal(tier(), asked(made(600, seed=seed))).run([gate])
    alarm = max(
        number for number, one in enumerate(met) if one.passage is not None and one.passage.generation == 0
    )
    after = [one for one in met[alarm + 1 :] if one.passage is not None]
    candidates = [one.candidate for one in after if one.candidate is not None]
    assert gate.generation == 1 and met[alarm].kind == "declined" and after[0].candidate is None
    assert len(candidates) > 100 and min(candidates) > alarm
    assert any(
        one.kind == "exact" and one.candidate is not None and one.candidate < alarm for one in met[alarm:]
    )


def test_known_rows_are_put_into_the_pool_and_no_more() -> None:
    """A row that the gate has seen before gives it no label, but stands for others."""
    rows = [
        Asked("how long for a refund", "A week.", tag="1", known=True),
        Asked("how long for my refund", "A week.", tag="2"),
    ]
    gate = Gate(Bound(0.1), PRIOR)
    (met,) = Rehearsal(tier(), rows).run([gate], shadow=True)
    assert [one.kind for one in met] == ["known", "rehearsed"]
    assert met[1].candidate == 0 and gate.standing().rehearsed == 1


def test_an_encoder_that_fails_is_named() -> None:
    """Vectors that cannot be used end it with the encoder's own words, before any row is met."""

    def broken(texts: list[str]) -> list[list[float]]:
        return [[float("nan")] * 3 for _ in texts]

    with pytest.raises(EncoderError, match="NaN"):
        Rehearsal(tier(encoder=broken), asked(made(5)))


def test_no_rows_are_no_trouble() -> None:
    """An empty log is met by nothing, also by an encoder that is never asked."""
    assert Rehearsal(tier(), []).run([Gate(Bound(0.1), PRIOR)]) == [[]]


def test_progress_is_told_to_the_end() -> None:
    """Embedding and rehearsal both say how far they are, up to all of it."""
    told: list[tuple[int, int]] = []
    rehearsal = Rehearsal(tier(), asked(made(300)), told=lambda done, of: told.append((done, of)))
    different = len({row.question for row in made(300)})
    assert told[-1] == (different, different) and len(told) == -(-different // 256)
    told.clear()
    rehearsal.run([Gate(Bound(0.1), PRIOR)], told=lambda done, of: told.append((done, of)))
    assert told == [(number, 300) for number in range(1, 301)]
    assert bag(["a"]) == bag(["A"])
