"""Which column of a log means what."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from ..errors import ConfigError

__all__ = ["NAMES", "Columns", "at", "found", "number", "time_of"]

# Names that a column goes by where nobody says which one it is, likeliest first.
NAMES: Mapping[str, tuple[str, ...]] = {
    "question": ("question", "query", "prompt", "input", "text", "messages", "request"),
    "answer": ("answer", "response", "output", "completion", "reply"),
    "label": ("label", "category", "intent"),
    "tenant": ("tenant", "tenant_id"),
    "time": ("time", "ts", "timestamp", "at", "created_at", "created"),
    "cost": ("cost", "cost_usd", "usd"),
    "input_tokens": ("input_tokens", "prompt_tokens", "usage.input_tokens", "usage.prompt_tokens"),
    "output_tokens": ("output_tokens", "completion_tokens", "usage.output_tokens", "usage.completion_tokens"),
    "latency": ("latency", "latency_s", "duration", "duration_s"),
    "model": ("model",),
}


@dataclass(frozen=True, slots=True)
class Columns:
    """The column of each thing, "" where there is none; dots lead into nested objects (``usage.prompt_tokens``).

    ``same``: columns that must be identical for two rows to share an answer, beside the model. ``provider`` is no
    column, but the provider that the price list knows the models under.
    """

    question: str = ""
    answer: str = ""
    label: str = ""
    tenant: str = ""
    time: str = ""
    cost: str = ""
    input_tokens: str = ""
    output_tokens: str = ""
    latency: str = ""
    model: str = ""
    same: tuple[str, ...] = ()
    provider: str | None = None

    def named(self) -> dict[str, str]:
        """What was found, by what it means."""
        return {
            f.name: str(value) for f in fields(self) if f.name in NAMES and (value := getattr(self, f.name))
        }


def found(there: Iterable[str], rows: Sequence[Mapping[str, Any]], said: Columns, where: str) -> Columns:
    """The columns of a log: as said, else by the names they usually have, judged by its first rows.

    Raises:
        ConfigError: a column that was named is not there, or there is no question, or neither answer nor label.
    """
    head = list(there)
    chosen: dict[str, str] = {}
    for what, names in NAMES.items():
        named = getattr(said, what)
        if named:
            _check(named, what, head, rows, where)
            chosen[what] = named
        else:
            taken = set(chosen.values())
            chosen[what] = next((n for n in names if n not in taken and _there(n, head, rows)), "")
    for column in said.same:
        _check(column, "same", head, rows, where)
    shown = ", ".join(map(repr, head[:12])) or "none"
    if not chosen["question"]:
        raise ConfigError(f"{where}: no column holds the question; say --question COLUMN (columns: {shown})")
    if not chosen["answer"] and not chosen["label"]:
        raise ConfigError(
            f"{where}: no column holds the answer; say --answer COLUMN, or --label COLUMN where equal labels mean "
            f"equal answers (columns: {shown})"
        )
    return Columns(**chosen, same=said.same, provider=said.provider)


def _there(name: str, head: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bool:
    return name in head or ("." in name and any(at(row, name) is not None for row in rows))


def _check(name: str, what: str, head: list[str], rows: Sequence[Mapping[str, Any]], where: str) -> None:
    if _there(name, head, rows):
        return
    near = difflib.get_close_matches(name, head, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(map(repr, head[:12])) or 'none'}"
    raise ConfigError(f"{where}: --{what.replace('_', '-')} {name}: there is no such column; {hint}")


def at(row: Mapping[str, Any], path: str) -> Any:
    """The value of a column; None where there is none.

    >>> at({"usage": {"prompt_tokens": 7}, "choices": [{"text": "hi"}]}, "choices.0.text")
    'hi'
    """
    if path in row:
        return row[path]
    value: Any = row
    for step in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def number(value: Any) -> float | None:
    """A number of 0 or more, from JSON or from text; None for anything else.

    >>> number("1.5"), number(-1), number("n/a"), number(True)
    (1.5, None, None, None)
    """
    try:
        told = None if isinstance(value, bool) or value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return told if told is not None and math.isfinite(told) and told >= 0 else None


def time_of(value: Any) -> float | None:
    """Unix seconds from a number (of more than 1e11: milliseconds) or an ISO date; None for anything else.

    >>> time_of("2026-11-01T00:00:00Z"), time_of(1793491200000), time_of("soon")
    (1793491200.0, 1793491200.0, None)
    """
    told = number(value)
    if told is not None:
        return told / 1000 if told > 1e11 else told
    try:
        moment = datetime.fromisoformat(value.strip()) if isinstance(value, str) else None
        if moment is None:
            return None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
