"""Is an answer right, and if not, what went wrong first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import GoldError
from ..texts import refuses
from .load import GoldTest
from .text import fold, holds, short

Kind = Literal["right", "retrieval_missed", "wrong_answer", "format", "refusal", "error"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an answer was judged, and why in a few words."""

    kind: Kind
    reason: str = ""


def text_of(answer: Any) -> str:
    """The text of an answer: itself, or its ``.text``; raises GoldError for anything else."""
    text = answer if isinstance(answer, str) else getattr(answer, "text", None)
    if not isinstance(text, str):
        raise GoldError(
            f"the function returned {type(answer).__name__}; it must return a text or an object with .text"
        )
    return text


def cited(answer: Any, wanted: Sequence[str]) -> list[str]:
    """The ids an answer cites: its ``.citations``, or those of ``wanted`` that its text names."""
    citations = getattr(answer, "citations", None)
    if citations is not None:
        return list(citations)
    return [w for w in wanted if re.search(rf"(?<![\w-]){re.escape(w)}(?![\w-])", text_of(answer))]


def found(wanted: str, retrieved: Sequence[str]) -> int | None:
    """The rank, from 1, of a source among retrieved ids; "kb-1#3" is a part of "kb-1".

    >>> found("kb-1", ["kb-2", "kb-1#3"])
    2
    """
    return next((n for n, r in enumerate(retrieved, 1) if r == wanted or r.startswith(f"{wanted}#")), None)


def judge(test: GoldTest, answer: Any) -> Verdict:
    """Judges one answer; where several things are wrong, the first cause is named.

    ``answer`` is a text, or an object with ``.text`` and perhaps ``.citations``, ``.quote_ok``, ``.refused``
    and ``.retrieved``. The causes in their order: a wanted source was not retrieved, a refusal, a broken
    format (no citation where one is asked, a quote that is not word for word), a wrong answer.

    >>> judge(GoldTest("How long?", contains=("5 days",)), "It takes 15 days.")
    Verdict(kind='wrong_answer', reason="lacks '5 days'")
    """
    text = text_of(answer)
    refused = getattr(answer, "refused", None)
    if refused is None:
        refused = refuses(text)
    if test.refuse:
        if getattr(answer, "quote_ok", None) is False:
            return Verdict("format", "no verbatim quote")
        return Verdict("right") if refused else Verdict("wrong_answer", "answered what no document answers")
    failure = _failure(test, answer, text, bool(refused))
    retrieved = getattr(answer, "retrieved", None)
    if (
        failure
        and test.sources
        and retrieved is not None
        and not any(found(s, retrieved) for s in test.sources)
    ):
        return Verdict("retrieval_missed", f"{' or '.join(test.sources)} was not retrieved")
    return failure or Verdict("right")


def _failure(test: GoldTest, answer: Any, text: str, refused: bool) -> Verdict | None:
    lacking = [w for w in test.contains if not holds(text, w)]
    lacking += [" or ".join(group) for group in test.contains_any if not any(holds(text, w) for w in group)]
    if test.equals is not None and fold(text) != fold(test.equals):
        lacking.append(test.equals)
    citations = cited(answer, test.cite)
    if refused and (lacking or (test.cite and not citations)):
        return Verdict("refusal", "refused though the documents answer")
    if getattr(answer, "quote_ok", None) is False:
        return Verdict("format", "the quote is not word for word in the cited passage")
    if test.cite and not citations:
        return Verdict("format", f"cites nothing; wanted {' or '.join(test.cite)}")
    if lacking:
        return Verdict("wrong_answer", f"lacks {short(lacking[0], 40)!r}")
    if test.cite and not set(citations) & set(test.cite):
        return Verdict("wrong_answer", f"cites {', '.join(citations)}; wanted {' or '.join(test.cite)}")
    return None
