"""Named counters in one small sealed file; bumping one makes every entry made under it a miss, in O(1)."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from .errors import FolderError
from .folder import private_file, read_file
from .secret import Seal

__all__ = ["Epochs"]

# About a million counters; a longer file is not one of ours.
_MOST_BYTES = 1 << 26
_PATIENCE = 5.0


class Epochs:
    """The counters of one folder.

    Every process sees a bump at its next call: the file is replaced, and a stat tells. The file has an
    identity of its own, part of every state: when it is lost, damaged, forged, or found to count less than it
    did, its successor has another one, so that no counter that starts again can bring back what was bumped
    away, and ``troubles["damaged"]`` counts it.

    The file carries a checksum, and with a secret a seal too. A kit without the secret reads a sealed file;
    what it then writes is not sealed, and those with the secret take it for damaged.
    """

    def __init__(
        self, folder: Path, *, secret: bytes | None = None, troubles: dict[str, int] | None = None
    ) -> None:
        self._path = folder / "epochs.json"
        self._check = Seal(None, "epochs")
        self._seal = None if secret is None else Seal(secret, "epochs")
        self._seen: tuple[int, int, int] | None = None
        self._identity = ""
        self._counts: dict[str, int] = {}
        self._mutex = threading.Lock()
        self._adrift = False
        self.changes = 0
        self.troubles = {"damaged": 0} if troubles is None else troubles
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
        """Count ``name`` up by one; safe between processes.

        Raises:
            FolderError: it cannot be written down, so nothing was bumped.
        """
        self.refresh()
        with self._mutex, self._locked():
            if not self._read():
                self._identity, self._counts = os.urandom(8).hex(), {}
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
        """Take over what the file says, if it says anything that can be trusted."""
        seen = self._stamp()
        try:
            identity, counts = self._verified(read_file(self._path, _MOST_BYTES)[0])
        except (FolderError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            self._seen = None
            return False
        if identity == self._identity and any(counts.get(k, 0) < n for k, n in self._counts.items()):
            self._seen = None  # an older copy was put in its place
            return False
        if (seen, identity, counts) != (self._seen, self._identity, self._counts):
            self._seen, self._identity, self._counts = seen, identity, counts
            self.changes += 1
        return True

    def _verified(self, raw: bytes) -> tuple[str, dict[str, int]]:
        said = json.loads(raw)
        body: str = said["body"]
        seal, mark = (self._check, "check") if self._seal is None else (self._seal, "seal")
        if not seal.fits(bytes.fromhex(said[mark]), body.encode()):
            raise ValueError("the seal does not fit")
        read = json.loads(body)
        return str(read["identity"]), {str(k): int(v) for k, v in read["counts"].items()}

    def _renew(self) -> None:
        """Start anew under a new identity; one that cannot be written holds for this process."""
        try:
            with self._locked():
                if self._read():
                    return
                self.troubles["damaged"] += bool(self._identity) or os.path.lexists(self._path)
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
        body = json.dumps({"identity": self._identity, "counts": counts})
        said = {"body": body, "check": self._check.mark(body.encode()).hex()}
        if self._seal is not None:
            said["seal"] = self._seal.mark(body.encode()).hex()
        fresh = private_file(self._path.with_suffix(".new"))  # one writer at a time: the lock is held
        try:
            with open(fresh, "w") as handle:
                json.dump(said, handle)
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(fresh, self._path)
        except OSError as exc:
            raise FolderError(
                f"{self._path}: {exc.strerror or exc}; nothing was bumped, make room and call again"
            ) from exc

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Held for writing, alone; a holder that was stopped is waited for ``_PATIENCE`` seconds."""
        import fcntl

        with open(private_file(self._path.with_suffix(".lock")), "r+b") as handle:
            end = time.monotonic() + _PATIENCE
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise FolderError(
                            f"{self._path.name}: another process has held it for {_PATIENCE:.0f} s; stop that one"
                        ) from None
                    time.sleep(0.002)
            try:
                yield
            finally:
                # A child forked meanwhile shares the descriptor: closing ours would not let go.
                fcntl.flock(handle, fcntl.LOCK_UN)
