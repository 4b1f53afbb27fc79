"""One request of a load run, as it was stamped, and the file that keeps all of them.

Times are seconds on one monotonic clock, counted from the start of the run. Latencies count from the *intended* send
time: a generator or a server that falls behind must not make its own figures better (coordinated omission).

>>> one = Sample(id=0, name="chat", intended=1.0, sent=1.002, first=1.05, first_output=1.05, last=1.54, ended=1.541,
...              output_tokens=50, finish="stop")
>>> round(one.ttft, 3), round(one.e2e, 3), round(one.tpot * 1000, 1)
(0.05, 0.54, 10.0)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Sample:
    """One request.

    ``first`` is the first non-empty content, reasoning included, ``first_output`` the first content that is no
    reasoning, ``last`` the last token, ``ended`` the end of the stream; ``gaps`` are the seconds between
    content chunks.
    Token counts are the server's own (``usage``); ``cost_nano`` is in billionths of a US dollar. ``error`` is a short
    code (``"status_503"``, ``"no_finish_reason"``, ``"timeout"``, ...), never a text of the prompt or the answer.
    """

    id: int
    name: str
    intended: float
    sent: float
    ended: float
    first: float | None = None
    first_output: float | None = None
    last: float | None = None
    gaps: tuple[float, ...] = ()
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost_nano: int | None = None
    saving: str | None = None
    model: str | None = None
    status: int | None = None
    finish: str | None = None
    error: str | None = None
    in_flight: int = 0
    worker: int = 0
    conversation: str | None = None

    @property
    def lag(self) -> float:
        """Seconds between the intended and the real send: the generator's own lateness."""
        return self.sent - self.intended

    @property
    def ttft(self) -> float | None:
        """Time to first token, seconds from the intended send; ``None`` where no content came."""
        return None if self.first is None else self.first - self.intended

    @property
    def ttfo(self) -> float | None:
        """Time to the first content that is no reasoning, seconds from the intended send."""
        return None if self.first_output is None else self.first_output - self.intended

    @property
    def e2e(self) -> float | None:
        """Seconds from the intended send to the last token; ``None`` where no content came."""
        return None if self.last is None else self.last - self.intended

    @property
    def tpot(self) -> float | None:
        """Seconds per output token after the first; ``None`` below two tokens."""
        if self.first is None or self.last is None or (self.output_tokens or 0) < 2:
            return None
        return (self.last - self.first) / ((self.output_tokens or 0) - 1)


_NAMES = tuple(one.name for one in fields(Sample))


def write_samples(path: Path, samples: Iterable[Sample]) -> None:
    """Write one JSON object a line, whole or not at all."""
    part = path.with_suffix(path.suffix + ".part")
    with part.open("w", encoding="utf-8") as out:
        for one in samples:
            out.write(json.dumps(as_row(one), separators=(",", ":")) + "\n")
    part.replace(path)


def as_row(one: Sample) -> dict[str, Any]:
    """A sample as plain values, without what it does not know."""
    found = ((name, getattr(one, name)) for name in _NAMES)
    return {name: value for name, value in found if value is not None and value != ()}


def from_row(row: Mapping[str, Any]) -> Sample:
    """What :func:`as_row` made. Raises TypeError, ValueError or AttributeError for what is no sample."""
    known = {name: value for name, value in row.items() if name in _NAMES}
    return Sample(**{**known, "gaps": tuple(known.get("gaps", ()))})


def read_samples(path: Path) -> Iterator[Sample]:
    """The samples of a file, in its order.

    Raises:
        ValueError: a line that is not a sample; the message names the line.
    """
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield from_row(json.loads(line))
            except (TypeError, ValueError, AttributeError) as error:
                raise ValueError(f"{path}, line {number}: not a sample of a load run ({error})") from None
