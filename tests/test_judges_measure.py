"""Sensitivity on gold, self-disagreement, and what a judge can certify."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from costkit.errors import ConfigError
from costkit.judges import (
    Disagreement,
    Judge,
    asked,
    disagreement,
    drop,
    measure,
    same_answer,
    same_text,
)


def lenient(served: str, reference: str) -> bool:
    """Passes what begins alike."""
    if served == "boom":
        raise ValueError("no answer")
    return served[:1] == reference[:1]


def test_measure_counts_both_kinds() -> None:
    """Flags of wrong answers are the sensitivity, passes of right ones the specificity, with exact intervals."""
    cases: list[tuple[Any, ...]] = [
        *[("x", "y", False)] * 8,  # caught
        *[("ya", "yb", False)] * 2,  # missed
        *[("ya", "yb", True)] * 19,  # passed
        ("x", "y", True, "a question nobody asks for"),  # flagged
    ]
    report = measure(asked(lenient), cases)
    assert (report.caught, report.wrong, report.passed, report.right, report.failed) == (8, 10, 19, 20, 0)
    assert (report.sensitivity, report.specificity) == (0.8, 0.95)
    # Clopper-Pearson, 95 %: the tables of the binomial's beta quantiles.
    assert report.sensitivity_interval == pytest.approx((0.44390, 0.97479), abs=1e-5)
    assert report.specificity_interval == pytest.approx((0.75127, 0.99873), abs=1e-5)
    assert str(report) == (
        "judge lenient: flags 80.0% (44.4-97.5, 8 of 10) of wrong answers, "
        "passes 95.0% (75.1-99.9, 19 of 20) of right ones"
    )
    judge = report.as_measured()
    assert (judge.caught, judge.wrong, judge.id) == (8, 10, asked(lenient).id) and judge.measured
    assert judge.sensitivity() == pytest.approx(0.49310, abs=1e-5)  # one-sided


def test_a_judge_that_fails_on_gold_has_caught_nothing() -> None:
    """No verdict counts against the judge on both sides, so that an outage never looks like a keen eye."""
    report = measure(asked(lenient), [("boom", "y", False), ("boom", "y", True)])
    assert (report.caught, report.passed, report.failed) == (0, 0, 2)
    assert "no verdict on 2" in str(report)


def test_nothing_to_measure_vouches_for_nothing() -> None:
    """Without wrong answers the sensitivity is unknown, its interval everything, its lower limit 0."""
    report = measure(asked(lenient), [])
    assert report.sensitivity is None is report.specificity
    assert report.sensitivity_interval == (0.0, 1.0) and report.as_measured().sensitivity() == 0.0
    assert not report.as_measured().measured and same_answer.sensitivity() == 1.0
    assert measure(asked(lenient), [("ya", "yb", False)]).as_measured().sensitivity() == 0.0


@pytest.mark.parametrize(
    "case", [("a", "b"), ("a", "b", 1), ("a", "b", None), "abc", ("a", "b", True, "q", 1), None]
)
def test_a_malformed_case_is_named(case: Any) -> None:
    """The number of the case and its form are in the message."""
    with pytest.raises(ConfigError, match=r"case 2 must be \(served, reference, truly_right\)"):
        measure(same_text, [("a", "b", True), case])


@pytest.mark.parametrize("pair", ["ab", ("a",), ("a", "b", "q", 1), None])
def test_a_malformed_pair_is_named(pair: Any) -> None:
    """The number of the pair and its form are in the message."""
    with pytest.raises(ConfigError, match=r"pair 2 must be \(answer, other\)"):
        disagreement(same_text, [("a", "b"), pair])


def test_only_judges_of_wrong_answers_are_measured() -> None:
    """A score flags no pair, and a function is no judge yet."""
    for use in (measure, disagreement):
        with pytest.raises(ConfigError, match="flags no pair"):
            use(drop(len), [])
        with pytest.raises(ConfigError, match="judged"):
            use(lenient, [])  # type: ignore[arg-type]


def test_sensitivity_is_covered() -> None:
    """The lower limit at 95 % is above the true share in at most 5 % of 2,000 seeded golds (99.9 % margin)."""
    rng = np.random.default_rng(4)
    for true in (0.5, 0.9, 0.97):
        for wrong in (30, 120):
            caught = rng.binomial(wrong, true, 2000)
            limits = {k: Judge("j", "1", caught=k, wrong=wrong).sensitivity() for k in set(caught.tolist())}
            above = sum(limits[k] > true for k in caught.tolist())
            assert above <= 2000 * 0.05 + 3.09 * (2000 * 0.05 * 0.95) ** 0.5
            assert max(limits.values()) > true - 0.2  # and not for want of trying


def found(flagged: int, pairs: int, judge: Judge = same_text) -> Disagreement:
    same, other = [("a", "a")], [("a", "b")]
    return disagreement(judge, same * (pairs - flagged) + other * flagged)


def test_a_judge_that_cannot_certify_says_so() -> None:
    """The sentence holds the rate, its interval, the bound and what would help."""
    noisy = found(41, 1000)
    assert (noisy.flagged, noisy.pairs, noisy.failed, noisy.rate) == (41, 1000, 0, 0.041)
    assert noisy.interval == pytest.approx((0.02957, 0.05520), abs=1e-4)
    assert noisy.can_certify(0.02) == (
        "judge same_text flags 4.1% (3.0-5.5, 41 of 1000) of pairs of fresh reference answers as different: it cannot "
        "certify max_error=0.02; a judge that compares only what must agree (same_json(fields=...), same_sources, "
        "asked(...)) may, or max_error above 0.055"
    )
    assert noisy.can_certify(0.05) is None


def test_a_few_pairs_tell_less() -> None:
    """Where the interval still holds the bound, the sentence says so and asks for more pairs."""
    sentence = found(2, 50).can_certify(0.03)
    assert sentence is not None and "most likely cannot" in sentence and "more pairs than 50" in sentence
    assert found(0, 5).can_certify(0.01) is None and disagreement(same_text, []).can_certify(0.01) is None


def test_what_the_judge_misses_tightens_the_bound() -> None:
    """Only the share of max_error that the sensitivity vouches for is left."""
    judge = dataclasses.replace(asked(lenient), caught=18, wrong=20)
    low = judge.sensitivity()
    assert 0.7 < low < 0.73
    noisy = found(8, 100, judge)
    assert noisy.can_certify(0.2) is None
    sentence = noisy.can_certify(0.1)
    assert sentence is not None and f"its sensitivity vouches for {0.1 * low:.2g}" in sentence


def test_a_judge_that_was_not_measured_is_told_to_be() -> None:
    """Unmeasured, or blind on gold: the sentence says which, and the mend."""
    unmeasured = found(0, 100, asked(lenient)).can_certify(0.05)
    assert unmeasured is not None and "was not measured" in unmeasured and "defines=True" in unmeasured
    blind = found(0, 100, dataclasses.replace(asked(lenient), wrong=20)).can_certify(0.05)
    assert blind is not None and "flagged 0 of 20 wrong answers" in blind
    assert found(0, 100, asked(lenient, defines=True)).can_certify(0.05) is None


def test_a_pair_without_a_verdict_is_flagged() -> None:
    """As the gate counts it."""
    noisy = disagreement(asked(lenient, defines=True), [("boom", "b"), ("b", "b")])
    assert (noisy.flagged, noisy.failed, noisy.rate) == (1, 1, 0.5)


@pytest.mark.parametrize("wrong", [0, 1, -0.1, 2, float("nan"), True, "0.1"])
def test_the_bound_is_a_share(wrong: Any) -> None:
    """max_error outside (0, 1) is refused."""
    with pytest.raises(ConfigError, match=r"can_certify\(max_error="):
        found(1, 10).can_certify(wrong)


def test_the_floor_is_real() -> None:
    """A perfect cache is flagged as often as the judge disagrees with itself (5 % of fresh answers reworded)."""
    rng = np.random.default_rng(7)
    words = ["5 days", "five days"]
    fresh = [(words[a], words[b]) for a, b in (rng.random((4000, 2)) < 0.05).astype(int)]
    noisy = disagreement(same_text, fresh)
    served = [
        same_text.compare(one, two) for one, two in fresh
    ]  # what a right cache serves is such an answer
    low, high = noisy.interval
    assert low <= 2 * 0.05 * 0.95 <= high and 1 - np.mean(served) == pytest.approx(noisy.rate)
    assert noisy.can_certify(0.05) is not None and noisy.can_certify(0.15) is None
