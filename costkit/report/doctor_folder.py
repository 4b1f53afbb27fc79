"""What doctor says of files: whose they are, who may read them, what they lie on, and whether they are sealed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

from .. import secret as secrets
from ..errors import CostkitError
from .check import Check
from .read import connect_to_read

__all__ = ["disk_checks", "folder_checks", "secret_checks"]

_OURS = re.compile(
    r"costkit\.json(\..*)?|\.gitignore|ledger\.(db|damaged-.*)(-wal|-shm|-journal)?|ledger\..*|cache|cache\.damaged-.*"
    r"|epochs\..*|leases|index(\.damaged-.*)?|index\.key.*"
)
_REMOTE = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "afs",
    "ceph",
    "glusterfs",
    "lustre",
    "vboxsf",
    "beegfs",
}
_SAMPLE = 200
_MIB = 1 << 20


def folder_checks(folder: Path) -> Iterator[Check]:
    """The folder and every file in it: owner, modes, links, strangers."""
    if not folder.is_dir():
        yield Check(
            "bad", "folder", f"{folder} does not exist or is no folder", "name the kit's own with --folder"
        )
        return
    if not (folder / "costkit.json").exists():
        yield Check("bad", "folder", f"{folder} has no costkit.json", "name the kit's own with --folder")
    else:
        yield _owner(folder)
    files = sorted(folder.rglob("*"))[:10_000]
    yield _modes(folder, files)
    strangers = [p.name for p in sorted(folder.iterdir()) if not _OURS.fullmatch(p.name)]
    if strangers:
        yield Check(
            "warn", "foreign files", ", ".join(strangers[:5]), "move them out: a kit's folder is its own"
        )
    aside = [p.name for p in sorted(folder.iterdir()) if ".damaged-" in p.name]
    if aside:
        yield Check(
            "warn",
            "set aside",
            ", ".join(aside[:5]),
            "damaged files a kit put away: look, then delete them by hand",
        )


def _owner(folder: Path) -> Check:
    info = folder.stat()
    if hasattr(os, "getuid") and info.st_uid != os.getuid():
        return Check("bad", "folder", f"{folder} belongs to user {info.st_uid}", "name a folder of your own")
    if not os.access(folder, os.W_OK):
        return Check(
            "bad", "folder", f"{folder} is read-only", "make it writable: nothing is kept or recorded"
        )
    return Check("ok", "folder", str(folder))


def _modes(folder: Path, files: list[Path]) -> Check:
    links = [p.name for p in files if p.is_symlink()]
    if links:
        return Check("bad", "files", f"links: {', '.join(links[:5])}", "remove them: a kit makes none")
    open_to_all = [p for p in [folder, *files] if _mode(p) & 0o077]
    if open_to_all:
        names = ", ".join(f"{p.name} ({_mode(p):o})" for p in open_to_all[:5])
        return Check("bad", "files", f"others may open {names}", f"chmod -R u=rwX,go= {folder}")
    return Check("ok", "files", f"{len(files)} in it, private to their owner")


def _mode(path: Path) -> int:
    try:
        return stat.S_IMODE(path.lstat().st_mode)
    except OSError:
        return 0  # gone meanwhile: another process works here


def secret_checks(folder: Path) -> Iterator[Check]:
    """Whether a secret is set, and whether the newest answers verify with it; it is never shown."""
    try:
        found = secrets.find(None, None, folder)
    except CostkitError as exc:
        yield Check("bad", "secret", str(exc), "set it right; kits refuse to start like this")
        return
    if found is None:
        yield Check(
            "warn",
            "secret",
            "none in this environment: damage is found, forgery is not",
            "set COSTKIT_SECRET or COSTKIT_SECRET_FILE where others can write the folder",
        )
    else:
        yield Check("ok", "secret", "set in this environment")
    path = folder / "cache" / "cache.db"
    if path.exists():
        with contextlib.suppress(sqlite3.Error):  # the cache's own check says so
            yield _verified(path, found)


def _verified(path: Path, secret: bytes | None) -> Check:
    seal = secrets.Seal(secret, "entry")
    with contextlib.closing(connect_to_read(path)) as con:
        con.text_factory = bytes
        rows = con.execute(
            "SELECT tag, key, value FROM Cache ORDER BY store_time DESC LIMIT ?", (_SAMPLE,)
        ).fetchall()
    whole = [row for row in rows if all(type(part) is bytes for part in row)]
    size = seal.SIZE
    good = sum(seal.fits(value[:size], tag, key, value[size:]) for tag, key, value in whole)
    kinds = {value[:1] for _, _, value in whole}
    if good == len(rows):
        return Check("ok", "seal", f"the newest {good} answers verify")
    found = f"{len(rows) - good} of the newest {len(rows)} answers do not verify"
    if secret is None and b"\x02" in kinds:
        return Check(
            "warn", "seal", f"{found}: they are sealed", "set the secret that their kit has, and look again"
        )
    if secret is not None and kinds == {b"\x01"}:
        return Check(
            "warn", "seal", f"{found}: they were made without a secret", "nothing: they are misses now"
        )
    return Check(
        "bad", "seal", found, "damaged, forged, or of another secret: all are misses; find out who wrote them"
    )


def disk_checks(folder: Path) -> Iterator[Check]:
    """Room, and a file system whose locks SQLite can trust."""
    free = shutil.disk_usage(folder).free
    size = f"{free / _MIB:,.0f} MiB free"
    if free < 50 * _MIB:
        yield Check("bad", "disk", size, "make room: what is not written is not recorded, and budgets refuse")
    else:
        yield Check(
            "ok" if free > 500 * _MIB else "warn", "disk", size, "" if free > 500 * _MIB else "make room"
        )
    kind = _file_system(folder)
    if kind is None:
        yield Check("ok", "file system", "not known on this platform; keep the folder on a local disk")
    elif kind in _REMOTE or kind.startswith("fuse."):
        yield Check(
            "bad" if kind in _REMOTE else "warn",
            "file system",
            f"{kind}: locks between machines cannot be relied on",
            "move the folder to a local disk",
        )
    else:
        yield Check("ok", "file system", kind)


def _file_system(folder: Path) -> str | None:
    try:
        lines = Path("/proc/self/mounts").read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    here, best, kind = folder.resolve(), -1, None
    for line in lines:
        parts = line.split(" ")
        if len(parts) < 3:
            continue
        at = Path(re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), parts[1]))
        if (at == here or at in here.parents) and len(at.parts) >= best:
            best, kind = len(at.parts), parts[2]
    return kind
