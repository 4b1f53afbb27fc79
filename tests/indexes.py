"""What the tests of the index share: random vectors, rows, and what a search ought to find."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np

from costkit.index import Found, Index, Row
from costkit.index.rows import Vectors

SECRET = b"a secret of sixteen bytes or more"
NOW = 1_700_000_000.0


def vectors(count: int, dimension: int = 8, seed: int = 0, clusters: int = 0) -> Vectors:
    """Unit vectors; with ``clusters``, most of them near one of so many directions, as real texts are."""
    rng = np.random.default_rng(seed)
    found = rng.standard_normal((count, dimension))
    if clusters:
        centres = rng.standard_normal((clusters, dimension)) * np.linspace(3, 0.2, dimension)
        found = centres[rng.integers(clusters, size=count)] + 0.1 * found
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


def key(number: int) -> str:
    return f"{number:064x}"


def filled(
    folder: Path, count: int, *, dimension: int = 8, secret: bytes | None = None
) -> tuple[Index, Vectors]:
    """An index with so many rows in scope "s", namespace "n"."""
    made, index = vectors(count, dimension), Index(folder, secret=secret)
    for number, vector in enumerate(made):
        assert index.add("s", "n", Row(key(number), NOW, answer=bytes([number % 7])), vector)
    return index, made


def database(folder: Path) -> sqlite3.Connection:
    return sqlite3.connect(folder / "index" / "vectors-1.db", isolation_level=None)


def is_true(found: Found, vector: Vectors, truth: dict[str, Vectors]) -> bool:
    """Whether every row found is one that was added, at the similarity that it has."""
    return all(
        row.key in truth and abs(float(truth[row.key] @ vector) - float(similarity)) < 1e-5
        for row, similarity in zip(found.rows, found.similarities, strict=True)
    )


def nearest(vector: Vectors, truth: dict[str, Vectors], k: int) -> list[float]:
    """The similarities of the nearest, best first."""
    return sorted((float(v @ vector) for v in truth.values()), reverse=True)[:k]
