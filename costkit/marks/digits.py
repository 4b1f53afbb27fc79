"""What a piece of text with digits in it says: a number, a date, a time, a range of numbers, or a code."""

from __future__ import annotations

import datetime
import re
import unicodedata

from .tables import SPECIAL, SUFFIXES, UNITS, Kind

__all__ = ["digits", "number"]

Piece = tuple[Kind, str]

_PLAIN = re.compile(r"\d+")
# Thousands by commas (Indian groups of two as well), by points where there are several, or a decimal of either kind.
_NUMBER = re.compile(
    r"\d{1,3}(?:,\d{2,3})*,\d{3}(?:\.\d+)?|\d{1,3}(?:\.\d{3})+(?:,\d+|\.\d{3})|\d*[.,]\d+|\d+"
)
_VERSION = re.compile(r"[1-9]\d?\.\d{0,2}[1-9]0")
_GLUED = re.compile(r"([\d.,]*\d)([^\W\d_]{1,12})")
_ORDINALS = frozenset({"st", "nd", "rd", "th"})
_YEAR_FIRST = re.compile(r"(\d{4})([-/.])(\d\d?)\2(\d\d?)(?:t(\d\d:\d\d)[\w:.+-]*)?")
_YEAR_LAST = re.compile(r"(\d\d?)([-/.])(\d\d?)\2(\d{4}|\d\d)")
_TIME = re.compile(r"(\d\d?):(\d\d)(?::(\d\d))?(am|pm)?")
_FRACTION = re.compile(r"\d{1,4}/\d{1,4}")
_APART = re.compile(r"[-+&]")
_LONGEST = 64  # characters; what is longer is a code, whatever it looks like


def digits(token: str) -> list[Piece]:
    """The pieces of a token that holds a digit, neighbours in order.

    >>> [value for _, value in digits("1,000.50")], [value for _, value in digits("5-7")]
    (['1000.5'], ['5', '7'])
    >>> digits("3.10") == digits("3.1")  # another version, another section
    False
    """
    if _PLAIN.fullmatch(token):
        token = token if token.isascii() else _ascii(token)
        return [(Kind.ID, token)] if token[0] == "0" and len(token) > 1 else [(Kind.NUMBER, token)]
    low = _ascii(token).lower()
    if len(low) > _LONGEST or low[0] == "#":
        return [(Kind.ID, _code(token).removeprefix("#"))]
    if found := _moment(low):
        return found
    if _FRACTION.fullmatch(low):
        return [(Kind.TEXT_NUMBER, low)]
    first, *others = _APART.split(low)
    pieces = _part(first)
    if pieces is None or pieces[0][0] not in (Kind.NUMBER, Kind.ORDINAL) or len(others) > 3:
        return [(Kind.ID, _code(token))]
    for other in others:
        more = _part(other) or ([] if other.isalpha() and len(other) > 2 else None)  # 18-year-old
        if more is None or (len(others) > 1 and not other.isalpha()):
            return [(Kind.ID, _code(token))]
        pieces += more
    return pieces


def number(text: str, power: int = 0) -> str:
    """A decimal number times ten to ``power``, without zeros that say nothing.

    >>> number("1.50", 3), number("007"), number("0.0")
    ('1500', '7', '0')
    """
    before, _, after = text.partition(".")
    after = after.ljust(power, "0")
    before, after = before + after[:power], after[power:].rstrip("0")
    before = before.lstrip("0") or "0"
    return f"{before}.{after}" if after else before


def _ascii(text: str) -> str:
    """Digits of any script as 0 to 9."""
    if text.isascii():
        return text
    return "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)


def _code(token: str) -> str:
    """A code without case, except where its case is mixed and so may mean something."""
    one_case = token.islower() or token.isupper() or token[1:].islower()
    return token.lower() if one_case else token


def _part(low: str) -> list[Piece] | None:
    """One side of a range: a number, a number with its unit, or a word; None for anything else."""
    if _NUMBER.fullmatch(low):
        leading = low[0] == "0" and low.isdigit() and len(low) > 1
        return None if leading else [(Kind.NUMBER, _as_written(_point(low)))]
    if low in SPECIAL:
        return [SPECIAL[low]]
    found = _GLUED.fullmatch(low)
    if found is None or not _NUMBER.fullmatch(found[1]):
        return None
    value, letters = number(_point(found[1])), found[2]
    if letters in _ORDINALS:
        return [(Kind.ORDINAL, value)] if value.isdigit() else None
    if letters in SUFFIXES:
        return [(Kind.NUMBER, number(_point(found[1]), SUFFIXES[letters]))]
    return [(Kind.NUMBER, value), (Kind.UNIT, UNITS[letters])] if letters in UNITS else None


def _as_written(text: str) -> str:
    """The number, with the zeros at its end where it may be one of a version or a section: 3.10, not 1000.0 or 0.50."""
    return text if _VERSION.fullmatch(text) else number(text)


def _point(text: str) -> str:
    """Digits with at most one point, the decimal one."""
    points, commas = text.count("."), text.count(",")
    if points and commas:
        last = "." if text.rfind(".") > text.rfind(",") else ","
        return text.replace("," if last == "." else ".", "").replace(last, ".")
    if points > 1:
        return text.replace(".", "")
    if commas == 1 and len(text) - text.index(",") != 4:
        return text.replace(",", ".")
    return text.replace(",", "")


def _moment(low: str) -> list[Piece] | None:
    """A date or a time of day written in digits."""
    if found := _TIME.fullmatch(low):
        pieces: list[Piece] = [
            (Kind.TIME, f"{int(found[1])}:{found[2]}" + (f":{found[3]}" if found[3] else ""))
        ]
        return [*pieces, (Kind.UNIT, found[4])] if found[4] else pieces
    if found := _YEAR_FIRST.fullmatch(low):
        day = _date(int(found[1]), int(found[3]), int(found[4]))
        pieces = [(Kind.DATE, day)] if day else []
        return [*pieces, (Kind.TIME, found[5])] if day and found[5] else pieces or None
    if found := _YEAR_LAST.fullmatch(low):
        if found[2] == "." and len(found[4]) == 2:
            return None  # as well a version
        one, two, year = int(found[1]), int(found[3]), int(found[4])
        day = _written(one, two, year + 2000 if year < 100 else year, found[2] == ".")
        return [(Kind.DATE, day)] if day else None
    return None


def _written(one: int, two: int, year: int, day_first: bool) -> str | None:
    """The day where only one reading is a date, or points say that the day is first; else as written."""
    first, second = _date(year, two, one), None if day_first else _date(year, one, two)
    if first and second and first != second:
        return f"{one}/{two}/{year}"
    return first or second


def _date(year: int, month: int, day: int) -> str | None:
    try:
        return datetime.date(year, month, day).isoformat()
    except ValueError:
        return None
