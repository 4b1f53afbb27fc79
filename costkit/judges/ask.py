"""Judges that ask: a function of the user's, or its score; and what a user may give as a judge."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, SupportsFloat

from ..errors import ConfigError, JudgeError
from .calling import ASYNC, calling
from .identity import identity
from .judge import Judge, unboxed
from .same import close_text, same_json, same_sources

__all__ = ["asked", "drop", "judged"]

_NO = frozenset({"no", "different"})
_FIRST_WORD = re.compile(r"[\s*_\"'`#>(\[]*([^\W\d_]+)\s*(\w?)")


def asked(
    function: Callable[..., Any],
    *,
    at: float | None = None,
    name: str | None = None,
    version: str | None = None,
    defines: bool = False,
) -> Judge:
    """A judge of your own, such as a model that is asked.

    Args:
        function: called with (served, reference), or with (question, served, reference) where it needs three, or with
            question= where it has a parameter of that name. It returns True or False; a number from 0 to 1, the higher
            the better, where ``at`` is given; or a text that begins with yes or no, same or different. Anything else
            raises :class:`JudgeError`, and the answer counts as wrong.
        at: the least number that counts as "as good".
        name: what reports call the judge; the function's name by default.
        version: what a certificate knows it by. By default a digest of its code, which sees no model and no prompt
            that it reads from elsewhere: say another version when one of them changes.
        defines: its word is what right means to you, so that it misses nothing. Else measure it on gold
            (:func:`measure`): until then its sensitivity is 0.

    Raises:
        ConfigError: the function is none, is async, or takes other arguments; ``at`` is not in (0, 1].

    >>> shorter = asked(lambda served, reference: len(served) <= len(reference), name="shorter", defines=True)
    >>> shorter.compare("5 days", "It takes 5 days")
    True
    """
    ask = calling(function, "asked(...)", "served", "reference", question="first")
    if at is not None and (isinstance(at, bool) or not isinstance(at, int | float) or not 0 < at <= 1):
        raise ConfigError(
            f"asked(at={at!r:.40}): give the least number that counts as as good, above 0, at most 1"
        )

    def says(served: Any, reference: Any, question: Any) -> bool:
        return _verdict(ask(question, served, reference), at)

    called = name or str(getattr(function, "__name__", type(function).__name__))
    ident = f"asked/1 {called} {identity(version if version is not None else function, at, defines)}"
    return Judge(called, ident, exact=defines, says=says)


def drop(
    score: Callable[..., SupportsFloat], *, name: str | None = None, version: str | None = None
) -> Judge:
    """A judge for the risk named drop: how far a score of your own falls.

    Args:
        score: called with the answer, or with (answer, question) where it needs two or has a parameter question;
            returns a number from 0 (worst) to 1 (best). Anything else raises :class:`JudgeError`.
        name: what reports call the judge; the function's name by default.
        version: as for :func:`asked`.

    ``loss`` is the score of the reference less that of the served answer, in [-1, 1].

    Raises:
        ConfigError: score is no plain function of one or two arguments.

    >>> drop(lambda answer: len(answer) / 10).loss("abc", "abcd")
    0.1...
    """
    ask = calling(score, "drop(...)", "answer", question="last")

    def scored(answer: Any, question: Any) -> Any:
        return ask(question, answer)

    called = name or f"drop({getattr(score, '__name__', type(score).__name__)})"
    ident = f"drop/1 {called} {identity(version if version is not None else score)}"
    return Judge(called, ident, exact=True, score=scored)


def judged(judge: Any) -> Judge:
    """The judge that was given: a :class:`Judge`, or a callable as :func:`asked` takes it.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(judge, Judge):
        return judge
    if judge is None:
        raise ConfigError(
            "judge=None: a saving that is not lossless needs a judge, which says whether a served answer is as good as "
            "the reference; say judge=costkit.judges.same_answer, or give a function of (served, reference)"
        )
    factory = next((one for one in (same_json, same_sources, close_text, asked, drop) if one is judge), None)
    if factory is not None:
        raise ConfigError(f"judge={factory.__name__}: call it, as in judge={_CALLED[factory.__name__]}")
    if not callable(judge):
        raise ConfigError(
            f"judge={type(judge).__name__}: give one of costkit.judges, or a function of (served, reference)"
        )
    return asked(judge)


_CALLED = {
    "same_json": 'same_json(fields=["total"])',
    "same_sources": "same_sources()",
    "close_text": "close_text(at=0.9)",
    "asked": "asked(my_judge)",
    "drop": "drop(my_score)",
}


def _verdict(said: Any, at: float | None) -> bool:
    said = unboxed(said)
    if isinstance(said, bool):
        return said
    if inspect.isawaitable(said):
        if inspect.iscoroutine(said):
            said.close()
        raise JudgeError(f"it returned an awaitable: {ASYNC}")
    if isinstance(said, int | float):
        if at is None:
            raise JudgeError(
                "it returned a number: say from which on the answer is as good, asked(..., at=0.8)"
            )
        if not 0 <= said <= 1:
            raise JudgeError("it returned a number that is not from 0 to 1")
        return said >= at
    if isinstance(said, str) and (found := _FIRST_WORD.match(said)):
        word = found[1].casefold()
        if word == "yes" or word in _NO:
            return word == "yes"
        if word == "same" and not found[2]:  # "Same topic, other answer" is no verdict
            return True
    raise JudgeError(
        f"it returned {type(said).__name__}, no verdict: return True or False, a number with at=, or a text that "
        "begins with yes or no, same or different"
    )
