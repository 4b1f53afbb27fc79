"""BERT's tokenizer: words split into the longest pieces of a vocabulary (Devlin et al. 2018; uncased, accents removed).

The vocabulary in this folder is bert-base-uncased's (Google, Apache-2.0), which MiniLM was trained with.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from costkit.errors import EncoderError
from costkit.folder import read_file

__all__ = ["WordPiece"]

_ASCII_WORD = re.compile(r"[a-z0-9]+|[!-/:-@\[-`{-~]")
_ASCII_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_IDEOGRAPHS = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F), (0x2B920, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip
_LONGEST_WORD = 100


class WordPiece:
    """Token numbers of a text, without the marks for its beginning and end (``first``, ``last``).

    >>> pieces = WordPiece.load()
    >>> parts = ("una", "##ffa", "##ble", "ref", "##unds", "!")
    >>> pieces.tokens("Unaffable refunds!") == [pieces.number[part] for part in parts]
    True
    """

    def __init__(self, pieces: list[str]) -> None:
        self.number = {piece: number for number, piece in enumerate(pieces)}
        self.unknown, self.first, self.last = (self.number[mark] for mark in ("[UNK]", "[CLS]", "[SEP]"))

    @classmethod
    def load(cls) -> WordPiece:
        """With the vocabulary that costkit ships.

        Raises:
            EncoderError: it is damaged.
        """
        pieces = read_file(Path(__file__).with_name("vocab.txt"), 1 << 20)[0].decode().split("\n")[:-1]
        if len(pieces) != 30_522:
            raise EncoderError("costkit/embed/vocab.txt is damaged; install costkit anew")
        return cls(pieces)

    def tokens(self, text: str, most: int | None = None) -> list[int]:
        """The text's tokens; one more than ``most`` at least if it has more, but not all of them then."""
        found: list[int] = []
        for word in _words(text):
            found += self._pieces(word)
            if most is not None and len(found) > most:
                break
        return found

    def _pieces(self, word: str) -> list[int]:
        """The longest piece first; a word that has no split, or is very long, is one unknown token."""
        whole = self.number.get(word)
        if whole is not None:
            return [whole]
        if len(word) > _LONGEST_WORD:
            return [self.unknown]
        found, start = [], 0
        while start < len(word):
            for end in range(len(word), start, -1):
                number = self.number.get(word[start:end] if not start else "##" + word[start:end])
                if number is not None:
                    found.append(number)
                    start = end
                    break
            else:
                return [self.unknown]
        return found


def _words(text: str) -> list[str]:
    if text.isascii():
        return _ASCII_WORD.findall(_ASCII_CONTROL.sub("", text).lower())
    clean = "".join(map(_cleaned, text))
    bare = "".join(c for c in unicodedata.normalize("NFD", clean) if unicodedata.category(c) != "Mn")
    # One character at a time: str.lower() of a whole word knows the Greek final sigma, the vocabulary does not.
    low = "".join(map(str.lower, bare))
    return "".join(f" {c} " if _is_punctuation(c) else c for c in low).split()


def _cleaned(c: str) -> str:
    if c in "\t\n\r":
        return " "
    if c == "\ufffd" or unicodedata.category(c) in ("Cc", "Cf", "Co", "Cs"):
        return ""
    if c.isspace():
        return " "
    code = ord(c)
    return f" {c} " if any(low <= code <= high for low, high in _IDEOGRAPHS) else c


def _is_punctuation(c: str) -> bool:
    return c in "$+<=>^`|~" or unicodedata.category(c)[0] == "P"
