"""Rows for the look-up benchmarks, all made here: questions from templates, one answer a topic, vectors by an encoder.

A question that is asked is a stored one with a word more, so its nearest neighbour has its answer; most of the other
neighbours differ in a number and may never be served for it. Vectors go to other processes as files of numbers.
"""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PARTS = (
    ("how long until", "when can I see", "why is there no", "who decides about", "what does it cost to change",
     "please explain", "is it normal to lose", "where do I find", "how do I cancel", "can my brother have"),
    ("my refund", "the delivery", "a second card", "the monthly invoice", "my new password", "the parental discount",
     "a receipt", "the exchange rate", "the spending limit", "an appointment", "the warranty", "my loyalty points"),
    ("for order", "from account", "on contract", "under ticket"),
    ("after a move", "before Christmas", "in Portugal", "for two people", "without a phone", "since the update",
     "on a Sunday", "with a student pass", "at the airport"),
    tuple(str(number) for number in range(1000, 1030)),
)  # fmt: skip
TAIL = "thank you"
TELLS = (
    "It follows article 7 of the conditions and takes three working days from the moment we hear of it. " * 3
)


@dataclass(frozen=True, slots=True)
class Rows:
    """Stored questions, their answers and unit vectors (float32, shape (n, dimension)); the same of those asked."""

    stored: list[str]
    answers: list[str]
    vectors: np.ndarray[Any, np.dtype[np.float32]]
    asked: list[str]
    expected: list[str]
    asked_vectors: np.ndarray[Any, np.dtype[np.float32]]

    def save(self, folder: Path) -> None:
        """Write them down for another process."""
        np.save(folder / "stored.npy", self.vectors)
        np.save(folder / "asked.npy", self.asked_vectors)
        texts = {name: getattr(self, name) for name in ("stored", "answers", "asked", "expected")}
        (folder / "texts.json").write_text(json.dumps(texts))


def load(folder: Path) -> Rows:
    """What :meth:`Rows.save` wrote."""
    texts = json.loads((folder / "texts.json").read_text())
    stored, asked = (np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("stored", "asked"))
    return Rows(vectors=stored, asked_vectors=asked, **texts)


def combined(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """So many different questions in random order, each with its answer."""
    every = list(itertools.product(*PARTS))
    random.Random(seed).shuffle(every)
    return [(" ".join(words), f"Of {words[0]} {words[1]}: {TELLS}") for words in every[:count]]


def made(size: int, asked: int, encode: Any) -> Rows:
    """``size`` rows and ``asked`` of them in other words; ``encode`` turns a list of texts into unit vectors."""
    pairs = combined(size)
    chosen = random.Random(1).sample(pairs, min(asked, size))
    told = [f"{question} {TAIL}" for question, _ in chosen]
    stored = [question for question, _ in pairs]
    return Rows(
        stored, [answer for _, answer in pairs], encode(stored), told, [answer for _, answer in chosen], encode(told)
    )  # fmt: skip
