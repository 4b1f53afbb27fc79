"""costkit report: every figure is what the rows add up to, and what is unknown is never zero."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import costkit
from costkit.report import Select, make_report
from tests import reports
from tests.recorded import DAY, START, folder_of, query, response
from tests.reports import shown

folder = reports.folder


def test_every_outermost_query_is_counted_once(folder: Path) -> None:
    """Queries are ten, each with one ending, and the hit rate has all ten below the line."""
    counts = make_report(folder).counts
    assert counts.queries == 10
    assert (counts.good, counts.failed, counts.incomplete, counts.refused) == (7, 1, 1, 1)
    assert (counts.hits, counts.helped, counts.unknown) == (4, 1, 2)
    assert counts.hit_rate == 0.4


def test_money_adds_up_to_the_nano_dollar(folder: Path) -> None:
    """Spend is split by role and by how it is known; what is unknown is a number of calls, never zero dollars."""
    money = make_report(folder).money
    assert (money.queries, money.refresh, money.reference, money.total) == (3300, 700, 50, 4050)
    assert (money.reported, money.estimated, money.missing, money.unpriced, money.attempts) == (
        3750,
        300,
        1,
        1,
        7,
    )
    assert money.estimated_share == 300 / 4050
    # 3300 paid and 1000 + 1000 + 500 + 400 stood in for; 700 of it went into the refresh.
    assert (money.without, money.saved) == (6200, 2200)
    # Known and run: a1, a2, a3, c1, n1, o1, i1; refused b1 did not run, f1 and u1 are unknown.
    assert money.mean == 3300 / 7 and money.per_success == 3300 / 7
    assert money.interval is not None and money.mean is not None
    assert money.interval[0] <= money.mean <= money.interval[1]


def test_savings_by_kind(folder: Path) -> None:
    """Each kind has its calls, nested ones too, what they would have cost, and those nobody knows the cost of."""
    rows = {
        s.kind: (s.calls, s.counterfactual, s.saved, s.unknown, s.share) for s in make_report(folder).savings
    }
    assert rows == {
        "exact": (3, 1900, 1900, 0, 1900 / 6200),
        "stale": (1, 1000, 1000, 0, 1000 / 6200),
        "coalesced": (1, 0, 0, 1, 0.0),
    }


def test_tokens_of_hits_are_those_of_the_call_under_their_key(folder: Path) -> None:
    """Four served calls of 120 tokens each, one of unknown size, beside what went through models."""
    tokens = make_report(folder).tokens
    assert (tokens.saved, tokens.unknown_hits) == (4 * 120, 1)
    assert tokens.asked == 120 + 300 + 120 + 120  # a1, n2, i1, u1: not the refresh, not the reference
    assert (tokens.input, tokens.cache_read) == (100 + 200 + 100 + 100, 30)
    assert tokens.hit_rate == 480 / 1140


def test_latency_keeps_hits_apart_and_leaves_refusals_out(folder: Path) -> None:
    """Quantiles are order statistics of the callers' waits; a refused query's microseconds are in none."""
    rows = {part.label: (part.queries, part.p50, part.p95) for part in make_report(folder).latency}
    assert rows["all queries"] == (9, 1.0, 9.0)  # .1 .2 .3 .5 1 1.5 2 4 9
    assert rows["hits"] == (4, 0.2, 0.5)
    assert rows["misses"] == (5, 2.0, 9.0)


def test_intervals_only_where_there_are_enough_queries(tmp_path: Path) -> None:
    """With 200 queries p95 has an order-statistic interval around it; with 20 it has none and says so."""
    many = [query(f"{n:03d}", latency=n / 100) for n in range(200)]
    few = make_report(folder_of(tmp_path / "few", queries=many[:20]))
    assert few.latency[0].p95_interval is None and "too few" in shown(few)
    part = make_report(folder_of(tmp_path / "many", queries=many)).latency[0]
    assert part.p95 == 1.89 and part.p95_interval is not None
    assert part.p95_interval[0] < 1.89 < part.p95_interval[1]


def test_many_queries_are_drawn_in_blocks(tmp_path: Path) -> None:
    """Above 2,000 queries the interval comes from blocks of neighbours and still holds the mean."""
    rows = [query(f"{n:05d}", provider_cost=n % 7, at=START + n) for n in range(2500)]
    money = make_report(folder_of(tmp_path / "kit", queries=rows)).money
    assert money.mean == sum(n % 7 for n in range(2500)) / 2500
    assert money.interval is not None and money.mean is not None
    assert money.interval[0] < money.mean < money.interval[1]


def test_top_spenders_name_the_function_that_spent(folder: Path) -> None:
    """A nested call's money is its own function's, its scope the outermost query's."""
    top = make_report(folder).top
    assert [(s.label, s.spend) for s in top["name"]] == [("app.ask", 2050), ("app.llm", 2000)]
    assert [(s.label, s.spend) for s in top["scope"]] == [(None, 2350), ('{"tenant": "acme"}', 1700)]
    assert [(s.label, s.calls, s.spend) for s in top["model"]] == [("m", 5, 2050), ("big", 1, 2000)]


def test_only_budgets_in_force(folder: Path) -> None:
    """A budget whose window is over is left out; the other says what is spent, held and left, and when it resets."""
    report = make_report(folder, now=START + DAY)
    (line,) = report.budgets
    assert (line.spent, line.held, line.lapsed, line.ends) == (10**9, 2 * 10**9, 10**8, START + 3 * DAY)
    text = shown(report)
    assert "kit 5 USD/day" in text and "$2.000 " in text and "in 2.0 d" in text


@pytest.mark.parametrize(
    ("select", "queries", "paid"),
    [
        (Select(since=START + DAY), 1, 0),
        (Select(name="app.rag"), 2, 2000),
        (Select(scopes=('{"tenant": "acme"}',)), 3, 1000),
        (Select(nobody=True), 7, 2300),
        (Select(scopes=()), 0, 0),
        (Select(name="app'; DROP TABLE queries; --"), 0, 0),
    ],
)
def test_filters_choose_outermost_queries(folder: Path, select: Select, queries: int, paid: int) -> None:
    """since, name and scope choose whole queries, and a hostile name is only a name."""
    report = make_report(folder, select)
    assert (report.counts.queries, report.money.queries) == (queries, paid)


def test_by_name_scope_model_and_day(folder: Path) -> None:
    """Each grouping covers the same money; days come in their order, models count model calls."""
    by_name = {
        g.label: (g.calls, g.hits, g.spend, g.saved, g.unknown) for g in make_report(folder, by="name").groups
    }
    assert by_name["app.rag"] == (2, 1, 2000, 900, 0) and by_name["app.own"] == (1, 0, 0, 0, 1)
    assert sum(row[2] for row in by_name.values()) == 3300
    days = make_report(folder, by="day").groups
    assert [(g.label, g.calls) for g in days] == [("2026-09-21", 9), ("2026-09-22", 1)]
    models = make_report(folder, by="model").groups
    assert (models[0].label, models[0].calls, models[0].hits, models[0].unknown) == ("big", 1, None, 0)
    assert {g.label: g.p50 for g in models}["m"] == 0.5
    assert {g.label for g in make_report(folder, by="scope").groups} == {None, '{"tenant": "acme"}'}


def test_json_says_its_units_and_null_for_unknown(tmp_path: Path, folder: Path) -> None:
    """The data can be written as JSON, carries the derived shares, and an empty record's shares are null."""
    told = json.loads(json.dumps(make_report(folder, by="day").to_dict()))
    assert told["units"] == {"money": "nano-dollars", "time": "seconds"}
    assert told["money"]["total"] == 4050 and told["counts"]["hit_rate"] == 0.4
    empty = make_report(folder_of(tmp_path / "empty")).to_dict()
    assert empty["counts"]["hit_rate"] is None and empty["money"]["mean"] is None


def test_a_real_kit_and_its_report_agree(tmp_path: Path) -> None:
    """What decorated functions return as outcomes is what the report adds up, errors and streams left half way too."""
    kit = costkit.Kit(tmp_path / "kit")

    @kit.call(costkit.exact(ttl="1d"), scope="tenant")
    def ask(question: str, *, tenant: str) -> dict[str, Any]:
        return response(question)

    @kit.call(scope=None)
    def broken(question: str) -> str:
        raise ValueError(question)

    @kit.call(scope=None, name="stream")
    def stream(question: str, model: str = "gpt-4o-mini") -> Iterator[str]:
        yield from question.split()

    outcomes = [ask.outcome(f"q{n % 3}", tenant="acme") for n in range(9)]
    with pytest.raises(ValueError):
        broken("x")
    chunks = stream("one two three")
    next(chunks)
    del chunks  # left half way
    with costkit.reference():
        ask("q0", tenant="acme")
    kit.close()
    report = make_report(kit.folder)
    # gpt-4o-mini: 900 in at 0.15 and 40 out at 0.60 dollars a million.
    assert outcomes[0].cost.provider == 159_000
    assert report.counts.hits == sum(o.saving == "exact" for o in outcomes) == 6
    assert (report.counts.queries, report.counts.failed, report.counts.incomplete) == (11, 1, 1)
    assert report.savings[0].saved == sum(o.cost.saving for o in outcomes) == 6 * 159_000
    assert report.money.reference == 159_000 and report.money.reported == 4 * 159_000
    assert report.money.estimated > 0 and report.money.missing == 1
    assert report.tokens.saved == 6 * 940 and report.tokens.unknown_hits == 0


def test_a_real_kits_budget_and_refreshes(tmp_path: Path) -> None:
    """What a real budget refused is counted apart, its line says what is left, a refresh's spend is its own line."""
    kit = costkit.Kit(tmp_path / "kit", budget="0.001 USD/total")

    @kit.call(costkit.exact(ttl=0.05, stale=60), scope=None, name="ask", max_cost="0.0002 USD")
    def ask(question: str, *, model: str = "gpt-4o-mini") -> dict[str, Any]:
        return response(question)

    ask("a")
    time.sleep(0.1)
    assert ask.outcome("a").saving == "stale"
    deadline = time.monotonic() + 20
    while make_report(kit.folder).money.refresh == 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    refused = 0
    for n in range(6):
        try:
            ask(f"b{n}")
        except costkit.CostkitError:
            refused += 1
    kit.close()
    report = make_report(kit.folder)
    # 159,000 a call: one made, one refreshed, four more under a cap of 1,000,000 with 200,000 held for each.
    assert (report.counts.queries, report.counts.refused, refused) == (8, 2, 2)
    assert (report.money.queries, report.money.refresh) == (5 * 159_000, 159_000)
    assert report.money.saved == 0 and report.savings[0].kind == "stale"
    (line,) = report.budgets
    assert (line.cap, line.spent, line.held, line.ends) == (1_000_000, 6 * 159_000, 0, None)
    assert "A budget refused 2 queries" in report.next_steps[0]
