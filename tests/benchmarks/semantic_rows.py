"""Made-up questions whose classes lie apart, for the tests of the semantic benchmark."""

from __future__ import annotations

import numpy as np

from tests.benchmarks.semantic.near import Floats
from tests.benchmarks.semantic.rows import OUT_OF_SCOPE, Rows


def made(
    count: int,
    *,
    classes: int = 8,
    spread: float = 0.35,
    off_topic: float = 0.05,
    repeats: float = 0.1,
    seed: int = 1,
) -> tuple[Rows, Floats]:
    """Questions around ``classes`` centres in 24 dimensions, some asked twice in the same words, some off topic."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((classes, 24))
    texts: list[str] = []
    numbers: list[int] = []
    vectors: list[np.ndarray] = []
    for i in range(count):
        if i and rng.random() < repeats:
            j = int(rng.integers(i))
            texts.append(texts[j])
            numbers.append(numbers[j])
            vectors.append(vectors[j])
            continue
        off = rng.random() < off_topic
        number = OUT_OF_SCOPE if off else int(rng.integers(classes))
        centre = rng.standard_normal(24) if off else centres[number]
        vector = centre + spread * rng.standard_normal(24)
        texts.append(f"question {_letters(i)}")
        numbers.append(number)
        vectors.append(vector / np.linalg.norm(vector))
    return Rows(tuple(texts), np.array(numbers)), np.array(vectors, dtype=np.float32)


def _letters(number: int) -> str:
    """A name without a digit: questions that differ in a number never share an answer."""
    return "".join(chr(ord("a") + int(digit)) for digit in str(number))
