"""Sealed entries on disk, with a memory front.

Each value is sealed over scope, key and body (:mod:`costkit.secret`), and a row that does not verify is a miss.
A checksum finds damage; only a secret finds forgery. The engine below, and what it is kept from doing, is in
:mod:`costkit.disk`.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
import time
from collections import OrderedDict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import diskcache

from . import codec, forks
from .disk import SealedCache, SealedDisk
from .epochs import Epochs
from .errors import FolderError
from .folder import private_file, private_folder
from .secret import Seal

__all__ = ["Entry", "Epochs", "Front", "Moment", "SealedDisk", "Store", "boot"]

_FUTURE_SLACK = 300.0
_FORGET_PATIENCE = 60.0
_TRY_AGAIN = 60.0  # seconds until a cache that could not be opened is tried again
_BUSY = 1.0  # the same for one that somebody held
_PATIENCE = 2.0  # seconds that a cache is waited for which somebody holds while the kit is made
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


@dataclass(frozen=True, slots=True)
class Moment:
    """Now: Unix seconds, the monotonic clock, and which boot of the machine it counts from ("": not known)."""

    wall: float
    mono: float = 0.0
    boot: str = ""


def boot() -> str:
    """What tells this boot of the machine from others; "" where nothing does."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()[:36]
    except (OSError, ValueError):
        return ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored answer. Times are Unix seconds, ``ttl`` (how long it is fresh), ``life`` (how long it may be served at
    all; None: no limit) and ``latency`` seconds, ``cost`` nano-dollars (None: unknown).

    ``stream`` says that the payload is a list of chunks; ``epoch`` is the state of the named epochs it was
    made in; ``failed`` names the exception of a call that failed, whose payload is empty. ``mono`` is the
    monotonic clock when it was made, which counts within one ``boot`` of the machine.
    """

    payload: bytes
    at: float
    ttl: float | None = None
    life: float | None = None
    cost: int | None = None
    latency: float = 0.0
    stream: bool = False
    epoch: str = ""
    failed: str = ""
    mono: float = 0.0
    boot: str = ""

    def value(self) -> Any:
        """The stored value, a fresh object at every call.

        Raises:
            codec.Unreadable: the bytes are damaged or the value's class is not loaded.
        """
        return codec.decode(self.payload)

    def age(self, moment: Moment) -> float:
        """Seconds since it was made, by the clock that says more: a wall clock set back makes nothing young."""
        wall = moment.wall - self.at
        return max(wall, moment.mono - self.mono) if self.boot and self.boot == moment.boot else wall

    def usable(self, moment: Moment, epoch: str) -> bool:
        """Whether the entry may still be served. One from the future (a clock that jumped back) may not."""
        if self.epoch != epoch or self.at > moment.wall + _FUTURE_SLACK:
            return False
        return self.life is None or self.age(moment) < self.life

    def to_bytes(self) -> bytes:
        """Header length, JSON header, payload."""
        fields = asdict(self)
        payload = fields.pop("payload")
        header = json.dumps(fields, separators=(",", ":")).encode()
        return len(header).to_bytes(4, "big") + header + bytes(payload)

    @classmethod
    def from_bytes(cls, body: bytes) -> Entry:
        """The inverse of :meth:`to_bytes`; raises ValueError, KeyError or TypeError on anything else."""
        size = int.from_bytes(body[:4], "big")
        entry = cls(payload=body[4 + size :], **json.loads(body[4 : 4 + size]))
        numbers = (entry.at, entry.latency, entry.mono, entry.ttl or 0.0, entry.life or 0.0)
        others = type(entry.stream) is bool and type(entry.cost) in (int, type(None))
        texts = all(type(text) is str for text in (entry.epoch, entry.failed, entry.boot))
        if not (others and texts) or any(type(n) not in (int, float) for n in numbers):
            raise ValueError("not the fields of an entry")
        return entry


class Front:
    """Recently used entries in memory, at most ``max_bytes`` and ``max_entries`` of them."""

    def __init__(self, max_bytes: int = 64 << 20, max_entries: int = 50_000) -> None:
        self._max_bytes, self._max_entries = max_bytes, max_entries
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: str) -> Entry | None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self._entries.move_to_end(key)
            return entry

    def put(self, key: str, entry: Entry) -> None:
        with self._lock:
            old = self._entries.pop(key, None)
            if old is not None:
                self._bytes -= len(old.payload)
            if len(entry.payload) > self._max_bytes // 4:
                return
            self._entries[key] = entry
            self._bytes += len(entry.payload)
            while self._bytes > self._max_bytes or len(self._entries) > self._max_entries:
                _, gone = self._entries.popitem(last=False)
                self._bytes -= len(gone.payload)

    def after_fork(self) -> None:
        """Another thread of the parent may have held the lock."""
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
            self._bytes = 0


class Store:
    """Entries by scope and key, in memory and on disk. Trouble with the disk is a miss and is counted.

    ``troubles`` counts what went wrong, by kind: ``damaged`` rows, ``failed`` reads and ``unwritten``
    entries.
    """

    def __init__(self, folder: Path, *, secret: bytes | None = None, size_limit: int = 1 << 30) -> None:
        self._folder = folder / "cache"
        self._marks = Seal(secret, "entry")
        self._size_limit = size_limit
        self.front = Front()
        self.troubles = {"damaged": 0, "failed": 0, "unwritten": 0}
        self.epochs = Epochs(folder, secret=secret, troubles=self.troubles)
        self._inherited: tuple[object, ...] = ()
        self._synced = 0
        self._opening = threading.Lock()
        self._not_before = 0.0
        self._cache = self._open(_PATIENCE)

    def _open(self, patience: float = 0.0) -> Any:
        """The cache; None (everything is a miss) while the disk is full or the database held by somebody."""
        try:
            return self._connect(patience)
        except FolderError:
            raise
        except Exception as exc:  # noqa: BLE001 - whatever a damaged or planted database raises, it is set aside
            if _passing(exc):
                self._not_before = time.monotonic() + (_BUSY if _busy(exc) else _TRY_AGAIN)
                return None
            self._folder.rename(self._folder.with_name(f"cache.damaged-{time.time_ns()}"))
            self.troubles["damaged"] += 1
            return self._connect(patience)

    def _opened(self) -> Any:
        """The cache; one that could not be opened is tried again once in a while, by one thread."""
        if (
            self._cache is None
            and time.monotonic() >= self._not_before
            and self._opening.acquire(blocking=False)
        ):
            try:
                self._cache = self._cache or self._open()
            finally:
                self._opening.release()
        if self._cache is None:
            raise OSError("the cache cannot be opened just now")
        return self._cache

    def _connect(self, patience: float) -> Any:
        """Others may hold the file for a moment: several that make it at once, or one that closes it last."""
        path = private_file(private_folder(self._folder) / "cache.db")
        end = time.monotonic() + patience
        while True:
            try:
                with forks.inside:
                    _try_lock(path)  # diskcache itself would wait for a minute
                    return SealedCache(self._folder, size_limit=self._size_limit)
            except sqlite3.OperationalError as exc:
                if not _busy(exc) or time.monotonic() > end:
                    raise
            time.sleep(0.005)

    def sync(self) -> None:
        """Notice epochs bumped by any process; the memory front starts afresh then."""
        self.epochs.refresh()
        if self._synced != self.epochs.changes:
            self._synced = self.epochs.changes
            self.front.clear()

    def recent(self, key: str, now: float) -> Entry | None:
        """The entry, if it is in memory and fresh."""
        entry = self.front.get(key)
        return entry if entry is not None and (entry.ttl is None or now < entry.at + entry.ttl) else None

    def get(self, scope: str, key: str, now: float, *, fresh: bool = False) -> Entry | None:
        """The entry, or None when there is none, it is damaged, or the disk fails.

        One in memory that is fresh no longer is looked up on disk again: another process may have renewed it. With
        ``fresh`` the disk is looked at in any case, and memory stands in where nothing can be had of it.
        """
        known = self.front.get(key) if fresh else self.recent(key, now)
        if known is not None and not fresh:
            return known
        entry = self._read(scope, key)
        if entry is None:
            return known
        self.front.put(key, entry)
        return entry

    def _read(self, scope: str, key: str) -> Entry | None:
        try:
            cache = self._opened()
            with forks.inside:
                row = cache.get(key, default=None, retry=False)
        except Exception:  # noqa: BLE001 - store trouble is a miss (DESIGN decision 2), whatever it is
            self.troubles["failed"] += 1
            return None
        if row is None:
            return None
        try:
            return Entry.from_bytes(self._unseal(scope, key, row))
        except (ValueError, KeyError, TypeError, RecursionError):
            self.troubles["damaged"] += 1
            return None

    def set(self, scope: str, key: str, entry: Entry) -> bool:
        """Keep the entry in memory and on disk; False (and counted) when the disk fails."""
        self.front.put(key, entry)
        try:
            sealed = self._seal(scope, key, entry.to_bytes())
            cache = self._opened()
            with forks.inside:
                return bool(cache.set(key, sealed, expire=entry.life, tag=scope, retry=False))
        except Exception:  # noqa: BLE001 - a full or failing disk must not cost the caller the answer
            self.troubles["unwritten"] += 1
            return False

    def epoch(self, names: tuple[str, ...], scope: str) -> str:
        """What an entry of this scope under these epochs must carry to be served; sees every process's bumps."""
        self.sync()
        return self.epochs.state((*names, f"forget:{scope}"))

    def forget(self, scope: str) -> int:
        """Delete every entry of a scope; an answer that is being made meanwhile is not served afterwards.

        Databases that were set aside as damaged are removed: they may hold answers of this scope.

        Raises:
            FolderError: the entries cannot be deleted now. They are not served any more all the same.
        """
        self.epochs.bump(f"forget:{scope}")
        self.sync()
        for aside in self._folder.parent.glob("cache.damaged-*"):
            shutil.rmtree(aside, ignore_errors=True)
        try:
            if self._cache is None:
                self._cache = self._connect(_PATIENCE)
            return self._evicted(scope)
        except Exception as exc:
            raise FolderError(
                f"kit.forget(): the cache could not be changed ({type(exc).__name__}); nothing of this scope is "
                "served any more, but it still stands on the disk: call again"
            ) from exc

    def _evicted(self, scope: str) -> int:
        gone, end = 0, time.monotonic() + _FORGET_PATIENCE
        while True:
            try:
                with forks.inside:
                    gone += int(self._cache.evict(scope, retry=False))
            except diskcache.Timeout as exc:
                gone += exc.args[0] if exc.args else 0
                if time.monotonic() > end:
                    raise
                continue
            with forks.inside:
                self._cache.purge()
            return gone

    def close(self) -> None:
        """Close this thread's connection."""
        if self._cache is not None:
            self._cache.close()

    def after_fork(self) -> None:
        """The child opens connections of its own, and no thread of the parent's holds its locks."""
        self._inherited = (*self._inherited, getattr(self._cache, "_local", None))
        if self._cache is not None:
            self._cache._local = threading.local()
        self._opening = threading.Lock()
        self.front.after_fork()
        self.epochs.after_fork()

    def _seal(self, scope: str, key: str, body: bytes) -> bytes:
        return self._marks.mark(scope.encode(), key.encode(), body) + body

    def _unseal(self, scope: str, key: str, row: bytes) -> bytes:
        body = row[Seal.SIZE :]
        if not self._marks.fits(row[: Seal.SIZE], scope.encode(), key.encode(), body):
            raise ValueError("the seal does not fit")
        return body


def _try_lock(path: Path) -> None:
    """Raises sqlite3.OperationalError where somebody holds the file at this moment."""
    con = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        con.execute("BEGIN IMMEDIATE")
        con.execute("ROLLBACK")
    finally:
        con.close()


def _busy(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _passing(error: Exception) -> bool:
    """Whether the trouble is the disk's or another process's, and the database itself may be sound."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, OSError) or (code is not None and code & 0xFF in _PASSING)
