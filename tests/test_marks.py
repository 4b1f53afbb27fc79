"""Numbers, dates, ids, quoted spans, negations and names of a text."""

from __future__ import annotations

import statistics
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costkit.marks import KINDS, VETO, differs, marks
from costkit.marks.read import LONGEST


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1,000 and 1000 and 1000.0 and 1k", {"1000"}),
        ("1.000.000 or 1,000,000 or 1 million", {"1000000"}),
        ("12,34,567 rupees", {"1234567 inr"}),
        ("1.234,50 or 1,234.50 or 1234.5", {"1234.5"}),
        ("3,5 and 3.5", {"3.5"}),
        (".5 and 0.50", {"0.5"}),
        ("-5 and 5", {"-5", "5", "-5 > 5"}),
        ("minus five, -5", {"-5"}),
        ("a dozen, twelve", {"12"}),
        ("a hundred or 100", {"100"}),
        ("a hundred thousand dollars", {"100000 usd"}),
        ("half of it, twice, double", {"half", "double"}),
        ("a day, per day, each day, one day", {"1 day"}),
        ("I am a man", set()),
        ("100 from 200, 5 days", {"100", "200", "100 > 200", "5 day"}),
        ("a-5", set()),
        ("$5, 5 USD, 5 dollars, 5$", {"5 usd"}),
        ("€5 or $5", {"5 eur", "5 usd"}),
        ("-$5", {"-5 usd"}),
        ("50% or 50 % or 50 percent", {"50 %"}),
        ("5kg, 5 kg, five kilograms", {"5 kg"}),
        ("5 mg and 5 g", {"5 mg", "5 g"}),
        ("5 days, five-day, 5-day", {"5 day"}),
        ("an 18-year-old, a 2-factor login", {"18 year", "2"}),
        ("555-123-4567 and 5-a", set()),
        ("5-7 days", {"5", "7 day"}),
        ("5 to 7 days", {"5", "7 day"}),
        ("twenty-one, twenty one, 21", {"21"}),
        ("two hundred, 2 hundred, 200", {"200"}),
        ("1.5 million, 1500000", {"1500000"}),
        ("the 3rd, the third", {"#3"}),
        ("my first card", {"#1"}),
        ("How do I first log in? Wait a second.", set()),
        ("this one, which one, no one", set()),
        ("one day", {"1 day"}),
        ("zero", {"0"}),
        ("3.10", {"3.10"}),
        ("$3.50 or 3.5 dollars", {"3.5 usd"}),
        ("1/2 or ½ cup", {"1/2"}),
        ("٣ days", {"3 day"}),
        ("३ days", {"3 day"}),
        ("no numbers here", set()),
    ],
)
def test_numbers(text: str, numbers: set[str]) -> None:
    """However a number is written, its value and unit are one mark; another unit is another mark."""
    found = marks(text)
    assert found.numbers == numbers


@pytest.mark.parametrize(
    ("text", "dates"),
    [
        ("2026-05-03", {"2026-05-03"}),
        ("2026/5/3", {"2026-05-03"}),
        ("3 May 2026, May 3, 2026, 3rd of May 2026, 03.05.2026", {"2026-05-03"}),
        ("03 May 2026", {"2026-05-03"}),
        ("31/05/2026 and 5/31/26", {"2026-05-31"}),
        ("05/03/2026", {"5/3/2026"}),
        ("5/5/2026", {"2026-05-05"}),
        ("on 3 May, on May 3rd", {"05-03"}),
        ("in May 2026", {"2026-05"}),
        ("in may", {"05"}),
        ("I may march on", set()),
        ("since March", {"03"}),
        ("3 mar", {"03-03"}),
        ("Monday and mondays", {"monday"}),
        ("by Mon or Fri", {"monday", "friday"}),
        ("on weekdays or this weekend", {"weekday", "this weekend"}),
        ("next week, coming week", {"next week"}),
        ("last monday", {"last monday"}),
        ("today or tomorrow", {"today", "tomorrow"}),
        ("5pm, 5 pm, 17:00", {"17:00"}),
        ("10:30 am", {"10:30"}),
        ("12 am", {"0:00"}),
        ("2026-05-03T10:30:00Z", {"2026-05-03", "10:30"}),
        ("32/13/2026", set()),
        ("good morning", set()),
        ("this morning", {"this morning"}),
    ],
)
def test_dates(text: str, dates: set[str]) -> None:
    """Days, months, weekdays and hours in their several spellings; where two readings are right, neither is taken."""
    assert marks(text).dates == dates


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("order #12345 and KB-101, kb-101", {"12345", "kb-101"}),
        ("aB3dE", {"aB3dE"}),
        ("PIN 0042", {"0042"}),
        ("10.0.0.1 and v2.1", {"10.0.0.1", "v2.1"}),
        ("Mail A.Bee@Example.com now.", {"a.bee@example.com"}),
        ("see https://Example.com/Path?q=1.", {"example.com/Path?q=1"}),
        ("www.example.com/", {"www.example.com"}),
        ("0xDEADBEEF", {"0xDEADBEEF"}),
        ("550e8400-e29b-41d4-a716-446655440000", {"550e8400-e29b-41d4-a716-446655440000"}),
        ("COVID-19", {"covid-19"}),
        ("a 5kg bag", set()),
        ("ask @Anna or @anna", {"@anna"}),
        ("in C++, C# or c", {"c++", "c#"}),
    ],
)
def test_ids(text: str, ids: set[str]) -> None:
    """Codes, addresses and numbers with leading zeros are ids; case counts only where it is mixed."""
    assert marks(text).ids == ids


@pytest.mark.parametrize(
    ("text", "quotes"),
    [
        ('the "Gold plan"', {"gold plan"}),
        ("the “Gold plan” or „Gold plan“ or «Gold plan» or `Gold plan` or 'Gold plan'", {"gold plan"}),
        ("don't say it's not Anna's", set()),
        ('an inch is 1" long', set()),
        ('""', set()),
    ],
)
def test_quoted_spans(text: str, quotes: set[str]) -> None:
    """Spans in any quotation marks, folded; an apostrophe opens none."""
    assert marks(text).quotes == quotes


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("It is refundable", 0),
        ("It is not refundable", 1),
        ("It isn't refundable, it isn’t", 2),
        ("It cannot be refunded", 1),
        ("without a fee, never late, no charge", 3),
        ("non-refundable", 1),
        ("knot, notable, another, nothingness", 0),
    ],
)
def test_negations(text: str, count: int) -> None:
    """Negations are counted as words, contractions among them."""
    assert marks(text).negations == count


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Does Anna's card work in Rome?", {"anna", "rome"}),
        ("Anna left. She went to Rome", {"rome"}),
        ("PayPal and iPhone", {"paypal", "iphone"}),
        ("I think I'm in the U.S. now", {"us"}),
        ("MY CARD IS LOST IN ROME", set()),
        ("Ask Dr. Smith", {"dr", "smith"}),
        ("ATM fees", {"atm"}),
        ("Привет от Анна", {"анна"}),
        ("on Monday in May", set()),
    ],
)
def test_names(text: str, names: set[str]) -> None:
    """Capitalised words inside a sentence, and words with a capital inside; shouting tells nothing."""
    assert marks(text).names == names


@pytest.mark.parametrize(
    ("text", "questions"),
    [
        ("How long does it take?", {"how long"}),
        ("How do I pay, and how much?", {"how", "how much"}),
        ("how", {"how"}),
        ("Can I pay? What if not?", {"yes/no", "what"}),
        ("Whom do I ask", {"who"}),
        ("I can pay", set()),
    ],
)
def test_questions(text: str, questions: set[str]) -> None:
    """What is asked for: the question word, or yes and no."""
    assert marks(text).questions == questions


@pytest.mark.parametrize(
    ("one", "two", "kinds"),
    [
        ("Send 1k to Anna", "send 1,000 to anna", ()),
        ("Pay 2 cards", "Pay 3 cards", ("numbers",)),
        ("Pay order KB-1", "Pay order KB-2", ("ids",)),
        ("by Monday", "by Tuesday", ("dates",)),
        ('the "gold" plan', 'the "basic" plan', ("quotes",)),
        ("it is refundable", "it is not refundable", ("negations",)),
        ("a flight to Rome", "a flight to Oslo", ("names",)),
        ("a flight to Rome", "a flight there", ("names",)),
        ("how do I pay", "when do I pay", ("questions",)),
        ("we fly from Rome to Oslo", "we fly from Oslo to Rome", ("order",)),
        ("2 adults and 3 children", "3 adults and 2 children", ("numbers", "order")),
        ("Transfer 100 from account 200", "Transfer 200 from account 100", ("numbers", "order")),
        ("minus five degrees", "five degrees", ("numbers",)),
        ("a dozen eggs", "a hundred eggs", ("numbers",)),
        ("half the price", "double the price", ("numbers",)),
        ("pay once", "pay twice", ("numbers",)),
        ("5 mg a day", "5 mg a month", ("numbers",)),
        ("a course in C++", "a course in C", ("ids", "names")),
        ("write to @anna", "write to @berta", ("ids",)),
        ("5 mg a day", "5 g a day", ("numbers",)),
    ],
)
def test_what_differs_is_named(one: str, two: str, kinds: tuple[str, ...]) -> None:
    """Near-miss pairs differ in the kind that sets them apart, and in no other; either way round."""
    assert differs(marks(one), marks(two)) == kinds == differs(marks(two), marks(one))


@given(st.text(max_size=200))
def test_a_text_never_differs_from_itself(text: str) -> None:
    """Any text at all is read, twice alike."""
    assert differs(marks(text), marks(text)) == ()


@given(st.text(alphabet="0123456789.,-/:%$€#ksthmay T'\"@", max_size=60))
def test_digits_and_signs_in_any_order_are_read(text: str) -> None:
    """No mixture of digits, units and signs makes the reader fail."""
    found = marks(text)
    assert all(isinstance(mark, str) and mark for mark in (*found.numbers, *found.dates, *found.ids))


@given(st.integers(-(10**12), 10**12))
def test_an_integer_is_one_number_in_any_spelling(number: int) -> None:
    """With and without separators an integer is the same mark, and no other's."""
    assert marks(f"it is {number:,} now").numbers == marks(f"it is {number} now").numbers == {str(number)}


def test_the_kinds_are_fields() -> None:
    """Every kind that differs() names is a field of Marks, so that a caller may read it."""
    assert set(VETO) < set(KINDS) and all(hasattr(marks(""), kind) for kind in KINDS)


MILLION = 10**6
HOSTILE = {
    "letters": "a",
    "spaces": " ",
    "numbers": "1 ",
    "commas": "1,",
    "hyphens": "1-",
    "points": "0.",
    "codes": "1a",
    "names": "A ",
    "negations": "n't ",
    "dates": "May 3 ",
    "money": "$1 ",
    "signs": "-$",
    "minus": "-",
    "single quotes": "'a",
    "double quotes": '"',
    "long quotes": '"' + "a" * 299,
    "guillemets": "«a",
    "low quotes": "„a",
    "addresses": "a@b.",
    "urls": "https://",
    "tens": "twenty ",
    "millions": "million ",
    "wide": "ﷺ",
    "hundreds": "hundred ",
    "handles": "@",
    "plusses": "C++",
    "accents": "ä.",
    "other digits": "١",
    "newlines": "\n",
    "contractions": "a'",
}


@pytest.mark.parametrize("piece", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_megabyte_is_read_at_once(piece: str) -> None:
    """No text makes the reader go back: a megabyte of anything takes less than a second."""
    text = piece * (MILLION // len(piece))
    started = time.process_time()
    marks(text)
    assert time.process_time() - started < 1


def test_time_grows_with_length_alone() -> None:
    """Twice the text takes about twice the time, up to the length that is read."""
    piece = "Pay $1,000 to 'Anna' by May 3, not KB-1. "

    def took(length: int) -> float:
        text = piece * (length // len(piece))
        return min(_timed(text) for _ in range(5))

    assert took(LONGEST - 100) < 6 * took((LONGEST - 100) // 2)


def _timed(text: str) -> float:
    started = time.process_time()
    marks(text)
    return time.process_time() - started


def test_what_is_too_long_to_read_still_differs() -> None:
    """Past the length that is read, a difference anywhere is a difference in ids."""
    text = "a " * LONGEST
    assert differs(marks(text), marks(text + "!")) == ("ids",) and differs(marks(text), marks(text)) == ()


def test_a_question_is_read_in_microseconds() -> None:
    """A question of 15 words is read in far less than a look-up costs: the median of many is under 100 us here."""
    question = "Can I track my card while it is in the process of delivery right now"
    times: list[Any] = []
    for _ in range(300):
        started = time.perf_counter_ns()
        marks(question)
        times.append(time.perf_counter_ns() - started)
    assert statistics.median(times) < 100_000
