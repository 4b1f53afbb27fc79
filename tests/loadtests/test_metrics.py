"""The figures of a run: each definition, failed requests left out, doubt said in one line."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from loadtests.metrics import METRICS, figure, figures, series, trouble
from loadtests.sample import Sample
from tests.loadtests.generated import failed, sample

ONE = Sample(
    id=0, name="chat", intended=10.0, sent=10.1, first=10.3, first_output=10.5, last=11.3, ended=11.4, gaps=(0.2, 0.8),
    prompt_tokens=7, output_tokens=11, cost_nano=2_500_000, finish="stop",
)  # fmt: skip


@pytest.mark.parametrize(
    ("metric", "values"),
    [
        ("ttft", [0.3]),
        ("ttfo", [0.5]),
        ("tpot", [0.1]),
        ("itl", [0.2, 0.8]),
        ("e2e", [1.3]),
        ("normalised", [1.3 / 11]),
        ("lag", [0.1]),
        ("cost", [0.0025]),
    ],
)
def test_definitions(metric: str, values: list[float]) -> None:
    """Each figure is what the table says, from the intended send; the end of the stream counts for none of them."""
    assert series([ONE], metric).tolist() == pytest.approx(values)


def test_failed_requests_have_no_latency() -> None:
    """A request that failed, even after its first token, is in no figure: failing fast is not fast."""
    broken = replace(ONE, id=1, error="no_finish_reason")
    for metric in METRICS:
        assert series([broken, failed(2, 11.0)], metric).size == 0
    assert figures([broken]) == {} and figure([broken], "ttft") is None


def test_what_a_request_lacks_is_left_out() -> None:
    """One token has no time per token, no content no first token, no price no cost; order is that of intended sends."""
    single, silent = replace(ONE, id=1, output_tokens=1, intended=5.0), Sample(2, "chat", 12.0, 12.0, 13.0)
    assert series([single, silent], "tpot").size == 0
    assert series([ONE, single, silent], "ttft").tolist() == pytest.approx([5.3, 0.3])
    with pytest.raises(ValueError, match="'speed'"):
        series([ONE], "speed")


def test_a_figure_knows_its_truth() -> None:
    """Over 2,000 exponential answer times the p50, p95 and mean lie in their intervals, and JSON says them."""
    rng = np.random.default_rng(3)
    rows = [
        sample(number, number / 20, ttft=0.05 + extra)
        for number, extra in enumerate(rng.exponential(0.1, 2000))
    ]
    found = figure(rows, "ttft")
    assert found is not None and found.p95.interval is not None and found.mean_interval is not None
    low, high = found.p95.interval
    assert low <= 0.051 + 0.1 * np.log(20) <= high and found.p95.trusted and trouble(found.p95) is None
    assert found.mean_interval[0] <= 0.151 <= found.mean_interval[1]
    told = found.as_json()
    assert (told["unit"], told["count"], told["p95"]["trusted"]) == ("s", 2000, True)


def test_doubt_is_said() -> None:
    """Too few requests, requests that tell the same, and a level that rises are each called by their name."""
    few = figure([sample(n, n / 10, ttft=0.01 * (1 + n % 7)) for n in range(60)], "ttft")
    busy = np.abs(np.cumsum(np.random.default_rng(5).normal(size=2000))) + 0.1
    same = figure([sample(n, n / 10, ttft=float(v)) for n, v in enumerate(busy)], "ttft")
    noise = np.random.default_rng(6).random(2000) + np.linspace(0, 0.4, 2000)
    rising = figure([sample(n, n / 10, ttft=float(v)) for n, v in enumerate(noise)], "ttft")
    assert few is not None and same is not None and rising is not None
    assert trouble(few.p95) == "too few requests: 60 of at least 72"
    assert (trouble(same.p95) or "").startswith("near saturation: not trustworthy")
    assert trouble(rising.p50) == "not steady: it rises over the run"
