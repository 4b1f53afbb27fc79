"""What the tests of rehearsal, replay and certification share: logs that are made, and the tier they go through."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import costkit
from costkit.bound import Bound
from costkit.embed import encoder_of
from costkit.judges import Judge, same_answer
from costkit.semantic.pool import Meaning
from costkit.semantic.rehearsal import Asked

from .meanings import WORDS, bag

ASKED = [
    "how long until my {0} comes",
    "when will the {0} come",
    "how many days for a {0}",
    "is my {0} on its way",
]
TWINS = ["tell me about the {0} twice a day", "tell me about the {0} once a day"]


@dataclass(frozen=True, slots=True)
class Said:
    """A row of a made log."""

    question: str
    answer: str
    tenant: str


def made(rows: int, seed: int = 0, tenants: int = 1, noise: float = 0.0) -> list[Said]:
    """A log of so many rows: paraphrases with one answer, a few twins with two, some rows word for word again.

    ``noise``: the share of answers that are others than they should be.
    """
    coins, found = random.Random(seed), list[Said]()
    for number in range(rows):
        if found and coins.random() < 0.1:
            found.append(coins.choice(found))
            continue
        word = coins.choice(WORDS)
        twin = coins.random() < 0.1
        question = coins.choice(TWINS if twin else ASKED).format(word) + f" {_filler(coins)}"
        answer = f"{question.split()[4]} {'twice' in question}" if twin else f"The {word} takes a week."
        if coins.random() < noise:
            answer = f"Something else, number {number}."
        found.append(Said(question, answer, f"t{coins.randrange(tenants)}"))
    return found


def _filler(coins: random.Random) -> str:
    """A few words that mean nothing; letters only, for what looks like an id is a veto."""
    return " ".join("".join(coins.choices("aeiou", k=4)) for _ in range(coins.choice((0, 1, 1, 2))))


def tier(
    bound: Bound | None = None, judge: Judge = same_answer, encoder: Any = bag, **settings: Any
) -> Meaning:
    """The tier with the tiny encoder."""
    return Meaning(
        costkit.semantic("question", **settings), bound or Bound(0.1), judge, encoder_of(encoder, name="bag")
    )


def asked(rows: Sequence[Said]) -> list[Asked]:
    """The rows as a rehearsal takes them."""
    return [Asked(row.question, row.answer, "", row.tenant) for row in rows]


def write(
    path: Path, rows: Sequence[Said], more: Callable[[int], dict[str, Any]] = lambda number: {}
) -> Path:
    """The rows as a JSONL file."""
    lines = [
        {"question": row.question, "answer": row.answer, "tenant": row.tenant, **more(number)}
        for number, row in enumerate(rows)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path
