"""costkit report: every figure is what the rows add up to, and what is unknown is never zero."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import costkit
from costkit.errors import ConfigError, FolderError, LedgerVersionError, MissingExtra
from costkit.ledger import connect
from costkit.report import Report, Select, daily, make_report, plot, to_table
from costkit.report.advice import Signs, advise
from costkit.report.plot import Days
from tests.recorded import DAY, START, attempt, folder_of, missing, query, response


def shown(report: Report, **console: Any) -> str:
    out = StringIO()
    Console(file=out, width=120, highlight=False, **{"color_system": None, **console}).print(to_table(report))
    return out.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten outermost queries of every kind of outcome, with prices in round numbers."""
    tenant = '{"tenant": "acme"}'
    return folder_of(
        tmp_path / "kit",
        queries=[
            # Made and then served twice: once as it was, once stale.
            query("a1", key="A", scope=tenant, provider_cost=1000, latency=2.0),
            query("a2", key="A", scope=tenant, saved_by="exact", counterfactual_cost=1000, latency=0.1),
            query(
                "a3",
                key="A",
                scope=tenant,
                saved_by="stale",
                counterfactual_cost=1000,
                latency=0.2,
                at=START + DAY,
            ),
            query("r1", key="A", scope=tenant, role="refresh", provider_cost=700, at=START + DAY),
            # A hit whose own call nobody recorded, and one whose counterfactual is unknown.
            query("c1", key="C", saved_by="coalesced", counterfactual_cost=None, latency=0.3),
            # An outer call that cost nothing itself, with one nested call made and one served.
            query("n1", name="app.rag", key="N", latency=4.0),
            query(
                "n2", name="app.llm", parent_id="n1", root_id="n1", key="X", provider_cost=2000, latency=3.0
            ),
            query(
                "n3",
                name="app.llm",
                parent_id="n1",
                root_id="n1",
                key="A",
                saved_by="exact",
                counterfactual_cost=500,
            ),
            # An outer call whose only nested call was served: no model was asked.
            query("o1", name="app.rag", latency=0.5),
            query(
                "o2",
                name="app.llm",
                parent_id="o1",
                root_id="o1",
                key="A",
                saved_by="exact",
                counterfactual_cost=400,
            ),
            query("f1", error="ValueError", unknown_costs=1, counterfactual_cost=None, latency=9.0),
            query("i1", error="CancelledError", complete=0, provider_cost=300, latency=1.5),
            query("b1", error="BudgetExceeded", latency=0.001),
            query("u1", unknown_costs=1, counterfactual_cost=None, name="app.own"),
            query("ref", role="reference", provider_cost=50),
        ],
        attempts=[
            attempt("a1"),
            attempt("r1", cost=700),
            attempt("n2", root_id="n1", cost=2000, model="big", in_fresh=200, cache_read=0, out_text=100),
            missing("f1", error="ValueError", finish=None),
            attempt("i1", cost=300, usage_state="estimated", finish=None),
            attempt("u1", model="own-7b", cost=None, price_id=None),
            attempt("ref", cost=50),
        ],
        budgets=[
            {"id": "x", "label": "kit 5 USD/day", "cap": 5 * 10**9, "starts": START, "ends": START + 3 * DAY}
            | {"spent": 10**9, "held": 2 * 10**9, "lapsed": 10**8},
            {
                "id": "y",
                "label": "over",
                "cap": 1,
                "starts": 0,
                "ends": START - 1,
                "spent": 1,
                "held": 0,
                "lapsed": 0,
            },
        ],
    )


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


def test_nothing_recorded_says_how_to_start(tmp_path: Path) -> None:
    """A new kit's folder gives an empty report whose next step is the first wrapped call."""
    kit = costkit.Kit(tmp_path / "kit")
    kit.close()
    assert "Nothing is recorded here yet" in shown(make_report(kit.folder))


def test_reading_makes_no_folder_and_changes_no_file(tmp_path: Path, folder: Path) -> None:
    """A folder that is not there is an error and is not made; the ledger's bytes are the same after a report."""
    with pytest.raises(FolderError, match="there is no such folder"):
        make_report(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "other").mkdir()
    with pytest.raises(FolderError, match=r"not a kit's folder"):
        make_report(tmp_path / "other")
    assert not list((tmp_path / "other").iterdir())
    before = (folder / "ledger.db").read_bytes()
    make_report(folder, by="name")
    assert (folder / "ledger.db").read_bytes() == before


def test_a_folder_we_may_not_write_is_read(folder: Path) -> None:
    """A report needs no permission to write."""
    for name in ("ledger.db-wal", "ledger.db-shm"):
        (folder / name).unlink(missing_ok=True)
    folder.chmod(0o500)
    try:
        if os.access(folder, os.W_OK):
            pytest.skip("this user may write everywhere")
        assert make_report(folder).counts.queries == 10
    finally:
        folder.chmod(0o700)


def test_damaged_foreign_and_newer_ledgers_are_refused_plainly(folder: Path) -> None:
    """Each is one clear error, not a traceback of SQLite."""
    path = folder / "ledger.db"
    with contextlib.closing(sqlite3.connect(path)) as con:
        con.execute("PRAGMA user_version=99")
    with pytest.raises(LedgerVersionError, match="pip install -U costkit"):
        make_report(folder)
    with contextlib.closing(sqlite3.connect(path)) as con:
        con.execute("PRAGMA application_id=7")
    with pytest.raises(FolderError, match="not a costkit ledger"):
        make_report(folder)
    path.write_bytes(b"no database at all, but long enough to be looked at" * 100)
    with pytest.raises(FolderError, match="costkit doctor"):
        make_report(folder)


def test_names_from_outside_reach_no_terminal_raw(tmp_path: Path) -> None:
    """Escapes, right-to-left marks and rich markup in names, scopes, models and budgets are shown, not obeyed."""
    evil = "\x1b]0;owned\x07[red]\x9b31m\u202e$(rm -rf ~)"
    folder = folder_of(
        tmp_path / "kit",
        queries=[query("a", name=evil, scope=json.dumps({"tenant": evil}), provider_cost=10, saved_by=None)]
        + [query(f"b{n}", name=evil, scope=evil, saved_by=evil[:9], counterfactual_cost=5) for n in range(3)],
        attempts=[attempt("a", model=evil, cost=10), attempt("a", model=evil, cost=None, price_id=None)],
        budgets=[
            {
                "id": "x",
                "label": evil,
                "cap": 9,
                "starts": 0,
                "ends": None,
                "spent": 0,
                "held": 0,
                "lapsed": 0,
            }
        ],
    )
    for by in ("name", "scope", "model"):
        report = make_report(folder, by=by)
        plain = shown(report)
        assert not set(plain) & {"\x1b", "\x07", "\x9b", "\u202e"}
        assert "[red]" in plain and r"\x1b]0" in plain
        coloured = shown(report, color_system="truecolor", force_terminal=True)
        assert "\x1b]0" not in coloured and "\x9b" not in coloured


@pytest.mark.parametrize(
    ("signs", "part"),
    [
        ({"unpriced": (("my-7b", 3),)}, "Kit(prices={'my-7b': costkit.Rates(IN, OUT)})"),
        ({"unpriced": (("", 3),)}, "costkit.record(response, model=...)"),
        ({"missing": 50}, "costkit.record(response)"),
        ({"refused": 2}, "A budget refused 2 queries"),
        ({"estimated_share": 0.5, "estimated_streams": 9}, "include_usage"),
        ({"estimated_share": 0.5}, "estimated from text"),
        ({"cut": 20}, "raise max_tokens"),
        ({"failed": 20}, "raised an error"),
        (
            {"repeats": (("app.ask", 100, 40, False, 10**9),)},
            'put @kit.call(costkit.exact(ttl="1d"), ...) on it',
        ),
        ({"repeats": (("app.ask", 100, 40, True, 10**9),)}, "a longer ttl"),
        ({"unsaved": (("app.ask", 100),)}, "No saving is set on app.ask"),
        ({}, "Nothing stands out"),
    ],
)
def test_each_sign_has_its_step(signs: dict[str, Any], part: str) -> None:
    """A sign in the record leads to the step that mends it; no sign leads to none of them."""
    assert part in advise(Signs(**{"queries": 100, "attempts": 100, **signs}))[0]


def test_repeated_texts_show_where_exact_is_missing(tmp_path: Path) -> None:
    """Without a key, stored texts tell that identical calls ran again; answers that were cut are not among them."""
    rows = [query(f"{n}", request=f"q{n % 2}", provider_cost=1000) for n in range(6)]
    cut = [query(f"c{n}", name="app.cut", request="q", provider_cost=1000) for n in range(9)]
    folder = folder_of(
        tmp_path / "kit", queries=rows + cut, attempts=[attempt(f"c{n}", finish="length") for n in range(9)]
    )
    steps = make_report(folder).next_steps
    assert any("4 of 6 model calls of app.ask repeat one ($0.000004000)" in step for step in steps)
    assert not any("app.cut repeat" in step for step in steps)


def test_the_picture_shows_days_with_hits_apart(folder: Path, tmp_path: Path) -> None:
    """A day has what was paid, refreshes too, and quantiles of hits and misses; the file is a PNG of some size."""
    days = daily(folder)
    assert [(d.day, d.paid, d.saved) for d in days.days] == [
        ("2026-09-21", 3300, 1900),
        ("2026-09-22", 700, 300),
    ]
    assert days.days[1].hits == (0.2, 0.2) and days.days[1].misses is None
    path = plot(days, tmp_path / "report.png")
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and path.stat().st_size > 10_000


def test_a_picture_that_cannot_be_drawn_says_why(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No such ending, nothing to draw, no such folder, and a missing matplotlib are each one clear line."""
    with pytest.raises(ConfigError, match=r"end the name in \.png"):
        plot(daily(folder), tmp_path / "report.txt")
    with pytest.raises(ConfigError, match="no queries in this period"):
        plot(Days(()), tmp_path / "report.png")
    with pytest.raises(ConfigError, match="No such file or directory"):
        plot(daily(folder), tmp_path / "no" / "report.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtra, match=r"pip install 'costkit\[plot\]'"):
        plot(daily(folder), tmp_path / "report.png")


def test_a_report_while_a_kit_writes_is_of_one_moment(tmp_path: Path) -> None:
    """Rows that arrive while the report is read do not make its parts disagree."""
    kit = costkit.Kit(tmp_path / "kit")
    ask = kit.call(scope=None, name="ask")(lambda n: response(str(n)))
    for n in range(50):
        ask(n)
        if n % 10 == 0:
            report = make_report(kit.folder)
            assert report.money.queries == report.money.reported == 159_000 * report.counts.queries
    kit.close()
    assert make_report(kit.folder).counts.queries == 50


@pytest.mark.slow
def test_a_million_rows_take_seconds(tmp_path: Path) -> None:
    """A report over a million queries with a key each and 600,000 model calls is there within 60 seconds."""
    folder = folder_of(tmp_path / "kit")
    with contextlib.closing(connect(folder / "ledger.db")) as con:
        con.execute("BEGIN")
        con.execute(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 999999)"
            " INSERT INTO queries (id, root_id, name, version, scope, key, at, latency, saved_by,"
            " provider_cost, counterfactual_cost) SELECT printf('%032x', i), printf('%032x', i), 'f' || i % 7, '1',"
            " 't' || i % 500, 'k' || i % 400000, ? + i, (i % 1000) / 1000.0, CASE WHEN i >= 600000 THEN 'exact' END,"
            " CASE WHEN i < 600000 THEN 1000 ELSE 0 END, 1000 FROM n",
            (START,),
        )
        con.execute(
            "INSERT INTO attempts (query_id, root_id, role, model, at, latency, finish, usage_state, in_fresh,"
            " cache_read, cache_write_5m, cache_write_1h, out_text, out_reasoning, cost)"
            " SELECT id, id, 'reference', 'm', at, latency, 'stop', 'reported', 90, 10, 0, 0, 20, 0, 1000"
            " FROM queries WHERE saved_by IS NULL"
        )
        con.execute("COMMIT")
    started = time.perf_counter()
    report = make_report(folder, by="scope")
    took = time.perf_counter() - started
    assert (report.counts.queries, report.counts.hits) == (1_000_000, 400_000)
    assert report.money.total == 600_000_000 and report.tokens.saved == 400_000 * 120
    assert took < 60, f"{took:.1f} s"
