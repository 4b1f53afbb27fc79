"""Opening the record to read it, and writing what it holds for a person: no control character reaches a terminal."""

from __future__ import annotations

import contextlib
import math
import os
import sqlite3
import stat
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..call import NANO
from ..errors import FolderError, LedgerVersionError
from ..ledger import APPLICATION_ID, MIGRATIONS

__all__ = [
    "Record",
    "clean",
    "connect_to_read",
    "percent",
    "reading",
    "records",
    "require_folder",
    "seconds_text",
    "storable",
    "usd",
    "when",
]

# Characters that steer a terminal or reorder what is shown: controls, formats, surrogates, line separators.
_STEERING = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def require_folder(folder: str | os.PathLike[str]) -> Path:
    """The folder, if it is a kit's; nothing is made.

    Raises:
        FolderError: there is none, or it is not a kit's.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise FolderError(
            f"--folder {path}: there is no such folder; name the one your kit uses, or start one: "
            f"kit = costkit.Kit({str(path)!r})"
        )
    if not (path / "costkit.json").exists():
        raise FolderError(f"--folder {path}: not a kit's folder (it has no costkit.json); name the kit's own")
    return path


def connect_to_read(path: Path) -> sqlite3.Connection:
    """A read-only connection to a SQLite file, also in a folder that we may not write.

    Raises sqlite3.Error, also where the file is a link, a folder or a pipe, and OSError where it is missing.
    """
    if not stat.S_ISREG(path.lstat().st_mode):
        # SQLite would wait for ever for somebody to write into a pipe.
        raise sqlite3.OperationalError(f"{path.name} is no plain file")
    uri = path.absolute().as_uri()
    con = sqlite3.connect(f"{uri}?mode=ro", uri=True, timeout=10, isolation_level=None)
    try:
        con.execute("SELECT COUNT(*) FROM sqlite_master")
    except sqlite3.OperationalError:
        con.close()
        wal = path.with_name(path.name + "-wal")
        if os.access(path.parent, os.W_OK) or (wal.exists() and wal.stat().st_size):
            raise
        # SQLite cannot keep its shared memory beside the file here, and needs none where nobody writes.
        con = sqlite3.connect(f"{uri}?mode=ro&immutable=1", uri=True, isolation_level=None)
    con.execute("PRAGMA trusted_schema=OFF")
    con.text_factory = _text
    return con


@contextlib.contextmanager
def reading(folder: str | os.PathLike[str]) -> Iterator[sqlite3.Connection | None]:
    """One moment of a kit's record, read-only; None where nothing was recorded yet. Temporary tables may be made.

    Raises:
        FolderError: no kit's folder, or its ledger is damaged or another program's.
        LedgerVersionError: a newer costkit wrote it.
    """
    path = require_folder(folder) / "ledger.db"
    if not path.exists():
        yield None
        return
    con = None
    try:
        con = connect_to_read(path)
        _check(con)
        con.execute("BEGIN")
        yield con
    except (sqlite3.Error, OverflowError) as exc:
        raise FolderError(f"the ledger cannot be read ({exc}); `costkit doctor` says what to do") from exc
    finally:
        if con is not None:
            con.close()


def _check(con: sqlite3.Connection) -> None:
    owner = con.execute("PRAGMA application_id").fetchone()[0]
    version = con.execute("PRAGMA user_version").fetchone()[0]
    if owner != APPLICATION_ID:
        raise FolderError("ledger.db is not a costkit ledger; name another folder with --folder")
    if version > len(MIGRATIONS):
        raise LedgerVersionError(
            f"the ledger has version {version}, this costkit knows {len(MIGRATIONS)}: upgrade costkit "
            "(pip install -U costkit)"
        )


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def clean(text: object, most: int = 0) -> str:
    r"""Text from outside, safe to print: characters that steer a terminal are written out; cut after ``most``.

    >>> clean("a\x1b[31mred\u202e")
    'a\\x1b[31mred\\u202e'
    >>> clean("abcdef", 4)
    'abc…'
    """
    whole = str(text)
    cut = whole if not most or len(whole) <= most else whole[: most - 1] + "…"
    if cut.isascii() and cut.isprintable():
        return cut
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in _STEERING else char
        for char in cut
    )


_NUMBERS = frozenset(
    [
        "at",
        "latency",
        "ttft",
        "provider_cost",
        "counterfactual_cost",
        "overhead_cost",
        "unknown_costs",
        "reserved",
        "complete",
        "cost",
        "in_fresh",
        "cache_read",
        "cache_write_5m",
        "cache_write_1h",
        "out_text",
        "out_reasoning",
    ]
)
_NEEDED = frozenset({"at", "latency", "provider_cost", "unknown_costs", "complete"})

Record = dict[str, Any]


def records(con: sqlite3.Connection, sql: str, *given: Any) -> list[Record]:
    """Rows of ``queries`` or ``attempts`` with the types of their columns, whatever a hand has put into them."""
    cursor = con.execute(sql, given)
    names = [column[0] for column in cursor.description]
    return [{name: _typed(name, value) for name, value in zip(names, row, strict=True)} for row in cursor]


def _typed(name: str, value: Any) -> Any:
    if name in _NUMBERS:
        good = isinstance(value, (int, float)) and math.isfinite(value)
        return value if good else 0 if name in _NEEDED else None
    return value if value is None else str(value)


def storable(text: str) -> str:
    """Text as SQLite takes it: a byte of the command line that is no UTF-8 becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def usd(nano: float | None) -> str:
    """Nano-dollars for a person.

    >>> usd(1_234_500_000_000), usd(2_500_000), usd(150), usd(0), usd(None)
    ('$1,234.50', '$0.002500', '$0.000000150', '$0', 'unknown')

    Four digits that count, and never more than a nano-dollar.
    """
    if nano is None or not math.isfinite(nano):
        return "unknown"
    size = abs(nano)
    if size == 0:
        return "$0"
    digits = min(9, max(2, 3 - math.floor(math.log10(size / NANO))))
    return f"{'-' if nano < 0 else ''}${size / NANO:,.{digits}f}"


def seconds_text(seconds: float | None) -> str:
    """A duration for a person.

    >>> seconds_text(0.00042), seconds_text(0.25), seconds_text(12), seconds_text(7200), seconds_text(None)
    ('0.42 ms', '250 ms', '12.00 s', '2.0 h', '')
    """
    if seconds is None:
        return ""
    size = abs(seconds)
    for least, unit, divisor, digits in (
        (172_800, "d", 86_400, 1),
        (5_400, "h", 3_600, 1),
        (120, "min", 60, 1),
        (1, "s", 1, 2),
    ):
        if size >= least:
            return f"{seconds / divisor:.{digits}f} {unit}"
    return f"{seconds * 1000:.0f} ms" if size >= 0.01 else f"{seconds * 1000:.2f} ms"


def percent(share: float | None) -> str:
    """A share for a person.

    >>> percent(0.1234), percent(None)
    ('12.3%', '')
    """
    return "" if share is None else f"{share:.1%}"


def when(at: float | None) -> str:
    """A Unix time as UTC to the second; text for whatever a clock may have said.

    >>> when(1_700_000_000.0), when(None), when(1e300)
    ('2023-11-14 22:13:20 UTC', '', 'at 1e+300')
    """
    if at is None:
        return ""
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, OSError, ValueError):
        return f"at {at:g}"
