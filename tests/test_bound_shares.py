"""costkit.bound.shares: how many of the last requests stand on each rung, by the score as it is now."""

from __future__ import annotations

import random

import numpy as np
import pytest

from costkit.bound.shares import LONG, SHORT, Shares


@pytest.mark.parametrize("requests", [0, 1, SHORT, SHORT + 1, LONG, LONG + 1, 2 * LONG + 7])
def test_shares_are_those_of_the_last_requests(requests: int) -> None:
    """After any number of requests both views are what counting the last 600 and 4,800 gives."""
    rand, shares = random.Random(requests), Shares(3)
    came = [rand.choice([None, 0, 1, 2, 3]) for _ in range(requests)]
    for rung in came:
        shares.passed(rung, None if rand.random() < 0.5 else (1.0, 2.0))
    for size, view in ((SHORT, shares.short()), (LONG, shares.long())):
        last = came[-size:]
        assert view == pytest.approx([last.count(rung) / max(1, len(last)) for rung in range(3)])
    assert shares.requests == requests


def test_a_new_score_moves_what_it_knows() -> None:
    """Requests with features go to their new rung, those without stay, and later ones leave the right count."""
    shares = Shares(3)
    for number in range(LONG + 100):
        shares.passed(number % 3, (1.0, float(number % 3)) if number % 2 else None)
    shares.rescore(lambda features: (2 - features[:, 1]).astype(np.int64))
    expected = [0, 0, 0]
    for number in range(LONG + 100 - SHORT, LONG + 100):
        expected[2 - number % 3 if number % 2 else number % 3] += 1
    assert shares.short() == pytest.approx([count / SHORT for count in expected])
    for _ in range(SHORT):
        shares.passed(None, None)
    assert shares.short() == [0.0, 0.0, 0.0]
    assert sum(shares.long()) == pytest.approx((LONG - SHORT) / LONG)


def test_a_score_before_any_request_moves_nothing() -> None:
    """No request, or none with features: there is nothing to score again."""
    shares = Shares(2)
    shares.rescore(lambda features: np.zeros(len(features), dtype=np.int64))
    shares.passed(1, None)
    shares.rescore(lambda features: np.zeros(len(features), dtype=np.int64))
    assert shares.short() == [0.0, 1.0]


def test_features_of_another_width_stay_where_they_are() -> None:
    """A row of an older version is counted on its own rung."""
    shares = Shares(2)
    shares.passed(0, (1.0, 2.0))
    shares.passed(1, (1.0, 2.0, 3.0))
    shares.rescore(lambda features: np.full(len(features), 1))
    assert shares.short() == [0.0, 1.0]
