"""How many tokens a text is, counted here and now, without any network.

Counts are exact for OpenAI models: tiktoken does the counting, and its vocabulary files come out of the
bpe-openai wheel instead of a download. For other models the count is an estimate by o200k_base; DESIGN's
per-model correction factors, learned from reported usage, belong into :func:`estimate`.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import tempfile
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from costkit.call import Usage
from costkit.errors import ConfigError

if TYPE_CHECKING:
    import tiktoken

__all__ = ["count", "count_messages", "encoding_for", "estimate"]

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
_CL100K = re.compile(r"gpt-4(?![.o\d])|gpt-3|gpt-35|text-embedding-")

# Both vocabularies split text by a regular expression whose engine overflows its stack on millions of equal
# characters, so long texts are counted in windows. A window ends before one of these characters where a
# letter or number precedes: both expressions always split there, so the sum stays exact.
_WINDOW = 50_000
_SPLIT = re.compile(r"(?<=[^\W_])[ ,.;:!?\n。，、]")

_loading = threading.Lock()


def encoding_for(model: str | None) -> str:
    """Name of the tiktoken encoding for a model; unknown models count as ``o200k_base``.

    >>> encoding_for("gpt-5-mini"), encoding_for("gpt-4-turbo"), encoding_for("qwen3-8b")
    ('o200k_base', 'cl100k_base', 'o200k_base')
    """
    name = (model or "").lower().rsplit("/", 1)[-1].removeprefix("ft:")
    return "cl100k_base" if _CL100K.match(name) else "o200k_base"


def count(text: str, *, model: str | None = None) -> int:
    """Tokens of ``text``, exact for OpenAI models. Special tokens in the text count as ordinary text.

    Texts over 50,000 characters are counted in windows: still exact, unless a window holds no word end at
    all, where each cut may add a token or two. Lone surrogates count as the replacement character.
    Raises ConfigError where no vocabulary file can be had offline.

    >>> count("How long do refunds take?"), count("<|endoftext|>")
    (6, 7)
    """
    encoding = _encoding(encoding_for(model))
    return sum(len(encoding.encode_ordinary(part)) for part in _windows(text, _WINDOW))


def count_messages(messages: Sequence[Mapping[str, Any]], *, model: str | None = None) -> int:
    """Prompt tokens of a chat: OpenAI's rule of 3 per message, 1 per name and 3 to prime the reply.

    Text parts and the text of tool calls are counted; images, audio and tool definitions are not.

    >>> count_messages([{"role": "user", "content": "How long do refunds take?"}])
    13
    """
    total = 3
    for message in messages:
        total += 3 + count(str(message.get("role", "")), model=model)
        total += sum(count(text, model=model) for text in _texts(message))
        if isinstance(name := message.get("name"), str):
            total += 1 + count(name, model=model)
    return total


def estimate(model: str | None, prompt: str | Sequence[Mapping[str, Any]], completion: str) -> Usage:
    """Usage of a call whose provider reported none, from the text sent and received: ``state="estimated"``.

    >>> estimate("gpt-5-mini", "How long do refunds take?", "Five days.")
    Usage(in_fresh=6, cache_read=0, cache_write_5m=0, cache_write_1h=0, out_text=3, out_reasoning=0, \
state='estimated')
    """
    sent = count(prompt, model=model) if isinstance(prompt, str) else count_messages(prompt, model=model)
    return Usage(in_fresh=sent, out_text=count(completion, model=model), state="estimated")


def _texts(message: Mapping[str, Any]) -> Iterator[str]:
    content = message.get("content")
    if isinstance(content, str):
        yield content
    elif isinstance(content, Sequence):
        for part in content:
            if isinstance(part, Mapping) and isinstance(text := part.get("text"), str):
                yield text
    for call in message.get("tool_calls") or ():
        function = call.get("function") if isinstance(call, Mapping) else None
        if isinstance(function, Mapping):
            yield from (text for text in function.values() if isinstance(text, str))


def _windows(text: str, size: int) -> Iterator[str]:
    start = 0
    while len(text) - start > size:
        end = start + size
        # Searched from the back in growing steps: a word ends within a few characters in real text.
        for reach in (64, 2_048, size - 1):
            cuts = [cut.start() for cut in _SPLIT.finditer(text, max(start + 1, end - reach), end)]
            if cuts:
                end = cuts[-1]
                break
        yield text[start:end]
        start = end
    yield text[start:]


@lru_cache(maxsize=len(_VOCABULARY))
def _encoding(name: str) -> tiktoken.Encoding:
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
    content = _packaged(name, digest)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=folder, prefix=file_name, suffix=".tmp")  # 0600
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        os.replace(scratch, target)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise


def _packaged(name: str, digest: str) -> bytes:
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
