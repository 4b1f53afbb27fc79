"""The index of one folder: rows on disk for all processes, spaces in memory for this one."""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from costkit import forks
from costkit.errors import FolderError
from costkit.index.database import Connection, Door, is_busy, is_damage, last, transaction
from costkit.index.rows import MOST_TRUST, UNIT, Row, Vectors, packed, units, unpacked
from costkit.index.space import NOTHING, Found, Space
from costkit.secret import Seal

__all__ = ["Index"]

T = TypeVar("T")

_TIMEOUT = 0.5  # seconds a write waits for another process's; one that is lost is a saving less
_PATIENCE = 60.0
_BATCH = 4096
_TIDY_EVERY, _TIDY_MOST = 64, 256  # rows added between two clearings, and what one clears at most

_PAST = "SELECT seq, key, body FROM entries WHERE space = ? AND seq > ? ORDER BY seq"
_CUT = "SELECT max(seq) FROM cuts WHERE scope IN ('', ?)"
_PUT = "INSERT OR REPLACE INTO entries (space, scope, key, expires, body) VALUES (?, ?, ?, ?, ?)"
_RAISE_CUT = (
    "INSERT INTO cuts (scope, seq) VALUES (?, ?) "
    "ON CONFLICT (scope) DO UPDATE SET seq = max(seq, excluded.seq)"
)


class Index:
    """Nearest neighbours by scope and namespace. Trouble with the disk, damage and forgery are a miss and are counted.

    ``troubles`` counts ``damaged`` rows and files, ``failed`` reads and ``unwritten`` rows. Each search sees what any
    process committed before it. Rows are written at once but not forced to the disk: a machine that loses power may
    lose the last of them. Safe between threads and across forks (:meth:`after_fork`).

    Args:
        folder: the kit's folder; the index is a folder in it.
        secret: seals each row; without one a checksum finds damage, not forgery.
        size_limit: bytes on disk; beyond, the rows written longest ago are removed.
        memory_limit: bytes in memory; beyond, the namespaces searched longest ago are dropped, and loaded again when
            asked for.
    """

    def __init__(
        self,
        folder: Path,
        *,
        secret: bytes | None = None,
        size_limit: int = 1 << 30,
        memory_limit: int = 512 << 20,
    ) -> None:
        self._folder = folder
        path = folder / "index" / "vectors-1.db"  # the number is the format's
        self._reader, self._writer = Door(path, _TIMEOUT), Door(path, _TIMEOUT)
        self._lock, self._writing = threading.Lock(), threading.Lock()  # of the one and of the other
        self._seal = Seal(secret, "index")
        self._size_limit, self._memory_limit = size_limit, memory_limit
        self._spaces: OrderedDict[tuple[str, str, int], Space] = OrderedDict()
        self._held = 0  # bytes of the spaces
        self._opened = self._added = 0
        self.troubles = {"damaged": 0, "failed": 0, "unwritten": 0}

    def search(
        self, scope: str, namespace: str, vector: Vectors, *, now: float, epoch: str = "", k: int = 8
    ) -> Found:
        """The ``k`` rows nearest to a unit vector, float32, shape (dimension,), that are of this epoch and not expired.

        They are exactly the nearest; of 50,000 rows and more, where ``costkit[ann]`` is installed, nearly always
        (:mod:`costkit.index.graph`). ``now`` is in Unix seconds. Nothing is found where the disk fails.

        Raises:
            ValueError: the vector is not of length 1.
        """
        if vector.ndim != 1 or not abs(float(vector @ vector) - 1.0) <= 2 * UNIT:
            raise ValueError("Index.search(vector=...): a vector of length 1, shape (dimension,), is needed")
        with self._lock, forks.inside:
            seen = self._read(lambda: self._space(scope, namespace, len(vector)).snapshot(epoch))
        return NOTHING if seen is None else seen.nearest(vector, k, now)

    def add(self, scope: str, namespace: str, row: Row, vector: Vectors) -> bool:
        """Keep a row, in place of one with its key; False (and counted) when the disk fails.

        Raises:
            ValueError: the vector is no finite float32 vector of length 1, or the row is too large.
        """
        space = _space(scope, namespace)
        values = (space, scope, row.key, row.expires, packed(self._seal, space, row, vector))

        def write(con: Connection) -> bool:
            con.execute(_PUT, values)
            self._added += 1
            if self._added % _TIDY_EVERY == 0:
                self._tidy(con, row.added)
            return True

        return self._write(write) is True

    def confirm(self, scope: str, namespace: str, key: str) -> int | None:
        """Count a row's trust up by one and return it; None where there is no such row, or the disk fails."""
        space = _space(scope, namespace)

        def write(con: Connection) -> int | None:
            with transaction(con):
                found = con.execute(
                    "SELECT body FROM entries WHERE space = ? AND key = ?", (space, key)
                ).fetchone()
                known = (
                    unpacked(self._seal, space, key, found[0]) if found and type(found[0]) is bytes else None
                )
                if known is None:
                    return None
                old, vector = known
                trust = min(old.trust + 1, MOST_TRUST)
                row = Row(old.key, old.added, old.expires, old.epoch, old.answer, old.features, trust)
                body = packed(self._seal, space, row, np.frombuffer(vector, "<f4"))
                con.execute(_PUT, (space, scope, key, row.expires, body))
                return row.trust

        done = self._write(write)
        return None if isinstance(done, Exception) else done

    def remove(self, scope: str, namespace: str, key: str) -> bool:
        """Take a row out, for every process; False where there is none.

        Raises:
            FolderError: it cannot be taken out now.
        """
        return self._surely(_without(scope, namespace, key), "Index.remove()")

    def drop(self, scope: str, namespace: str, key: str) -> bool:
        """Take a row out if that can be done at once; False (and counted) when the disk fails, or there is none."""
        return self._write(_without(scope, namespace, key)) is True

    def forget(self, scope: str) -> int:
        """Delete every row of a scope from the disk, for every process; returns how many there were.

        Files that were set aside as damaged are removed: they may hold rows of this scope.

        Raises:
            FolderError: they cannot be deleted now; call again.
        """
        for aside in self._folder.glob("index.damaged-*"):
            shutil.rmtree(aside, ignore_errors=True)

        def write(con: Connection) -> int:
            with transaction(con):
                (held,) = con.execute(
                    "SELECT count(*) FROM entries WHERE scope = ? AND length(body)", (scope,)
                ).fetchone()
                con.execute("DELETE FROM entries WHERE scope = ?", (scope,))
                con.execute(_RAISE_CUT, (scope, last(con)))
            con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            return int(held)

        return self._surely(write, "Index.forget()")

    def count(self, scope: str, namespace: str, dimension: int) -> int:
        """Rows of a namespace that are in its index, expired ones and those of past epochs among them."""
        with self._lock, forks.inside:
            return self._read(lambda: len(self._space(scope, namespace, dimension))) or 0

    def close(self) -> None:
        """Close the file. A later use opens it again."""
        with self._writing, forks.inside:
            self._writer.shut()
        with self._lock, forks.inside:
            self._reader.shut()

    def after_fork(self) -> None:
        """The child opens connections of its own, and no thread of the parent's holds its locks."""
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._reader.after_fork()
        self._writer.after_fork()

    def _space(self, scope: str, namespace: str, dimension: int) -> Space:
        """The space, with all that is committed at this moment."""
        con = self._reader.open()
        if self._reader.opened != self._opened:  # what is known is another file's
            self._opened, self._spaces, self._held = self._reader.opened, OrderedDict(), 0
        (version,) = con.execute("PRAGMA data_version").fetchone()
        place = (scope, namespace, dimension)
        space = self._spaces.pop(place, None)
        if space is None:
            space = Space(dimension)
        self._held -= space.counted
        if space.version != version:
            self._catch_up(con, space, place)
            space.version = version
        if len(space):  # of namespaces that hold nothing there is no end, and nothing to remember
            self._spaces[place] = space
            self._held += space.count()
            self._trim()
        return space

    def _catch_up(self, con: Connection, space: Space, place: tuple[str, str, int]) -> None:
        scope, namespace, dimension = place
        (cut,) = con.execute(_CUT, (scope,)).fetchone()
        if type(cut) is int and cut > space.cut:
            space.drop_until(cut)
        name = _space(scope, namespace)
        if not space.last:
            space.reserve(con.execute("SELECT count(*) FROM entries WHERE space = ?", (name,)).fetchone()[0])
        rows = con.execute(_PAST, (name, space.last))
        while batch := rows.fetchmany(_BATCH):
            self._take(space, batch, name, dimension)
            space.last = int(batch[-1][0])

    def _take(
        self,
        space: Space,
        batch: list[tuple[int, object, object]],
        name: bytes,
        dimension: int,
    ) -> None:
        """Rows that are whole, ours and of this dimension; the others are none."""
        numbers, rows, raw = [], [], []
        for number, key, body in batch:
            if type(key) is not str or type(body) is not bytes:
                self.troubles["damaged"] += 1
                continue
            known = unpacked(self._seal, name, key, body) if body else None
            if known is None or len(known[1]) != 4 * dimension:
                self.troubles["damaged"] += bool(body)
                space.drop(key)  # removed, or whatever it says now cannot be read
                continue
            numbers.append(number)
            rows.append(known[0])
            raw.append(known[1])
        if not rows:
            return
        vectors = (
            np.frombuffer(b"".join(raw), "<f4").reshape(len(rows), dimension).astype(np.float32, copy=False)
        )
        sound = units(vectors)
        if not sound.all():
            self.troubles["damaged"] += int(len(sound) - sound.sum())
            for at in np.flatnonzero(~sound).tolist():
                space.drop(rows[at].key)
            keep = np.flatnonzero(sound).tolist()
            numbers, rows, vectors = [numbers[i] for i in keep], [rows[i] for i in keep], vectors[sound]
        space.put(numbers, rows, vectors)

    def _trim(self) -> None:
        while self._held > self._memory_limit and len(self._spaces) > 1:
            _, gone = self._spaces.popitem(last=False)
            self._held -= gone.counted

    def _read(self, look: Callable[[], T]) -> T | None:
        """What a look at the file finds; None where the disk fails, or the file is damaged and then replaced."""
        try:
            return look()
        except Exception as exc:  # noqa: BLE001 - trouble with the index is a miss (DESIGN decision 2), whatever it is
            self._trouble(self._reader, exc, "failed")
            self._opened = -1
            return None

    def _write(self, write: Callable[[Connection], T]) -> T | Exception:
        """What the change returns, or what was in its way."""
        with self._writing, forks.inside:
            try:
                return write(self._writer.open())
            except Exception as exc:  # noqa: BLE001 - as above
                self._trouble(self._writer, exc, "unwritten")
                return exc

    def _surely(self, write: Callable[[Connection], T], what: str) -> T:
        """Tried for a while; what was asked for must not silently not happen."""
        end = time.monotonic() + _PATIENCE
        self._writer.hasten()
        while isinstance(done := self._write(write), Exception):
            if not is_busy(done) or time.monotonic() > end:
                raise FolderError(
                    f"{what}: the index could not be changed ({type(done).__name__}: {done}); call again"
                ) from done
            self._writer.hasten()
        return done

    def _trouble(self, door: Door, error: Exception, kind: str) -> None:
        if is_damage(error):
            self.troubles["damaged"] += 1
            door.set_aside()
        else:
            self.troubles[kind] += 1

    def _tidy(self, con: Connection, now: float) -> None:
        """Expired rows go, and beyond the limit the oldest: a few at a time, so that no call waits for many."""
        con.execute(
            "DELETE FROM entries WHERE seq IN (SELECT seq FROM entries WHERE expires < ? LIMIT ?)",
            (now, _TIDY_MOST),
        )
        used, free, page = (
            con.execute(f"PRAGMA {what}").fetchone()[0]
            for what in ("page_count", "freelist_count", "page_size")
        )
        if (used - free) * page <= self._size_limit:
            return
        with transaction(con):
            (cut,) = con.execute(
                "SELECT max(seq) FROM (SELECT seq FROM entries ORDER BY seq LIMIT ?)", (_TIDY_MOST,)
            ).fetchone()
            con.execute("DELETE FROM entries WHERE seq <= ?", (cut,))
            con.execute(_RAISE_CUT, ("", cut))


def _without(scope: str, namespace: str, key: str) -> Callable[[Connection], bool]:
    space = _space(scope, namespace)

    def write(con: Connection) -> bool:
        with transaction(con):
            there = con.execute(
                "SELECT 1 FROM entries WHERE space = ? AND key = ? AND length(body)", (space, key)
            ).fetchone()
            if there:
                con.execute(_PUT, (space, scope, key, None, b""))
            return bool(there)

    return write


def _space(scope: str, namespace: str) -> bytes:
    text = f"{len(scope)}:{scope}{namespace}"
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
