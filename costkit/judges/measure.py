"""How good a judge is: on gold, and on two fresh answers to one question."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import ConfigError, JudgeError
from .judge import Judge

__all__ = ["Disagreement", "JudgeReport", "disagreement", "measure"]


@dataclass(frozen=True, slots=True)
class JudgeReport:
    """What a judge did on gold.

    Attributes:
        judge: the judge, as it was given.
        caught: wrong answers that it flagged.
        wrong: wrong answers there were.
        passed: right answers that it passed.
        right: right answers there were.
        failed: cases on which it gave no verdict; each counts against it, whichever kind it was.
        confidence: of the exact (Clopper-Pearson, two-sided) intervals.
    """

    judge: Judge
    caught: int
    wrong: int
    passed: int
    right: int
    failed: int
    confidence: float

    @property
    def sensitivity(self) -> float | None:
        """The share of wrong answers that it flagged; None where there were none."""
        return self.caught / self.wrong if self.wrong else None

    @property
    def specificity(self) -> float | None:
        """The share of right answers that it passed; None where there were none."""
        return self.passed / self.right if self.right else None

    @property
    def sensitivity_interval(self) -> tuple[float, float]:
        """The exact interval of the sensitivity; (0, 1) where nothing was wrong."""
        return _limits(self.caught, self.wrong, self.confidence)

    @property
    def specificity_interval(self) -> tuple[float, float]:
        """The exact interval of the specificity; (0, 1) where nothing was right."""
        return _limits(self.passed, self.right, self.confidence)

    def as_measured(self) -> Judge:
        """The judge with what was measured of it."""
        return replace(self.judge, caught=self.caught, wrong=self.wrong)

    def __str__(self) -> str:
        """One line for a reader."""
        flagged = _share(self.caught, self.wrong, self.confidence)
        passed = _share(self.passed, self.right, self.confidence)
        failed = f"; no verdict on {self.failed}" if self.failed else ""
        return f"judge {self.judge.name}: flags {flagged} of wrong answers, passes {passed} of right ones{failed}"


@dataclass(frozen=True, slots=True)
class Disagreement:
    """How often a judge calls one of two fresh reference answers to one question worse than the other.

    Whoever serves such an answer is flagged as often, however good the saving: the rate is a floor under what this
    judge can certify. A pair on which it gave no verdict (``failed``) counts as flagged.
    """

    judge: Judge
    flagged: int
    pairs: int
    failed: int
    confidence: float

    @property
    def rate(self) -> float | None:
        """The share of pairs flagged; None where there were no pairs."""
        return self.flagged / self.pairs if self.pairs else None

    @property
    def interval(self) -> tuple[float, float]:
        """The exact interval of the rate; (0, 1) without pairs."""
        return _limits(self.flagged, self.pairs, self.confidence)

    def can_certify(self, max_error: float) -> str | None:
        """None, or why this judge cannot certify ``max_error`` and what would help.

        What must stay under the bound is what the judge flags, and of ``max_error`` only the share that its
        sensitivity vouches for is left to it.

        Raises:
            ConfigError: max_error is not between 0 and 1.
        """
        if isinstance(max_error, bool) or not isinstance(max_error, int | float) or not 0 < max_error < 1:
            raise ConfigError(
                f"can_certify(max_error={max_error!r:.40}): give a share between 0 and 1, such as 0.02"
            )
        judge, sensitivity = self.judge, self.judge.sensitivity(self.confidence)
        if sensitivity == 0:
            return _unmeasured(judge, max_error)
        room, rate = max_error * sensitivity, self.rate
        if rate is None or rate < room:
            return None
        low, high = self.interval
        shown = _share(self.flagged, self.pairs, self.confidence)
        part = f" of which its sensitivity vouches for {room:.2g}" if sensitivity < 1 else ""
        verdict = "cannot" if low > room else "most likely cannot"
        least = high / sensitivity
        other = f"max_error above {least:.2g}" if least < 1 else "a judge that flags less"
        more = (
            "" if low > room else f", or more pairs than {self.pairs}, which may tell it apart from the bound"
        )
        return (
            f"judge {judge.name} flags {shown} of pairs of fresh reference answers as different: it {verdict} certify "
            f"max_error={max_error:g}{part}; a judge that compares only what must agree "
            f"(same_json(fields=...), same_sources, asked(...)) may, or {other}{more}"
        )


def measure(judge: Judge, cases: Iterable[Sequence[Any]], *, confidence: float = 0.95) -> JudgeReport:
    """A judge's sensitivity and specificity on gold.

    Args:
        judge: a judge of the risk "wrong".
        cases: (served, reference, truly_right) or (served, reference, truly_right, question) each, where a person said
            whether the served answer is as good.
        confidence: of the intervals.

    Raises:
        ConfigError: a case is malformed, or the judge is one of drop.

    >>> from costkit.judges import same_text
    >>> cases = [("5 days", "5 days.", True), ("9 days", "5 days", False), ("five days", "5 days", True)]
    >>> report = measure(same_text, cases)
    >>> report.sensitivity, report.specificity
    (1.0, 0.5)
    """
    _wants_wrong(judge, "measure")
    caught = wrong = passed = right = failed = 0
    for number, case in enumerate(cases, 1):
        if not isinstance(case, tuple | list) or len(case) not in (3, 4) or not isinstance(case[2], bool):
            raise ConfigError(
                f"measure(cases=...): case {number} must be (served, reference, truly_right) with True or False last, "
                "and the question after it where the judge asks for one"
            )
        verdict = _verdict(judge, case[0], case[1], case[3] if len(case) == 4 else None)
        failed += verdict is None
        if case[2]:
            right, passed = right + 1, passed + (verdict is True)
        else:
            wrong, caught = wrong + 1, caught + (verdict is False)
    return JudgeReport(judge, caught, wrong, passed, right, failed, confidence)


def disagreement(judge: Judge, pairs: Iterable[Sequence[Any]], *, confidence: float = 0.95) -> Disagreement:
    """How often a judge tells two fresh reference answers to one question apart.

    Args:
        judge: a judge of the risk "wrong".
        pairs: (answer, other) or (answer, other, question) each: both made by the reference, nothing from a cache.
        confidence: of the interval.

    Raises:
        ConfigError: a pair is malformed, or the judge is one of drop, whose noise averages out.

    >>> from costkit.judges import same_text
    >>> noisy = disagreement(same_text, [("5 days", "5 days")] * 95 + [("5 days", "five days")] * 5)
    >>> noisy.rate, noisy.can_certify(0.2)
    (0.05, None)
    """
    _wants_wrong(judge, "disagreement")
    flagged = count = failed = 0
    for number, pair in enumerate(pairs, 1):
        if not isinstance(pair, tuple | list) or len(pair) not in (2, 3):
            raise ConfigError(
                f"disagreement(pairs=...): pair {number} must be (answer, other), or with its question"
            )
        verdict = _verdict(judge, pair[0], pair[1], pair[2] if len(pair) == 3 else None)
        count, failed, flagged = count + 1, failed + (verdict is None), flagged + (verdict is not True)
    return Disagreement(judge, flagged, count, failed, confidence)


def _verdict(judge: Judge, served: Any, reference: Any, question: Any) -> bool | None:
    try:
        return judge.compare(served, reference, question)
    except JudgeError:
        return None


def _wants_wrong(judge: Judge, what: str) -> None:
    if not isinstance(judge, Judge):
        raise ConfigError(
            f"{what}(judge={type(judge).__name__}): give a Judge; judged(...) makes one of a function"
        )
    if judge.risk == "drop":
        raise ConfigError(f"{what}(judge=...): {judge.name} scores each answer by itself; it flags no pair")


def _unmeasured(judge: Judge, max_error: float) -> str:
    if judge.wrong:
        return (
            f"judge {judge.name} flagged {judge.caught} of {judge.wrong} wrong answers of gold: it cannot certify "
            f"max_error={max_error:g}; take a judge that finds wrong answers"
        )
    return (
        f"judge {judge.name} was not measured, so it vouches for nothing: it cannot certify max_error={max_error:g}; "
        "measure it with judges.measure on cases of which 59 or more are wrong, or say asked(..., defines=True) where "
        "its word is what right means"
    )


def _limits(k: int, n: int, confidence: float) -> tuple[float, float]:
    from ..stats import binomial_limits

    return binomial_limits(k, n, confidence)


def _share(k: int, n: int, confidence: float) -> str:
    """A share with its interval and its numbers, as "4.1% (2.9-5.7, 41 of 1000)"."""
    if not n:
        return "an unknown share (0 seen)"
    low, high = _limits(k, n, confidence)
    return f"{k / n:.1%} ({low * 100:.1f}-{high * 100:.1f}, {k} of {n})"
