"""Gold tests: questions with what a right answer must hold, and a report of where a function fails them.

A gold file is TOML that a person edits; a folder may hold several:

    [[test]]
    question = "How long do refunds take?"
    tenant = "acme"                              # any other key is an argument of the function
    contains = ["5 working days"]                # each must be in the answer
    contains_any = [["card", "credit card"]]     # of each group, one must be in the answer
    cite = ["kb-101"]                            # the answer must cite one of these
    sources = ["kb-101"]                         # what retrieval should find; scored apart
    tags = ["billing"]

    [[test]]
    question = "What is the price of gold?"
    refuse = true                                # right is to say that the documents do not answer

``equals`` asks for the whole answer. An argument whose name is close to one of these keys goes into a table
``args = { tag = "x" }``. Texts are compared after Unicode NFKC, without case and with spaces folded; a number
matches whole numbers only ("30" is in neither "300", "1,300" nor "30.5").
"""

from __future__ import annotations

from .judge import Kind, Verdict, judge
from .load import GoldTest, load_gold
from .report import GoldReport, GoldRow
from .run import run_gold

__all__ = ["GoldReport", "GoldRow", "GoldTest", "Kind", "Verdict", "judge", "load_gold", "run_gold"]
