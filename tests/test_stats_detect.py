"""costkit.stats.detect: alarms are as rare as was asked for while nothing changes, and soon once something has."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from costkit.stats import Cusum, Evidence, ShiryaevRoberts, look_es, stakes
from tests.false_alarms import REPEATS, first, most

Detector = type[ShiryaevRoberts] | type[Cusum]
BOTH = pytest.mark.parametrize("kind", [ShiryaevRoberts, Cusum])


def looks(seed: int, share: float, of: int, n: int, repeats: int = REPEATS) -> NDArray[np.int64]:
    """Losses in each of n looks, shape (repeats, n)."""
    return np.random.default_rng(seed).binomial(of, share, (repeats, n))


def alarms(
    kind: Detector, wrong: NDArray[np.int64], of: int, bound: float, arl: float
) -> NDArray[np.float64]:
    """The first alarm of each repeat, in looks from 1: what the detector does, for all repeats at once."""
    table = np.array([look_es(k, of, bound) for k in range(of + 1)])
    levels = np.zeros((len(wrong), table.shape[1]))
    reached = np.zeros(wrong.shape, dtype=bool)
    for t in range(wrong.shape[1]):
        levels = (levels + 1 if kind is ShiryaevRoberts else np.maximum(levels, 1)) * table[wrong[:, t]]
        reached[:, t] = levels.mean(axis=1) >= arl
        levels = np.minimum(levels, 1e30)  # past its alarm: keep the numbers finite
    return first(reached)


def check_run_length(ends: NDArray[np.float64], arl: float, cap: int) -> float:
    """Fails if the mean looks to a false alarm, those after ``cap`` counted as ``cap``, are too few; else that mean."""
    length = float(np.minimum(ends, cap).mean())
    assert length >= arl, f"a false alarm every {length:.0f} looks, asked for {arl}"
    return length


@BOTH
@pytest.mark.parametrize(("of", "bound"), [(1, 0.05), (20, 0.1), (20, 0.01)])
def test_false_alarms_are_as_rare_as_asked(kind: Detector, of: int, bound: float) -> None:
    """With losses exactly at the bound, the mean over 2,000 repeats of the looks to an alarm is at least 500."""
    ends = alarms(kind, looks(1, bound, of, 2500), of, bound, 500)
    check_run_length(ends, 500, 2500)
    for soon in (50, 200):
        assert (ends <= soon).mean() <= most(soon / 500)
    assert (ends <= 2500).mean() > 0.1, "an alarm that never comes proves nothing"


@BOTH
def test_a_bound_that_is_too_low_is_caught(kind: Detector) -> None:
    """The simulation that passes ours fails a detector that was told .08 where the share is .1."""
    ends = alarms(kind, looks(2, 0.1, 20, 2500), 20, 0.08, 500)
    with pytest.raises(AssertionError, match="asked for 500"):
        check_run_length(ends, 500, 2500)


@pytest.mark.parametrize(("share", "median", "nine_in_ten"), [(0.15, 40, 65), (0.2, 13, 21), (0.4, 3, 5)])
def test_a_change_is_found_soon(share: float, median: int, nine_in_ten: int) -> None:
    """At one false alarm in 20,000 looks of 20: a rise by 5, 10, 30 points is found in a median of 40, 13, 3 looks."""
    changed = np.concatenate([looks(3, 0.1, 20, 200, 1000), looks(4, share, 20, 800, 1000)], axis=1)
    ends = alarms(ShiryaevRoberts, changed, 20, 0.1, 20_000)
    assert (ends <= 200).mean() <= 0.02
    delays = ends[ends > 200] - 200
    assert np.median(delays) <= median
    assert np.quantile(delays, 0.9) <= nine_in_ten
    slower = alarms(Cusum, changed, 20, 0.1, 20_000)
    assert (slower >= ends).all()


def test_false_alarms_in_a_thousand_looks() -> None:
    """At one false alarm in 20,000 looks, at most 5 % of repeats have one in their first 1,000."""
    ends = alarms(ShiryaevRoberts, looks(5, 0.1, 20, 1000), 20, 0.1, 20_000)
    assert 0.001 < (ends <= 1000).mean() <= 0.05


@BOTH
def test_the_detector_is_what_was_simulated(kind: Detector) -> None:
    """The class, stored as JSON after every look, alarms first where the arrays of the simulation do."""
    wrong = np.concatenate([looks(6, 0.05, 5, 100, 20), looks(7, 0.15, 5, 300, 20)], axis=1)
    ends = alarms(kind, wrong, 5, 0.05, 200)
    assert np.isfinite(ends).sum() >= 15
    for row, end in zip(wrong, ends, strict=True):
        detector, found = kind(200), math.inf
        for t, k in enumerate(row.tolist()):
            detector = kind(**json.loads(json.dumps(dataclasses.asdict(detector))))
            if detector.look(look_es(k, 5, 0.05)):
                found = t + 1
                break
        assert found == end


@BOTH
def test_it_starts_anew_after_an_alarm(kind: Detector) -> None:
    """After an alarm the detector stands where a new one does, and alarms again as late."""
    detector = kind(100)
    assert [detector.look(10.0) for _ in range(6)] == [False, True] * 3 or kind is ShiryaevRoberts
    again = kind(100)
    heard = [again.look(3.0) for _ in range(12)]
    period = heard.index(True) + 1
    assert [i + 1 for i, alarm in enumerate(heard) if alarm] == list(range(period, 13, period))
    again = kind(100)
    again.look(math.inf)
    assert again.level == 0.0


@pytest.mark.parametrize("evidence", ["above", "below"])
@pytest.mark.parametrize(("of", "bound"), [(1, 0.05), (20, 0.01), (50, 0.4)])
def test_a_look_is_fair_at_the_bound(of: int, bound: float, evidence: Evidence) -> None:
    """The mean of each e-value, summed over all counts, is 1 at the bound and less on the side of the claim."""
    better = bound * (0.8 if evidence == "above" else 1.2)
    for share, expected in ((bound, 1.0), (better, None)):
        chances = [math.comb(of, k) * share**k * (1 - share) ** (of - k) for k in range(of + 1)]
        means = np.array(chances) @ np.array([look_es(k, of, bound, evidence) for k in range(of + 1)])
        assert len(means) == len(stakes(bound, evidence))
        assert (means < 1).all() if expected is None else means == pytest.approx(expected, abs=1e-9)


def test_huge_and_empty_looks_are_fine() -> None:
    """A look of a million losses is a finite e-value and an alarm; a look of none says nothing."""
    detector = ShiryaevRoberts(1e6)
    assert all(math.isfinite(e) for e in look_es(10**6, 10**6, 0.01))
    assert look_es(0, 0, 0.01) == [1.0] * len(stakes(0.01, "above"))
    assert detector.look(look_es(10**6, 10**6, 0.01))
    assert not detector.look(look_es(0, 10**6, 0.01))
    assert 0 <= detector.level < 1


@BOTH
def test_what_is_no_e_value_is_refused_and_changes_nothing(kind: Detector) -> None:
    """Negative numbers, NaN, none at all or another number of sizes are errors; the detector stands."""
    detector = kind(100)
    detector.look([2.0, 0.5])
    before = dataclasses.replace(detector)
    for es in (-1.0, math.nan, [1.0, math.nan], [], [1.0], [1.0, 1.0, 1.0]):
        with pytest.raises(ValueError, match="look"):
            detector.look(es)
    assert detector == before
    for arl in (1.0, 0.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="arl"):
            kind(arl)
    with pytest.raises(ValueError, match="levels"):
        kind(100, [-1.0])
    with pytest.raises(ValueError, match="wrong=3"):
        look_es(3, 2, 0.1)
    with pytest.raises(ValueError, match="bound"):
        look_es(1, 2, 1.0)
