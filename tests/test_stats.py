"""costkit.stats: the intervals cover what they say they cover."""

from __future__ import annotations

import numpy as np
import pytest

from costkit.stats import bootstrap_change, bootstrap_mean, quantile, quantile_interval, wilson


@pytest.mark.parametrize(("share", "n"), [(0.5, 30), (0.9, 100), (0.05, 200)])
def test_wilson_covers_the_true_share(share: float, n: int) -> None:
    """Over 4,000 seeded repeats the 95 % interval holds the true share in 92.5 % to 98 % of them."""
    rng = np.random.default_rng(1)
    held = 0
    for k in rng.binomial(n, share, 4000):
        low, high = wilson(int(k), n)
        held += low <= share <= high
    assert 0.925 <= held / 4000 <= 0.98


def test_wilson_refuses_impossible_counts() -> None:
    """More right than asked is an error, nothing asked is the whole range."""
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="right=3"):
        wilson(3, 2)


@pytest.mark.parametrize(("q", "n"), [(0.5, 40), (0.95, 100), (0.95, 1000)])
def test_quantile_interval_covers_the_true_quantile(q: float, n: int) -> None:
    """Over 3,000 seeded repeats of exponential values the interval holds the quantile at least 94 % of the time."""
    rng = np.random.default_rng(2)
    truth = -np.log(1 - q)
    held = 0
    for values in rng.exponential(size=(3000, n)):
        interval = quantile_interval(values, q)
        assert interval is not None
        held += interval[0] <= truth <= interval[1]
    assert held / 3000 >= 0.94


def test_quantile_interval_is_none_below_its_sample_size() -> None:
    """A p95 has no two-sided 95 % interval from 71 values, and has one from 72."""
    assert quantile_interval(range(71), 0.95) is None
    assert quantile_interval(range(72), 0.95) is not None


def test_quantile_is_a_value_that_was_seen() -> None:
    """No interpolation: the p95 of 20 values is the 19th."""
    assert quantile(range(1, 21), 0.95) == 19
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


def test_bootstrap_mean_covers_and_is_seeded() -> None:
    """Over 300 seeded repeats the 95 % interval holds the mean in 90 % or more, and repeats itself exactly."""
    rng = np.random.default_rng(3)
    held = 0
    for values in rng.gamma(2.0, size=(300, 80)):
        low, high = bootstrap_mean(values, repeats=600)
        held += low <= 2.0 <= high
    assert held / 300 >= 0.90
    assert bootstrap_mean([1.0, 2.0, 4.0]) == bootstrap_mean([1.0, 2.0, 4.0])
    with pytest.raises(ValueError, match="no values"):
        bootstrap_mean([])


def test_a_paired_change_is_found_and_covered() -> None:
    """Over 200 seeded repeats of pairs that differ by a factor around .8, the interval holds -.2 in 90 % or more."""
    rng = np.random.default_rng(4)
    held = 0
    for _ in range(200):
        before = rng.gamma(2.0, size=120)
        after = before * rng.uniform(0.7, 0.9, size=120)
        _, interval = bootstrap_change(before, after, lambda v: float(v.mean()), repeats=300)
        assert interval is not None
        held += interval[0] <= -0.2 <= interval[1]
    assert held / 200 >= 0.90


def test_a_change_needs_pairs() -> None:
    """Unpaired values are refused, and fewer than 72 pairs give no interval."""
    with pytest.raises(ValueError, match="pairs"):
        bootstrap_change([1.0], [1.0, 2.0], lambda v: float(v.mean()))
    assert bootstrap_change([2.0] * 71, [1.0] * 71, lambda v: float(v.mean())) == (-0.5, None)
