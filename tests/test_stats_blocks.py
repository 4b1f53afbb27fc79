"""Intervals over time: they cover where neighbours are alike, and the plain bootstrap does not."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from costkit.stats import bootstrap_mean
from costkit.stats.blocks import block_length, block_mean, block_statistic

REPEATS, ROWS = 300, 2000


def series(correlation: float, seed: int) -> np.ndarray:
    """Hits and misses, 31% hits, whose neighbours have (about) this correlation; shape (REPEATS, ROWS)."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(ROWS, REPEATS)) * np.sqrt(1 - correlation**2)
    level = rng.normal(size=REPEATS)
    found = np.empty((ROWS, REPEATS))
    for at in range(ROWS):
        level = correlation * level + noise[at]
        found[at] = level
    return (found.T > 0.5).astype(float)


@pytest.mark.parametrize(("correlation", "least"), [(0.0, 0.90), (0.5, 0.86), (0.8, 0.84)])
def test_it_covers(correlation: float, least: float) -> None:
    """A nominal 95% interval covers the mean nearly as often as it says, in 300 seeded series of 2,000 rows."""
    truth = 1 - NormalDist().cdf(0.5)
    spans = [block_mean(row, repeats=300, seed=at) for at, row in enumerate(series(correlation, 1))]
    covered = sum(span is not None and span[0] <= truth <= span[1] for span in spans) / REPEATS
    assert least <= covered <= 0.985


def test_the_plain_bootstrap_would_not_do() -> None:
    """Where neighbours are alike, an interval that takes them as independent covers far less: the blocks are needed."""
    truth = 1 - NormalDist().cdf(0.5)
    spans = [bootstrap_mean(row, repeats=200, seed=at) for at, row in enumerate(series(0.8, 1)[:100])]
    assert sum(low <= truth <= high for low, high in spans) < 75


def test_any_statistic() -> None:
    """The interval of a mean comes out the same by rows drawn as by sums of blocks."""
    values = series(0.5, 3)[0]
    direct = block_mean(values, repeats=2000)
    drawn = block_statistic(ROWS, lambda rows: float(values[rows].mean()), repeats=2000)
    assert direct is not None and drawn is not None
    assert np.allclose(direct, drawn, atol=0.01)


def test_few_rows_have_no_interval() -> None:
    """Below 30 rows there is none; a constant has no width; a block is never longer than the series."""
    assert block_mean([1.0] * 29) is None and block_statistic(29, lambda rows: 1.0) is None
    assert block_mean([0.5] * 30) == (0.5, 0.5)
    assert [block_length(rows) for rows in (1, 2, 30, 1000, 10**6)] == [1, 2, 9, 30, 300]
