"""Objectives and their gate: what they say, and how often the gate errs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from costkit.stats.dependence import drift
from loadtests.sample import Sample
from loadtests.slo import Objective, answer_of, check, goodput, overall, parse_objectives
from tests.loadtests.generated import failed, sample
from tests.loadtests.queues import runs, truth


def answers(metric: str, utilisation: float, over: float, count: int = 150) -> dict[str, float]:
    """Shares of answers for systems whose true p95 is so far over their objective; 1,000 requests each."""
    limit = truth(utilisation, metric) / (1 + over)
    made = getattr(runs(utilisation, 1000, count, seed=11), metric)
    found = [answer_of(Objective(metric, limit, 0.95), row, row > limit).answer for row in made]
    return {name: found.count(name) / count for name in ("pass", "breach", "inconclusive")}


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["ttft", "e2e"])
@pytest.mark.parametrize("utilisation", [0.3, 0.6])
def test_the_gate_seldom_errs(metric: str, utilisation: float) -> None:
    """A system 10% over its objective passes in at most 6% of runs, one 10% under it is breached in at most 2%."""
    assert answers(metric, utilisation, 0.1)["pass"] <= 0.06
    assert answers(metric, utilisation, -0.1)["breach"] <= 0.02


@pytest.mark.slow
def test_the_gate_does_answer() -> None:
    """At 30% utilisation, 1,000 requests are enough to confirm a system 20% under and to refuse one 20% over."""
    for metric in ("ttft", "e2e"):
        assert answers(metric, 0.3, -0.2)["pass"] > 0.95
        assert answers(metric, 0.3, 0.2)["breach"] > 0.95


def test_near_saturation_it_does_not_pass() -> None:
    """At 80% utilisation a system 10% over its objective, which the point estimate passes often, hardly ever passes."""
    assert answers("ttft", 0.8, 0.1)["pass"] <= 0.06


@pytest.mark.soak
@pytest.mark.parametrize("metric", ["ttft", "e2e"])
@pytest.mark.parametrize("utilisation", [0.3, 0.6, 0.8])
def test_the_gate_seldom_errs_at_length(metric: str, utilisation: float) -> None:
    """The same over 2,000 runs: false passes at most 5%, false breaches at most 1%."""
    assert answers(metric, utilisation, 0.1, 2000)["pass"] <= 0.05
    assert answers(metric, utilisation, -0.1, 2000)["breach"] <= 0.01


def steady(count: int, fails: int = 0, ttft: float = 0.05) -> list[Sample]:
    """Requests with a little noise, the last of them failed."""
    rng = np.random.default_rng(1)
    rows = [
        sample(n, n / 10, ttft=ttft + float(rng.random()) / 100, cost_nano=int(rng.integers(900, 1100)))
        for n in range(count)
    ]
    places = set(rng.choice(count, fails, replace=False).tolist())
    return [failed(one.id, one.intended) if one.id in places else one for one in rows]


@pytest.mark.parametrize(
    ("rows", "text", "answer"),
    [
        (steady(600), "ttft.p95<100ms", "pass"),
        (steady(600), "ttft.p95<40ms", "breach"),
        (steady(600, fails=100), "ttft.p95<100ms", "breach"),
        (steady(60), "ttft.p95<100ms", "inconclusive"),
        (steady(600), "errors<1%", "pass"),
        (steady(600, fails=30), "errors<1%", "breach"),
        (steady(100), "errors<1%", "inconclusive"),
        (steady(600), "cost.mean<0.00001USD", "pass"),
        (steady(600), "cost.mean<0.0000009USD", "breach"),
        (steady(20), "cost.mean<0.00001USD", "inconclusive"),
        ([sample(n, n / 10) for n in range(600)], "cost.mean<0.00001USD", "inconclusive"),
        ([], "ttft.p95<100ms", "inconclusive"),
        ([failed(n, n / 10) for n in range(600)], "tpot.p95<50ms", "breach"),
    ],
)
def test_answers(rows: list[Sample], text: str, answer: str) -> None:
    """Plain cases have plain answers: failed requests miss every limit, too few or unpriced ones decide nothing."""
    (told,) = check(rows, parse_objectives(text))
    assert told.answer == answer
    assert bool(told.why) == (answer == "inconclusive") and "\n" not in told.why
    assert told.as_json()["objective"] == text


def test_a_rising_queue_does_not_pass() -> None:
    """Where requests in flight rise over the run no latency objective passes, however fast the run was so far."""
    rows = [replace(one, in_flight=one.id // 10 + one.id % 3) for one in steady(900)]
    (told,) = check(rows, parse_objectives("ttft.p95<1s"))
    assert told.answer == "inconclusive" and "in flight rise" in told.why
    assert check(rows, parse_objectives("errors<1%"))[0].answer == "pass"


def test_a_queue_without_an_end_is_breached() -> None:
    """Where a queue grows until every request misses, that is a breach, though no two are independent."""
    rows = [sample(n, n / 10, ttft=0.05 + max(0.0, (n - 100) / 50), in_flight=n) for n in range(600)]
    assert check(rows, parse_objectives("ttft.p95<300ms,e2e.p99<2s"))[0].answer == "breach"
    few = [sample(n, n / 10, ttft=0.5 if n > 500 else 0.05) for n in range(600)]
    assert check(few, parse_objectives("ttft.p95<300ms"))[0].answer == "inconclusive"


@pytest.mark.slow
def test_a_busy_spell_is_no_breach() -> None:
    """At 90% utilisation, with the objective at the true p95, at most 5% of runs of 300 are a breach."""
    limit = truth(0.9, "ttft")
    made = runs(0.9, 300, 400, seed=12).ttft
    found = [answer_of(Objective("ttft", limit, 0.95), row, row > limit).answer for row in made]
    assert found.count("breach") <= 20


def test_several_objectives() -> None:
    """The whole is breached if one is, inconclusive if one is and none breached, else passed; nothing without any."""
    rows = steady(600)
    both = check(rows, parse_objectives("ttft.p95<100ms,e2e.p95<9s"))
    assert overall(both) == "pass"
    assert overall(check(rows, parse_objectives("ttft.p95<100ms,ttft.p50<10ms"))) == "breach"
    assert overall(check(rows[:50], parse_objectives("ttft.p95<100ms,errors<50%"))) == "inconclusive"
    assert overall(()) is None


def test_goodput_counts_what_meets_all() -> None:
    """Good requests succeeded within every latency limit; failed ones are not good, errors and cost are no latency."""
    rows = [
        sample(0, 0.0, ttft=0.1, e2e=1.0),
        sample(1, 0.1, ttft=0.9, e2e=1.0),
        sample(2, 0.2, e2e=9.0),
        failed(3, 0.3),
    ]
    assert goodput(rows, parse_objectives("ttft.p95<500ms,e2e.p95<2s,errors<1%"), 2.0) == 0.5
    assert goodput(rows, (), 2.0) == 1.5 and goodput([], (), 0.0) == 0.0


@pytest.mark.parametrize(
    "text",
    ["ttft", "ttft<5", "ttft.p95<", "ttft.p95<0ms", "ttft.p100<1s", "ttft.p5<1s", "ttft.mean<1s", "speed.p95<1s",
     "errors<200%", "errors.p95<1%", "cost.p95<1USD", "cost<0USD", "ttft.p95<5%", "ttft.p95>5s", "ttft.p95<1.2.3s"],
)  # fmt: skip
def test_bad_objectives_are_named(text: str) -> None:
    """An objective that is none is refused with its own text and what to write instead."""
    with pytest.raises(ValueError, match="say it like") as caught:
        parse_objectives(f"errors<1%,{text}")
    assert repr(text) in str(caught.value)


def test_forms() -> None:
    """Seconds and milliseconds, shares and per cent, `=` and `<=` are understood; nothing is no objective."""
    assert parse_objectives("") == ()
    assert parse_objectives("ttft_p95=0.5, e2e.p99.9<=2m") == (
        Objective("ttft", 0.5, 0.95),
        Objective("e2e", 120.0, 0.999),
    )
    assert parse_objectives("errors<0.01") == parse_objectives("errors<1%")


@pytest.mark.slow
def test_in_flight_seldom_seems_to_rise() -> None:
    """Requests in flight of steady queues, at up to 90% utilisation, are called rising in at most 4% of runs."""
    for utilisation in (0.3, 0.6, 0.9):
        made = runs(utilisation, 1000, 150, seed=31)
        rising = 0
        for arrivals, ends in zip(made.arrivals, made.arrivals + made.e2e, strict=True):
            flights = np.arange(1, arrivals.size + 1) - np.searchsorted(np.sort(ends), arrivals)
            rising += drift(flights) > 2.5758
        assert rising <= 6
