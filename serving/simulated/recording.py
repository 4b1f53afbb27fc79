"""Answers and service times that a real server gave, kept on disk so that they can be replayed.

A recording is a folder of two files. `meta.json` is an object with at least `rows` (how many answers),
`answers_sha256` (of the bytes of the other file), `model` and `date`. `answers.jsonl.gz` holds one `Answer` a
line. A recording whose files disagree is refused: it is stale or broken.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast

META_FILE = "meta.json"
ANSWERS_FILE = "answers.jsonl.gz"


class RecordingError(ValueError):
    """A recording is missing, unreadable, incomplete or stale; the message is one line and names the file."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One recorded answer: `prompt` is `prompt_digest(body)`; times are seconds from its sending."""

    prompt: str
    text: str
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    ttft_s: float
    e2e_s: float


@dataclass(frozen=True, slots=True)
class Recording:
    """A checked recording: its answers by prompt digest, and what `meta.json` says of their making."""

    model: str
    date: str
    meta: Mapping[str, object]
    meta_sha256: str
    answers: Mapping[str, Answer]


def load_recording(folder: str | Path) -> Recording:
    """Read and check a recording.

    Raises:
        RecordingError: a file is missing or unreadable, a field is missing or of the wrong kind, a prompt
            appears twice, or the rows or the digest differ from what `meta.json` says.

    >>> import tempfile
    >>> answer = Answer("ab" * 32, "Yes.", "stop", 9, 0, 2, 0.05, 0.08)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_recording(folder, [answer], model="m", date="2026-01-31")
    ...     load_recording(folder).answers[answer.prompt].text
    'Yes.'
    """
    folder = Path(folder)
    meta, meta_bytes = _read_meta(folder / META_FILE)
    path = folder / ANSWERS_FILE
    try:
        packed = path.read_bytes()
    except OSError as error:
        raise RecordingError(f"{path}: cannot be read ({error.strerror}); run `make record`") from error
    digest = hashlib.sha256(packed).hexdigest()
    if digest != meta["answers_sha256"]:
        raise RecordingError(
            f"{path}: SHA-256 {digest[:12]}... is not the answers_sha256 of {META_FILE}: "
            "the recording is stale or damaged; run `make record`"
        )
    answers: dict[str, Answer] = {}
    for number, line in enumerate(_lines(path, packed), start=1):
        answer = _read_answer(line, f"{path} line {number}")
        if answer.prompt in answers:
            raise RecordingError(f"{path} line {number}: prompt {answer.prompt[:12]}... appears twice")
        answers[answer.prompt] = answer
    if len(answers) != meta["rows"]:
        raise RecordingError(
            f"{path}: holds {len(answers)} answers where {META_FILE} says rows={meta['rows']}: "
            "the recording is stale or damaged; run `make record`"
        )
    return Recording(
        model=cast(str, meta["model"]),
        date=cast(str, meta["date"]),
        meta=meta,
        meta_sha256=hashlib.sha256(meta_bytes).hexdigest(),
        answers=answers,
    )


def write_recording(
    folder: str | Path, answers: Iterable[Answer], *, model: str, date: str, **more: object
) -> None:
    """Write a recording that `load_recording` accepts; `more` is added to `meta.json` as it is.

    The bytes depend on the arguments alone (no time stamp in the gzip header), so a repeated recording of
    equal answers gives an equal file.

    Raises:
        OSError: the folder cannot be made or written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows = [json.dumps(asdict(answer), sort_keys=True) for answer in answers]
    packed = gzip.compress("".join(row + "\n" for row in rows).encode(), mtime=0)
    digest = hashlib.sha256(packed).hexdigest()
    meta = {**more, "model": model, "date": date, "rows": len(rows), "answers_sha256": digest}
    (folder / ANSWERS_FILE).write_bytes(packed)
    (folder / META_FILE).write_text(json.dumps(meta, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _read_meta(path: Path) -> tuple[dict[str, object], bytes]:
    try:
        data = path.read_bytes()
        meta = json.loads(data)
    except OSError as error:
        raise RecordingError(f"{path}: cannot be read ({error.strerror}); run `make record`") from error
    except (ValueError, RecursionError) as error:
        raise RecordingError(f"{path}: is not JSON") from error
    if not isinstance(meta, dict):
        raise RecordingError(f"{path}: is not a JSON object")
    for name, kind in (("rows", int), ("answers_sha256", str), ("model", str), ("date", str)):
        if type(meta.get(name)) is not kind:
            raise RecordingError(f"{path}: field {name!r} is missing or not {kind.__name__}")
    return meta, data


def _lines(path: Path, packed: bytes) -> Iterator[str]:
    try:
        text = gzip.decompress(packed).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise RecordingError(f"{path}: is not a whole gzip file of UTF-8 text") from error
    # Not splitlines(): JSON strings may hold U+2028 and its kin, which are no line ends here.
    return (line for line in text.split("\n") if line)


def _read_answer(line: str, where: str) -> Answer:
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RecordingError(f"{where}: is not JSON") from error
    if not isinstance(row, dict):
        raise RecordingError(f"{where}: is not a JSON object")
    values: dict[str, Any] = {}
    for field in fields(Answer):
        value = row.get(field.name)
        if field.type == "float" and type(value) is int:
            value = float(value)
        if type(value).__name__ != field.type:
            raise RecordingError(f"{where}: field {field.name!r} is missing or not {field.type}")
        values[field.name] = value
    answer = Answer(**values)
    if not re.fullmatch("[0-9a-f]{64}", answer.prompt):
        raise RecordingError(f"{where}: field 'prompt' is not a SHA-256 in lower-case hex")
    if not 0.0 <= answer.ttft_s <= answer.e2e_s < float("inf"):
        raise RecordingError(f"{where}: needs 0 <= ttft_s <= e2e_s")
    if not 0 <= answer.cached_tokens <= answer.prompt_tokens or answer.completion_tokens < 0:
        raise RecordingError(f"{where}: needs 0 <= cached_tokens <= prompt_tokens, completion_tokens >= 0")
    return answer
