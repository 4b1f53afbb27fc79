"""costkit.stats.sequences: the limits hold after every observation, for the mean each of them is about."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from costkit.stats import RunningMean, Values, mean_sequence, running_mean_sequence
from costkit.stats.sequences import _boundary
from tests.false_alarms import REPEATS, bernoulli, check_coverage, drops


def constant(xs: Values, **settings: float) -> tuple[Values, Values]:
    """The limits of ``mean_sequence`` for each row."""
    pairs = [mean_sequence(row, **settings) for row in xs]  # type: ignore[arg-type]
    return np.array([low for low, _ in pairs]), np.array([high for _, high in pairs])


@pytest.mark.parametrize(("mean", "n", "confidence"), [(0.01, 300, 0.95), (0.05, 100, 0.7), (0.5, 100, 0.8)])
def test_a_mean_that_stays_is_held(mean: float, n: int, confidence: float) -> None:
    """Looked at after each of 100 to 300 losses, the limits miss the mean as rarely as they say in 2,000 repeats."""
    lows, highs = constant(bernoulli(1, mean, n), confidence=confidence)
    missed = check_coverage(lows, highs, mean, confidence)
    assert missed > 0.005 or confidence == 0.95, "limits that never miss prove nothing"


def test_a_mean_drop_is_held() -> None:
    """The same for 200 losses of -1 to 1, three in four of them 0."""
    lows, highs = constant(drops(2, 0.02, 200), low=-1)
    check_coverage(lows, highs, 0.02)
    assert np.median((highs - lows)[:, -1]) < 0.5


@pytest.mark.slow
def test_a_mean_that_stays_is_held_for_long() -> None:
    """The same after each of 5,000 losses of mean .05."""
    check_coverage(*constant(bernoulli(3, 0.05, 5000)), 0.05)


def test_intervals_made_for_one_look_are_caught() -> None:
    """The simulation that passes ours fails the textbook interval for one look, looked at after every observation."""
    xs, t = bernoulli(4, 0.5, 300), np.arange(1, 301)
    means, reach = np.cumsum(xs, axis=1) / t, 1.96 * 0.5 / np.sqrt(t)
    with pytest.raises(AssertionError, match="missed"):
        check_coverage((means - reach)[:, 29:], (means + reach)[:, 29:], 0.5)


def test_a_mean_is_found_within_stated_limits() -> None:
    """After 500 (5,000) losses of mean .05 the limits are under .07 (.025) apart; for one look, .04 (.012)."""
    for n, width in ((500, 0.07), (5000, 0.025)):
        lows, highs = constant(bernoulli(5, 0.05, n, 40))
        assert np.median((highs - lows)[:, -1]) < width


def test_limits_are_never_drawn_too_tight() -> None:
    """Each limit lies on or outside where hedged capital, solved by bisection, passes the threshold, by under .003."""
    xs = bernoulli(6, 0.1, 400, 1)[0]
    lows, highs = mean_sequence(xs)
    t = np.arange(1, xs.size + 1)
    means = (0.5 + np.cumsum(xs)) / (t + 1)
    past = np.concatenate([[0.25], ((0.25 + np.cumsum((xs - means) ** 2)) / (t + 1))[:-1]])
    bets = np.minimum(0.75, np.sqrt(2 * math.log(40) / (past * t * np.log1p(t))))
    for z, limits in ((xs, lows), (1 - xs, 1 - highs)):
        solved = 0.0
        for i in range(1, z.size + 1):
            under, over = 0.0, 1.0
            for _ in range(40):
                middle = (under + over) / 2
                passed = np.log1p(bets[:i] * (z[:i] - middle)).sum() >= math.log(40)
                under, over = (middle, over) if passed else (under, middle)
            solved = max(solved, under)
            assert solved - 0.003 < limits[i - 1] <= solved + 1e-9


def moving(how: str, n: int) -> Values:
    """The means of n losses that go up and down, jump, or stay."""
    t = np.arange(n)
    if how == "wave":
        return np.asarray(0.3 + 0.25 * np.sin(2 * np.pi * t / 400))
    return np.where(t < 300, 0.02, 0.5) if how == "jump" else np.full(n, 0.05)


@pytest.mark.parametrize("how", ["wave", "jump", "still"])
def test_the_average_of_a_moving_mean_is_held(how: str) -> None:
    """A wave, a jump, none: the limits ever miss the average of the means so far in at most 5 % of 2,000 repeats."""
    t = np.arange(1000)
    means = moving(how, t.size)
    xs = (np.random.default_rng(7).random((REPEATS, t.size)) < means).astype(float)
    truth = np.cumsum(means) / (t + 1)
    lows, highs = running_mean_sequence(xs)
    check_coverage(lows, highs, truth)
    assert np.median((highs - lows)[:, -1]) < 0.16
    missed = check_coverage(*running_mean_sequence(xs, confidence=0.5), truth, 0.5)
    assert missed > 0.01, "limits that never miss prove nothing"


@pytest.mark.parametrize("how", ["wave", "jump"])
def test_the_average_is_held_when_few_rows_are_audited(how: str) -> None:
    """The same over 2,000 rows of which one in twenty is audited and counts twenty times."""
    t, rng = np.arange(2000), np.random.default_rng(8)
    means = moving(how, t.size)
    xs = (rng.random((REPEATS, t.size)) < means).astype(float)
    weights = 20.0 * (rng.random(xs.shape) < 0.05)
    lows, highs = running_mean_sequence(xs, weights=weights, most=20)
    check_coverage(lows, highs, np.cumsum(means) / (t + 1))
    assert np.median((highs - lows)[:, -1]) < 0.6


@pytest.mark.slow
def test_the_average_is_held_for_long() -> None:
    """The same after each of 5,000 drops whose mean goes from 0 to .3 and back."""
    t = np.arange(5000)
    means = np.where((t > 1500) & (t < 3000), 0.3, 0.0)
    xs = drops(9, means, t.size)
    check_coverage(*running_mean_sequence(xs, low=-1), np.cumsum(means) / (t + 1))


def test_a_mean_that_depends_on_the_past_is_held() -> None:
    """The means may follow what was seen: here each loss makes the next one likelier."""
    rng = np.random.default_rng(10)
    xs, means = np.zeros((REPEATS, 600)), np.full((REPEATS, 600), 0.05)
    for t in range(600):
        if t:
            means[:, t] = np.where(xs[:, t - 1] > 0, 0.8, 0.05)
        xs[:, t] = rng.random(REPEATS) < means[:, t]
    check_coverage(*running_mean_sequence(xs), np.cumsum(means, axis=1) / np.arange(1, 601))


def test_limits_for_a_mean_that_stays_do_not_hold_for_one_that_moves() -> None:
    """Why there are two: after a jump the constant-mean limits miss the running average, or cross."""
    t = np.arange(600)
    means = moving("jump", t.size)
    xs = (np.random.default_rng(11).random((200, t.size)) < means).astype(float)
    with pytest.raises(AssertionError, match="missed"):
        check_coverage(*constant(xs), np.cumsum(means) / (t + 1))


def test_one_side_alone_is_tighter_and_holds() -> None:
    """With ``sides=1`` the upper limit lies lower, and is passed in at most 5 % of repeats."""
    xs = bernoulli(12, 0.05, 500)
    _, both = running_mean_sequence(xs)
    _, alone = running_mean_sequence(xs, sides=1)
    assert (alone <= both).all() and (alone < both).any()
    check_coverage(np.zeros_like(alone), alone, 0.05)
    _, both = mean_sequence(xs[0])
    _, alone = mean_sequence(xs[0], sides=1)
    assert alone[-1] < both[-1]


@pytest.mark.parametrize("most", [1.0, 20.0])
def test_one_at_a_time_and_all_at_once_agree(most: float) -> None:
    """RunningMean, stored as JSON after every row, gives what ``running_mean_sequence`` gives."""
    xs = drops(13, 0.1, 400, 1)[0]
    weights = most * (np.random.default_rng(14).random(400) < 1 / most)
    lows, highs = running_mean_sequence(xs, low=-1, weights=weights, most=most)
    stored = json.dumps(dataclasses.asdict(RunningMean(low=-1, most=most)))
    assert RunningMean(low=-1).interval() == (-1, 1)
    for i, (x, weight) in enumerate(zip(xs.tolist(), weights.tolist(), strict=True)):
        running = RunningMean(**json.loads(stored))
        running.see(x, weight)
        assert running.interval() == pytest.approx((lows[i], highs[i]), abs=1e-9)
        stored = json.dumps(dataclasses.asdict(running))


def test_the_boundary_is_the_mixtures() -> None:
    """At the boundary the mixture stands at its threshold, to 1e-4 nats and never below, for variances of 0 to 1e9."""
    variance = np.concatenate([[0.0], np.geomspace(1e-3, 1e9, 60)])
    rates = 0.9 * 0.5 ** np.arange(13)
    s = _boundary(variance, math.log(40))
    parts = rates[:, None] * s + (np.log1p(-rates) + rates)[:, None] * variance
    mixture = parts.max(axis=0) + np.log(np.exp(parts - parts.max(axis=0)).mean(axis=0))
    assert ((mixture >= math.log(40) - 1e-9) & (mixture < math.log(40) + 1e-4)).all()
    assert _boundary(np.zeros((0, 3)), 1.0).shape == (0, 3)


def test_nothing_seen_gives_nothing_and_no_variance_is_fine() -> None:
    """No rows give empty arrays; rows that are all alike give limits around them."""
    for sequence in (mean_sequence, running_mean_sequence):
        assert [limits.shape for limits in sequence([])] == [(0,), (0,)]
        lows, highs = sequence(np.full(1000, 0.25))
        assert 0.2 < lows[-1] < 0.25 < highs[-1] < 0.3


def test_blocks_join_up() -> None:
    """More observations than one block holds give the same limits as fewer, as far as those go."""
    xs = bernoulli(15, 0.2, 9000, 1)[0]
    for long, short in zip(mean_sequence(xs), mean_sequence(xs[:300]), strict=True):
        assert long[:300] == pytest.approx(short, abs=1e-12)


def test_what_is_out_of_range_is_refused() -> None:
    """Values, weights, ranges and confidences that cannot be are errors that name the argument; state stands."""
    running = RunningMean()
    before = dataclasses.replace(running)
    for x in (math.nan, -0.1, 1.1):
        with pytest.raises(ValueError, match=r"see\(x="):
            running.see(x)
        for sequence in (mean_sequence, running_mean_sequence):
            with pytest.raises(ValueError, match=r"\(xs\)"):
                sequence([0.5, x])
    for weight in (math.nan, -1.0, 1.5):
        with pytest.raises(ValueError, match="weight"):
            running.see(0.5, weight)
        with pytest.raises(ValueError, match="weights"):
            running_mean_sequence([0.5], weights=weight)
    assert running == before
    with pytest.raises(ValueError, match="confidence"):
        RunningMean(confidence=1.0)
    with pytest.raises(ValueError, match="sides"):
        RunningMean(sides=3)
    with pytest.raises(ValueError, match="low"):
        RunningMean(low=1.0)
    with pytest.raises(ValueError, match="most"):
        RunningMean(most=0.5)
