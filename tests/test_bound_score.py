"""costkit.bound.score: fitted on the past, the same wherever the same labels came, and hard to upset."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from costkit.bound.score import Score

PRIOR = [0.0, 1.0, 1.0]


def taught(labels: int, seed: int = 1, *, prior: list[float] = PRIOR) -> Score:
    """A score that has seen labels whose truth is logistic in the second feature alone."""
    rng, score = np.random.default_rng(seed), Score(prior)
    for _ in range(labels):
        x, noise = rng.normal(size=2).tolist()
        score.learn((1.0, x, noise), bool(rng.random() < 1 / (1 + math.exp(1.5 + 2 * x))))
    return score


def test_it_learns_what_matters() -> None:
    """After 3,000 labels its probabilities are within .04 of the truth, whatever the feature that says nothing says."""
    score = taught(3000)
    for x in (-1.0, 0.0, 1.0, 2.0):
        for noise in (-1.0, 1.0):
            assert score.wrong((1.0, x, noise)) == pytest.approx(1 / (1 + math.exp(1.5 + 2 * x)), abs=0.04)


def test_it_is_fitted_seldom_and_only_then_changes() -> None:
    """Fitted at the 50th label, then after a tenth more and five: learn() says so, and only then wrong() changes."""
    score, fits = Score(PRIOR), []
    rng = np.random.default_rng(2)
    for label in range(1, 400):
        before = score.wrong((1.0, 0.5, 0.5))
        if score.learn((1.0, *rng.normal(size=2).tolist()), bool(rng.random() < 0.2)):
            fits.append(label)
            assert score.wrong((1.0, 0.5, 0.5)) != before
        else:
            assert score.wrong((1.0, 0.5, 0.5)) == before
    assert fits[:4] == [50, 61, 73, 86]


def test_two_that_learned_the_same_are_the_same() -> None:
    """Asked at every label or never, they give the same probability to the last bit."""
    one, other = taught(700, seed=3), Score(PRIOR)
    rng = np.random.default_rng(3)
    for _ in range(700):
        x, noise = rng.normal(size=2).tolist()
        other.learn((1.0, x, noise), bool(rng.random() < 1 / (1 + math.exp(1.5 + 2 * x))))
        other.wrong((1.0, noise, x))
    assert one.wrong((1.0, 0.3, 0.1)) == other.wrong((1.0, 0.3, 0.1))


def test_many_at_once_are_each_the_same() -> None:
    """wrong_all gives what wrong gives, and 1 for what is no number."""
    score, rng = taught(200), np.random.default_rng(4)
    features = np.concatenate([np.ones((50, 1)), rng.normal(size=(50, 2)) * 20], axis=1)
    features[7, 1] = math.nan
    assert score.wrong_all(features) == pytest.approx([score.wrong(row) for row in features.tolist()])
    assert score.wrong_all(features)[7] == 1.0


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_wrong_and_teaches_nothing(odd: float) -> None:
    """Not a number or infinite: surely wrong, and no label; so with too few or too many features."""
    score = taught(100)
    for features in ((1.0, odd, 0.0), (odd, odd, odd), (1.0, 2.0), (1.0, 2.0, 3.0, 4.0)):
        assert score.wrong(features) == 1.0
        assert not score.learn(features, wrong=False)
    assert score.labels == 100


@pytest.mark.parametrize("huge", [1e12, 1e300, 1.7e308])
def test_what_is_huge_neither_overflows_nor_outweighs_the_rest(huge: float) -> None:
    """Ten absurd labels among a thousand leave finite weights, and the rest in its order."""
    score = taught(1000)
    for number in range(10):
        score.learn((1.0, huge, -huge), wrong=bool(number % 2))
    for _ in range(200):
        score.learn((1.0, 1.0, 0.0), wrong=False)
    assert np.isfinite(score._weights).all()
    assert score.wrong((1.0, -1.0, 0.0)) > score.wrong((1.0, 1.0, 0.0))
    assert 0 <= score.wrong((1.0, huge, huge)) <= 1


@pytest.mark.parametrize("wrong", [False, True])
def test_labels_of_one_kind_only(wrong: bool) -> None:
    """All right or all wrong: probabilities go that way and stay short of certainty."""
    score = Score(PRIOR)
    rng = np.random.default_rng(5)
    for _ in range(500):
        score.learn((1.0, *rng.normal(size=2).tolist()), wrong)
    risk = score.wrong((1.0, 0.0, 0.0))
    assert (risk > 0.9) if wrong else (risk < 0.1)
    assert 0 < risk < 1


def test_labels_that_a_line_parts() -> None:
    """Separable labels have no likeliest weights; the ridge has, and they are finite and in the right order."""
    score, rng = Score(PRIOR), np.random.default_rng(6)
    for _ in range(800):
        x = float(rng.normal())
        score.learn((1.0, x * 5, 0.0), wrong=x < 0)
    assert np.isfinite(score._weights).all() and np.abs(score._weights).max() < 50
    assert score.wrong((1.0, -2.0, 0.0)) > 0.8
    assert score.wrong((1.0, 2.0, 0.0)) < 0.2


def test_a_prior_turned_round_is_unlearned() -> None:
    """A prior that takes wrong for right is put right by 500 labels."""
    score = taught(500, prior=[0.0, -2.0, 0.0])
    assert score.wrong((1.0, 1.5, 0.0)) < 0.1
    assert score.wrong((1.0, -1.5, 0.0)) > 0.5


def test_only_the_newest_are_fitted() -> None:
    """Of 11,000 labels whose world turned round after 5,500 the last 5,000 count."""
    score, rng = Score(PRIOR), np.random.default_rng(7)
    for label in range(11_500):
        x = float(rng.normal())
        score.learn((1.0, x, 0.0), wrong=(x < 0) == (label < 5500))
    assert score.wrong((1.0, 1.0, 0.0)) > 0.9
    assert score.wrong((1.0, -1.0, 0.0)) < 0.1
    assert len(score._x) == 5000


def test_a_fit_stalls_no_call() -> None:
    """Of ten fits of twelve features and 5,000 labels the quickest takes under 5 ms."""
    rng, score, took = np.random.default_rng(8), Score([0.0] * 12), []
    for _ in range(5000):
        score.learn((1.0, *rng.normal(size=11).tolist()), bool(rng.random() < 0.1))
    for _ in range(10):
        start = time.perf_counter()
        score._fit(score._x, score._right)
        took.append(time.perf_counter() - start)
    assert min(took) < 0.005
