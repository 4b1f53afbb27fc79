"""Paired comparison: it finds a real difference, claims none where there is none, and needs the same requests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from loadtests.paired import change, changes, paired
from loadtests.sample import Sample
from tests.loadtests.generated import failed, sample
from tests.loadtests.queues import SERVERS

REQUESTS = 600


def queue(utilisation: float, count: int, seed: int, factor: float, noise_seed: int) -> np.ndarray:
    """End-to-end seconds of one trace (its arrivals and lengths) on a server ``factor`` times as slow, 10% noise."""
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1 / (utilisation * SERVERS), count))
    lengths = rng.lognormal(-0.125, 0.5, count)
    took = lengths * factor * np.random.default_rng(noise_seed).lognormal(0, 0.1, count)
    free, found = np.zeros(SERVERS), np.empty(count)
    for i in range(count):
        server = free.argmin()
        start = max(arrivals[i], free[server])
        free[server] = start + took[i]
        found[i] = free[server] - arrivals[i]
    return found


def run(times: np.ndarray, cost: int = 1000) -> list[Sample]:
    return [
        sample(n, n / 10, 0.0, ttft=t / 2, e2e=t, cost_nano=cost + n % 7)
        for n, t in enumerate(times.tolist())
    ]


def compared(utilisation: float, factor: float, seed: int) -> str:
    sides = [
        [run(queue(utilisation, REQUESTS, seed, f, 1000 * seed + k)) for k in (i, i + 10)]
        for i, f in ((1, 1.0), (2, factor))
    ]
    found = change(paired(*sides), "e2e_p95", repeats=200)
    assert found is not None
    return found.which


@pytest.mark.parametrize("utilisation", [0.3, 0.6])
def test_it_claims_nothing_where_nothing_is(utilisation: float) -> None:
    """The same server twice: a difference of the p95 is claimed in at most 7 of 60 traces (nominal 3)."""
    claimed = [compared(utilisation, 1.0, seed) != "no difference shown" for seed in range(60)]
    assert sum(claimed) <= 7


@pytest.mark.parametrize("figure", ["e2e_p95", "e2e_p50", "cost_mean"])
def test_a_run_on_a_busy_machine_is_no_slower_server(figure: str) -> None:
    """The same server, every run of it shifted by some 3% as a whole: claimed in at most 14 of 100 (nominal 5)."""
    claimed = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        times = rng.lognormal(size=300)
        sides = []
        for _ in "ab":
            shifts = rng.lognormal(0, 0.03, 2)
            sides.append(
                [
                    run(times * shift * rng.lognormal(0, 0.01, 300), cost=int(100_000 * shift))
                    for shift in shifts
                ]
            )
        found = change(paired(*sides), figure, repeats=100)
        assert found is not None
        claimed += found.which in ("lower", "higher")
    assert claimed <= 14


def test_it_finds_a_tenth() -> None:
    """A server that is 10% faster on the same trace is found so in nearly every trace of 600 requests."""
    found = [compared(0.5, 0.9, seed) for seed in range(100, 130)]
    assert found.count("lower") >= 24 and "higher" not in found


def test_changes_of_everything() -> None:
    """Cost and every latency are told with their pairs, sides, rounds and direction."""
    times = np.random.default_rng(0).lognormal(size=300)
    told = changes(paired([run(times)], [run(times * 1.5, cost=500)]))
    assert set(told) == {"ttft_p95", "e2e_p95", "ttft_p50", "e2e_p50", "cost_mean"}
    slower, cheaper = told["e2e_p95"], told["cost_mean"]
    assert slower.which == "higher" and slower.change == pytest.approx(0.5, abs=1e-6) and slower.pairs == 300
    assert (
        cheaper.which == "lower"
        and cheaper.change == pytest.approx(-0.5, abs=0.01)
        and len(cheaper.rounds) == 1
    )
    assert cheaper.as_json()["which"] == "lower"


def test_failed_requests_are_never_fast() -> None:
    """Failed requests are infinitely late: a side that fails a tenth of its requests has no p95 to boast of."""
    times = np.random.default_rng(0).lognormal(size=300)
    broken = [failed(one.id, one.intended) if one.id % 10 == 0 else one for one in run(times / 9)]
    found = change(paired([run(times)], [broken]), "e2e_p95")
    assert (
        found is not None
        and found.change is None
        and found.interval is None
        and found.which == "too few pairs"
    )
    assert found.as_json()["b"] is None
    few = [failed(one.id, one.intended) if one.id % 100 == 0 else one for one in run(times / 9)]
    told = change(paired([run(times)], [few]), "e2e_p95")
    assert told is not None and told.which == "lower"


def test_only_common_requests_are_paired() -> None:
    """Requests that a run lacks are in no pair; none in common, or runs on one side only, is refused."""
    rows = run(np.ones(200))
    pairs = paired([rows, rows[:150]], [rows[50:], rows])
    assert pairs.size == 100 and pairs.a[0][0].id == 50
    with pytest.raises(ValueError, match="same seed"):
        paired([rows], [[replace(one, id=one.id + 500) for one in rows]])
    with pytest.raises(ValueError, match="as many runs"):
        paired([rows], [])
    with pytest.raises(ValueError, match="'speed'"):
        change(pairs, "speed")


def test_without_prices_there_is_no_cost() -> None:
    """A side whose costs are unknown has no cost to compare; 71 pairs have no interval."""
    rows = run(np.ones(71))
    free = [replace(one, cost_nano=None) for one in rows]
    assert change(paired([rows], [free]), "cost_mean") is None
    found = change(paired([rows], [rows]), "e2e_p95")
    assert found is not None and found.interval is None and found.which == "too few pairs"
