"""Calling a user's function with what it takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal

from ..errors import ConfigError, JudgeError
from .judge import Judge

__all__ = ["ASYNC", "calling"]

ASYNC = (
    "judging runs in a thread, off the path, and takes a plain function; wrap it: "
    "lambda served, reference: asyncio.run(judge(served, reference))"
)


def calling(
    function: Any, what: str, *names: str, question: Literal["first", "last"] | None
) -> Callable[..., Any]:
    """The function as one of (question, *answers), whichever way it takes the question, if it does."""
    wanted = f"({', '.join(names)})"
    if not callable(function) or isinstance(function, Judge | type):
        raise ConfigError(f"{what}: give a function of {wanted}")
    for part in (function, getattr(function, "__call__", None)):  # noqa: B004 - the method itself is wanted
        if inspect.iscoroutinefunction(part) or inspect.isasyncgenfunction(part):
            raise ConfigError(f"{what}: {ASYNC}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return lambda asked, *answers: function(*answers)  # a builtin that does not tell
    several, named = len(names) + 1, signature.parameters.get("question")
    if question and named and _binds(signature, several - 1, question=""):
        needed = named.default is inspect.Parameter.empty
        return lambda asked, *answers: function(*answers, question=_given(asked) if needed else asked)
    if _binds(signature, several - 1):
        return lambda asked, *answers: function(*answers)
    if question == "first" and _binds(signature, several) and "question" not in [*signature.parameters][1:]:
        return lambda asked, *answers: function(_given(asked), *answers)
    if question == "last" and _binds(signature, several):
        return lambda asked, *answers: function(*answers, _given(asked))
    more = "" if question is None else ", and the question where it takes one more"
    raise ConfigError(f"{what}: the function takes {signature}; it is called with {wanted}{more}")


def _binds(signature: inspect.Signature, count: int, **named: str) -> bool:
    try:
        signature.bind(*range(count), **named)
    except TypeError:
        return False
    return True


def _given(question: Any) -> Any:
    if question is None:
        raise JudgeError("it takes the question as well, and none was given")
    return question
