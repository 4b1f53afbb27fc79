"""The one folder of a kit: ours, private, and marked as such."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from .errors import FolderError

__all__ = ["open_folder", "private_file"]

_MARK = "costkit.json"


def private_file(path: Path) -> Path:
    """Make the file readable and writable by its owner alone, whatever the umask, and return it.

    Raises:
        FolderError: it is a link or a folder, or cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        try:
            os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
    except OSError as exc:
        raise FolderError(
            f"{path}: {exc.strerror or exc}; make it a writable file of your own, or remove it"
        ) from exc
    return path


def open_folder(path: str | os.PathLike[str], *, clock: Callable[[], float] = time.time) -> Path:
    """Make or check the one folder of a kit: ours, private (0700), writable.

    Raises:
        FolderError: it is a file, belongs to someone else, holds something else, or cannot be written.
    """
    folder = Path(path).expanduser()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = folder.stat()
        if not stat.S_ISDIR(info.st_mode):
            raise FolderError(f"Kit(folder={str(path)!r}): this is a file; name a folder")
        if hasattr(os, "getuid") and info.st_uid != os.getuid():
            raise FolderError(
                f"Kit(folder={str(path)!r}): the folder belongs to another user; name one of your own"
            )
        mark = folder / _MARK
        if not mark.exists() and any(folder.iterdir()):
            raise FolderError(
                f"Kit(folder={str(path)!r}): the folder holds other files and no {_MARK}; name a new or "
                "empty folder"
            )
        folder.chmod(0o700)
        if not mark.exists():
            private_file(mark).write_text(json.dumps({"format": 1, "made": clock()}) + "\n")
            private_file(folder / ".gitignore").write_text("*\n")
        elif json.loads(mark.read_text()).get("format") != 1:
            raise FolderError(
                f"Kit(folder={str(path)!r}): made by a newer costkit; upgrade costkit or name another"
            )
        if not os.access(folder, os.W_OK):
            raise FolderError(
                f"Kit(folder={str(path)!r}): the folder is read-only; make it writable or name another"
            )
    except FolderError:
        raise
    except (OSError, ValueError, AttributeError) as exc:
        raise FolderError(
            f"Kit(folder={str(path)!r}): {type(exc).__name__}: {exc}; name a folder that can be written"
        ) from exc
    return folder
