"""The secret that seals what a kit stores: where it comes from, and the seals made with it.

A secret is 16 bytes or more that stand outside the kit's folder: given to the kit, in the environment
(COSTKIT_SECRET), or in a private file (``Kit(secret_file=...)``, COSTKIT_SECRET_FILE). It never leaves this
module but as keys derived from it, one for each purpose, and no key is in a repr, an error or the ledger.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path

from .errors import ConfigError, FolderError
from .folder import read_file

__all__ = ["Seal", "find", "make"]

LEAST_BYTES = 16
_MOST_BYTES = 4096
_SEALED, _CHECKED = b"\x02", b"\x01"


class Seal:
    """Marks bytes so that damage is found, and with a secret forgery too; for one ``purpose``.

    The digest is fixed here, never read from what is stored: HMAC-SHA256 (RFC 2104) under a key derived from
    the secret for this purpose alone, or without a secret a plain BLAKE2b checksum, which anybody can make.

    >>> seal = Seal(b"sixteen bytes or more", "example")
    >>> seal.fits(seal.mark(b"a", b"b"), b"a", b"b"), seal.fits(seal.mark(b"a", b"b"), b"ab", b"")
    (True, False)
    >>> seal
    <Seal for example, with a secret>
    """

    __slots__ = ("_key", "_purpose")

    SIZE = 33

    def __init__(self, secret: bytes | None, purpose: str) -> None:
        self._purpose = purpose.encode()
        self._key = None if secret is None else hmac.digest(secret, b"costkit/1 " + self._purpose, "sha256")

    def mark(self, *parts: bytes) -> bytes:
        """``SIZE`` bytes over the parts: one for the kind of seal, then its digest."""
        message = b"".join(len(part).to_bytes(8, "big") + part for part in (self._purpose, *parts))
        if self._key is not None:
            return _SEALED + hmac.digest(self._key, message, "sha256")
        return _CHECKED + hashlib.blake2b(message, digest_size=32).digest()

    def fits(self, mark: bytes, *parts: bytes) -> bool:
        """Whether this seal made the mark over these parts; takes the same time wherever they differ."""
        return hmac.compare_digest(mark, self.mark(*parts))

    def __repr__(self) -> str:
        return f"<Seal for {self._purpose.decode()}, {'without' if self._key is None else 'with'} a secret>"


def find(given: str | bytes | None, file: str | os.PathLike[str] | None, folder: Path) -> bytes | None:
    """The secret of the kit in ``folder``: as given, from the file, else from the environment; None: there is none.

    Raises:
        ConfigError: it is given twice, too short, or its file is not private to its owner, a link, missing,
            or inside the folder. The message names the mend and shows no byte of the secret.
    """
    if given is not None and file is not None:
        raise ConfigError("Kit(secret=..., secret_file=...): give one of the two")
    if given is not None:
        return _checked(given, "Kit(secret=...)") if given else None
    if file is not None:
        return _read(file, "Kit(secret_file=...)", folder)
    text, named = os.environ.get("COSTKIT_SECRET"), os.environ.get("COSTKIT_SECRET_FILE")
    if text and named:
        raise ConfigError("COSTKIT_SECRET and COSTKIT_SECRET_FILE are both set; unset one of the two")
    if named:
        return _read(named, "COSTKIT_SECRET_FILE", folder)
    return _checked(os.fsencode(text), "COSTKIT_SECRET") if text else None


def make(path: str | os.PathLike[str]) -> Path:
    """Write 32 fresh random bytes, as hex, to a new file that only its owner can read (0600).

    Raises:
        ConfigError: the file exists already, or cannot be written.

    >>> import tempfile
    >>> made = make(tempfile.mkdtemp() + "/secret")
    >>> find(None, made, Path("/nowhere")) == made.read_bytes().strip()
    True
    """
    target = Path(path).expanduser()
    try:
        descriptor = os.open(
            target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600
        )
    except FileExistsError:
        raise ConfigError(f"{target}: exists already and was left alone; name a new file") from None
    except OSError as exc:
        raise ConfigError(f"{target}: {exc.strerror}; name a file in a folder that can be written") from None
    try:
        with open(descriptor, "wb") as handle:
            os.fchmod(handle.fileno(), 0o600)
            handle.write(os.urandom(32).hex().encode() + b"\n")
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as exc:
        target.unlink(missing_ok=True)
        raise ConfigError(f"{target}: {exc.strerror}; name a file that can be written") from None
    return target


def _read(path: str | os.PathLike[str], what: str, folder: Path) -> bytes:
    file = Path(path).expanduser()
    if folder.resolve() in file.resolve().parents:
        raise ConfigError(
            f"{what}: {file} is inside the kit's folder, where whoever can forge answers can read it; move it out"
        )
    try:
        raw, info = read_file(file, _MOST_BYTES)
    except FolderError as exc:
        raise ConfigError(f"{what}: {exc}") from None
    if hasattr(os, "geteuid") and info.st_uid != os.geteuid():
        raise ConfigError(f"{what}: {file} belongs to another user; use a file of your own")
    if info.st_mode & 0o077:
        raise ConfigError(
            f"{what}: others may open {file} (mode {info.st_mode & 0o777:04o}); chmod 600 {file}"
        )
    return _checked(raw.rstrip(b"\r\n"), what)


def _checked(value: str | bytes, what: str) -> bytes:
    if not isinstance(value, (str, bytes)):
        raise ConfigError(f"{what}: text or bytes, not {type(value).__name__}")
    try:
        raw = value.encode() if isinstance(value, str) else value
    except UnicodeEncodeError:
        raise ConfigError(
            f"{what}: not valid text; give bytes, or what secrets.token_hex() returns"
        ) from None
    if len(raw) < LEAST_BYTES:
        raise ConfigError(
            f"{what}: at least {LEAST_BYTES} bytes, not {len(raw)}; for example what secrets.token_hex() returns, "
            "or a file made by costkit.secret.make(path)"
        )
    return raw
