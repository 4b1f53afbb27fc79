"""The SQLite file of an index: opened private and hardened, replaced when it is damaged.

``entries`` holds one row per question: ``seq`` grows with every write and is never used again, so a reader needs only
what is past the last one it saw; a row whose ``body`` is empty says that its key was removed. ``cuts`` says, for a
scope or ("") for all, up to which ``seq`` everything is gone.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from costkit.folder import private_file, private_folder
from costkit.index.rows import MOST_BYTES

__all__ = ["Connection", "Door", "is_busy", "is_damage", "last", "transaction"]

_SCHEMA = (
    "CREATE TABLE entries (seq INTEGER PRIMARY KEY AUTOINCREMENT, space BLOB NOT NULL, scope TEXT NOT NULL, "
    "key TEXT NOT NULL, expires REAL, body BLOB NOT NULL)",
    "CREATE UNIQUE INDEX by_key ON entries (space, key)",
    "CREATE INDEX by_space ON entries (space)",
    "CREATE INDEX by_scope ON entries (scope)",
    "CREATE INDEX by_expiry ON entries (expires) WHERE expires IS NOT NULL",
    "CREATE TABLE cuts (scope TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID",
)
_PASSING = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
    }
)
_ACTIONS = frozenset(
    {
        sqlite3.SQLITE_SELECT,
        sqlite3.SQLITE_READ,
        sqlite3.SQLITE_INSERT,
        sqlite3.SQLITE_UPDATE,
        sqlite3.SQLITE_DELETE,
        sqlite3.SQLITE_TRANSACTION,
        sqlite3.SQLITE_FUNCTION,
    }
)
_TRY_AGAIN = 60.0  # seconds until a file that could not be opened is tried again
_BUSY = 1.0  # the same for one that somebody held
_PRAGMAS = frozenset({"data_version", "page_count", "freelist_count", "page_size", "wal_checkpoint"})

Connection = sqlite3.Connection


class Damaged(Exception):
    """The file holds something that costkit never wrote."""


def _open(path: Path, timeout: float) -> Connection:
    """A connection to the file, which is there, be it empty.

    Raises:
        Damaged: its schema is not ours.
        sqlite3.Error, OSError: it is damaged, or the disk or a lock is in the way (:func:`is_damage`).
    """
    con = sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)
    try:
        # A text that is none must not keep the rows beside it from being read.
        con.text_factory = lambda raw: raw.decode("utf-8", "replace")
        con.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_BYTES + (1 << 16))
        for pragma in (
            "trusted_schema = OFF", "cell_size_check = ON", "secure_delete = ON", "mmap_size = 0",
            "page_size = 8192", "synchronous = NORMAL",
        ):  # fmt: skip
            con.execute(f"PRAGMA {pragma}").fetchall()
        _to_wal(con, timeout)
        _made(con)
        con.set_authorizer(_authorize)
    except BaseException:
        con.close()
        raise
    return con


def _to_wal(con: Connection, timeout: float) -> None:
    """Several may do this at once to a new file, and SQLite itself does not wait for the others here."""
    end = time.monotonic() + timeout
    while True:
        try:
            con.execute("PRAGMA journal_mode = WAL").fetchall()
            return
        except sqlite3.OperationalError as exc:
            if not is_busy(exc) or time.monotonic() > end:
                raise
            time.sleep(0.005)


def _made(con: Connection) -> None:
    if not _schema(con):
        with transaction(con):
            if not _schema(con):  # another process may have been faster
                for statement in _SCHEMA:
                    con.execute(statement)
    if _schema(con) != _ours():
        raise Damaged("tables, indexes, views or triggers that costkit never made")


def _schema(con: Connection) -> frozenset[tuple[str, str, str | None]]:
    return frozenset(con.execute("SELECT type, name, sql FROM sqlite_master").fetchall())


@functools.cache
def _ours() -> frozenset[tuple[str, str, str | None]]:
    con = sqlite3.connect(":memory:")
    try:
        for statement in _SCHEMA:
            con.execute(statement)
        return _schema(con)
    finally:
        con.close()


def _authorize(action: int, first: str | None, second: str | None, _: str | None, source: str | None) -> int:
    """Asked while a statement is compiled; ``source`` names a trigger or view, of which we have none."""
    fine = action in _ACTIONS or (action == sqlite3.SQLITE_PRAGMA and first in _PRAGMAS)
    return sqlite3.SQLITE_OK if fine and source is None else sqlite3.SQLITE_DENY


def is_damage(error: Exception) -> bool:
    """Whether this says that the file is broken or not ours; else the disk, a lock or the memory was in the way."""
    if isinstance(error, sqlite3.DatabaseError):
        code = getattr(error, "sqlite_errorcode", None)
        return code is not None and code & 0xFF not in _PASSING
    return isinstance(error, Damaged)


def is_busy(error: Exception) -> bool:
    """Whether somebody else holds the file at this moment."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class Door:
    """One connection to the file, opened on first use, and anew when there is another file in its place.

    Not safe between threads by itself.
    """

    def __init__(self, path: Path, timeout: float) -> None:
        self._path, self._timeout = path, timeout
        self._con: Connection | None = None
        self._file: tuple[int, int] | None = None
        self._not_before = 0.0
        self._inherited: tuple[object, ...] = ()
        self.opened = 0  # how often: another number, another file

    def open(self) -> Connection:
        """The connection.

        Raises:
            OSError: it could not be opened a moment ago.
            Damaged, FolderError, sqlite3.Error: as :func:`_open`.
        """
        if self._con is not None:
            if _stamp(self._path) == self._file:
                return self._con
            self.shut()
        elif time.monotonic() < self._not_before:
            raise OSError("the index cannot be opened just now")
        try:
            private_file(private_folder(self._path.parent) / self._path.name)
            file = _stamp(self._path)  # before it is opened: one that is replaced meanwhile is opened again
            con = _open(self._path, self._timeout)
        except Exception as exc:
            self._not_before = time.monotonic() + (_BUSY if is_busy(exc) else _TRY_AGAIN)
            raise
        self._con, self._file = con, file
        self.opened += 1
        return con

    def hasten(self) -> None:
        """Try to open it at once, even if that failed a moment ago."""
        self._not_before = 0.0

    def set_aside(self) -> None:
        """Move the damaged file's folder out of the way, unless another process did so already."""
        seen = _stamp(self._path) if self._con is None else self._file
        self.shut()
        self.hasten()
        folder = self._path.parent
        if _stamp(self._path) == seen:
            with contextlib.suppress(OSError):
                folder.rename(folder.with_name(f"{folder.name}.damaged-{time.time_ns()}"))

    def shut(self) -> None:
        """Close the connection."""
        con, self._con = self._con, None
        if con is not None:
            with contextlib.suppress(sqlite3.Error):
                con.close()

    def after_fork(self) -> None:
        """The child opens its own; the parent's is kept, for closing it would drop locks that SQLite shares."""
        self._inherited = (*self._inherited, self._con)
        self._con, self._not_before = None, 0.0


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        info = os.stat(path)
    except OSError:
        return None
    return info.st_dev, info.st_ino


@contextlib.contextmanager
def transaction(con: Connection) -> Iterator[None]:
    """All of it or nothing."""
    con.execute("BEGIN IMMEDIATE")
    try:
        yield
        con.execute("COMMIT")
    finally:
        if con.in_transaction:
            con.execute("ROLLBACK")


def last(con: Connection) -> int:
    """The number of the last row that was ever written."""
    (number,) = con.execute(
        "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'entries'"
    ).fetchone()
    return int(number)
