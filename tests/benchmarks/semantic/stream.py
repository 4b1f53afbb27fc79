"""costkit itself on one stream, through its public decorator, in a folder of its own."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import costkit
from costkit.embed import Encoder

from .evidence import Evidence, demotions, serving, shut_at
from .rows import OUT_OF_SCOPE, Stream
from .tally import Tally

__all__ = ["OFF_TOPIC", "Bound", "Run", "answer_text", "played", "scratch"]

OFF_TOPIC = "out of scope"
"""What the model says to a question that has no class: refused by ``admit``, so it is never stored."""

_GATE = "SELECT query_id, kind, generation FROM evidence WHERE query_id IS NOT NULL AND kind != 'label' ORDER BY id"


@dataclass(frozen=True, slots=True)
class Bound:
    """What the gate is told."""

    max_error: float
    per: str
    confidence: float = 0.95


@dataclass(frozen=True, slots=True)
class Run:
    """What happened on one stream.

    ``tally`` counts what was served; ``audits`` are hits whose answer was made anew to check them. ``served`` marks
    the questions that were answered from the cache, in order. ``opened`` is how many questions were asked before the
    first that the gate would serve, None where it never did. ``demotions`` are the gate's; ``closed`` says that it went
    off in the second half. ``late_audits`` and ``late_wrong`` are the audited hits and the wrong answers between the
    change of answers and the moment when the gate was off, ``detected`` whether it ever was. ``warned`` is what costkit
    warned of: a tier that cannot be asked would only look like a poor one.
    """

    tally: Tally
    audits: int
    served: bytes
    opened: int | None
    demotions: int
    closed: bool = False
    warned: tuple[str, ...] = ()
    detected: bool | None = None
    late_audits: int = 0
    late_wrong: int = 0

    @property
    def hit_rate(self) -> float:
        """Served or audited, of all that was asked."""
        return self.tally.hit_rate + self.audits / max(1, self.tally.asked)

    def net_hit_rate(self, first: float = 0.0) -> float:
        """Served, of all that was asked; ``first``: from that share of the stream on."""
        part = self.served[round(first * len(self.served)) :]
        return sum(part) / max(1, len(part))


def scratch() -> str | None:
    """A folder in memory where there is one: what a disk takes to keep rows is not measured here."""
    shm = "/dev/shm"
    return shm if os.path.isdir(shm) and os.access(shm, os.W_OK) else None


def played(
    texts: Sequence[str],
    stream: Stream,
    encoder: Encoder,
    bound: Bound,
    *,
    gold: Sequence[tuple[str, str]] = (),
    stored: bool = False,
) -> Run:
    """Ask the stream's questions one after the other.

    ``gold``, questions and answers, certifies the gate beforehand; with ``stored`` these answers can be served, too.
    """
    truth = [OFF_TOPIC]
    with (
        warnings.catch_warnings(record=True) as warned,
        tempfile.TemporaryDirectory(dir=scratch()) as folder,
        costkit.Kit(Path(folder) / "kit") as kit,
    ):
        warnings.simplefilter("always")

        @kit.call(
            costkit.exact(admit=lambda answer: answer != OFF_TOPIC),
            costkit.semantic("question", encoder=encoder),
            max_error=bound.max_error, per=bound.per, confidence=bound.confidence,
            judge=costkit.judges.same_answer, scope=None, name="ask", version="1",
        )  # fmt: skip
        def ask(question: str) -> str:
            return truth[0]

        if gold:
            kit.certify(ask, gold, seed_answers=stored)
        asked = []
        for t, row in enumerate(stream.rows):
            truth[0] = answer_text(int(stream.answers[t]))
            outcome = ask.outcome(texts[int(row)])
            asked.append((outcome.query_id, outcome.saving, outcome.value != truth[0]))
        seen = {id: Evidence(kind, generation) for id, kind, generation in kit.ledger().execute(_GATE)}
    savings, amiss = [saving for _, saving, _ in asked], [wrong for _, _, wrong in asked]
    found = _read(savings, amiss, [seen.get(id) for id, _, _ in asked], stream.change)
    return replace(found, warned=tuple(sorted({str(warning.message) for warning in warned})))


def answer_text(number: int) -> str:
    """The answer of a class, as text."""
    return OFF_TOPIC if number == OUT_OF_SCOPE else f"answer {number}"


def _read(
    savings: Sequence[str | None], amiss: Sequence[bool], seen: Sequence[Evidence | None], change: int | None
) -> Run:
    """Of each question: what answered it, whether that was wrong, and what the gate decided."""
    wrong = [bad and saving == "semantic" for saving, bad in zip(savings, amiss, strict=True)]
    hits = savings.count("semantic")
    found = Run(
        Tally(
            asked=len(savings), exact=len(savings) - savings.count(None) - hits, hits=hits,
            wrong=sum(wrong), wrong_exact=sum(amiss) - sum(wrong),
        ),
        audits=sum(row is not None and row.kind == "audit" for row in seen),
        served=bytes(saving is not None for saving in savings),
        opened=next((t for t, row in enumerate(seen) if row is not None and row.would_serve), None),
        demotions=demotions(seen),
        closed=shut_at(seen, len(seen) // 2) is not None,
    )  # fmt: skip
    if change is None or not serving(seen[:change]):
        return found  # a gate that served nothing when the answers changed has nothing to notice
    until = shut_at(seen, change)
    span = slice(change, until)
    return replace(
        found,
        detected=until is not None,
        late_audits=sum(row is not None and row.kind == "audit" for row in seen[span]),
        late_wrong=sum(wrong[span]),
    )
