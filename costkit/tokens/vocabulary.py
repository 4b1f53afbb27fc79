"""The vocabularies: placed where tiktoken looks for them, out of an installed wheel instead of a download."""

from __future__ import annotations

import gzip
import hashlib
import os
import tempfile
import threading
import zlib
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from costkit.errors import ConfigError

if TYPE_CHECKING:
    import tiktoken

# tiktoken looks a vocabulary up under the SHA-1 of its address, and trusts it by its SHA-256.
_VOCABULARY = {
    "cl100k_base": (
        "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    ),
    "o200k_base": (
        "fb374d419588a4632f3f557e76b4b70aebbca790",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    ),
}
_CACHE_VARIABLES = ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR")

_loading = threading.Lock()


@lru_cache(maxsize=len(_VOCABULARY))
def encoding(name: str) -> tiktoken.Encoding:
    """The encoding of that name. Threads that ask at once wait for one load."""
    import tiktoken

    with _loading:
        try:
            folder = _cache_folder()
            _place(name, folder)
        except (OSError, RuntimeError):  # no home or a read-only one: a file for as long as tiktoken reads it
            with tempfile.TemporaryDirectory(prefix="costkit-") as scratch:
                _place(name, Path(scratch))
                return _load(tiktoken, name, Path(scratch))
        return _load(tiktoken, name, folder)


def _load(module: Any, name: str, folder: Path) -> tiktoken.Encoding:
    """The encoding; tiktoken's cache folder is set only while it loads: the environment stays the user's."""
    variable = _CACHE_VARIABLES[0]
    before = os.environ.get(variable)
    os.environ[variable] = str(folder)
    try:
        encoding: tiktoken.Encoding = module.get_encoding(name)
        return encoding
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


def _cache_folder() -> Path:
    for variable in _CACHE_VARIABLES:
        if chosen := os.environ.get(variable):
            return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    return root / "costkit" / "tiktoken"


def _place(name: str, folder: Path) -> None:
    """Puts the packaged vocabulary where tiktoken looks for it, whole or not at all.

    tiktoken deletes a file with a wrong digest and downloads another, so the digest is checked first.
    Processes that do this at once each rename their own complete file over the same name.
    """
    file_name, digest = _VOCABULARY[name]
    target = folder / file_name
    try:
        if hashlib.sha256(target.read_bytes()).hexdigest() == digest:
            return
    except FileNotFoundError:
        pass
    content = packaged(name, digest)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=folder, prefix=file_name, suffix=".tmp")  # 0600
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        os.replace(scratch, target)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise


def packaged(name: str, digest: str) -> bytes:
    """The vocabulary as bpe-openai ships it; the package itself (74 MB of machine code) is not imported."""
    spec = find_spec("bpe_openai")
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / "data" / f"{name}.tiktoken.gz"
        if path.is_file():
            try:
                content = gzip.decompress(path.read_bytes())
            except (OSError, EOFError, zlib.error) as problem:
                raise ConfigError(f"{path} cannot be read: reinstall bpe-openai") from problem
            if hashlib.sha256(content).hexdigest() == digest:
                return content
            raise ConfigError(f"{path} is not the vocabulary tiktoken expects: reinstall bpe-openai")
    raise ConfigError(f"no offline vocabulary for {name}: pip install 'bpe-openai>=0.1.4,<0.2'")


def _forked() -> None:
    """A thread of the parent that held the lock does not live in the child."""
    global _loading
    _loading = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
