"""Judges: is a served answer as good as the reference answer?

A lossy saving names one, which says what a wrong answer is:

    judge=costkit.judges.same_answer                    # the same structure, else the same text
    judge=costkit.judges.same_json(["total"])           # only what must agree
    judge=costkit.judges.same_sources()                 # the same cited documents
    judge=costkit.judges.close_text(at=0.9)             # the same numbers, names and dates, and close in meaning
    judge=costkit.judges.asked(my_model_says)           # anything that can be called
    judge=costkit.judges.drop(my_score)                 # for the risk named drop

What a judge flags counts as an error. What it misses is covered by its sensitivity, measured on gold by
:func:`measure`; how often it tells two fresh reference answers apart (:func:`disagreement`) is a floor under what it
can certify.

>>> same_answer.compare('{"days": 5, "fee": 1.0}', '{"fee": 1, "days": 5}'), same_answer.compare("5 days", "9 days")
(True, False)
"""

from __future__ import annotations

from .ask import asked, drop, judged
from .judge import Judge
from .measure import Disagreement, JudgeReport, disagreement, measure
from .same import close_text, same_answer, same_json, same_sources, same_text, same_tool_call
from .stream import joined

__all__ = [
    "Disagreement",
    "Judge",
    "JudgeReport",
    "asked",
    "close_text",
    "disagreement",
    "drop",
    "joined",
    "judged",
    "measure",
    "same_answer",
    "same_json",
    "same_sources",
    "same_text",
    "same_tool_call",
]
