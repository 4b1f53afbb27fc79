"""costkit.stats.bets: no claim that is true is rejected too often, however often one looks; false ones are."""

from __future__ import annotations

import dataclasses
import json
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costkit.stats import Bet, Evidence, log_e_process, stakes, walk
from tests.false_alarms import REPEATS, bernoulli, check_alarms, drops, first, most

REJECTED = math.log(20)


@pytest.mark.parametrize("evidence", ["below", "above"])
@pytest.mark.parametrize(("bound", "n"), [(0.01, 2000), (0.05, 1000), (0.05, 100)])
def test_losses_at_the_bound_raise_few_alarms(bound: float, n: int, evidence: Evidence) -> None:
    """With the mean exactly at the bound, at most 5 % (20 %) of 2,000 repeats ever reach 20 (5)."""
    log_es = log_e_process(bernoulli(1, bound, n), bound, evidence)
    check_alarms(log_es, 0.05)
    assert check_alarms(log_es, 0.2) > 0.01, "an alarm that never comes proves nothing"


@pytest.mark.parametrize("evidence", ["below", "above"])
def test_drops_at_the_bound_raise_few_alarms(evidence: Evidence) -> None:
    """The same for losses of -1 to 1, three in four of them 0."""
    log_es = log_e_process(drops(2, 0.02, 2000), 0.02, evidence, low=-1)
    check_alarms(log_es, 0.05)
    assert check_alarms(log_es, 0.2) > 0.01


@pytest.mark.parametrize("evidence", ["below", "above"])
def test_audits_at_a_known_rate_raise_few_alarms(evidence: Evidence) -> None:
    """The same when one row in twenty is audited and counts twenty times."""
    rng, n = np.random.default_rng(3), 5000 if evidence == "below" else 2000
    weights = 20.0 * (rng.random((REPEATS, n)) < 0.05)
    log_es = log_e_process(bernoulli(4, 0.05, n), 0.05, evidence, weights=weights, most=20)
    check_alarms(log_es, 0.05)
    assert check_alarms(log_es, 0.2) > 0.01


@pytest.mark.parametrize("evidence", ["below", "above"])
def test_an_audit_rate_that_follows_the_past_raises_few_alarms(evidence: Evidence) -> None:
    """The same when the rate, and with it the most a row may count, is set by what the audits have shown so far."""
    rng = np.random.default_rng(5)
    xs = bernoulli(6, 0.05, 1500)
    rates, audits = np.full(xs.shape, 0.5), np.zeros(xs.shape)
    wrong, seen = np.zeros(REPEATS), np.zeros(REPEATS)
    for t in range(xs.shape[1]):
        rates[:, t] = np.where(seen < 60, 1.0, np.where(wrong > 0.05 * seen, 0.3, 0.05))
        audits[:, t] = rng.random(REPEATS) < rates[:, t]
        seen, wrong = seen + audits[:, t], wrong + audits[:, t] * xs[:, t]
    log_es = log_e_process(xs, 0.05, evidence, weights=audits / rates, most=1 / rates)
    check_alarms(log_es, 0.05)
    assert check_alarms(log_es, 0.2) > 0.01


def rows_looked_at_by_their_looks() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Losses of mean .05, weights and rates: half the rows look safe, are (1 %), and are audited ten times as often."""
    rng = np.random.default_rng(7)
    safe = rng.random((REPEATS, 2000)) < 0.5
    xs = (rng.random(safe.shape) < np.where(safe, 0.01, 0.09)).astype(float)
    rates = np.where(safe, 0.5, 0.05)
    return xs, (rng.random(safe.shape) < rates) / rates, rates


def test_rows_may_be_audited_by_their_looks() -> None:
    """A rate that differs from row to row is fair when ``most`` is the same for all of them."""
    xs, weights, _ = rows_looked_at_by_their_looks()
    for evidence in ("below", "above"):
        check_alarms(log_e_process(xs, 0.05, evidence, weights=weights, most=20), 0.05)


def test_most_that_follows_the_row_is_caught() -> None:
    """What ``see`` warns of is real: with ``most`` set by the row, safe rows count too much and the bound falls."""
    xs, weights, rates = rows_looked_at_by_their_looks()
    with pytest.raises(AssertionError, match="false alarms"):
        check_alarms(log_e_process(xs, 0.05, weights=weights, most=1 / rates), 0.05)


def test_losses_that_depend_on_the_past_raise_few_alarms() -> None:
    """Only the mean given the past matters: now 0 or 1, now exactly the bound, as a clever opponent would choose."""
    rng = np.random.default_rng(8)
    xs = bernoulli(9, 0.05, 1000)
    for t in range(1, xs.shape[1]):
        ahead = xs[:, :t].mean(axis=1) < 0.05 if t % 10 == 0 else xs[:, t - 1] > 0
        xs[:, t] = np.where(ahead & (rng.random(REPEATS) < 0.5), 0.05, xs[:, t])
    for evidence in ("below", "above"):
        check_alarms(log_e_process(xs, 0.05, evidence), 0.05)


@pytest.mark.parametrize("cheat", ["sees x", "best in hindsight"])
def test_a_bet_that_sees_what_it_bets_on_is_caught(cheat: str) -> None:
    """The simulation that passes ours fails a bet placed after x is known, or the best stake chosen afterwards."""
    xs = bernoulli(1, 0.05, 1000)
    won = (0.05 - xs) / 0.95
    if cheat == "sees x":
        log_es = np.cumsum(np.log1p(np.where(won > 0, 0.1, 0.05) * won), axis=1)
    else:
        log_es = np.max([np.cumsum(np.log1p(s * won), axis=1) for s in stakes(0.05)], axis=0)
    with pytest.raises(AssertionError, match="false alarms"):
        check_alarms(log_es, 0.2)


@pytest.mark.parametrize(("bound", "perfect", "half"), [(0.01, 420, 2500), (0.05, 83, 500)])
def test_a_mean_below_the_bound_is_found(bound: float, perfect: int, half: int) -> None:
    """No loss at all rejects within 1.41 times the 299 (59) rows of the exact test; half the bound in a stated median.

    The best stake in hindsight needs a median of about 1,430 (310) rows at half the bound.
    """
    none = log_e_process(np.zeros(perfect), bound)
    assert first(none >= REJECTED) <= perfect
    log_es = log_e_process(bernoulli(10, bound / 2, 3 * half, 400), bound)
    assert half / 3 < np.median(first(log_es >= REJECTED)) <= half


def test_a_drop_below_the_bound_and_audits_find_theirs() -> None:
    """No drop on average is found at a bound of .05 in a median of 800 rows; audits at 5 % need 20 times as many."""
    log_es = log_e_process(drops(11, 0.0, 3000, 400), 0.05, low=-1)
    assert np.median(first(log_es >= REJECTED)) <= 800
    weights = 20.0 * (np.random.default_rng(12).random((200, 40_000)) < 0.05)
    audited = log_e_process(bernoulli(13, 0.025, 40_000, 200), 0.05, weights=weights, most=20)
    assert np.median(first(audited >= REJECTED)) <= 20 * 500


@pytest.mark.parametrize(("factor", "rows"), [(2, 210), (4, 34), (10, 8)])
def test_a_mean_above_the_bound_is_found(factor: int, rows: int) -> None:
    """Twice, four and ten times the bound of .05 are rejected in a median of 210, 34 and 8 rows."""
    log_es = log_e_process(bernoulli(14, 0.05 * factor, 2000, 400), 0.05, "above")
    assert np.median(first(log_es >= REJECTED)) <= rows


@given(
    history=st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 1)), max_size=30),
    bound=st.floats(-0.95, 0.95),
    rate=st.floats(0.01, 1),
    evidence=st.sampled_from(["below", "above"]),
)
@settings(max_examples=200, deadline=None)
def test_the_next_bet_is_fair(
    history: list[tuple[float, float]], bound: float, rate: float, evidence: Evidence
) -> None:
    """Whatever was seen, the mean of the next growth over an audited -1 or 1 of mean ``bound`` is 1."""
    bet = Bet(bound, evidence, low=-1)
    for x, part in history:
        bet.see(x, weight=5 * part, most=5)
    mean = 1 - rate
    for x, chance in ((1.0, (1 + bound) / 2), (-1.0, (1 - bound) / 2)):
        after = Bet(**dataclasses.asdict(bet))
        after.see(x, weight=1 / rate, most=1 / rate)
        mean += rate * chance * math.exp(after.log_e - bet.log_e)
    assert mean == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(
    ("bound", "low", "evidence"), [(0.02, 0, "below"), (0.05, 0, "above"), (0.02, -1, "below")]
)
def test_one_at_a_time_and_all_at_once_agree(bound: float, low: float, evidence: Evidence) -> None:
    """Bet, log_e_process and a Bet stored as JSON after every row say the same of audited rows."""
    rng = np.random.default_rng(15)
    xs = drops(16, 0.1, 600, 1)[0] if low else bernoulli(16, 0.1, 600, 1)[0]
    rates = np.where(np.arange(600) < 300, 1.0, 0.25)
    weights = (rng.random(600) < rates) / rates
    bet, stored = Bet(bound, evidence, low=low), json.dumps(dataclasses.asdict(Bet(bound, evidence, low=low)))
    log_es = []
    for x, weight, rate in zip(xs.tolist(), weights.tolist(), rates.tolist(), strict=True):
        bet.see(x, weight, 1 / rate)
        again = Bet(**json.loads(stored))
        again.see(x, weight, 1 / rate)
        stored = json.dumps(dataclasses.asdict(again))
        log_es.append(bet.log_e)
    at_once = log_e_process(xs, bound, evidence, low=low, weights=weights, most=1 / rates)
    assert log_es == pytest.approx(at_once.tolist(), abs=1e-9)
    assert Bet(**json.loads(stored)) == bet
    assert bet.most_log_e == pytest.approx(max(0.0, at_once.max()), abs=1e-9)
    assert bet.p == math.exp(-bet.most_log_e)


def test_a_row_not_audited_changes_nothing() -> None:
    """A weight of 0 leaves the bet as it was, so a fold over the audited rows alone is the whole process."""
    bet = Bet(0.05)
    bet.see(1.0)
    before = dataclasses.replace(bet)
    bet.see(0.0, weight=0.0, most=20.0)
    assert bet == before


def test_a_bet_survives_any_run() -> None:
    """A million of the worst rows, then a million of the best, leave finite numbers and a bet that still moves."""
    log_es = log_e_process(np.repeat([1.0, 0.0], 500_000), 0.05)
    assert np.isfinite(log_es).all() and log_es[-1] > log_es[500_000]
    bet = Bet(0.05)
    for x in [1.0] * 3000 + [0.0] * 3000:
        bet.see(x)
    low = bet.log_e
    bet.see(0.0)
    assert math.isfinite(low) and bet.log_e > low
    assert log_e_process(np.zeros(0), 0.05).shape == (0,)
    assert log_e_process(np.zeros((0, 7)), 0.05).shape == (0, 7)


@pytest.mark.parametrize("x", [math.nan, math.inf, -0.01, 1.01])
def test_what_is_out_of_range_is_refused_and_changes_nothing(x: float) -> None:
    """A value outside its range is an error that names it, one at a time and all at once; the bet stands."""
    bet = Bet(0.05)
    before = dataclasses.replace(bet)
    with pytest.raises(ValueError, match=r"Bet\.see\(x="):
        bet.see(x)
    with pytest.raises(ValueError, match=r"log_e_process\(xs\)"):
        log_e_process([0.0, x], 0.05)
    assert bet == before


@pytest.mark.parametrize(
    ("weight", "most_"), [(2.0, 1.0), (-1.0, 1.0), (math.nan, 2.0), (0.5, 0.5), (1.0, math.inf)]
)
def test_weights_that_cannot_be_are_refused(weight: float, most_: float) -> None:
    """A weight above the most it could be, negative or no number is refused, and so is a most below 1."""
    with pytest.raises(ValueError, match="weight <= most"):
        Bet(0.05).see(0.0, weight, most_)
    with pytest.raises(ValueError, match="weight <= most"):
        log_e_process([0.0], 0.05, weights=weight, most=most_)


def test_settings_that_cannot_be_are_refused() -> None:
    """A bound outside the range, an unknown kind of evidence and broken state are errors that say so."""
    for bound in (0.0, 1.0, math.nan, -0.1):
        with pytest.raises(ValueError, match="low < bound < high"):
            Bet(bound)
    with pytest.raises(ValueError, match='say "below"'):
        Bet(0.1, "beneath")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="stakes"):
        Bet(0.1, stakes=[1.0])
    with pytest.raises(ValueError, match="shares"):
        Bet(0.1, shares=[1.0])


def test_the_walk_stops_at_the_first_that_is_not_rejected() -> None:
    """Everything before the first e-value under 1/alpha is rejected, nothing after it, and NaN is refused."""
    assert walk([], 0.05) == 0
    assert walk([REJECTED, 4.0, 2.99, 50.0], 0.05) == 2
    assert walk([-1.0, 50.0], 0.05) == 0
    assert walk(np.array([math.inf, 4.0]), 0.05) == 2
    with pytest.raises(ValueError, match="value 2"):
        walk([5.0, math.nan], 0.05)
    with pytest.raises(ValueError, match="alpha"):
        walk([5.0], 1.0)


def test_the_walk_rarely_goes_too_far() -> None:
    """Five thresholds of one stream, the last three at or past the bound: one of those is taken in at most 5 %."""
    u = np.random.default_rng(17).random((REPEATS, 1000))
    best = [
        log_e_process((u < risk).astype(float), 0.05).max(axis=1) for risk in (0.01, 0.02, 0.05, 0.06, 0.08)
    ]
    walked = np.array([walk(log_es, 0.05) for log_es in np.array(best).T])
    assert (walked > 2).mean() <= most(0.05)
    assert (walked >= 2).mean() > 0.9


def test_a_bet_is_settled_in_microseconds() -> None:
    """One observation takes less than 50 microseconds of processor time."""
    bet = Bet(0.01, "above")
    start = time.process_time()
    for _ in range(2000):
        bet.see(0.0)
    assert (time.process_time() - start) / 2000 < 50e-6
