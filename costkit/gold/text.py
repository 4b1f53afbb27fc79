"""Comparing texts as a person reads them."""

from __future__ import annotations

import re

from ..texts import plain


def fold(text: str) -> str:
    """Text as gold tests compare it: NFKC, no case, single spaces, no thousands separator, "9 %" as "9%".

    >>> fold("Up to 1,200\\u00a0Requests,  99.9 %")
    'up to 1200 requests, 99.9%'
    """
    return re.sub(r"(?<=\d),(?=\d{3}(?!\d))|(?<=\d) (?=%)", "", plain(text))


def holds(answer: str, wanted: str) -> bool:
    """Whether ``wanted`` is in ``answer``; a number at its edge must be the whole number.

    >>> holds("It takes 30 days.", "30"), holds("1,300 days", "300"), holds("Version 7.4", "version 7")
    (True, False, False)
    """
    needle = fold(wanted)
    before = r"(?<!\w)(?<!\d[.,])" if needle[0].isdigit() else ""
    after = r"(?!\w)(?![.,]\d)" if needle[-1].isdigit() else ""
    return re.search(before + re.escape(needle) + after, fold(answer)) is not None


def short(text: str, width: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"
