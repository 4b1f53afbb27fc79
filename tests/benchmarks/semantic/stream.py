"""costkit itself on one stream, through its public decorator, in a folder of its own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import costkit
from costkit.embed import Encoder

from .rows import OUT_OF_SCOPE, Stream
from .tally import Tally

__all__ = ["OFF_TOPIC", "Bound", "Evidence", "Run", "certify", "played", "scratch"]

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
class Evidence:
    """What the gate decided about one question: "none", "declined", "audit" or "served"; demotions before it."""

    kind: str
    generation: int


@dataclass(frozen=True, slots=True)
class Run:
    """What happened on one stream.

    ``tally`` counts what was served; ``audits`` are hits whose answer was made anew to check them. ``served`` marks the
    questions that were answered from the cache, in order. ``opened`` is how many questions were asked before the first
    that the gate would serve, None where it never did. ``demotions`` are the gate's; ``late_audits`` and ``late_wrong``
    the audited hits and the wrong answers between the change of answers and the demotion that followed, ``detected``
    whether one did. ``would_be`` counts declined questions whose candidate was on the gate's scale.
    """

    tally: Tally
    audits: int
    served: bytes
    opened: int | None
    demotions: int
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
) -> Run:
    """Ask the stream's questions one after the other; ``gold`` certifies the gate beforehand.

    What comes before ``stream.known`` is asked while the tier is in shadow and is not counted.
    """
    truth = [OFF_TOPIC]
    with tempfile.TemporaryDirectory(dir=scratch()) as folder, costkit.Kit(Path(folder) / "kit") as kit:

        @kit.call(
            costkit.exact(admit=lambda answer: answer != OFF_TOPIC),
            costkit.semantic("question", encoder=encoder),
            max_error=bound.max_error, per=bound.per, confidence=bound.confidence,
            judge=costkit.judges.same_answer, scope=None, name="ask", version="1",
        )  # fmt: skip
        def ask(question: str) -> str:
            return truth[0]

        if gold:
            certify(kit, ask, gold)
        ids, served, hits, exact, wrong, wrong_exact = [], bytearray(), 0, 0, [], 0
        for t, row in enumerate(stream.rows.tolist()):
            truth[0] = answer_text(int(stream.answers[t]))
            outcome = ask.outcome(texts[row])
            if t < stream.known:
                continue
            ids.append(outcome.query_id)
            served.append(outcome.saving is not None)
            amiss = outcome.value != truth[0]
            if outcome.saving == "semantic":
                hits += 1
                wrong.append(amiss)
            else:
                exact += outcome.saving is not None
                wrong_exact += amiss
                wrong.append(False)
        seen = {id: Evidence(kind, generation) for id, kind, generation in kit.ledger().execute(_GATE)}
    tally = Tally(stream.asked, exact, hits, sum(wrong), wrong_exact)
    return _read(tally, bytes(served), [seen.get(id) for id in ids], wrong, stream)


def answer_text(number: int) -> str:
    """The answer of a class, as text."""
    return OFF_TOPIC if number == OUT_OF_SCOPE else f"answer {number}"


def _read(
    tally: Tally, served: bytes, seen: Sequence[Evidence | None], wrong: Sequence[bool], stream: Stream
) -> Run:
    """What the gate's evidence says of the questions asked."""
    opened = next(
        (t for t, row in enumerate(seen) if row is not None and row.kind in ("audit", "served")), None
    )
    rows = [row for row in seen if row is not None]
    demotions = (rows[-1].generation - rows[0].generation) if rows else 0
    audits = sum(row.kind == "audit" for row in rows)
    if stream.change is None:
        return Run(tally, audits, served, opened, demotions)
    change = stream.change - stream.known
    before = [row for row in seen[:change] if row is not None]
    standing = before[-1].generation if before else 0
    # A gate that was not serving when the answers changed has nothing to notice.
    recent = [row for row in before if row.kind in ("audit", "served") and row.generation == standing]
    if not recent:
        return Run(tally, audits, served, opened, demotions)
    after = seen[change:]
    until = next((i for i, row in enumerate(after) if row is not None and row.generation > standing), None)
    span = after[:until]
    late = sum(row is not None and row.kind == "audit" for row in span)
    return Run(
        tally,
        audits,
        served,
        opened,
        demotions,
        until is not None,
        late,
        sum(wrong[change : change + len(span)]),
    )


def certify(kit: Any, ask: Any, gold: Sequence[tuple[str, str]]) -> None:
    """Certify the gate from questions and answers known beforehand."""
    if not hasattr(kit, "certify"):
        raise SystemExit("--gold: this costkit has no kit.certify yet")
    kit.certify(ask, [({"question": question}, answer) for question, answer in gold])
