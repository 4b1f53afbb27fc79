"""Tokens of a text and of a chat."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from costkit.tokens.vocabulary import encoding

_CL100K = re.compile(r"gpt-4(?![.o\d])|gpt-3|gpt-35|text-embedding-")
_OPENAI = re.compile(r"gpt-(?!oss)|chatgpt-|o\d(-|$)|text-embedding-")

# Both vocabularies split text by a regular expression whose engine overflows its stack on millions of equal
# characters, so long texts are counted in windows. A window ends before one of these characters where a
# letter or number precedes: both expressions always split there, so the sum stays exact.
WINDOW = 50_000
SPLIT = re.compile(r"(?<=[^\W_])[ ,.;:!?\n。，、]")


def encoding_for(model: str | None) -> str:
    """Name of the tiktoken encoding for a model; unknown models count as ``o200k_base``.

    >>> encoding_for("gpt-5-mini"), encoding_for("gpt-4-turbo"), encoding_for("qwen3-8b")
    ('o200k_base', 'cl100k_base', 'o200k_base')
    """
    return "cl100k_base" if _CL100K.match(_bare(model)) else "o200k_base"


def is_openai(model: str | None) -> bool:
    """Whether OpenAI serves a model of this name, so that our count of a text is its own.

    >>> is_openai("openai/gpt-5-mini"), is_openai("gpt-oss-120b"), is_openai("claude-sonnet-5")
    (True, False, False)
    """
    return _OPENAI.match(_bare(model)) is not None


def _bare(model: str | None) -> str:
    return (model or "").lower().rsplit("/", 1)[-1].removeprefix("ft:")


def count(text: str, *, model: str | None = None) -> int:
    """Tokens of ``text``, exact for OpenAI models. Special tokens in the text count as ordinary text.

    Texts over 50,000 characters are counted in windows: still exact, unless a window holds no word end at
    all, where each cut may add a token or two. Lone surrogates count as the replacement character.
    Raises ConfigError where no vocabulary file can be had offline.

    >>> count("How long do refunds take?"), count("<|endoftext|>")
    (6, 7)
    """
    vocabulary = encoding(encoding_for(model))
    return sum(len(vocabulary.encode_ordinary(part)) for part in windows(text, WINDOW))


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


def windows(text: str, size: int) -> Iterator[str]:
    start = 0
    while len(text) - start > size:
        end = start + size
        # Searched from the back in growing steps: a word ends within a few characters in real text.
        for reach in (64, 2_048, size - 1):
            cuts = [cut.start() for cut in SPLIT.finditer(text, max(start + 1, end - reach), end)]
            if cuts:
                end = cuts[-1]
                break
        yield text[start:end]
        start = end
    yield text[start:]
