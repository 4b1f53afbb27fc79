"""What in a text is exact: numbers, dates, ids, quoted spans, negations, names.

Two texts may lie next to each other for an encoder and still ask for 2 cards or 3, for Monday or Tuesday. A text is
read once, by rules that a person can check; English words, any script's digits. What it does not see: compound
number words ("two hundred and fifty" reads as 200 and 50), conversions (a week is not 7 days), a name that opens a
sentence and nothing else, "first" and "second" without a word such as "the" before them, numbers or negation in other
languages.

>>> one, two = marks("Send $1,000 on 3 May 2026"), marks("send 1000 dollars on May 3rd, 2026")
>>> sorted(one.numbers | one.dates), differs(one, two)
(['1000 usd', '2026-05-03'], ())
"""

from __future__ import annotations

from typing import NamedTuple

from .read import read

__all__ = ["KINDS", "VETO", "Marks", "differs", "marks"]

VETO = ("numbers", "ids", "dates", "quotes")
"""Kinds whose difference makes another answer likely whatever an encoder says."""
KINDS = (*VETO, "negations", "names", "questions", "order")
"""Every kind that :func:`differs` tells."""


class Marks(NamedTuple):
    """The marks of one text, each in a normal form.

    ``numbers``: "1000", "5 day", "10 usd", "#3" for the third, "half"; "100 > 200" where two of one unit come in this
    order. ``dates``: "2026-05-03", "05-03", "2026-05", "monday", "next week", "17:30"; one that may be read two ways
    stays "5/3/2026". ``ids``: codes of letters and digits, e-mail addresses, @names, C++ and C#, URLs, numbers with a
    leading zero. ``quotes``: what stands in quotation marks or backticks. ``negations``: how many there are.
    ``names``: capitalised words that open no sentence, and words with a capital inside. ``questions``: "who", "how
    long", "yes/no". ``order``: numbers, dates, ids and names as they first come. ``words``: every word, in lower case.
    """

    numbers: frozenset[str]
    dates: frozenset[str]
    ids: frozenset[str]
    quotes: frozenset[str]
    negations: int
    names: frozenset[str]
    questions: frozenset[str]
    order: tuple[str, ...]
    words: frozenset[str]


def marks(text: str) -> Marks:
    """The marks of a text, in time linear in its length.

    Past the first 100,000 characters a text is not read: the rest counts as one id, its digest.

    >>> marks("Why was KB-101 not sent to Anna's office on Monday?").names
    frozenset({'anna'})
    """
    found = read(text)
    return Marks(
        numbers=frozenset(found.numbers),
        dates=frozenset(found.dates),
        ids=frozenset(found.ids),
        quotes=frozenset(found.quotes),
        negations=found.negations,
        names=frozenset(found.names),
        questions=frozenset(found.questions),
        order=tuple(dict.fromkeys(found.order)),
        words=frozenset(found.words),
    )


def differs(a: Marks, b: Marks) -> tuple[str, ...]:
    """The kinds of mark in which two texts differ, in the order of :data:`KINDS`.

    A name counts as missing only where the other text has the word in no spelling. "order" tells that marks which
    both have come in another order: "from Rome to Oslo", "from Oslo to Rome".

    >>> differs(marks("from Rome to Oslo in 2 days"), marks("from oslo to rome in 3 days"))
    ('numbers',)
    >>> differs(marks("We fly from Rome to Oslo"), marks("We fly from Oslo to Rome"))
    ('order',)
    """
    found = [kind for kind in (*VETO, "negations") if getattr(a, kind) != getattr(b, kind)]
    if not (a.names <= b.words and b.names <= a.words):
        found.append("names")
    if a.questions != b.questions:
        found.append("questions")
    if a.order != b.order and len(both := {*a.order} & {*b.order}) > 1:
        first, second = ([mark for mark in text.order if mark in both] for text in (a, b))
        if first != second:
            found.append("order")
    return tuple(found)
