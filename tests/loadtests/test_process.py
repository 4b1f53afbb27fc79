"""Tests of a point process: the distributions are the known ones, and the p-values are honest."""

from __future__ import annotations

import math

import numpy as np
import pytest

from loadtests.process import dispersion, gamma_cdf, kolmogorov, law_of_dispersion


def test_gamma_against_closed_forms() -> None:
    """The gamma distribution agrees with its closed forms: exponential, Erlang of order 3, and the error function."""
    x = np.linspace(0, 30, 500)
    y = 3 * x
    assert np.allclose(gamma_cdf(x, 1.0), 1 - np.exp(-x), atol=1e-13)
    assert np.allclose(gamma_cdf(x, 3.0), 1 - np.exp(-y) * (1 + y + y * y / 2), atol=1e-13)
    assert np.allclose(gamma_cdf(x, 0.5), [math.erf(math.sqrt(v / 2)) for v in x], atol=1e-13)
    assert gamma_cdf([0.0, 1e6], 0.01).tolist() == [0.0, 1.0] and 0.49 < gamma_cdf(1.0, 1000.0) < 0.51


def test_p_values_are_uniform() -> None:
    """Over 4,000 seeded samples of uniform numbers, each small p-value comes up as often as it says."""
    rng = np.random.default_rng(0)
    for size in (10, 150):
        found = np.array([kolmogorov(rng.random(size)) for _ in range(4000)])
        for level in (0.01, 0.1, 0.5):
            assert abs(np.mean(found <= level) - level) < 4 * math.sqrt(level * (1 - level) / 4000) + 0.01
    assert kolmogorov([]) == 1.0


def test_distances_below_the_least_are_not_looked_at() -> None:
    """Numbers that were rounded to 0 do not count against the others; without the limit they would."""
    numbers = np.sort(np.random.default_rng(1).random(2000))
    rounded = np.where(numbers < 0.1, 0.0, numbers)
    assert kolmogorov(rounded) < 1e-6 and kolmogorov(rounded, 0.1) > 0.01


@pytest.mark.parametrize("shape", [0.25, 1.0, 4.0])
def test_the_index_has_its_law(shape: float) -> None:
    """The index of dispersion of simulated arrivals has the mean and the spread that the law says."""
    mean, spread = law_of_dispersion(shape, 10.0)
    rng = np.random.default_rng(5)
    found = []
    for _ in range(600):
        times = np.cumsum(rng.standard_gamma(shape, 800) / shape)
        told = dispersion(times, 500.0, 10.0)
        assert told is not None and told[1] == 50
        found.append(told[0])
    assert abs(np.mean(found) - mean) < 0.1 * mean
    assert 0.8 < np.std(found) / (spread / math.sqrt(50)) < 1.25
    assert dispersion([1.0], 99.0, 10.0) is None
