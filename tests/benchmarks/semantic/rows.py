"""Labelled questions, and one seed's stream of them."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

__all__ = ["OUT_OF_SCOPE", "BadRows", "Ints", "Rows", "Stream", "after", "joined", "read", "stream"]

Ints = npt.NDArray[np.int64]

OUT_OF_SCOPE = -1
"""The class of questions that share an answer with no other: asked, never inserted, and any hit on one is wrong."""

_LONGEST = 100_000


class BadRows(ValueError):
    """A file that is no list of labelled questions; the message says what is amiss."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Questions and the number of each one's class, :data:`OUT_OF_SCOPE` for those without one."""

    texts: tuple[str, ...]
    classes: Ints

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, slots=True)
class Stream:
    """What one seed asks, in order.

    ``rows`` are indices into :class:`Rows`; ``answers`` the right answer to each at the time it is asked, equal numbers
    for equal answers. The first ``known`` are answered beforehand (gold) and not counted. From ``change`` on (an index
    into this stream) the ``moved`` classes have another answer than before.
    """

    rows: Ints
    answers: Ints
    known: int = 0
    change: int | None = None
    moved: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def asked(self) -> int:
        """How many questions are counted."""
        return len(self.rows) - self.known


def read(path: str | Path, numbers: dict[str, int]) -> Rows:
    """The rows of a CSV file with the columns ``text`` and ``category``.

    Args:
        path: the file, UTF-8.
        numbers: class names to numbers; new ones are added, so that two files may share their classes.

    Raises:
        BadRows: not such a file; the message names it and the line.
    """
    csv.field_size_limit(_LONGEST)
    texts, classes = [], []
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = {"text", "category"} - set(reader.fieldnames or ())
            if missing:
                raise BadRows(
                    f"{path}: no column {' and no column '.join(sorted(missing))} in its first line"
                )
            for row in reader:
                text, name = row["text"], row["category"]
                if not text or not name:
                    raise BadRows(f"{path}, line {reader.line_num}: a text and a category are needed")
                texts.append(text)
                number = OUT_OF_SCOPE if name == "oos" else numbers.setdefault(name, len(numbers))
                classes.append(number)
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise BadRows(f"{path}: cannot be read ({exc})") from exc
    if not texts:
        raise BadRows(f"{path}: no rows")
    return Rows(tuple(texts), np.array(classes, dtype=np.int64))


def joined(first: Rows, second: Rows) -> Rows:
    """The rows of both, the first one's first."""
    return Rows(first.texts + second.texts, np.concatenate([first.classes, second.classes]))


def stream(rows: Rows, seed: int, *, size: int | None = None, drift: bool = False) -> Stream:
    """A random order of the rows, or of ``size`` of them; with ``drift`` half of the classes change half way.

    >>> made = stream(Rows(("a", "b", "c"), np.array([0, 1, 0])), seed=1, size=2)
    >>> len(made), made.asked
    (2, 2)
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(rows))[:size]
    answers = rows.classes[order]
    if not drift:
        return Stream(order, answers)
    kinds = np.unique(rows.classes[rows.classes != OUT_OF_SCOPE])
    moved = rng.permutation(kinds)[: len(kinds) // 2]
    change = len(order) // 2
    later = (np.arange(len(order)) >= change) & np.isin(answers, moved)
    above = int(rows.classes.max()) + 1
    return Stream(
        order, np.where(later, answers + above, answers), 0, change, frozenset(int(kind) for kind in moved)
    )


def after(known: int, classes: Ints, streamed: Stream) -> Stream:
    """The same stream with ``known`` gold rows before it, which stand behind the data's rows in :func:`joined`."""
    total = len(classes)
    gold = np.arange(total - known, total)
    return Stream(
        rows=np.concatenate([gold, streamed.rows]),
        answers=np.concatenate([classes[gold], streamed.answers]),
        known=known,
        change=None if streamed.change is None else streamed.change + known,
        moved=streamed.moved,
    )
