"""One pass over a text for its pieces, one over the few of them that mean something."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

from ..texts import plain, whole
from .digits import digits, number
from .tables import ABBREVIATIONS, BEFORE_MONTH, DETERMINERS, EACH, ME, MEASURES, SPECIAL, Kind

__all__ = ["LONGEST", "Found", "read"]

Item = tuple[int, Kind, str]
"""Where a piece stands (neighbours differ by 1), what it is, its value in normal form."""

# Every repetition is of a class that what follows it excludes, so no text makes the search go back.
_TOKEN = re.compile(
    r"https?://[^\s<>\"]+|www\.[^\s<>\"]+"
    r"|[A-Za-z](?:\+\+|\#)(?!\w)|(?:(?<!\w)\.(?=\d)|\#)?\w+(?:[-'.,:/@+&]\w+)*"
    r"|(?<!\w)[-−](?=[$€£¥₹]?\.?\d)|(?<!\w)@\w+"
    r"|[$€£¥₹%.!?:…。！？\n]"
)
LONGEST = 100_000
"""Characters that are read for marks; what comes after them counts as one id, its digest."""
_ENDERS = frozenset(".!?:…。！？\n")
_APART = re.compile(r"[-./:,&+@_#]+")
_CURLY = str.maketrans({"’": "'", "‘": "'", "ʼ": "'"})
_QUOTED = re.compile(
    r"\"([^\"\n]{1,300})\"|“([^“”\n]{1,300})”|„([^„“”\n]{1,300})[“”]|«([^«»\n]{1,300})»|`([^`\n]{1,300})`"
    r"|(?<!\w)'(?=[^\s'])([^'\n]{1,300})'(?!\w)"
)
_YEAR = re.compile(r"[12]\d{3}")
_URL_ENDS = ".,;:!?'\")]}"
_NOTHING: Item = (-9, Kind.OF, "")


@dataclass(slots=True)
class Found:
    """What a text holds, as it is being read, and where the reader stands."""

    shouted: bool  # all in capitals, which then say nothing
    items: list[Item] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    quotes: list[str] = field(default_factory=list)
    questions: set[str] = field(default_factory=set)
    negations: int = 0
    order: list[str] = field(default_factory=list)
    numbers: list[str] = field(default_factory=list)
    dates: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    place: int = 0
    start: bool = True  # of a sentence
    before: str = ""  # the word before


def read(text: str) -> Found:
    """Everything that :class:`costkit.marks.Marks` tells of a text."""
    rest = ""
    if len(text) > LONGEST:
        rest = hashlib.sha256(text[LONGEST:].encode("utf-8", "surrogatepass")).hexdigest()
        text = text[:LONGEST]
    text = whole(text)
    plainly = text.isascii()
    if not plainly:
        text = text.translate(_CURLY)
    found = Found(shouted=text.isupper())
    if not plainly or '"' in text or "'" in text or "`" in text:
        found.quotes += [plain(max(spans)) for spans in _QUOTED.findall(text)]
    _pieces(text, found)
    if found.items:
        _join(found)
    if len(found.numbers) > 1:
        _swappable(found)
    if rest:
        found.ids.append(rest)
        found.order.append(rest)
    return found


def _pieces(text: str, found: Found) -> None:
    words, items, place = found.words, found.items, 0
    for token in _TOKEN.findall(text):
        place += 1
        if token.isalpha():
            low = token.lower()
            if low != token or low in SPECIAL or found.before == "how":
                found.place = place
                _word(token, low, found)
            else:
                words.append(low)
                found.start, found.before = False, low
        elif token in _ENDERS:
            found.start = not (token == "." and found.before in ABBREVIATIONS)
        elif (mark := SPECIAL.get(token)) is not None:
            items.append((place, *mark))
        elif token.isdecimal() and token.isascii() and token[0] != "0":
            words.append(token)
            items.append((place, Kind.NUMBER, token))
            found.start, found.before = False, token
        else:
            found.place = place
            _mixed(token, found)
            place = found.place
    if found.before == "how":
        found.questions.add("how")


def _word(token: str, low: str, found: Found) -> None:
    found.words.append(low)
    if found.before == "how":
        found.questions.add(f"how {low}" if low in MEASURES else "how")
    if low in SPECIAL:
        _special(token, low, *SPECIAL[low], found)
    elif low != token and not found.shouted:
        if token in SPECIAL:
            found.items.append((found.place, *SPECIAL[token]))
        elif (not found.start or token[1:] != low[1:]) and low not in ME:
            found.items.append((found.place, Kind.NAME, low))
    found.start, found.before = False, low


def _special(token: str, low: str, kind: Kind, value: str, found: Found) -> None:
    """A word of the tables, which is a mark by itself or with its neighbours."""
    if kind is Kind.NOT:
        found.negations += 1
    elif kind is Kind.QUESTION:
        if value != "how":
            found.questions.add(value)
    elif kind is Kind.AUXILIARY:
        if found.start:
            found.questions.add(value)
        if low == "am":
            found.items.append((found.place, Kind.UNIT, low))
    elif kind is Kind.MAYBE_MONTH:
        capital = token != low and not found.start and low in ("may", "march")
        kind = Kind.MONTH if capital or found.before in BEFORE_MONTH else kind
        found.items.append((found.place, kind, value))
    elif kind is Kind.UNIT and found.before in EACH and low not in ("am", "pm", "second"):
        found.items.append((found.place, Kind.TEXT_NUMBER, f"1 {value}"))
    elif low == "second" and found.before in DETERMINERS:
        found.items.append((found.place, Kind.ORDINAL, "2"))
    elif kind is not Kind.ORDINAL_WORD:
        found.items.append((found.place, kind, value))
    elif value != "1" or found.before in DETERMINERS:  # "first" is more often an adverb
        found.items.append((found.place, Kind.ORDINAL, value))


def _mixed(token: str, found: Found) -> None:
    """A token that is not letters alone."""
    if token.startswith(("http://", "https://", "www.")):
        host, slash, path = token.rstrip(_URL_ENDS).rpartition("://")[2].partition("/")
        found.items.append((found.place, Kind.ID, f"{host.lower()}{slash}{path}".removesuffix("/")))
    elif token[0] == "@" or token.endswith(("+", "#")) or ("@" in token[1:-1] and "." in token):
        found.items.append((found.place, Kind.ID, token.lower()))
    elif any(map(str.isdecimal, token)):
        pieces = digits(token)
        found.items += [(found.place + n, kind, value) for n, (kind, value) in enumerate(pieces)]
        found.words.append(token.lower())
        found.place += len(pieces) - 1
    else:
        _compound(token, found)
    found.start, found.before = False, found.words[-1] if found.words else ""


def _compound(token: str, found: Found) -> None:
    """Words joined by hyphens, points and the like; a contraction; a possessive."""
    low = token.lower()
    found.negations += low.endswith("n't")
    if "'" in token and not low.endswith("n't") and low not in ME:
        stem = token.partition("'")[0]
        token = stem if len(stem) > 1 else token
    parts = [part for part in _APART.split(token) if part]
    if len(parts) > 1 and all(len(part) == 1 for part in parts):
        parts = ["".join(parts)]  # U.S
    for part in parts:
        _word(part, part.lower(), found)
        found.place += 1
    found.place -= bool(parts)


def _join(found: Found) -> None:
    """What the pieces say together with their neighbours."""
    items, at = found.items, 0
    while at < len(items):
        _, kind, value = items[at]
        where = _ALONE.get(kind)
        if kind in _SINGLE:
            pass
        elif kind in _DATED and (date := _month(items, at)):
            where, (value, at) = "dates", date
        elif kind in _COUNTED:
            where, value, at = _number(items, at)
        elif kind is Kind.TIME and _near(items, at)[2] in ("am", "pm"):
            where, value, at = "dates", _clock(value, items[at + 1][2]), at + 1
        elif kind is Kind.NEXT and (follows := _near(items, at))[1] in _PERIODS:
            where, value, at = "dates", f"{value} {follows[2]}", at + 1
        if where and value:
            getattr(found, where).append(value)
            found.order.append(value)
        at += 1


def _swappable(found: Found) -> None:
    """In which order numbers of one unit come: 100 from account 200 is not 200 from account 100."""
    of: dict[str, dict[str, None]] = {}
    for value in found.numbers:
        if value[0] in "-0123456789":
            of.setdefault(value.partition(" ")[2], {})[value] = None
    found.numbers += [" > ".join(several) for several in of.values() if len(several) > 1]


_ALONE = {
    **dict.fromkeys((Kind.DATE, Kind.TIME, Kind.DAY, Kind.WEEKDAY), "dates"),
    **{Kind.NAME: "names", Kind.ID: "ids", Kind.TEXT_NUMBER: "numbers"},
}
_SINGLE = frozenset({Kind.NAME, Kind.DATE, Kind.DAY, Kind.WEEKDAY, Kind.TEXT_NUMBER})
_DATED = frozenset({Kind.NUMBER, Kind.ORDINAL, Kind.ID, Kind.MONTH, Kind.MAYBE_MONTH})
_COUNTED = frozenset({Kind.NUMBER, Kind.WORD, Kind.TIMES, Kind.ORDINAL, Kind.SIGN, Kind.CURRENCY})
_PERIODS = frozenset({Kind.UNIT, Kind.WEEKDAY, Kind.MONTH, Kind.PERIOD})
_SIGNS = frozenset({Kind.SIGN, Kind.CURRENCY})
_MONTHS = frozenset({Kind.MONTH, Kind.MAYBE_MONTH})


def _near(items: list[Item], at: int) -> Item:
    """The item after ``at`` where nothing stands between the two."""
    if at + 1 < len(items) and items[at + 1][0] == items[at][0] + 1:
        return items[at + 1]
    return _NOTHING


def _number(items: list[Item], at: int) -> tuple[str, str, int]:
    """A number with its sign, what multiplies it and its unit; its last item. An hour is a date."""
    sign = unit = ""
    while (kind := items[at][1]) in _SIGNS:
        sign, unit = ("-", unit) if kind is Kind.SIGN else (sign, items[at][2])
        if _near(items, at)[1] not in (*_SIGNS, Kind.NUMBER, Kind.WORD):
            return "numbers", "", at
        at += 1
    value = items[at][2]
    if kind is Kind.ORDINAL:
        return "numbers", f"#{value}", at
    follows = _near(items, at)
    if kind is Kind.WORD and value in _TENS and follows[1] is Kind.WORD and len(follows[2]) == 1:
        value, at = value[0] + follows[2], at + 1
    alone = kind is Kind.WORD and value == "1"  # "one" is mostly a pronoun
    if kind is Kind.TIMES:  # "a hundred"
        value = number("1", int(value))
    while (follows := _near(items, at))[1] is Kind.TIMES and len(value) < 40:
        value, at, alone = number(value, int(follows[2])), at + 1, False
    if not unit and follows[1] in (Kind.UNIT, Kind.CURRENCY):
        unit, at, alone = follows[2], at + 1, False
    if unit in ("am", "pm") and len(value) < 3:
        return "dates", _clock(f"{value}:00", unit), at
    if unit and "." in value:
        value = number(value)
    return "numbers", "" if alone else f"{sign}{value} {unit}".rstrip(), at


_TENS = frozenset(str(tens) for tens in range(20, 100, 10))


def _clock(time: str, half: str) -> str:
    """A time of day by 24 hours.

    >>> _clock("12:30", "am"), _clock("5:00", "pm")
    ('0:30', '17:00')
    """
    hour, _, rest = time.partition(":")
    return f"{int(hour) % 12 + (12 if half == 'pm' else 0)}:{rest}"


def _month(items: list[Item], at: int) -> tuple[str, int] | None:
    """A month with its day and year, whichever are there: the date and its last item; None where it is none."""
    day = month = ""
    if items[at][1] in _MONTHS:
        month, named = items[at][2], items[at][1] is Kind.MONTH
        day = _day(_near(items, at))
        at += bool(day)
    elif day := _day(items[at]):
        at += _near(items, at)[1] is Kind.OF
        if (follows := _near(items, at))[1] not in _MONTHS:
            return None
        month, named, at = follows[2], True, at + 1
    else:
        return None
    year = _near(items, at)
    dated = year[1] is Kind.NUMBER and _YEAR.fullmatch(year[2])
    if not (dated or day or named):
        return None
    return "-".join(part for part in (year[2] if dated else "", month, day) if part), at + bool(dated)


def _day(item: Item) -> str:
    """A day of a month in two digits, or nothing."""
    if item[1] in (Kind.NUMBER, Kind.ORDINAL, Kind.ID) and len(item[2]) < 3 and item[2].isdigit():
        return item[2].zfill(2) if 1 <= int(item[2]) <= 31 else ""
    return ""
