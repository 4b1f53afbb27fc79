"""What the tests of the semantic tier share: a tiny encoder, questions that mean the same, a gate that is open."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import costkit
from costkit import Kit
from costkit.bound.tended import Tended
from costkit.ledger import Evidence
from costkit.semantic.pool import Pool

WORDS = (
    "refund", "parcel", "invoice", "address", "password", "voucher", "warranty", "receipt", "tariff", "battery",
    "licence", "visa",
)  # fmt: skip
SURE: dict[str, Any] = {"max_error": 0.3, "judge": costkit.judges.same_answer}


def bag(texts: list[str]) -> list[list[float]]:
    """A hashed bag of words, shape (texts, 256)."""
    return [_bag(text) for text in texts]


def _bag(text: str) -> list[float]:
    vector = [0.0] * 256
    for word in re.findall(r"\w+", text.lower()) or ["nothing"]:
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=2).digest()
        vector[int.from_bytes(digest, "big") % 256] += 1.0
    return vector


def meaning(text: str = "question", **settings: Any) -> costkit.Semantic:
    """The semantic tier with the tiny encoder."""
    return costkit.semantic(text, **{"encoder": bag, **settings})


def topic(question: str) -> str:
    """What a question is about, so that two may have one answer."""
    return next((word for word in WORDS if word in question.lower()), question)


class Model:
    """A model that says what a question is about, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, question: str) -> str:
        self.asked.append(question)
        return f"All about the {topic(question)}."


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    with Kit(tmp_path / "kit", prices={"m": costkit.Rates(1, 2)}) as made:
        yield made
        assert len(made._ports.flights) == 0, "a flight was left in the air"


@pytest.fixture
def model() -> Model:
    return Model()


class Coin:
    """In place of a gate's dice."""

    def __init__(self, falls: float) -> None:
        self.falls = falls

    def random(self) -> float:
        return self.falls


SERVE, AUDIT = Coin(0.999), Coin(0.0)


def pool_of(kit: Kit, function: Any) -> Pool:
    found = kit._ports.pools(function._plan)
    assert found is not None
    return found


def gate_of(kit: Kit, function: Any, model: str | None = None) -> Tended:
    return pool_of(kit, function).tended(model)


def opened(
    kit: Kit, function: Any, *, coin: Coin = SERVE, model: str | None = None, labels: int = 400
) -> Tended:
    """Open a function's gate by evidence: candidates on every rung, all of them right."""
    tended = gate_of(kit, function, model)
    tended._random = coin  # type: ignore[assignment]
    rungs = len(tended.gate.ladder.edges)
    generation = tended.generation
    near = (1.0, 1.0, 1.0, 1.0, 1.2, 0.6, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    kit._ledger.testify(
        [
            Evidence(
                gate=tended.id, query_id=f"label-{number}", at=time.time(), kind="declined", rung=number % rungs,
                risk=0.01, features=near, chance=1.0, generation=generation, wrong=False,
            )
            for number in range(labels)
        ]
    )  # fmt: skip
    kit._ledger.flush()
    assert tended.follow().ladder.level == rungs, "the gate did not open"
    return tended


def evidence(kit: Kit, gate: str | None = None) -> list[dict[str, Any]]:
    """Rows of evidence that calls left."""
    con = kit.ledger()
    try:
        rows = [dict(row) for row in con.execute("SELECT * FROM evidence ORDER BY id")]
    finally:
        con.close()
    mine = [row for row in rows if not str(row["query_id"]).startswith("label-")]
    return [row for row in mine if gate is None or row["gate"] == gate]


def told(kit: Kit) -> list[tuple[str, int | None]]:
    """What calls left as evidence: kind and label."""
    return [(row["kind"], row["wrong"]) for row in evidence(kit)]


def kinds(rows: Sequence[tuple[str, int | None]]) -> list[str]:
    return [kind for kind, _ in rows]


def poisoned(texts: list[str]) -> Any:
    """An encoder that returns what cannot be compared."""
    return np.full((len(texts), 8), np.nan)
