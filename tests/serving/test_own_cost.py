"""The cost of one's own serving: weights against a simulated engine whose truth is known, the bill, the break-even."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import costkit
from loadtests.sample import Sample, write_samples
from serving.own_cost.__main__ import main
from serving.own_cost.bill import own_cost
from serving.own_cost.fit import columns, fit, non_negative
from serving.own_cost.show import draw, notes, tables
from tests.serving.engine_model import CACHED, PREFILL, simulate

CARD = costkit.Prices({"api": costkit.Rates("0.25", "2", "0.025")})


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """A run at a little over half of what the simulated engine can do."""
    return simulate(3, 1.3).samples


# --- weights ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1.0, 2.5])
def test_the_weights_are_the_engines(rate: float) -> None:
    """Over ten seeded runs at low and at high load, prompt and output weights are within 4 % of the truth."""
    ratios = []
    for seed in range(10):
        truth = simulate(seed, rate, number=400)
        weights = fit(columns(truth.samples))
        ratios.append((weights.fresh / PREFILL, weights.output / truth.output))
    assert np.mean(ratios, axis=0) == pytest.approx([1, 1], abs=0.04)


@pytest.mark.slow
@pytest.mark.soak
def test_the_intervals_cover() -> None:
    """In 200 seeded runs of 600 requests at each of three loads, 95 % intervals hold the truth in at least 86 %."""
    for rate in (1.0, 2.0, 2.5):
        held = np.zeros(3)
        for seed in range(200):
            truth = simulate(seed, rate)
            weights = fit(columns(truth.samples))
            for number, (limits, true) in enumerate(
                zip(
                    (weights.fresh_limits, weights.cached_limits, weights.output_limits),
                    (PREFILL, CACHED, truth.output),
                    strict=True,
                )
            ):
                held[number] += limits[0] <= true <= limits[1]
        assert (held / 200 > 0.86).all(), (rate, held / 200)


@pytest.mark.parametrize(("rate", "told"), [(2.0, False), (6.0, True)])
def test_overload_is_told(rate: float, told: bool) -> None:
    """Far beyond what the engine can do, waiting blurs the prompts' time: the interval is wide and a note says so."""
    for seed in (1, 2, 3):
        cost = own_cost(simulate(seed, rate).samples, usd_per_hour=0.4)
        assert any("hard to tell from waiting" in line for line in notes(cost)) is told


def test_the_busy_time_is_divided_and_adds_up() -> None:
    """Two that overlap share what they overlap; shares add up to the time in which anybody was in flight."""
    pair = [
        Sample(0, "a", 0.0, 0.0, 3.0, first=1.0, last=3.0, prompt_tokens=9, output_tokens=5),
        Sample(1, "a", 1.0, 1.0, 2.0, first=1.5, last=2.0, prompt_tokens=9, output_tokens=5),
    ]
    apart = [
        replace(one, id=2 + n, sent=10.0 + n, ended=10.5 + n, first=10.2 + n)
        for n, one in enumerate(pair * 30)
    ]
    run = columns(pair + apart)
    assert run.share[:2].tolist() == [2.5, 0.5] and run.ahead[:3].tolist() == [0, 1, 0]
    assert run.busy == pytest.approx(3 + 60 * 0.5) == pytest.approx(run.share.sum())


def test_the_truth_of_the_simulation_is_its_own(samples: list[Sample]) -> None:
    """The busy time read off the samples is the simulated engine's busy time, but for the end of each last step."""
    truth = simulate(3, 1.3)
    assert columns(samples).busy == pytest.approx(truth.busy, rel=0.02)


def test_least_squares_without_negative_weights_is_the_best_there_is() -> None:
    """Against a fine grid of non-negative weights nothing fits better, on seeded problems with clipped solutions."""
    rng = np.random.default_rng(5)
    for _ in range(40):
        rows = rng.normal(size=(12, 4)) + rng.normal(size=(12, 1))
        aim = rows @ np.array([1.0, -1.0, 0.5, 0.0]) + rng.normal(size=12)
        found = non_negative((rows.T @ rows)[None], (rows.T @ aim)[None])[0]
        loss = float(((rows @ found - aim) ** 2).sum())
        tried = np.abs(found + rng.normal(scale=0.2, size=(4000, 4))) * (rng.random((4000, 4)) < 0.8)
        assert (found >= 0).all()
        assert loss <= ((tried @ rows.T - aim) ** 2).sum(axis=1).min() + 1e-9


def test_a_column_without_information_gets_no_weight(samples: list[Sample]) -> None:
    """Where nothing was cached, the cached weight is exactly 0 and the rest is fitted as before."""
    bare = [
        replace(one, cached_tokens=None, prompt_tokens=(one.prompt_tokens or 0) - (one.cached_tokens or 0))
        for one in samples
    ]
    weights = fit(columns(bare))
    assert weights.cached == 0 and weights.cached_limits == (0, 0)
    assert weights.fresh == pytest.approx(PREFILL, rel=0.15)


def test_the_fit_is_reproducible(samples: list[Sample]) -> None:
    """The same samples in any order give the same weights and limits; another seed moves the limits alone."""
    one, other = fit(columns(samples)), fit(columns(samples[::-1]))
    assert one == other
    moved = fit(columns(samples), seed=1)
    assert moved.fresh == one.fresh and moved.fresh_limits != one.fresh_limits


# --- the bill --------------------------------------------------------------------------------------------


def test_the_bill_adds_up(samples: list[Sample]) -> None:
    """The lines are the machine's price for the run; idle time is on its own and in no query's price."""
    bill = own_cost(samples, usd_per_hour=0.4).bill
    lines = bill.prompts + bill.cached + bill.output + bill.failed + bill.idle
    assert lines == pytest.approx(bill.total) == pytest.approx(0.4 * bill.seconds / 3600)
    assert bill.idle == pytest.approx(bill.total * (1 - bill.busy_share))
    assert bill.per_query * bill.queries == pytest.approx(bill.total - bill.idle)


def test_failures_and_savings_are_seen(samples: list[Sample]) -> None:
    """Machine time of failed requests has its own line; answers from a cache lower the price of all queries."""
    plain = own_cost(samples, usd_per_hour=0.4)
    failed = [
        replace(one, error="timeout", output_tokens=None) if one.id % 5 == 0 else one for one in samples
    ]
    cost = own_cost(failed, usd_per_hour=0.4)
    assert cost.lost == pytest.approx(0.2) and cost.bill.failed > 0.05 * cost.bill.total
    assert any("20% of the requests report no tokens" in line for line in notes(cost))
    hits = [replace(one, id=10_000 + one.id, saving="exact", ended=one.sent + 0.001) for one in samples]
    saved = own_cost([*samples, *hits], usd_per_hour=0.4)
    assert saved.spared == len(hits)
    assert saved.bill.per_query == pytest.approx(plain.bill.per_query / 2, rel=1e-6)
    assert saved.weights == plain.weights
    # A service that needed no model for an answer says so by its tokens.
    none = [replace(one, saving=None, prompt_tokens=0, output_tokens=0) for one in hits]
    assert own_cost([*samples, *none], usd_per_hour=0.4) == saved


def test_the_price_is_costkits_own(samples: list[Sample]) -> None:
    """The OwnGPU that is printed prices the run's tokens at the busy time's dollars."""
    cost = own_cost(samples, usd_per_hour=0.4)
    assert cost.price
    prices = costkit.Prices({"mine": cost.price})
    total = 0.0
    for one in samples:
        cached = one.cached_tokens or 0
        usage = costkit.Usage(
            in_fresh=(one.prompt_tokens or 0) - cached, cache_read=cached, out_text=one.output_tokens or 0
        )
        total += prices.price(usage, model="mine").cost / 1e9
    assert total == pytest.approx(cost.bill.total - cost.bill.idle, rel=1e-3)


# --- break-even ------------------------------------------------------------------------------------------


def test_the_break_even_is_a_curve_with_limits(samples: list[Sample]) -> None:
    """Half the use costs twice as much a query; where the curves meet both cost the same; the limits hold the mean."""
    even = own_cost(samples, usd_per_hour=0.4, against="api", sustained=2.0, prices=CARD).even
    assert even and even.given
    assert even.own(0.5) == pytest.approx(2 * even.own(1.0)) == pytest.approx(0.4 / 3600)
    low, mean, high = even.utilisation
    assert low < mean < high
    assert even.own(mean) == pytest.approx(even.api[1])


def test_cached_tokens_are_priced_as_cached() -> None:
    """The API is charged for the same usage: cached tokens at their rate, what a saving answered not at all."""
    one = Sample(
        0, "a", 0.0, 0.0, 1.0, first=0.5, last=1.0, prompt_tokens=1000, cached_tokens=600, output_tokens=100
    )
    run = [
        replace(one, id=n, sent=2.0 * n, first=2.0 * n + 0.5, ended=2.0 * n + 1, prompt_tokens=1000 + 10 * n)
        for n in range(80)
    ]
    even = own_cost(run, usd_per_hour=1, against="api", prices=CARD).even
    expected = np.mean([((400 + 10 * n) * 0.25 + 600 * 0.025 + 100 * 2) / 1e6 for n in range(80)])
    assert even and not even.given and even.api[1] == pytest.approx(expected, rel=1e-6)
    half = [replace(one, saving="exact") if one.id >= 70 else one for one in run]
    cheaper = own_cost(half, usd_per_hour=1, against="api", prices=CARD).even
    assert cheaper and cheaper.api[1] < 0.9 * expected


def test_a_machine_that_never_pays_is_said_to(samples: list[Sample]) -> None:
    """Where even full use is dearer than the API, the text says so and the picture is still drawn."""
    cost = own_cost(samples, usd_per_hour=40, against="api", prices=CARD)
    assert cost.even and cost.even.utilisation[0] > 1
    assert any("never cheaper than api" in line for line in notes(cost))


def test_the_picture(samples: list[Sample], tmp_path: Path) -> None:
    """The curve is drawn as PNG and SVG; without an API, or with another ending, one clear error."""
    cost = own_cost(samples, usd_per_hour=0.4, against="api", sustained=2.0, prices=CARD)
    assert draw(cost, tmp_path / "even.png").read_bytes()[:4] == b"\x89PNG"
    assert b"<svg" in draw(cost, tmp_path / "even.svg").read_bytes()
    with pytest.raises(costkit.CostkitError, match="end the name in"):
        draw(cost, tmp_path / "even.jpeg")
    with pytest.raises(ValueError, match="--against MODEL"):
        draw(own_cost(samples, usd_per_hour=0.4), tmp_path / "even.png")


def test_the_tables_say_all_lines(samples: list[Sample]) -> None:
    """A person reads weights with limits, each line of the bill, the curve and the price for costkit."""
    console = Console(width=160, record=True, file=StringIO())
    console.print(tables(own_cost(samples, usd_per_hour=0.4, against="api", prices=CARD)))
    text = console.export_text()
    for said in (
        "uncached prompt token",
        "idle",
        "the machine",
        "API",
        "--sustained",
        "costkit.OwnGPU(",
    ):
        assert said in text
    assert "$-" not in text


# --- the command -----------------------------------------------------------------------------------------


def test_the_command(samples: list[Sample], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run's folder or its file, priced by the public list or by own rates, as tables or one JSON object."""
    write_samples(tmp_path / "requests.jsonl", samples)
    assert main([str(tmp_path), "--hour-price", "0.4", "--against", "gpt-5-mini"]) == 0
    assert "gpt-5-mini" in capsys.readouterr().out
    line = [
        str(tmp_path / "requests.jsonl"),
        "--hour-price",
        "0.4",
        "--against",
        "api",
        "--rates",
        "0.25,2",
        "--json",
    ]
    assert main(line) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["break_even"]["curve"][-1][0] == 1.0 and found["bill_usd"]["idle"] > 0
    assert found["weights"]["requests"] == len(samples)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none", "--hour-price", "1"], "requests.jsonl is missing|none is missing"),
        (["RUN", "--hour-price", "0"], "--hour-price 0: give a number over 0"),
        (["RUN", "--hour-price", "nan"], "--hour-price nan: give a number over 0"),
        (["RUN", "--hour-price", "1", "--sustained", "-1"], "--sustained -1"),
        (["RUN", "--hour-price", "1", "--against", "gpt-nowhere"], "no price is known for 'gpt-nowhere'"),
        (["RUN", "--hour-price", "1", "--against", "m", "--rates", "3"], "--rates 3: give two prices"),
        (["RUN", "--hour-price", "1", "--against", "m", "--rates", "3,x"], "must be a number"),
        (["RUN", "--hour-price", "1", "--rates", "3,4"], "name it with --against"),
        (["SHORT", "--hour-price", "1"], "30 requests report their tokens, 60 are needed"),
        (["SAME", "--hour-price", "1"], "offer prompts of different lengths"),
        (["BROKEN", "--hour-price", "1"], "line 2: not a sample"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], said: str, samples: list[Sample], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each kind of wrong input ends in one line that names it, with status 1."""
    for name, rows in (
        ("RUN", samples[:100]),
        ("SHORT", samples[:30]),
        ("SAME", [replace(one, prompt_tokens=500, cached_tokens=0) for one in samples[:100]]),
        ("BROKEN", samples[:1]),
    ):
        (tmp_path / name).mkdir()
        write_samples(tmp_path / name / "requests.jsonl", rows)
    with (tmp_path / "BROKEN" / "requests.jsonl").open("a") as out:
        out.write("{\n")
    assert main([str(tmp_path / arguments[0]), *arguments[1:]]) == 1
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert any(one in printed for one in said.split("|"))
