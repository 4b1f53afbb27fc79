"""Judges that ask: a callable of the user's, its score, and what may be given as a judge."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costkit import judges
from costkit.errors import ConfigError, JudgeError
from costkit.judges import Judge, asked, drop, judged, same_answer
from costkit.judges.identity import identity


def said(verdict: Any, **settings: Any) -> Judge:
    return asked(lambda served, reference: verdict, **settings)


@pytest.mark.parametrize(
    ("verdict", "at", "good"),
    [
        (True, None, True),
        (False, None, False),
        (np.bool_(True), None, True),
        (np.bool_(False), None, False),
        (0.8, 0.8, True),
        (np.float32(0.5), 0.8, False),
        (1, 0.8, True),
        (0, 0.8, False),
        (True, 0.8, True),
        ("yes", None, True),
        ("Yes, both say five days.", None, True),
        ("**YES**", None, True),
        (' "same"', None, True),
        ("Same: both say five days", None, True),
        ("no", None, False),
        ("No, they differ.", None, False),
        ("different", None, False),
        ("DIFFERENT answers", None, False),
        ("No difference.", None, False),
    ],
)
def test_verdicts(verdict: Any, at: float | None, good: bool) -> None:
    """A bool, a number beside at=, or a text that begins with a verdict; a doubtful text is flagged."""
    assert said(verdict, at=at).compare("a", "b") is good


@pytest.mark.parametrize(
    "verdict",
    [None, "", "maybe", "not the same", "None", "Same topic, other one", "noyes", "yesterday", [], {"a": 1}, b"yes"],
)  # fmt: skip
def test_what_is_no_verdict_never_counts_as_right(verdict: Any) -> None:
    """Anything else raises, and says what to return instead."""
    with pytest.raises(JudgeError, match="no verdict: return True or False"):
        said(verdict).compare("a", "b")


@pytest.mark.parametrize(
    ("verdict", "at", "message"),
    [
        (0.9, None, "say from which on"),
        (1, None, "say from which on"),
        (1.1, 0.5, "not from 0 to 1"),
        (-0.1, 0.5, "not from 0 to 1"),
        (float("nan"), 0.5, "not from 0 to 1"),
    ],
)
def test_numbers_need_a_threshold_and_a_range(verdict: float, at: float | None, message: str) -> None:
    """A number without at=, or outside [0, 1], is no verdict."""
    with pytest.raises(JudgeError, match=message):
        said(verdict, at=at).compare("a", "b")


def test_the_question_is_given_to_who_takes_it() -> None:
    """Three arguments are question, served, reference; a parameter named question is given by name; two get none."""
    seen: list[Any] = []

    def three(question: str, served: str, reference: str) -> bool:
        seen.append((question, served, reference))
        return True

    def named(served: str, reference: str, *, question: str | None = None) -> bool:
        seen.append((question, served, reference))
        return True

    def optional(served: str, reference: str, strict: bool = False) -> bool:
        seen.append((strict, served, reference))
        return True

    def anything(*answers: str) -> bool:
        seen.append(answers)
        return True

    for judge in (three, named, optional, anything):
        assert asked(judge).compare("s", "r", "q")
    assert seen == [("q", "s", "r"), ("q", "s", "r"), (False, "s", "r"), ("s", "r")]
    with pytest.raises(JudgeError, match="takes the question as well, and none was given"):
        asked(three).compare("s", "r")
    assert asked(named).compare("s", "r")


class Asks:
    def __call__(self, served: str, reference: str) -> bool:
        return served == reference

    def method(self, served: str, reference: str) -> bool:
        return served == reference

    async def later(self, served: str, reference: str) -> bool:
        return served == reference


class AsksLater:
    async def __call__(self, served: str, reference: str) -> bool:
        return served == reference


async def later(served: str, reference: str) -> bool:
    return served == reference


def prefixed(prefix: str, served: str, reference: str) -> bool:
    return served == prefix + reference


def test_any_callable_will_do() -> None:
    """Objects, methods, partials and builtins are judges."""
    for judge in (Asks(), Asks().method, functools.partial(prefixed, ""), str.__eq__):
        found = judged(judge)
        assert found.compare("a", "a") and not found.compare("a", "b")
    assert judged(prefixed_later()).compare("a", "a")


def prefixed_later() -> Callable[[str, str], bool]:
    prefix = ""
    return lambda served, reference: served == prefix + reference


@pytest.mark.parametrize("judge", [later, AsksLater(), Asks().later, functools.partial(later)])
def test_async_judges_are_refused_with_the_way_out(judge: Any) -> None:
    """Judging runs in a thread; the message says how to wrap an async judge."""
    for make in (judged, asked):
        with pytest.raises(ConfigError, match=r"asyncio\.run\(judge\(served, reference\)\)"):
            make(judge)


def test_an_awaitable_is_no_verdict() -> None:
    """A plain function that returns a coroutine gives none, and the coroutine is closed, not left to a warning."""
    coroutine = later("a", "a")
    with pytest.raises(JudgeError, match="awaitable"):
        said(coroutine).compare("a", "a")
    with pytest.raises(RuntimeError, match="cannot reuse"):
        coroutine.send(None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, r"judge=None: .* judge=costkit\.judges\.same_answer"),
        ("same_answer", "judge=str: give one of costkit.judges"),
        (3, "judge=int"),
        (judges.same_json, r'judge=same_json: call it, as in judge=same_json\(fields='),
        (judges.close_text, r"judge=close_text\(at="),
        (judges.drop, r"judge=drop\(my_score\)"),
        (lambda: True, r"takes \(\); it is called with \(served, reference\)"),
        (lambda a, b, c, d: True, "it is called with"),
        (lambda served, reference, question, /: True, "it is called with"),
        (Judge, "give a function"),
    ],
)  # fmt: skip
def test_what_is_no_judge_is_refused(given: Any, message: str) -> None:
    """The message names what was given and what to write."""
    with pytest.raises(ConfigError, match=message):
        judged(given)


def test_a_judge_is_itself() -> None:
    """What is a judge already is not wrapped."""
    assert judged(same_answer) is same_answer


@pytest.mark.parametrize("at", [0, 1.5, -1, float("nan"), True, "0.5"])
def test_a_threshold_is_a_share(at: Any) -> None:
    """at= is above 0 and at most 1."""
    with pytest.raises(ConfigError, match=r"asked\(at="):
        said(0.5, at=at)


class Leaky(Exception):
    pass


@pytest.mark.parametrize("error", [ValueError, Leaky, RecursionError, KeyError, AssertionError])
def test_a_judge_that_fails_gives_no_verdict(error: type[Exception]) -> None:
    """The user's exception is the cause, its words are not repeated, and it never counts as right."""

    def failing(served: str, reference: str) -> bool:
        raise error("sk-very-secret and the whole prompt")

    with pytest.raises(JudgeError) as caught:
        asked(failing).compare("a", "a")
    assert str(caught.value) == f"judge failing: it raised {error.__name__}"
    assert isinstance(caught.value.__cause__, error)


def test_an_interrupt_passes() -> None:
    """What is no Exception is not caught: Ctrl-C ends the judging."""

    def interrupted(served: str, reference: str) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asked(interrupted).compare("a", "a")


def test_drop() -> None:
    """The loss is the score of the reference less that of the served answer; as good is a loss of 0 or less."""
    judge = drop(len_share)
    assert judge.risk == "drop" and judge.exact and judge.group("a") is None
    assert judge.loss("", "abcdefghij") == 1 and judge.loss("abcdefghij", "") == -1
    assert judge.compare("ab", "ab") and judge.compare("abc", "ab") and not judge.compare("a", "ab")
    by_question = drop(lambda answer, question: 1.0 if question in answer else 0.0)
    assert by_question.loss("a", "ab", "b") == 1.0
    with pytest.raises(JudgeError, match="takes the question"):
        by_question.loss("a", "b")
    assert same_answer.loss("a", "b") == 1.0 and same_answer.loss("a", "A") == 0.0


def len_share(answer: str) -> float:
    return len(answer) / 10


@pytest.mark.parametrize(
    "score", [1.01, -0.01, float("nan"), float("inf"), True, None, "0.5 sk-very-secret", [1]]
)
def test_a_score_out_of_range_is_no_score(score: Any) -> None:
    """Anything but a number in [0, 1] raises, on either side, without repeating a text."""
    judge = drop(lambda answer: score if answer == "bad" else 0.5)
    for pair in (("bad", "good"), ("good", "bad")):
        with pytest.raises(JudgeError, match="return a number from 0") as caught:
            judge.loss(*pair)
        assert "secret" not in str(caught.value)


def test_numpy_scores_are_scores() -> None:
    """A 0-d number of numpy's is the number it holds."""
    assert drop(lambda answer: np.float32(len(answer)) / 2).loss("", "ab") == 1.0


PROMPT = "Is it the same?"


def by_prompt(served: str, reference: str) -> bool:
    return bool(PROMPT) and helper(served) == reference


def helper(text: str) -> str:
    return text.strip()


def made(source: str, **names: Any) -> Any:
    """A function as another edit of its module would have made it."""
    module: dict[str, Any] = {"__name__": __name__, **names}
    exec(source, module)  # noqa: S102 - the test's own source
    return module["by_prompt"]


SOURCE = "def by_prompt(served, reference):\n    return bool(PROMPT) and helper(served) == reference\n"


def test_identity_follows_code_and_settings() -> None:
    """Another prompt, threshold, default, closure or helper is another judge; comments and layout are not."""
    base = made(SOURCE, PROMPT="a", helper=helper)
    same = made("# a comment\n\n" + SOURCE.replace(" = ", " =  "), PROMPT="a", helper=helper)
    assert identity(base) == identity(same)
    others = [
        made(SOURCE, PROMPT="b", helper=helper),
        made(SOURCE.replace("==", "!="), PROMPT="a", helper=helper),
        made(SOURCE.replace("reference)", "reference, n=1)", 1), PROMPT="a", helper=helper),
        made(SOURCE, PROMPT="a", helper=by_prompt),
        functools.partial(base, "x"),
    ]
    assert len({identity(function) for function in [base, *others]}) == 6
    assert asked(base).id != asked(base, at=0.5).id != asked(base, at=0.6).id
    assert asked(base, version="1").id != asked(base, version="2").id
    assert asked(base, version="1").id == asked(others[1], version="1").id
    assert asked(base).id != asked(base, defines=True).id

    def closing(limit: int) -> Callable[[str, str], bool]:
        return lambda served, reference: len(served) <= limit

    assert identity(closing(1)) == identity(closing(1)) != identity(closing(2))


def test_identity_of_what_calls_itself_ends() -> None:
    """Recursion between functions and closures that hold themselves are followed once."""

    def even(served: str, reference: str) -> bool:
        return odd(served, reference)

    def odd(served: str, reference: str) -> bool:
        return even(served, reference)

    assert len(identity(even)) == 16 and identity(Asks()) == identity(Asks())


def test_identity_is_the_same_in_every_process() -> None:
    """Under other hash seeds the ids are the same, so that a certificate is found again."""
    code = (
        "from tests.test_judges_asked import by_prompt, Asks, SOURCE, made\n"
        "from costkit.judges import asked, same_json\n"
        "odd = made('def by_prompt(a, b):\\n    return a in {\\'x\\', \\'y\\', \\'z\\', \\'w\\'}')\n"
        "print(asked(by_prompt).id, asked(Asks()).id, asked(odd).id, same_json(['a', 'b']).id)"
    )
    root = Path(__file__).parent.parent
    found = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
        ).stdout
        for seed in ("1", "2", "3")
    }  # fmt: skip
    assert len(found) == 1 and asked(by_prompt).id in found.pop()
