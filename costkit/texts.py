"""Texts as a person reads them: one normal form, and whether a text refuses to answer.

NFKC alone reads "10²" as 102 and "1½" as 11/2; here they stay "10^2" and "1 1/2". Letters that only look alike
(a Cyrillic "а" for a Latin "a") stay different.
"""

from __future__ import annotations

import unicodedata

__all__ = ["REFUSALS", "plain", "refuses", "whole"]

# A function that returns plain text refuses in words; one that returns an object says so in a field.
REFUSALS = (
    "do not answer", "does not answer", "cannot answer", "can't answer", "unable to answer", "don't know",
    "do not know", "no information", "not have information", "couldn't find", "could not find",
    "cannot help", "can't help", "unable to help", "cannot assist", "can't assist", "unable to assist",
)  # fmt: skip

_INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u2060\ufeff"))  # they have neither width nor meaning
_RAISED = {ord(raised): f"^{digit}" for digit, raised in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")}
_FRACTIONS = {
    code: " " + unicodedata.normalize("NFKC", chr(code)).replace("\u2044", "/")
    for code in (*range(0xBC, 0xBF), *range(0x2150, 0x215F))
}
_QUOTES = dict.fromkeys(map(ord, "’‘ʼ"), "'")
_WRITTEN = {**_INVISIBLE, **_RAISED, **_FRACTIONS}


def plain(text: str) -> str:
    """A text in the normal form that comparisons use: Unicode NFKC, no case, single spaces.

    >>> plain("  10²\\u00a0KM ")
    '10^2 km'
    """
    return " ".join(whole(whole(text).casefold()).split())


def whole(text: str) -> str:
    """Unicode NFKC, nothing invisible, case and spaces as written; powers and fractions stay what they are.

    >>> whole("ﬁve ½")
    'five  1/2'
    """
    return text if text.isascii() else unicodedata.normalize("NFKC", text.translate(_WRITTEN))


def refuses(text: str) -> bool:
    """Whether a text says, in one of the usual phrases, that it does not answer.

    >>> refuses("I’m sorry, I can’t help with that."), refuses("It takes 5 days.")
    (True, False)
    """
    folded = plain(text.translate(_QUOTES))
    return any(phrase in folded for phrase in REFUSALS)
