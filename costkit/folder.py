"""The one folder of a kit: ours, private, and marked as such."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

from .errors import FolderError

__all__ = ["kept_key", "open_folder", "private_file", "private_folder", "read_file"]

_MARK = "costkit.json"
_FORMAT = 1
_YOUNG = (_MARK, ".gitignore")  # what a folder of ours holds before it is marked
_OURS = (*_YOUNG, "cache", "epochs", "ledger", "leases", "index")
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
# A named pipe that somebody left in a file's place must not make us wait for a writer.
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)


def private_file(path: Path) -> Path:
    """Make the file readable and writable by its owner alone, whatever the umask, and return it.

    One that exists is not opened: closing it again would drop the locks that SQLite holds on it for this process.

    Raises:
        FolderError: it is a link, a folder or a pipe, or cannot be written.
    """
    try:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK, 0o600)
        except FileExistsError:
            mode = path.lstat().st_mode
            if not stat.S_ISREG(mode):
                raise FolderError(f"{path}: is a link, or no plain file; remove it") from None
            if stat.S_IMODE(mode) != 0o600:
                path.chmod(0o600)
            return path
        try:
            os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
    except OSError as exc:
        raise FolderError(
            f"{path}: {exc.strerror or exc}; make it a writable file of your own, or remove it"
        ) from exc
    return path


def private_folder(path: Path) -> Path:
    """Make the folder, and those missing above it, for its owner alone (0700), whatever the umask.

    Raises:
        FolderError: it is a link or no folder, or belongs to another user.
        OSError: it cannot be made.
    """
    for missing in reversed([above for above in path.parents if not above.exists()]):
        _made(missing)
    _made(path)
    info = path.lstat()
    if not stat.S_ISDIR(info.st_mode):
        raise FolderError(f"{path}: is a link or no folder; remove it")
    if hasattr(os, "geteuid") and info.st_uid != os.geteuid():
        raise FolderError(f"{path}: belongs to another user; name one of your own")
    path.chmod(0o700)
    return path


def _made(path: Path) -> None:
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        return
    path.chmod(0o700)


def read_file(path: Path, most: int) -> tuple[bytes, os.stat_result]:
    """The bytes of a plain file and its status, from one descriptor; follows no link, waits for no pipe.

    Raises:
        FolderError: it is missing, no plain file, longer than ``most`` bytes, or cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | _NO_LINK | _NO_WAIT)
        with open(descriptor, "rb") as handle:
            info = os.fstat(descriptor)
            if not stat.S_ISREG(info.st_mode):
                raise FolderError(f"{path}: is no plain file; name one")
            if info.st_size > most:
                raise FolderError(f"{path}: {info.st_size} bytes, where at most {most} are expected")
            return handle.read(most), info
    except OSError as exc:
        link = ", or a link, which is not followed" if path.is_symlink() else ""
        raise FolderError(f"{path}: {exc.strerror or exc}{link}; name a plain file of your own") from exc


def kept_key(path: Path) -> bytes:
    """The 32 random bytes that stand in this private file; whoever asks first makes them.

    Raises:
        FolderError: it is a link or no plain file, or cannot be read or made.
    """
    try:
        fresh = private_file(path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}"))
        try:
            fresh.write_bytes(os.urandom(32))
            with contextlib.suppress(FileExistsError):
                _linked(fresh, path)  # whole, and never over another's
        finally:
            fresh.unlink(missing_ok=True)
        key, _ = read_file(private_file(path), 32)
    except OSError as exc:
        raise FolderError(f"{path}: {exc.strerror or exc}; make its folder writable") from exc
    if len(key) != 32:
        raise FolderError(f"{path}: damaged; remove it")
    return key


def _linked(fresh: Path, path: Path) -> None:
    try:
        os.link(fresh, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if not path.exists():
            os.replace(fresh, path)


def open_folder(path: str | os.PathLike[str], *, clock: Callable[[], float] = time.time) -> Path:
    """Make or check the one folder of a kit: ours, private (0700), writable.

    Raises:
        FolderError: it is a file, belongs to someone else, holds something else, or cannot be written.
    """
    folder = Path(path).expanduser()
    try:
        # A link to the folder is the user's own choice; links inside it are not.
        folder = folder.resolve() if folder.is_symlink() else folder
        if folder.exists() and not folder.is_dir():
            raise FolderError(f"Kit(folder={str(path)!r}): this is a file; name a folder")
        mark = folder / _MARK
        # Asked twice: another process may be making the folder at this moment.
        if not mark.exists() and _foreign(folder, _YOUNG) and not mark.exists():
            raise FolderError(
                f"Kit(folder={str(path)!r}): the folder holds other files and no {_MARK}; name a new or "
                "empty folder"
            )
        private_folder(folder)
        if not _marked(mark, str(path)):
            _mark(mark, clock())
        if not os.access(folder, os.W_OK):
            raise FolderError(
                f"Kit(folder={str(path)!r}): the folder is read-only; make it writable or name another"
            )
    except FolderError as exc:
        text = str(exc)
        raise (
            exc if text.startswith("Kit(") else FolderError(f"Kit(folder={str(path)!r}): {text}")
        ) from None
    except (OSError, ValueError) as exc:
        raise FolderError(
            f"Kit(folder={str(path)!r}): {type(exc).__name__}: {exc}; name a folder that can be written"
        ) from exc
    return folder


def _foreign(folder: Path, ours: tuple[str, ...]) -> bool:
    return folder.exists() and any(not p.name.startswith(ours) for p in folder.iterdir())


def _marked(mark: Path, path: str) -> bool:
    """Whether the mark stands; one that a crash or the disk damaged is made again if all else here is ours."""
    try:
        raw, _ = read_file(mark, 1 << 16)
    except FolderError as exc:
        if isinstance(exc.__cause__, FileNotFoundError):
            return False
        raise
    try:
        said = json.loads(raw)
        kind, whole = said.get("format"), said.get("check") in (None, _check(said))
    except (ValueError, AttributeError, RecursionError):
        kind, whole = None, False
    if whole and kind == _FORMAT:
        private_file(mark)
        return True
    if whole and isinstance(kind, int):
        raise FolderError(f"Kit(folder={path!r}): made by a newer costkit; upgrade costkit or name another")
    if _foreign(mark.parent, _OURS):
        raise FolderError(
            f"Kit(folder={path!r}): its {_MARK} is damaged and it holds other files; name a new or empty folder"
        )
    return False


def _mark(mark: Path, made: float) -> None:
    """Whole or not at all: others may be opening the folder at this moment."""
    said: dict[str, object] = {"format": _FORMAT, "made": made}
    for path, text in (
        (mark.with_name(".gitignore"), "*\n"),
        (mark, json.dumps({**said, "check": _check(said)}) + "\n"),
    ):
        fresh = private_file(path.with_name(f"{_MARK}.{os.getpid()}.{threading.get_ident()}"))
        fresh.write_text(text)
        os.replace(fresh, path)


def _check(said: dict[str, object]) -> str:
    text = json.dumps([said.get("format"), said.get("made")])
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
