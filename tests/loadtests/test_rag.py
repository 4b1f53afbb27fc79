"""``loadtests/rag.py`` against the sample assistant as a service, with costkit and without, over a simulated model."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from loadtests.sample import Sample
from tests.loadtests.runs import start
from tests.serving.services import PRICES, service
from tests.serving.simulators import serving

pytestmark = pytest.mark.slow


def _asked(folder: Path, host: str) -> list[Sample]:
    """The samples of a short run whose questions repeat."""
    more = ["--host", host, "--rate", "15", "--run-time", "6s", "--zipf", "2", "--seed", "5", *PRICES]
    run = start(folder, "rag", *more)
    assert run.wait(60) in (0, 5), run.err  # 5: late, as it says of itself on a crowded machine
    return run.samples


def test_the_run_sees_what_the_service_accounts(tmp_path: Path) -> None:
    """Tokens, cost and savings of every request are the ledger's; without costkit the same trace costs more."""
    for name in ("on", "off"):
        (tmp_path / name).mkdir()
    with serving(tmp_path, "--speed", "20", "--slots", "100") as model:
        with service(tmp_path / "on", model.url + "/v1") as on:
            samples = _asked(tmp_path / "run-on", f"http://{on.host}:{on.port}")
        with service(tmp_path / "off", model.url + "/v1", costkit=False) as off:
            plain = _asked(tmp_path / "run-off", f"http://{off.host}:{off.port}")
    assert len(samples) == len(plain) > 60
    assert all(one.error is None for one in [*samples, *plain])
    with contextlib.closing(sqlite3.connect(tmp_path / "on" / "kit" / "ledger.db")) as ledger:
        rows = ledger.execute(
            "SELECT saved_by, count(*), sum(provider_cost) FROM query_costs GROUP BY 1"
        ).fetchall()
    saved = sum(count for saved_by, count, _ in rows if saved_by)
    asked_before = sum(count for _, count, _ in rows) - len(samples)
    assert 0 <= asked_before <= 1, "at most the request that looks whether the service is there"
    assert saved == sum(one.saving is not None for one in samples) > len(samples) / 4
    assert {one.saving for one in plain} == {None}
    spent = sum(one.cost_nano or 0 for one in samples)
    assert 0 <= sum(cost for *_, cost in rows) - spent <= asked_before * 1_000_000
    assert spent < 0.8 * sum(one.cost_nano or 0 for one in plain)
