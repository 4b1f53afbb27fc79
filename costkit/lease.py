"""Who makes a cold call, across processes: byte locks on one small file, which the kernel frees when their holder dies.

A key has a row of bytes far past the file's end, one a turn; the caller whose turn it is holds its byte. The row of a
key that nobody calls is free, so nothing is left behind, whoever was killed. A record in the file says until when the
holder's turn lasts, on the monotonic clock, which all processes of one boot share; once it is over, one of those who
wait locks the next byte and has the next turn, and what the one that hangs gives back at last is its own byte.

Nothing here waits for anybody. The locks belong to the open file, not to the process (``F_OFD_SETLK``), so two kits of
one process exclude each other too, and a fork's child has none of them. Where the system has no such locks (macOS),
locks of the process stand in, and two kits of one process may both call. Sharing a call saves money and is never needed
for an answer: where the file gives trouble, everybody leads.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import stat
import struct
import threading
import time
import weakref
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Lease", "Leases", "Taken"]

_KEY = re.compile(r"[0-9a-f]{32,128}")
_TURNS = 64  # a key's row of bytes: so often in a row can it be taken over from one that hangs
_ROWS = 1 << 40  # where the rows begin, far past the records
_RECORDS = 1 << 16  # two keys may share a record: then those who wait for one of them do not know until when
_RECORD = struct.Struct("<16sdB3xI")  # tag, until when, turn, check
_FLOCK = struct.Struct("hhqqi4x")
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)


@dataclass(frozen=True, slots=True)
class Taken:
    """Somebody else makes the call, and may until ``deadline`` (monotonic seconds)."""

    deadline: float


@dataclass(frozen=True, slots=True, eq=False)
class Lease:
    """The claim on one key, until ``deadline``. ``held`` is False where trouble made it one that excludes nobody."""

    _leases: Leases
    _tag: bytes
    _turn: int
    deadline: float
    held: bool

    def release(self) -> None:
        """Give the claim back. Twice, after a takeover, or in a fork's child, does no harm."""
        self._leases._release(self)


@dataclass(frozen=True, slots=True)
class _Record:
    until: float
    turn: int


class Leases:
    """The claims on a folder's keys. ``clock`` is monotonic and the same for all processes of a boot.

    ``troubles`` counts the claims that could not be made for want of a usable file.

    >>> import tempfile
    >>> leases = Leases(Path(tempfile.mkdtemp()))
    >>> mine = leases.claim("0123456789abcdef" * 4, patience=60.0)
    >>> type(leases.claim("0123456789abcdef" * 4, patience=60.0)).__name__
    'Taken'
    >>> mine.release(), type(leases.claim("0123456789abcdef" * 4, patience=60.0)).__name__
    (None, 'Lease')
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock, self._boot = folder / "leases", clock, _boot()
        self._mutex = threading.Lock()
        self._descriptor: int | None = None
        self._closing: Callable[[], object] | None = None
        self._mine: dict[bytes, tuple[Lease, ...]] = {}  # a lock of ours does not keep ourselves out
        self.troubles = 0

    def claim(self, key: str, patience: float) -> Lease | Taken:
        """The claim on a key, or until when somebody else has it; never waits.

        The lease is for ``patience`` seconds; nor is anybody told to wait longer than its own ``patience``. Where it is
        not known how long the holder's turn lasts, that is all that is told, each time anew: who calls again and again
        must count the time itself.

        Raises:
            ValueError: the key is no hex digest of 32 to 128 characters.
        """
        if not _KEY.fullmatch(key):
            raise ValueError(f"claim(key={key!r:.40}): a hex digest of 32 to 128 characters is needed")
        tag = bytes.fromhex(key[:32])
        with self._mutex:
            before: tuple[Lease, ...] = ()
            try:
                file = self._open()
                before = self._mine.get(tag, ())
                return self._claim(file, tag, patience)
            except BaseException as exc:  # Ctrl-C too: a lock without a lease would never be given back
                self._undo(tag, before)
                if not isinstance(exc, OSError):
                    raise
        self.troubles += 1
        return Lease(self, tag, 0, self._clock() + patience, held=False)

    def after_fork(self) -> None:
        """The child leads nothing, and opens a file of its own: its copy would keep the claims of the dead alive."""
        self._mutex = threading.Lock()
        self.close()

    def close(self) -> None:
        """Give everything back. A later claim opens the file again."""
        with self._mutex:
            self._shut()

    def _shut(self) -> None:
        closing, self._closing, self._descriptor = self._closing, None, None
        self._mine = {}
        if closing is not None:
            closing()

    def _open(self) -> int:
        if self._descriptor is not None:
            if os.fstat(self._descriptor).st_nlink:
                return self._descriptor
            self._shut()  # somebody removed the file: who comes later would lock another one
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | _NO_LINK | _NO_WAIT, 0o600)
        self._closing = weakref.finalize(self, os.close, descriptor)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            self._shut()
            raise OSError(f"{self._path}: is no plain file")
        os.fchmod(descriptor, 0o600)
        self._descriptor = descriptor
        return descriptor

    def _claim(self, file: int, tag: bytes, patience: float) -> Lease | Taken:
        mine = self._mine.get(tag)
        ours = mine[-1]._turn if mine else -1
        if ours < 0 and _lock(file, tag, 0):
            return self._lead(file, tag, 0, patience)  # nobody has any turn
        found, longest = self._read(file, tag), self._clock() + patience
        if found is None:
            return Taken(longest)
        over = self._clock() >= found.until
        # The turn itself is free where its holder has ended while one before it still hangs.
        for turn in (found.turn, found.turn + 1) if over else (found.turn,):
            if max(ours, 0) < turn < _TURNS and _lock(file, tag, turn):
                if self._read(file, tag) == found:
                    return self._lead(file, tag, turn, patience)
                _unlock(file, tag, turn, _TURNS)  # somebody was faster
        return Taken(longest if over else min(found.until, longest))

    def _lead(self, file: int, tag: bytes, turn: int, patience: float) -> Lease:
        """Our turn, of which the byte and all later ones are locked: they are freed once the record is written."""
        deadline = self._clock() + patience
        os.pwrite(file, self._record(tag, deadline, turn), _place(tag))
        _unlock(file, tag, turn + 1, _TURNS)
        lease = Lease(self, tag, turn, deadline, held=True)
        self._mine[tag] = (*self._mine.get(tag, ()), lease)
        return lease

    def _release(self, lease: Lease) -> None:
        with self._mutex:
            mine = self._mine.get(lease._tag, ())
            if lease in mine and self._descriptor is not None:
                self._keep(lease._tag, tuple(other for other in mine if other is not lease))
                with contextlib.suppress(OSError):
                    _unlock(self._descriptor, lease._tag, lease._turn, lease._turn + 1)

    def _undo(self, tag: bytes, before: tuple[Lease, ...]) -> None:
        if self._descriptor is not None:
            self._keep(tag, before)
            with contextlib.suppress(OSError):
                _unlock(self._descriptor, tag, before[-1]._turn + 1 if before else 0, _TURNS)

    def _keep(self, tag: bytes, leases: tuple[Lease, ...]) -> None:
        if leases:
            self._mine[tag] = leases
        else:
            self._mine.pop(tag, None)

    def _record(self, tag: bytes, until: float, turn: int) -> bytes:
        check = zlib.crc32(struct.pack("<16sdB", tag, until, turn) + self._boot)
        return _RECORD.pack(tag, until, turn, check)

    def _read(self, file: int, tag: bytes) -> _Record | None:
        """What is said of the key's turn; None where it is damaged, of another key, or of another boot or machine."""
        raw = os.pread(file, _RECORD.size, _place(tag))
        if len(raw) < _RECORD.size or raw[:16] != tag:
            return None
        _, until, turn, _ = _RECORD.unpack(raw)
        if raw != self._record(tag, until, turn) or not math.isfinite(until):
            return None
        return _Record(until, turn)


def _boot() -> bytes:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        return b""


def _place(tag: bytes) -> int:
    return int.from_bytes(tag[-2:], "big") % _RECORDS * _RECORD.size


def _row(tag: bytes) -> int:
    return _ROWS + int.from_bytes(tag[:7], "big") * _TURNS


def _lock(file: int, tag: bytes, turn: int) -> bool:
    """Lock this turn's byte and all later ones of the key, or none of them where somebody has one."""
    import fcntl

    try:
        _set(file, fcntl.F_WRLCK, fcntl.LOCK_EX | fcntl.LOCK_NB, _row(tag) + turn, _TURNS - turn)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _unlock(file: int, tag: bytes, first: int, end: int) -> None:
    import fcntl

    if first < end:
        _set(file, fcntl.F_UNLCK, fcntl.LOCK_UN, _row(tag) + first, end - first)


def _set(file: int, kind: int, portable: int, start: int, length: int) -> None:
    import fcntl

    command = getattr(fcntl, "F_OFD_SETLK", None)
    if command is None:
        fcntl.lockf(file, portable, length, start)
    else:
        fcntl.fcntl(file, command, _FLOCK.pack(kind, os.SEEK_SET, start, length, 0))
