"""Many people asking the help desk's questions, each in words of their own: invented traffic.

The sample assistant's 1,444 questions give too few distinct requests for a gate to learn from, so each is worded anew,
by rules anybody can read below: a greeting or a thank you, a polite frame, contractions taken apart or made, the
last clause first, one slip of the finger. What is meant is never touched, and numbers and names never get a slip. The
right answer is the questions' own label, so that every answer served can be checked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from serving.assistant.documents import Question

__all__ = ["Asked", "answer_of", "crowd", "worded"]

_OPENINGS = ("hi, ", "hello, ", "hey, ", "good morning, ", "dear support, ", "hi there - ", "quick one: ")
_FRAMES = (
    "can you tell me: {}", "i would like to know: {}", "one question: {}", "please help: {}",
    "maybe you know this, {}", "{} can somebody help", "{} i could not find it in the docs",
)  # fmt: skip
_CLOSINGS = (" thanks", " thank you!", " please", " cheers", " thx", " many thanks in advance")
_SHORT = {
    "do not": "don't", "does not": "doesn't", "is not": "isn't", "cannot": "can't", "i am": "i'm", "what is": "what's",
    "how do i": "how to", "is there": "is there any", "can i": "may i", "we are": "we're",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: whose, in what words, and which meaning it has for its tenant."""

    text: str
    tenant: str
    intent: str


def crowd(questions: Sequence[Question], count: int, *, zipf: float = 1.0, seed: int = 7) -> list[Asked]:
    """Draw ``count`` requests: meanings by a Zipf law over each tenant's, then one of their phrasings, worded anew.

    Raises:
        ValueError: no questions, or a count below 1.
    """
    if not questions or count < 1:
        raise ValueError("crowd(): needs questions, and a count of 1 or more")
    rng = np.random.default_rng(seed)
    groups: dict[tuple[str, str], list[str]] = {}
    for question in questions:
        groups.setdefault((question.tenant, question.intent), []).append(question.question)
    meanings = list(groups)
    order = rng.permutation(len(meanings))
    weights = np.arange(1, len(meanings) + 1, dtype=np.float64) ** -zipf
    drawn = rng.choice(len(meanings), size=count, p=weights / weights.sum())
    asked = []
    for number in drawn:
        tenant, intent = meanings[order[number]]
        phrasings = groups[tenant, intent]
        asked.append(Asked(worded(phrasings[rng.integers(len(phrasings))], rng), tenant, intent))
    return asked


def worded(question: str, rng: np.random.Generator) -> str:
    """The question as somebody else may have typed it; each change by itself, with the chances written here."""
    text = question
    if rng.random() < 0.5:
        text = text.lower().rstrip("?!. ")
    if rng.random() < 0.3:
        text = _last_clause_first(text)
    if rng.random() < 0.4:
        text = _contracted(text)
    if rng.random() < 0.3:
        text = _FRAMES[rng.integers(len(_FRAMES))].format(text)
    if rng.random() < 0.4:
        text = _OPENINGS[rng.integers(len(_OPENINGS))] + text
    if rng.random() < 0.3:
        text += _CLOSINGS[rng.integers(len(_CLOSINGS))]
    return _slipped(text, rng) if rng.random() < 0.3 else text


def answer_of(tenant: str, intent: str, changed: bool) -> str:
    """The right answer, as a label: half of the meanings, by their name, have another after the change."""
    later = changed and sum(intent.encode()) % 2 == 0
    return f"{tenant}: {intent}, {'second' if later else 'first'} edition"


def _last_clause_first(text: str) -> str:
    head, comma, tail = text.rpartition(", ")
    return f"{tail.rstrip('?!.')}, {head}" if comma and len(tail.split()) > 2 else text


def _contracted(text: str) -> str:
    for long, short in _SHORT.items():
        for one, other in ((long, short), (short, long)):
            if re.search(rf"\b{one}\b", text):
                return re.sub(rf"\b{one}\b", other, text, count=1)
    return text


def _slipped(text: str, rng: np.random.Generator) -> str:
    """Two neighbouring letters of one plain lower-case word, swapped."""
    words = [m.span() for m in re.finditer(r"(?<![\w.'-])[a-z]{5,}(?![\w'-])", text)]
    if not words:
        return text
    start, end = words[rng.integers(len(words))]
    at = int(rng.integers(start + 1, end - 2))
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
