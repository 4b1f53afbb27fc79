"""Recorded traffic to be sent again: when requests came, how long they and their answers were, what they shared.

Two published layouts are read, plain or gzipped, told apart by their first line:

- Azure LLM inference: CSV with ``TIMESTAMP,ContextTokens,GeneratedTokens`` (github.com/Azure/AzurePublicDataset);
- Mooncake traces: one JSON object a line with ``timestamp`` (milliseconds), ``input_length``, ``output_length`` and
  ``hash_ids``, one id for each block of 512 prompt tokens (Qin et al., Mooncake, 2024; github.com/kvcache-ai/Mooncake).

Neither holds a text. A prompt is made of words, each block of it from its id alone: two requests share exactly the
leading blocks that the trace says they shared, and differ from the first word of the next one on.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

__all__ = ["BLOCK_TOKENS", "Row", "TraceError", "prompt", "read_trace"]

BLOCK_TOKENS = 512
_MOST_TOKENS = 10_000_000
# Words that most tokenizers have as one token with the space before them.
_PROSE = """
time year people way day man thing woman life child world school state family student group country problem hand
part place case week company system program question work government number night point home water room mother
area money story fact month lot right study book eye job word business issue side kind head house service friend
father power hour game line end member law car city name team minute idea body back parent face level office
door health person art war history party result change morning reason research girl guy moment air teacher force
food
"""
_WORDS = _PROSE.split()


class TraceError(ValueError):
    """A trace cannot be read; the message names the file and the line."""


@dataclass(frozen=True, slots=True)
class Row:
    """One request: seconds since the first one, tokens, and ids of its prompt's blocks where the trace has them."""

    at: float
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()


def read_trace(path: Path, *, most: int | None = None) -> list[Row]:
    """The requests of a trace in their order, the first at second 0.

    Args:
        path: a file of one of the two layouts; ``.gz`` is unpacked while reading.
        most: stop after so many requests.

    Raises:
        TraceError: no such file, no such layout, no request, or a broken line, which is named.
    """
    try:
        with _opened(path) as lines:
            first = next(lines, "")
            read = _mooncake if first.lstrip().startswith("{") else _azure
            rows = list(islice(read(path, first, lines), most))
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise TraceError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if not rows:
        raise TraceError(f"{path}: holds no request")
    start = rows[0].at
    return [Row(row.at - start, row.input_tokens, row.output_tokens, row.blocks) for row in rows]


def prompt(row: Row, number: int, *, block_tokens: int = BLOCK_TOKENS, scale: float = 1.0) -> str:
    """A text of about as many tokens as the row's prompt had, its shared blocks shared.

    Args:
        row: what to imitate.
        number: the row's own; where the trace names no blocks nothing is shared with another number.
        block_tokens: how many tokens one block id stands for in the trace.
        scale: makes prompts shorter, blocks too: 0.125 turns a block of 512 tokens into one of 64.

    Raises:
        ValueError: ``scale`` is not over 0, or ``block_tokens`` below 1.

    >>> one, two = Row(0, 1200, 9, (7, 8, 9)), Row(1, 1500, 9, (7, 8, 5))
    >>> a, b = prompt(one, 0).split(), prompt(two, 1).split()
    >>> len(a), len(b), a[:1024] == b[:1024], a[1024] == b[1024]
    (1200, 1500, True, False)
    """
    if not 0 < scale < math.inf or block_tokens < 1:
        raise ValueError(f"scale={scale}, block_tokens={block_tokens}: both need to be over 0")
    size = max(1, round(block_tokens * scale))
    wanted = max(1, round(row.input_tokens * scale))
    words: list[str] = []
    for place, block in enumerate(row.blocks):
        words += _block(f"b{block}", min(size, wanted - place * size))
    # What no block stands for is this request's own.
    words += _block(f"r{number}", wanted - len(words))
    return " ".join(words)


def _block(name: str, size: int) -> list[str]:
    """So many words, the first of which no other block has."""
    if size <= 0:
        return []
    start = int(name[1:]) % len(_WORDS)
    repeats = -(-(start + size) // len(_WORDS))
    return [name, *(_WORDS * repeats)[start : start + size - 1]]


@contextmanager
def _opened(path: Path) -> Iterator[Iterator[str]]:
    """The lines of a file, unpacked where it is gzipped."""
    with path.open("rb") as plain:
        gzipped = plain.read(2) == b"\x1f\x8b"
    if gzipped:
        with gzip.open(path, "rt", encoding="utf-8-sig") as lines:
            yield iter(lines)
    else:
        with path.open(encoding="utf-8-sig") as lines:
            yield iter(lines)


def _azure(path: Path, first: str, lines: Iterator[str]) -> Iterator[Row]:
    columns = [name.strip() for name in next(csv.reader([first]), [])]
    wanted = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
    if any(name not in columns for name in wanted):
        raise TraceError(
            f"{path}, line 1: neither of a known layout: needs the columns {', '.join(wanted)}, or lines of JSON"
        )
    places = [columns.index(name) for name in wanted]
    latest = -math.inf
    for number, line in enumerate(lines, 2):
        if not line.strip():
            continue
        try:
            cells = next(csv.reader([line]))
            stamp, context, generated = (cells[place] for place in places)
            moment = datetime.fromisoformat(stamp.strip())
            at = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
            row = Row(at, _tokens(int(context)), _tokens(int(generated)))
        except (ValueError, IndexError, OverflowError, csv.Error) as error:
            raise TraceError(f"{path}, line {number}: not a request of an Azure trace ({error})") from None
        latest = _in_order(path, number, row.at, latest)
        yield row


def _mooncake(path: Path, first: str, lines: Iterator[str]) -> Iterator[Row]:
    latest = -math.inf
    for number, line in enumerate(_again(first, lines), 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            row = Row(
                float(fields["timestamp"]) / 1000,
                _tokens(fields["input_length"]),
                _tokens(fields["output_length"]),
                tuple(_id(one) for one in fields.get("hash_ids", ())),
            )
            if not math.isfinite(row.at):
                raise ValueError("timestamp is no moment")
        except KeyError as error:
            raise TraceError(f"{path}, line {number}: {error} is missing") from None
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise TraceError(f"{path}, line {number}: not a request of a Mooncake trace ({error})") from None
        latest = _in_order(path, number, row.at, latest)
        yield row


def _again(first: str, lines: Iterator[str]) -> Iterator[str]:
    yield first
    yield from lines


def _in_order(path: Path, number: int, at: float, latest: float) -> float:
    if at < latest:
        raise TraceError(
            f"{path}, line {number}: is {latest - at:g} s earlier than the line before; sort the trace"
        )
    return at


def _tokens(count: object) -> int:
    if type(count) is not int or not 0 <= count <= _MOST_TOKENS:
        raise ValueError(f"{count!r:.40} is no number of tokens")
    return count


def _id(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r:.40} is no block id")
    return value
