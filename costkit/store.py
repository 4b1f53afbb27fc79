"""Sealed entries in diskcache, with a memory front.

diskcache 5.6.3 unpickles what a row tells it to (CVE-2025-69872), opens and deletes the file names it finds
there, and its JSONDisk does too. :class:`SealedDisk` does none of it: text keys, bytes kept inline, no file,
no pickle. Each value is sealed over format, scope, key and body (HMAC-SHA256 with a secret, a plain BLAKE2b
checksum without), and a row that does not verify is a miss. A checksum finds damage; only a secret finds
forgery.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import diskcache

from . import codec
from .errors import FolderError
from .folder import private_file

__all__ = ["Entry", "Epochs", "Front", "SealedDisk", "Store"]

_SEALED, _CHECKED = b"\x02", b"\x01"
_FUTURE_SLACK = 300.0


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored answer. Times are Unix seconds, ``latency`` seconds, ``cost`` nano-dollars (None: unknown).

    ``stream`` says that the payload is a list of chunks; ``epoch`` is the state of the named epochs it was
    made in.
    """

    payload: bytes
    at: float
    expires: float | None = None
    cost: int | None = None
    latency: float = 0.0
    stream: bool = False
    epoch: str = ""

    def value(self) -> Any:
        """The stored value, a fresh object at every call.

        Raises:
            codec.Unreadable: the bytes are damaged or the value's class is not loaded.
        """
        return codec.decode(self.payload)

    def fresh(self, now: float, epoch: str) -> bool:
        """Whether the entry may still be served. One from the future (a clock that jumped back) may not."""
        if self.epoch != epoch or self.at > now + _FUTURE_SLACK:
            return False
        return self.expires is None or now < self.expires

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
        numbers = (entry.at, entry.latency, 0.0 if entry.expires is None else entry.expires)
        texts = (
            type(entry.epoch) is str and type(entry.stream) is bool and type(entry.cost) in (int, type(None))
        )
        if not texts or any(type(n) not in (int, float) for n in numbers):
            raise ValueError("not the fields of an entry")
        return entry


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


class Epochs:
    """Named counters in one small file; bumping one makes every entry made under it a miss, in O(1).

    Every process sees a bump at its next call: the file is replaced, and a stat tells. The file has an identity of its
    own, part of every state: when it is lost or damaged its successor has another one, so that no counter that starts
    again can bring back what was bumped away.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "epochs.json"
        self._seen: tuple[int, int, int] | None = None
        self._identity = ""
        self._counts: dict[str, int] = {}
        self._mutex = threading.Lock()
        self._adrift = False
        self.changes = 0
        self.refresh()

    def refresh(self) -> None:
        """Reread the file if it was replaced, make it if it is missing or damaged."""
        seen = self._stamp()
        if seen is not None and seen == self._seen:
            return
        with self._mutex:
            if not self._read():
                self._renew()

    def state(self, names: tuple[str, ...]) -> str:
        """The counters of these names, and whose they are, as one text."""
        counts = self._counts
        return ",".join([self._identity, *[f"{name}={counts[name]}" for name in names if name in counts]])

    def bump(self, name: str) -> int:
        """Count ``name`` up by one; safe between processes."""
        self.refresh()
        with self._mutex, self._locked():
            self._read()
            count = self._counts.get(name, 0) + 1
            self._write({**self._counts, name: count})
            self._read()
        return count

    def after_fork(self) -> None:
        """Another thread of the parent may have held the lock."""
        self._mutex = threading.Lock()

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            info = os.stat(self._path)
        except OSError:
            return None
        return info.st_ino, info.st_mtime_ns, info.st_size

    def _read(self) -> bool:
        """Take over what the file says, if it says anything."""
        seen = self._stamp()
        try:
            read = json.loads(self._path.read_bytes())
            identity, counts = str(read["identity"]), {str(k): int(v) for k, v in read["counts"].items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            self._seen = None
            return False
        if (seen, identity, counts) != (self._seen, self._identity, self._counts):
            self._seen, self._identity, self._counts = seen, identity, counts
            self.changes += 1
        return True

    def _renew(self) -> None:
        """Start anew under a new identity; one that cannot be written holds for this process."""
        try:
            with self._locked():
                if self._read():
                    return
                self._identity, self._counts = os.urandom(8).hex(), {}
                self._write({})
                self._read()
                self._adrift = False
        except (OSError, FolderError):
            if self._adrift:
                return
            self._adrift, self._identity, self._counts = True, os.urandom(8).hex(), {}
        self.changes += 1

    def _write(self, counts: dict[str, int]) -> None:
        fresh = private_file(self._path.with_suffix(f".{os.getpid()}.{threading.get_ident()}"))
        fresh.write_text(json.dumps({"identity": self._identity, "counts": counts}))
        os.replace(fresh, self._path)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        import fcntl

        with open(private_file(self._path.with_suffix(".lock")), "r+b") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield


class Store:
    """Entries by scope and key, in memory and on disk. Trouble with the disk is a miss and is counted.

    ``troubles`` counts what went wrong, by kind: ``damaged`` rows, ``failed`` reads and ``unwritten``
    entries.
    """

    def __init__(self, folder: Path, *, secret: bytes | None = None, size_limit: int = 1 << 30) -> None:
        self._folder = folder / "cache"
        self._secret = secret
        self._size_limit = size_limit
        self.front = Front()
        self.epochs = Epochs(folder)
        self._inherited: tuple[object, ...] = ()
        self.troubles = {"damaged": 0, "failed": 0, "unwritten": 0}
        self._synced = 0
        self._cache = self._open()

    def _open(self) -> Any:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        private_file(self._folder / "cache.db")
        try:
            return self._connect()
        except Exception:  # noqa: BLE001 - whatever a damaged or planted database raises, it is set aside
            aside = self._folder.with_name(f"cache.damaged-{time.time_ns()}")
            self._folder.rename(aside)
            self.troubles["damaged"] += 1
            self._folder.mkdir(mode=0o700)
            private_file(self._folder / "cache.db")
            return self._connect()

    def _connect(self) -> Any:
        settings = {**_SETTINGS, "size_limit": self._size_limit}
        return diskcache.Cache(str(self._folder), timeout=5, disk=SealedDisk, **settings)

    def sync(self) -> None:
        """Notice epochs bumped by any process; the memory front starts afresh then."""
        self.epochs.refresh()
        if self._synced != self.epochs.changes:
            self._synced = self.epochs.changes
            self.front.clear()

    def get(self, scope: str, key: str, now: float) -> Entry | None:
        """The entry, or None when there is none, it is damaged, or the disk fails.

        One in memory that has expired is looked up on disk again: another process may have renewed it.
        """
        entry = self.front.get(key)
        if entry is not None and (entry.expires is None or now < entry.expires):
            return entry
        try:
            row = self._cache.get(key, default=None, retry=False)
        except Exception:  # noqa: BLE001 - store trouble is a miss (DESIGN decision 2), whatever it is
            self.troubles["failed"] += 1
            return None
        if row is None:
            return None
        try:
            entry = Entry.from_bytes(self._unseal(scope, key, row))
        except (ValueError, KeyError, TypeError, RecursionError):
            self.troubles["damaged"] += 1
            return None
        self.front.put(key, entry)
        return entry

    def set(self, scope: str, key: str, entry: Entry) -> bool:
        """Keep the entry in memory and on disk; False (and counted) when the disk fails."""
        self.front.put(key, entry)
        expire = None if entry.expires is None else max(0.0, entry.expires - entry.at)
        try:
            sealed = self._seal(scope, key, entry.to_bytes())
            return bool(self._cache.set(key, sealed, expire=expire, tag=scope, retry=False))
        except Exception:  # noqa: BLE001 - a full or failing disk must not cost the caller the answer
            self.troubles["unwritten"] += 1
            return False

    def epoch(self, names: tuple[str, ...], scope: str) -> str:
        """What an entry of this scope under these epochs must carry to be served; sees every process's bumps."""
        self.sync()
        return self.epochs.state((*names, f"forget:{scope}"))

    def forget(self, scope: str) -> int:
        """Delete every entry of a scope; an answer that is being made meanwhile is not served afterwards."""
        self.epochs.bump(f"forget:{scope}")
        self.sync()
        return int(self._cache.evict(scope, retry=True))

    def close(self) -> None:
        """Close this thread's connection."""
        self._cache.close()

    def after_fork(self) -> None:
        """The child opens connections of its own, and no thread of the parent's holds its locks."""
        self._inherited = (*self._inherited, getattr(self._cache, "_local", None))
        self._cache._local = threading.local()
        self.front.after_fork()
        self.epochs.after_fork()

    def _mac(self, scope: str, key: str, body: bytes) -> tuple[bytes, bytes]:
        parts = (b"costkit-entry/1", scope.encode(), key.encode())
        message = b"".join(len(p).to_bytes(4, "big") + p for p in parts) + body
        if self._secret is not None:
            return _SEALED, hmac.digest(self._secret, message, "sha256")
        return _CHECKED, hashlib.blake2b(message, digest_size=32).digest()

    def _seal(self, scope: str, key: str, body: bytes) -> bytes:
        kind, mac = self._mac(scope, key, body)
        return kind + mac + body

    def _unseal(self, scope: str, key: str, row: bytes) -> bytes:
        body = row[33:]
        kind, mac = self._mac(scope, key, body)
        if row[:1] != kind or not hmac.compare_digest(row[1:33], mac):
            raise ValueError("the seal does not fit")
        return body
