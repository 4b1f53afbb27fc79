"""diskcache as an engine only: it runs nothing it finds, and reaches no file but its database.

diskcache 5.6.3 unpickles what a row tells it to (CVE-2025-69872), opens and deletes the file names it finds
there, sets attributes and pragmas that its Settings table names (its own folder among them), and its JSONDisk
does too. Here keys are text, values are bytes kept inline, settings are those of this file, and an SQLite
authorizer refuses whatever a planted trigger, view or setting would do beside.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diskcache

__all__ = ["SealedCache", "SealedDisk"]

_SETTINGS: Mapping[str, Any] = {
    "statistics": 0,
    "tag_index": 1,
    "eviction_policy": "least-recently-stored",
    "cull_limit": 10,
    "sqlite_auto_vacuum": 1,
    "sqlite_cache_size": 2**13,
    "sqlite_journal_mode": "wal",
    "sqlite_mmap_size": 0,
    "sqlite_synchronous": 1,
    "disk_min_file_size": 2**62,
    "disk_pickle_protocol": 0,
}
_COUNTERS = frozenset({"count", "size", "hits", "misses"})
_PRAGMAS = frozenset({name.removeprefix("sqlite_") for name in _SETTINGS if name.startswith("sqlite_")})
_ALLOWED_PRAGMAS = _PRAGMAS | {"page_size", "page_count", "wal_checkpoint"}
_DENIED = frozenset(
    {sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH, sqlite3.SQLITE_RECURSIVE, sqlite3.SQLITE_CREATE_VTABLE}
)
_IN_A_TRIGGER = frozenset({sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_READ})


class SealedDisk(diskcache.Disk):  # type: ignore[misc]
    """diskcache's serialisation cut down to text keys and inline bytes; it reads and removes no file."""

    def put(self, key: Any) -> Any:
        if type(key) is not str:
            raise TypeError("keys of the costkit store are text")
        return key, True

    def get(self, key: Any, raw: Any) -> Any:
        return key if type(key) is str and raw else ""

    def store(self, value: Any, read: bool, key: Any = None) -> Any:
        if type(value) is not bytes or read:
            raise TypeError("values of the costkit store are bytes")
        return 0, 1, None, value

    def fetch(self, mode: Any, filename: Any, value: Any, read: bool) -> Any:
        return value if mode == 1 and filename is None and type(value) is bytes else None

    def remove(self, file_path: Any) -> None:
        """Rows of ours name no file; one that does was planted, and the file is not ours to delete."""


class SealedCache(diskcache.Cache):  # type: ignore[misc]
    """A diskcache whose settings are fixed, whatever its database says they are."""

    def __init__(self, folder: Path, *, size_limit: int, timeout: int = 5) -> None:
        super().__init__(str(folder), timeout=timeout, disk=SealedDisk, **_SETTINGS, size_limit=size_limit)

    @property
    def _con(self) -> sqlite3.Connection:
        local = self._local
        con: sqlite3.Connection | None = getattr(local, "con", None)
        if con is None or getattr(local, "pid", None) != os.getpid():
            self.close()
            local.pid = os.getpid()
            path = os.path.join(self._directory, "cache.db")
            con = sqlite3.connect(path, timeout=self._timeout, isolation_level=None)
            try:
                _harden(con)
            except BaseException:
                con.close()
                raise
            local.con = con
        return con

    def reset(self, key: str, value: Any = diskcache.core.ENOVAL, update: bool = True) -> Any:
        """As diskcache does it, for settings that exist; a planted one would name any attribute of this object."""
        if key in _COUNTERS:
            setattr(self, key, 0)
            return 0
        if key != "size_limit" and key not in _SETTINGS:
            raise ValueError("the cache's database holds a setting that costkit never wrote")
        return super().reset(key, value, update)

    def volume(self) -> int:
        """Bytes on disk; every value lies in the database, so its pages are all there is."""
        ((pages,),) = self._sql("PRAGMA page_count").fetchall()
        return int(self._page_size) * int(pages)

    def purge(self) -> None:
        """Leave nothing of deleted rows in the log either, where no reader needs it at this moment."""
        self._sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _harden(con: sqlite3.Connection) -> None:
    for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "secure_delete = ON"):
        con.execute(f"PRAGMA {pragma}")
    for name in sorted(_PRAGMAS - {"auto_vacuum", "journal_mode"}):  # those two stand in the database
        con.execute(f"PRAGMA {name} = {_SETTINGS[f'sqlite_{name}']}")
    con.set_authorizer(_authorize)


def _authorize(action: int, first: str | None, second: str | None, _: str | None, source: str | None) -> int:
    """Asked while a statement is compiled, triggers and views included; ``source`` names the trigger or view."""
    if action in _DENIED or (action == sqlite3.SQLITE_PRAGMA and first not in _ALLOWED_PRAGMAS):
        return sqlite3.SQLITE_DENY
    if source is not None:
        fine = action in _IN_A_TRIGGER and first in ("Cache", "Settings")
        if not fine or (action == sqlite3.SQLITE_UPDATE and first != "Settings"):
            return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK
