"""Reading a log of calls: JSONL, CSV, or the record of a kit that stores text."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..call import NANO, Usage
from ..errors import ConfigError, CostkitError
from ..prices import Prices
from ..report.read import reading, storable
from ..semantic.claimed import claimed
from .columns import Columns, at, found, number, time_of

__all__ = ["Line", "Log", "entries", "read_ledger", "read_log"]

Entries = Iterator[tuple[int, dict[str, Any] | None]]

_LOOKED_AT = 200  # rows that say which columns there are
_NO_ANSWER = "no answer"


@dataclass(frozen=True, slots=True)
class Line:
    """One call of a log. ``cost`` in nano-dollars, ``latency`` and ``at`` in seconds; None: not known.

    ``truth`` is what the judge compares: the label where there is one, else the answer.
    """

    text: str
    same: str
    truth: Any
    answer: Any
    tenant: str | None
    at: float | None
    cost: int | None
    latency: float | None


@dataclass(frozen=True, slots=True)
class Log:
    """What was read, in order of time where the log says times. ``left_out``: rows of no use, by the reason."""

    where: str
    lines: tuple[Line, ...]
    columns: Columns
    left_out: Mapping[str, int] = field(default_factory=dict[str, int])
    first_bad: str | None = None
    name: str | None = None
    unpriced: str | None = None


def read_log(
    path: str | os.PathLike[str], columns: Columns | None = None, *, prices: Prices | None = None
) -> Log:
    """The calls of a JSONL or CSV file (by its ending; gzip is not read).

    Lines that are broken or lack a question or an answer are counted and left out.

    Raises:
        ConfigError: the file cannot be read, lacks a column, or has no line of use.
    """
    head, rows, where = _opened(path)
    first = list(itertools.islice(rows, _LOOKED_AT))
    known = [row for _, row in first if row is not None]
    if not known:
        raise ConfigError(
            f"{where}: no line of it can be read; give one JSON object a line, or a CSV with a header"
        )
    there = head or list(dict.fromkeys(key for row in known for key in row))
    chosen = found(there, known, columns or Columns(), where)
    return _log(where, itertools.chain(first, rows), chosen, prices or Prices())


def entries(path: str | os.PathLike[str]) -> Entries:
    """The number and the object of each line of a JSONL or CSV file; None for a broken one. Raises ConfigError."""
    return _opened(path)[1]


def read_ledger(
    folder: str | os.PathLike[str], columns: Columns | None = None, name: str | None = None
) -> Log:
    """The outermost calls that a kit with ``store_text=True`` recorded, of one function.

    Raises:
        ConfigError: no texts are stored, several functions are recorded and none is named, or no question is found.
    """
    where = f"--ledger {folder}"
    with reading(folder) as con:
        names = [] if con is None else [
            str(row[0]) for row in con.execute("SELECT DISTINCT name FROM queries WHERE request IS NOT NULL")
        ]  # fmt: skip
        if con is None or not names:
            raise ConfigError(
                f"{where}: no texts are stored; open the kit with Kit(..., store_text=True) for a while"
            )
        if name is None and len(names) > 1:
            raise ConfigError(
                f"{where}: several functions are recorded; say --name, one of {', '.join(sorted(names)[:8])}"
            )
        chosen = name or names[0]
        cursor = con.execute(
            "SELECT request, response, scope, at, counterfactual_cost, unknown_costs, latency, saved_by FROM queries"
            " WHERE name = ? AND role = 'call' AND error IS NULL AND complete AND request IS NOT NULL ORDER BY at, id",
            (storable(chosen),),
        )
        rows = [_recorded(row) for row in cursor]
    known = [row for row in rows[:_LOOKED_AT] if row is not None]
    if not known:
        raise ConfigError(
            f"{where} --name {chosen}: no such call is recorded with its text; functions here: "
            f"{', '.join(sorted(names)[:8])}"
        )
    arguments = list(dict.fromkeys(key for row in known for key in row if not key.startswith("ledger.")))
    said = columns or Columns()
    picked = found([*arguments, *_OWN], known, _of_ledger(said, arguments), where)
    log = _log(where, iter(enumerate(rows, 1)), picked, Prices())
    return Log(log.where, log.lines, log.columns, log.left_out, log.first_bad, chosen, log.unpriced)


_OWN = ("ledger.response", "ledger.scope", "ledger.at", "ledger.cost", "ledger.latency")


def _recorded(row: Any) -> dict[str, Any] | None:
    request, response, scope, moment, cost, unknown, latency, saved_by = row
    try:
        arguments = json.loads(request)
    except (ValueError, RecursionError, TypeError):
        return None
    if not isinstance(arguments, dict):
        return None
    # What the semantic tier served is no answer of the model's.
    answer = None if saved_by == "semantic" else response
    dollars = None if unknown or not isinstance(cost, int) else cost / NANO
    return {
        **arguments, "ledger.response": answer, "ledger.scope": scope, "ledger.at": moment, "ledger.cost": dollars,
        "ledger.latency": None if saved_by else latency,
    }  # fmt: skip


def _of_ledger(said: Columns, arguments: list[str]) -> Columns:
    """The ledger knows answer, scope, time, cost and latency itself; every other argument must be identical."""
    names = ("question", "query", "prompt", "input", "text", "messages")
    question = said.question or next((name for name in names if name in arguments), "")
    if not question and len(arguments) == 1:
        question = arguments[0]
    same = said.same or tuple(name for name in arguments if name not in (question, "model"))
    return Columns(
        question=question, answer="ledger.response", tenant="ledger.scope", time="ledger.at", cost="ledger.cost",
        latency="ledger.latency", model=said.model, same=same,
    )  # fmt: skip


def _opened(path: str | os.PathLike[str]) -> tuple[list[str], Entries, str]:
    """The header of a CSV file, its lines, and what to call it."""
    target = Path(path)
    where = target.name
    if target.is_dir():
        raise ConfigError(
            f"{target}: is a folder; name a .jsonl or .csv file, or say --ledger {target} for a kit's record"
        )
    try:
        raw = target.read_bytes()
    except OSError as exc:
        raise ConfigError(
            f"{target}: cannot be read ({exc.strerror or exc}); name a .jsonl or .csv file"
        ) from exc
    if b"\0" in raw[:4096] or raw[:2] == b"\x1f\x8b":
        raise ConfigError(f"{target}: is no text; unpack it to a .jsonl or .csv file")
    text = raw.decode("utf-8-sig", "replace")
    if target.suffix.lower() not in (".csv", ".tsv"):
        return [], _objects(text), where
    reader = csv.DictReader(
        io.StringIO(text, newline=""), delimiter="\t" if target.suffix.lower() == ".tsv" else ","
    )
    return list(reader.fieldnames or []), _records(reader), where


def _objects(text: str) -> Entries:
    for at_line, line in enumerate(io.StringIO(text), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        yield at_line, row if isinstance(row, dict) else None


def _records(reader: csv.DictReader[str]) -> Entries:
    number = 1
    while True:
        number += 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield number, None
            continue
        # A short row lacks columns, a long one has some without a name: which value is whose is not known.
        whole = None not in row and None not in row.values()
        yield number, {key: value for key, value in row.items() if isinstance(key, str)} if whole else None


def _log(where: str, rows: Entries, columns: Columns, prices: Prices) -> Log:
    left_out: Counter[str] = Counter()
    first_bad, lines = None, []
    cashier = _Cashier(prices, columns.provider)
    for line_number, row in rows:
        line = "broken line" if row is None else _line(row, columns, cashier)
        if isinstance(line, str):
            left_out[line] += 1
            first_bad = first_bad or f"line {line_number}: {line}"
        else:
            lines.append(line)
    if not lines:
        why = ", ".join(f"{count} x {reason}" for reason, count in left_out.most_common(3))
        raise ConfigError(f"{where}: no row of it can be used ({why}); the first is {first_bad}")
    if all(line.at is not None for line in lines):
        lines.sort(key=lambda line: line.at or 0.0)
    return Log(where, tuple(lines), columns, dict(left_out), first_bad, None, cashier.trouble)


def _line(row: Mapping[str, Any], columns: Columns, cashier: _Cashier) -> Line | str:
    """The call of a row, or why it is of no use."""
    asked = claimed(_messages(at(row, columns.question)))
    if asked is None:
        return "no question"
    answer = at(row, columns.answer) if columns.answer else None
    label = at(row, columns.label) if columns.label else None
    truth = answer if label is None else label
    if truth is None or (isinstance(truth, str) and not truth.strip()):
        return _NO_ANSWER
    tenant = at(row, columns.tenant) if columns.tenant else None
    model = at(row, columns.model) if columns.model else None
    same = [asked[1], model, *(at(row, column) for column in columns.same)]
    return Line(
        text=asked[0],
        same=json.dumps(same, sort_keys=True, default=str),
        truth=truth,
        answer=answer,
        tenant=None
        if tenant is None
        else tenant
        if isinstance(tenant, str)
        else json.dumps(tenant, default=str),
        at=time_of(at(row, columns.time)) if columns.time else None,
        cost=cashier.cost(row, columns, model),
        latency=number(at(row, columns.latency)) if columns.latency else None,
    )


def _messages(value: Any) -> Any:
    """Chat messages that a CSV holds as JSON text."""
    if isinstance(value, str) and value.startswith("[{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


class _Cashier:
    """The cost of each row: as logged, else of its tokens; the first reason why there is none is kept."""

    def __init__(self, prices: Prices, provider: str | None) -> None:
        self._prices, self._provider = prices, provider
        self.trouble: str | None = None

    def cost(self, row: Mapping[str, Any], columns: Columns, model: Any) -> int | None:
        dollars = number(at(row, columns.cost)) if columns.cost else None
        if dollars is not None:
            return round(dollars * NANO)
        read = number(at(row, columns.input_tokens)) if columns.input_tokens else None
        written = number(at(row, columns.output_tokens)) if columns.output_tokens else None
        if read is None or written is None or not isinstance(model, str):
            return None
        usage = Usage(in_fresh=int(read), out_text=int(written))
        try:
            return self._prices.price(usage, model=model, provider=self._provider).cost
        except CostkitError as exc:
            self.trouble = self.trouble or str(exc)
            return None
