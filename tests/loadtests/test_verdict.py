"""The verdict on the generator: clean runs are valid, faulty ones are not, and the reason says what was wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from loadtests.arrivals import Kind, Plan, Stage
from loadtests.sample import Sample
from loadtests.slo import parse_objectives
from loadtests.verdict import judge, lag_limit
from tests.loadtests.generated import clean, dropped, failed, sample, slept

CASES: list[tuple[Kind, float]] = [("poisson", 1.0), ("gamma", 0.25), ("gamma", 4.0), ("constant", 1.0)]
RAMP = (Stage(5, 20, 10), Stage(20, 20, 2), Stage(0, 0, 2), Stage(10, 2, 6))


def steady(rate: float, kind: Kind = "poisson", burstiness: float = 1.0, seed: int = 0) -> Plan:
    return Plan((Stage(rate, rate),), kind, burstiness, seed)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "burstiness"), CASES)
@pytest.mark.parametrize("rate", [10, 200])
def test_clean_runs_are_valid(kind: Kind, burstiness: float, rate: float) -> None:
    """Of runs sent as asked, 150 and 3,000 requests long, at most 2% are called invalid."""
    seeds = 200 if rate == 10 else 50
    plans = [steady(rate, kind, burstiness, seed) for seed in range(seeds)]
    wrong = [v.reason for plan in plans if not (v := judge(clean(plan, 15.0), seconds=15.0, plan=plan)).valid]
    assert len(wrong) <= 0.02 * seeds, wrong


def test_clean_ramps_are_valid() -> None:
    """Stages, ramps and pauses sent as asked are valid too."""
    plans = [Plan(RAMP, seed=seed) for seed in range(150)]
    wrong = [v.reason for plan in plans if not (v := judge(clean(plan, 20.0), seconds=20.0, plan=plan)).valid]
    assert len(wrong) <= 3, wrong


@pytest.mark.parametrize("rate", [10, 50, 200])
def test_a_tenth_dropped_is_seen(rate: float) -> None:
    """A generator that never sends a tenth of its requests is caught in every run, and told so."""
    for seed in range(40):
        plan = steady(rate, seed=seed)
        told = judge(dropped(clean(plan, 15.0), 0.1, seed), seconds=15.0, plan=plan)
        assert not told.valid and "never sent" in told.reason


@pytest.mark.slow
@pytest.mark.parametrize("rate", [10, 50, 200])
def test_a_sleep_is_seen(rate: float) -> None:
    """A generator that sleeps 200 ms when a request is due is caught in every run, and told so."""
    for seed in range(40):
        plan = steady(rate, seed=seed)
        run = clean(plan, 15.0)
        told = judge(slept(run, run[len(run) // 2].intended, 0.2), seconds=15.0, plan=plan)
        assert not told.valid and "late" in told.reason


def slower(run: list[Sample]) -> list[Sample]:
    """A generator that cannot keep up: each request a little later than the one before, the last after the end."""
    return [sample(one.id, one.intended, 0.1 * one.intended) for one in run]


def faster(run: list[Sample]) -> list[Sample]:
    """A generator in too much of a hurry: what was to be sent in 15 s is sent in 5."""
    return [replace(one, intended=one.intended / 3, sent=one.sent / 3) for one in run]


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (slower, "late"),
        (faster, "other moments"),
        (lambda run: [*run, run[5]], "more than once (such as number 5)"),
        (lambda run: [], "none of"),
        (lambda run: [failed(one.id, one.intended) for one in run[: len(run) // 2]], "never sent"),
        (lambda run: [sample(one.id, one.intended, 0.06) for one in run], "late"),
    ],
    ids=["slower", "faster", "twice", "none", "half", "late"],
)
def test_other_faults_are_seen(fault: Callable[[list[Sample]], list[Sample]], named: str) -> None:
    """A generator that falls behind, hurries, repeats, stops or is late throughout is caught, and told so."""
    plan = steady(20, seed=4)
    told = judge(fault(clean(plan, 15.0)), seconds=15.0, plan=plan)
    assert not told.valid and named in told.reason and "\n" not in told.reason


@pytest.mark.parametrize("seconds", [4, 50])
def test_lateness_that_moves_a_p95_is_seen(seconds: float) -> None:
    """Every second request 6.5 ms late, which each may be, moves the p95 of two requests or of 25, and is told so."""
    plan = steady(0.5, "constant")
    run = [sample(one.id, one.intended, 0.0065 * (one.id % 2), e2e=0.1) for one in clean(plan, seconds)]
    told = judge(run, seconds=seconds, plan=plan)
    assert told.moved > 0.006 and not told.valid and "moved the TTFT p95" in told.reason


@pytest.mark.parametrize("burstiness", [0.2, 5.0])
def test_another_process_is_seen(burstiness: float) -> None:
    """Arrivals that come in bursts, or evenly, where Poisson ones were asked for are caught by their law alone."""
    for seed in range(20):
        run = clean(steady(50, "gamma", burstiness, seed), 15.0)
        told = judge(run, seconds=15.0, plan=steady(50, seed=seed + 1000))
        assert not told.valid
        alone = judge(_renumbered(run), seconds=15.0, plan=steady(50, seed=seed + 1000))
        assert alone.gaps_p is not None and alone.gaps_p < 1e-3


def _renumbered(run: list[Sample]) -> list[Sample]:
    """Numbers that the plan does not have: only the law can tell."""
    return [replace(one, id=10**9 + one.id) for one in run]


def test_sends_in_a_burst_are_seen() -> None:
    """Requests meant as asked but held back and sent together are late, and their index of dispersion shows it."""
    plan = steady(50, seed=2)
    held = [replace(one, sent=one.intended + (-one.intended) % 1.0) for one in clean(plan, 15.0)]
    told = judge(held, seconds=15.0, plan=plan)
    asked, found = told.dispersion_asked, told.dispersion
    assert not told.valid and asked is not None and found is not None and found > 3 * asked


def test_a_trace_is_compared_with_its_times() -> None:
    """A replayed trace is valid when every one of its requests was sent on time, and not when some were not."""
    times = np.cumsum(np.random.default_rng(0).pareto(1.5, 400) / 20).tolist()
    seconds = times[-1] + 1
    run = [sample(number, at) for number, at in enumerate(times)]
    told = judge(run, seconds=seconds, times=times)
    assert told.valid and told.planned == 400 and told.gaps_p is None
    assert "never sent" in judge(run[:300], seconds=seconds, times=times).reason


def test_later_turns_count_for_their_lag_alone() -> None:
    """Requests with numbers that the plan does not have are no part of its arrivals, but of the lateness."""
    plan = steady(20, seed=1)
    run = clean(plan, 15.0)
    turns = [sample(10**9 + one.id, one.intended + 3.0) for one in run]
    assert judge(run + turns, seconds=20.0, plan=plan).planned > len(run)
    assert judge([*run, *(one for one in turns if one.intended > 15)], seconds=15.0, plan=plan).valid
    late = [sample(10**9 + one.id, one.intended + 15.0, 0.5) for one in run]
    assert "late" in judge(run + late, seconds=15.0, plan=plan).reason


def test_what_was_due_at_the_end_is_forgiven() -> None:
    """A request due in the last quarter of a second may be cut off by the end of the run."""
    plan = steady(100, seed=3)
    cut = [one for one in clean(plan, 2.0) if one.intended < 1.8]
    assert judge(cut, seconds=2.0, plan=plan).missing == 0


def test_the_lag_limit_follows_the_objective() -> None:
    """The limit is 5% of the tightest latency objective, else of the measured p95, and never below 10 ms."""
    run = [sample(number, number / 10, 0.0, e2e=2.0) for number in range(100)]
    assert lag_limit(run) == pytest.approx(0.1)
    assert lag_limit(run, parse_objectives("ttft.p95<500ms, e2e.p95<9s, tpot.p95<50ms")) == pytest.approx(
        0.025
    )
    assert lag_limit(run, parse_objectives("ttft.p95<50ms")) == lag_limit([]) == 0.01


def test_an_overloaded_generator_is_invalid() -> None:
    """What the generator says of itself makes a run invalid, whatever its times look like."""
    plan = steady(20)
    told = judge(clean(plan, 15.0), seconds=15.0, plan=plan, overloaded="the generator's CPU was full")
    assert (told.valid, told.reason) == (False, "the generator's CPU was full")
    assert told.as_json()["planned"] == told.planned


def test_it_needs_a_plan_or_times() -> None:
    """Neither plan nor times, or both, is refused; a plan with nothing due yet is told as such."""
    with pytest.raises(ValueError, match="plan, times"):
        judge([], seconds=1.0)
    with pytest.raises(ValueError, match="plan, times"):
        judge([], seconds=1.0, plan=steady(1), times=[1.0])
    assert "no request was due" in judge([], seconds=0.001, plan=steady(1)).reason
