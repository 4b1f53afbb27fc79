"""The English words that the reader of marks knows, and what each means."""

from __future__ import annotations

from enum import Enum, auto

__all__ = [
    "ABBREVIATIONS",
    "BEFORE_MONTH",
    "DETERMINERS",
    "EACH",
    "ME",
    "MEASURES",
    "SPECIAL",
    "SUFFIXES",
    "UNITS",
    "Kind",
]


class Kind(Enum):
    """What a piece of a text is."""

    NUMBER = auto()
    TEXT_NUMBER = auto()  # a fraction such as 1/2, kept as written
    WORD = auto()  # a number in words
    ORDINAL = auto()
    ORDINAL_WORD = auto()
    TIMES = auto()  # thousand, million
    UNIT = auto()
    SIGN = auto()
    CURRENCY = auto()
    MONTH = auto()
    MAYBE_MONTH = auto()
    WEEKDAY = auto()
    NEXT = auto()
    DAY = auto()
    PERIOD = auto()  # part of a day, a date only after next, last, this
    DATE = auto()
    TIME = auto()
    OF = auto()
    ID = auto()
    NAME = auto()
    NOT = auto()
    QUESTION = auto()
    AUXILIARY = auto()


def _words(text: str) -> list[str]:
    return text.split()


_NUMBERS = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
)
_TENS = _words("thirty forty fifty sixty seventy eighty ninety")
_ORDINALS = _words(
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
    "fifteenth sixteenth seventeenth eighteenth nineteenth twentieth"
)
_TIMES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "bn": 9, "mn": 6}
_MONTHS = _words("january february march april may june july august september october november december")
_WEEKDAYS = _words("monday tuesday wednesday thursday friday saturday sunday")
_SHORT_WEEKDAYS = {
    "Mon": 0,
    "Tue": 1,
    "Tues": 1,
    "Wed": 2,
    "Thu": 3,
    "Thur": 3,
    "Thurs": 3,
    "Fri": 4,
    "Sat": 5,
    "Sun": 6,
}
_UNITS = """
second: second seconds sec secs s
minute: minute minutes min mins
hour: hour hours hr hrs h
day: day days
week: week weeks wk wks
month: month months
quarter: quarter quarters
year: year years yr yrs
mg: mg milligram milligrams
g: g gram grams gramme grammes
kg: kg kgs kilo kilos kilogram kilograms
lb: lb lbs
mm: mm millimetre millimetres millimeter millimeters
cm: cm centimetre centimetres centimeter centimeters
m: m metre metres meter meters
km: km kms kilometre kilometres kilometer kilometers
mile: mile miles mi
inch: inch inches
foot: foot feet ft
ml: ml millilitre millilitres milliliter milliliters
l: l litre litres liter liters
kb: kb kilobyte kilobytes
mb: mb megabyte megabytes
gb: gb gigabyte gigabytes
tb: tb terabyte terabytes
ms: ms millisecond milliseconds
%: % percent
usd: $ usd dollar dollars bucks
eur: € eur euro euros
pound: £ gbp pound pounds
yen: ¥ jpy yen
inr: ₹ inr rupee rupees
chf: chf
cent: cent cents
am: am
pm: pm
"""
UNITS = {
    word: unit
    for line in _UNITS.strip().splitlines()
    for unit, _, words in [line.partition(": ")]
    for word in words.split()
}
SUFFIXES = {"k": 3, "bn": 9, "mn": 6}
"""What a letter glued to a number multiplies it by, as a power of ten."""

MEASURES = frozenset(_words("much many long often far soon old big fast"))
EACH = frozenset(_words("a an per each every"))
DETERMINERS = frozenset(_words("the my your our his her their its this that"))
BEFORE_MONTH = frozenset(_words("in since until till by from next last during early late mid"))
ME = frozenset({"i", "i'm", "i'd", "i'll", "i've"})
ABBREVIATIONS = frozenset(_words("mr mrs ms dr prof st vs nr"))

SPECIAL: dict[str, tuple[Kind, str]] = {
    **{word: (Kind.UNIT, unit) for word, unit in UNITS.items()},
    **{word: (Kind.WORD, str(n)) for n, word in enumerate(_NUMBERS)},
    **{word: (Kind.WORD, str(n)) for n, word in zip(range(30, 100, 10), _TENS, strict=True)},
    **{word: (Kind.ORDINAL_WORD, str(n)) for n, word in enumerate(_ORDINALS, 1) if word != "second"},
    **{word: (Kind.TIMES, str(power)) for word, power in _TIMES.items()},
    **{word: (Kind.MONTH, f"{n:02}") for n, word in enumerate(_MONTHS, 1)},
    **{word[:3]: (Kind.MAYBE_MONTH, f"{n:02}") for n, word in enumerate(_MONTHS, 1)},
    "sept": (Kind.MAYBE_MONTH, "09"),
    "march": (Kind.MAYBE_MONTH, "03"),
    **{word: (Kind.WEEKDAY, word) for word in _WEEKDAYS},
    **{f"{word}s": (Kind.WEEKDAY, word) for word in _WEEKDAYS},
    **{f"{word}{end}": (Kind.WEEKDAY, word) for word in ("weekday", "weekend") for end in ("", "s")},
    **{word: (Kind.WEEKDAY, _WEEKDAYS[n]) for word, n in _SHORT_WEEKDAYS.items()},
    **{word: (Kind.NEXT, "next") for word in ("next", "coming", "upcoming", "following")},
    **{word: (Kind.NEXT, "last") for word in ("last", "previous", "past")},
    "this": (Kind.NEXT, "this"),
    **{word: (Kind.DAY, word) for word in ("today", "tomorrow", "yesterday", "tonight")},
    **{word: (Kind.DAY, word) for word in ("noon", "midnight")},
    **{word: (Kind.PERIOD, word) for word in ("morning", "afternoon", "evening", "night")},
    "of": (Kind.OF, ""),
    **{word: (Kind.CURRENCY, UNITS[word]) for word in "$€£¥₹"},
    **{sign: (Kind.SIGN, "-") for sign in ("-", "−", "minus")},
    "dozen": (Kind.WORD, "12"),
    **{word: (Kind.TEXT_NUMBER, word) for word in ("half", "double", "triple")},
    "twice": (Kind.TEXT_NUMBER, "double"),
    **{
        word: (Kind.NOT, "")
        for word in _words(
            "not no never cannot without none nothing nobody nowhere neither nor non dont cant wont isnt "
            "doesnt didnt wasnt arent havent hasnt couldnt wouldnt shouldnt"
        )
    },
    **{word: (Kind.QUESTION, word) for word in _words("who what when where which why how whose")},
    "whom": (Kind.QUESTION, "who"),
    **{
        word: (Kind.AUXILIARY, "yes/no")
        for word in _words(
            "is are was were am do does did can could will would should shall has have had must"
        )
    },
}
