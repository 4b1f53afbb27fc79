"""The watch over a rung: no false word where labels are exchangeable, and a change for the worse is found."""

from __future__ import annotations

import numpy as np
import pytest

from costkit.bound import PER_HIT, Bound
from costkit.bound.ladder import Ladder
from costkit.bound.steady import Steady


@pytest.mark.parametrize("rate", [0.003, 0.02, 0.1, 0.4])
def test_where_nothing_changes_it_is_quiet(rate: float) -> None:
    """Looked at after each of 2,000 labels of one rate, at most 3 of 500 rungs are called worse."""
    rng = np.random.default_rng(int(rate * 1000))
    false = 0
    for _ in range(500):
        rung = Steady()
        false += any([rung.see(wrong) for wrong in (rng.random(2000) < rate).tolist()])
    assert false <= 500 / 200 + 1


def test_a_rate_that_wanders_by_exchange_is_quiet() -> None:
    """Labels drawn from an urn without replacement are exchangeable, and no change is found in 300 of them."""
    rng = np.random.default_rng(4)
    urn = np.array([True] * 40 + [False] * 960)
    false = 0
    for _ in range(300):
        rung = Steady()
        false += any([rung.see(wrong) for wrong in rng.permutation(urn).tolist()])
    assert false <= 3


def test_what_gets_worse_is_found_and_what_gets_better_is_not() -> None:
    """From 1% to 20% wrong it takes fewer than 150 labels in 50 of 50 rungs; from 20% to 1% nothing is said."""
    rng = np.random.default_rng(5)
    took = []
    for _ in range(50):
        rung, better = Steady(), Steady()
        told = [rung.see(wrong) for wrong in (rng.random(900) < np.repeat([0.01, 0.2], [500, 400])).tolist()]
        assert True not in told[:500]
        took.append(told.index(True) - 500)
        assert not any(
            [better.see(wrong) for wrong in (rng.random(900) < np.repeat([0.2, 0.01], [500, 400])).tolist()]
        )
    assert max(took) < 150


def test_a_ladder_counts_its_rungs_that_got_worse() -> None:
    """Of a ladder with 600 right labels on one rung, half of the next ones wrong, one change is told within 40."""
    ladder = Ladder(Bound(0.05, PER_HIT))
    for _ in range(600):
        ladder.label(0, wrong=False)
    labels = 0
    while not ladder.worsened:
        ladder.label(0, wrong=labels % 2 == 0)
        labels += 1
    assert labels < 40 and ladder.worsened == 1
