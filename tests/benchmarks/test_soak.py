"""The soak's statistics, by simulation, and the soak itself for a minute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks import soak


def memory(rng: np.random.Generator, per_hour: float, minutes: float = 30.0) -> list[tuple[float, float]]:
    """Resident memory each second: a start that settles, steps that come and go, neighbours alike, and a drift."""
    at = np.arange(0.0, 60 * minutes)
    noise, last = np.empty(len(at)), 0.0
    for i, shock in enumerate(rng.normal(0, 0.2, len(at))):
        last = noise[i] = 0.9 * last + shock
    size = 120 - 20 * np.exp(-at / 60) + noise + per_hour * at / 3600
    return list(zip(at.tolist(), size.tolist(), strict=True))


@pytest.mark.parametrize("per_hour", [0.0, 20.0])
def test_the_slope_covers_what_is_true(per_hour: float) -> None:
    """Where neighbouring seconds are alike, the 95 % interval holds the true slope in 90 to 99 % of 300 runs."""
    held = 0
    for seed in range(300):
        told = soak.slope(memory(np.random.default_rng(seed), per_hour))
        low, high = told["interval_95"]
        held += low <= per_hour <= high
    # 95 % of 300 has a standard error of 1.3 points; blocks of a run are not quite independent.
    assert 0.90 <= held / 300 <= 0.99


def test_a_leak_is_seen() -> None:
    """10 MB an hour is told from none in every one of 50 runs of half an hour."""
    for seed in range(50):
        low, _ = soak.slope(memory(np.random.default_rng(seed), 10.0))["interval_95"]
        assert low > 0


def test_too_short_a_run_has_no_slope() -> None:
    """Below thirty seconds after the warm-up there is no slope, and no false one."""
    told = soak.slope(memory(np.random.default_rng(0), 0.0, minutes=0.5))
    assert told["mb_per_hour"] is None and told["interval_95"] is None


def test_overhead_is_paired_and_knows_hits_from_calls() -> None:
    """Calls 4 ms slower than without are told so, hits by themselves, and shared calls are in neither."""
    rng = np.random.default_rng(0)
    asked = []
    for number in range(600):
        alone = rng.lognormal(-2, 0.3)
        saving = (None, "exact", "coalesced")[number % 3]
        mine = {None: alone + 0.004 + rng.normal(0, 0.0005), "exact": 0.002, "coalesced": alone}[saving]
        asked.append(soak.Asked("off", number, 0.0, e2e=alone))
        asked.append(soak.Asked("on", number, 0.0, e2e=mine, saving=saving))
    told = soak.overhead(asked)
    assert told["miss"]["pairs"] == told["hit"]["pairs"] == 200
    assert told["miss"]["difference_p50_ms"] == pytest.approx(4.0, abs=0.2)
    low, high = told["miss"]["p95_difference_interval_95_ms"]
    assert low <= 4.0 <= high and low > 0
    assert told["hit"]["on_p95_ms"] == 2.0 and told["hit"]["p95_difference_interval_95_ms"][1] < 0


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_minute(tmp_path: Path) -> None:
    """A minute of the soak, semantic tier and all: no row lost, no id without its row, no growth by megabytes."""
    pytest.importorskip("onnxruntime")
    told = soak.soak(1.0, 12.0, "15s", "--semantic", "--max-error", "0.05", save=tmp_path)
    rows, size = told["ledger"], told["memory"]
    assert rows["requests"] == 720 and rows["answered_without_row"] == rows["unanswered_without_row"] == 0
    assert rows["answered"] == sum(told["answered_by"].values()) > 600
    assert rows["answered"] + rows["unanswered"] == 720
    assert told["left_early"] > 3 and told["answered_by"]["exact"] > 100 and told["answered_by"]["call"] > 100
    assert rows["unknown_costs"] == 0 and set(told["statuses"]) <= {"200", "503"}
    assert size["at_end_mb"] - size["after_warm_up_mb"] < 15
    assert told["overhead"]["miss"]["pairs"] > 100
    assert soak.draw(tmp_path, told).stat().st_size > 10_000
