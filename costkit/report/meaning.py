"""What the semantic tier made of a call, and whether a function's calls ever find anything stored."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Set

from .gates import lonely, named_gates
from .gates_text import NEVER_REPEATS
from .read import Record, clean, percent, records

__all__ = ["never_repeating", "why_not_by_meaning"]

_LATEST = 1_000  # a namespace that began to repeat is not blamed for what was before
_ARGUMENTS = 20  # calls whose stored text is compared


def why_not_by_meaning(con: sqlite3.Connection, row: Record) -> str | None:
    """One sentence for a call that the semantic tier let run; None where it had no say."""
    found = con.execute(
        "SELECT id, gate, kind, risk, wrong FROM evidence WHERE query_id = ? AND kind <> 'label' LIMIT 1",
        (row["id"],),
    ).fetchone()
    if found is None:
        return None
    id, gate, kind, risk, wrong = found
    if kind == "none":
        return "by meaning: nothing was stored under the same other arguments, in this scope"
    if wrong is None:
        label = con.execute(
            "SELECT wrong FROM evidence WHERE gate = ? AND id > ? AND kind = 'label' AND query_id = ? LIMIT 1",
            (gate, id, row["id"]),
        ).fetchone()
        wrong = None if label is None else label[0]
    judged = "the judge has not spoken" if wrong is None else "it was wrong" if wrong else "it was as good"
    if kind == "audit":
        return f"by meaning: a stored answer would have been served, and was checked by this call instead: {judged}"
    if kind == "unanswered":
        return "by meaning: a stored answer would have been served; this call was to check it, and gave no answer"
    if kind == "unlabelled":
        judged = "a lossy saving inside had a part in the answer, so that nobody can tell how good it was"
    likely = f", {percent(risk)} likely to be wrong," if isinstance(risk, float) else ""
    return (
        f"by meaning: a stored answer{likely} was not served, for the gate is not certified for such: {judged}; "
        "`costkit gate` shows what it waits for"
    )


def never_repeating(con: sqlite3.Connection, names: Set[str]) -> tuple[str, ...]:
    """A warning for each of these functions whose calls, by meaning, nearly never find anything stored."""
    found = []
    for gate in named_gates(con):
        if gate.name not in names:
            continue
        calls, alone = con.execute(
            "SELECT COUNT(*), COALESCE(SUM(kind = 'none'), 0) FROM (SELECT kind FROM evidence WHERE gate = ?"
            " AND kind IN ('none', 'declined', 'unlabelled', 'audit', 'unanswered', 'served')"
            " ORDER BY id DESC LIMIT ?)",
            (gate.id, _LATEST),
        ).fetchone()
        if lonely(calls, alone):
            vary = _varying(con, gate.name, str(gate.about.get("text")))
            which = f" ({', '.join(clean(name, 40) for name in vary)} changed each time)" if vary else ""
            found.append(
                f"{alone:,} of the last {calls:,} calls of {clean(gate.name, 80)} found nothing stored that could be "
                f"served by meaning{which}: {NEVER_REPEATS}"
            )
    return tuple(found)


def _varying(con: sqlite3.Connection, name: str, claimed: str) -> list[str]:
    """Arguments besides the claimed one that had another value in each of the last calls, where texts are stored."""
    rows = records(
        con,
        "SELECT request FROM queries WHERE name = ? AND request IS NOT NULL ORDER BY at DESC LIMIT ?",
        name,
        _ARGUMENTS,
    )
    told = []
    for row in rows:
        try:
            given = json.loads(row["request"])
        except (ValueError, RecursionError):
            continue
        if isinstance(given, dict):
            told.append(given)
    if len(told) < 2:
        return []
    names = [key for key in told[0] if key != claimed]
    return [
        key for key in names if len({json.dumps(one.get(key), sort_keys=True) for one in told}) == len(told)
    ][:8]
