"""What a gate decided about each question, and when it went off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Evidence", "demotions", "serving", "shut_at"]

# A gate that still serves is taken for one that is off in one of 100,000 runs; no fewer questions say so.
_CHANCE, _LEAST = 1e-5, 30
_LATELY = 500


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the gate decided about one question: "none", "declined", "audit" or "served"; demotions before it."""

    kind: str
    generation: int

    @property
    def would_serve(self) -> bool:
        """Served, or it would have been but for the audit."""
        return self.kind in ("audit", "served")


def demotions(seen: Sequence[Evidence | None]) -> int:
    """How often the alarm went off."""
    rows = [row for row in seen if row is not None]
    return rows[-1].generation - rows[0].generation if rows else 0


def serving(seen: Sequence[Evidence | None]) -> float:
    """The share of the last questions that the gate would serve; identical ones (None) are not asked of it."""
    rows = [row for row in seen if row is not None][-_LATELY:]
    return sum(row.would_serve for row in rows) / len(rows) if rows else 0.0


def shut_at(seen: Sequence[Evidence | None], start: int) -> int | None:
    """The question from ``start`` on at which the gate was off: demoted, or silent.

    A gate also goes off without an alarm, when its evidence no longer certifies any level. Silent is one that would
    serve none of so many questions in a row as one that goes on serving its share of late skips once in 100,000 runs.

    >>> open, shut = Evidence("served", 0), Evidence("declined", 0)
    >>> shut_at([open] * 50 + [shut] * 40, start=50), shut_at([open] * 90, start=50)
    (50, None)
    >>> shut_at([open] * 60 + [Evidence("declined", 1), *[Evidence("served", 1)] * 20], start=50)
    60
    """
    share = serving(seen[:start])
    if not share:
        return None
    before = next((row.generation for row in reversed(seen[:start]) if row is not None), 0)
    needed = max(_LEAST, math.ceil(math.log(_CHANCE) / math.log1p(-min(share, 0.999))))
    silent, since = 0, start
    for t in range(start, len(seen)):
        row = seen[t]
        if row is None:
            continue
        if row.generation > before:
            return t
        silent = 0 if row.would_serve else silent + 1
        since = t if silent == 1 else since
        if silent == needed:
            return since
    return None
