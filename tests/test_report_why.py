"""costkit why: the tree of one query, what it cost line by line, and the reason nothing was saved."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import costkit
from costkit.errors import ConfigError, CostkitError
from costkit.report import Story, examine, make_report, tell, to_table
from costkit.report.charge import charges
from costkit.report.tree import to_tree
from tests.recorded import START, attempt, folder_of, missing, query, rates, response

ACME, GLOBEX = '{"tenant": "acme"}', '{"tenant": "globex"}'


def shown(story: Story) -> str:
    out = StringIO()
    Console(file=out, width=160, color_system=None, highlight=False).print(to_tree(story))
    return out.getvalue()


def reason(path: Path, *rows: dict[str, Any], attempts: tuple[dict[str, Any], ...] = ()) -> str | None:
    """Why the last of these queries was not answered by a saving."""
    folder = folder_of(path / "kit", queries=rows, attempts=attempts)
    return tell(folder, rows[-1]["id"]).root.reason


def test_a_nested_query_is_shown_as_a_tree(tmp_path: Path) -> None:
    """Asked for by a nested call's id, the whole query comes, with that call marked and each cost line by line."""
    folder = folder_of(
        tmp_path / "kit",
        queries=[
            query("aa01", name="app.rag", scope=ACME, latency=2.5, reserved=9000),
            query("aa02", name="app.llm", parent_id="aa01", root_id="aa01", provider_cost=1730, ttft=0.25),
            query(
                "aa03",
                name="app.llm",
                parent_id="aa01",
                root_id="aa01",
                saved_by="exact",
                counterfactual_cost=800,
            ),
        ],
        attempts=[attempt("aa02", root_id="aa01", cost=1730, in_fresh=90, cache_read=10, out_text=20)],
        prices=[
            {"price_id": "p1", "source": "card", "version": "v7", "rates": rates(per_request="0.00000074")}
        ],
    )
    story = tell(folder, "aa02")
    assert [call.name for call in story.root.calls] == ["app.llm", "app.llm"]
    (line,) = story.root.calls[0].attempts
    # 90 at 10 dollars a million are 900,000 nano-dollars: a rate is per million tokens.
    assert {c.name: c.nano for c in line.charges} == {
        "in_fresh": 900_000, "cache_read": 10_000, "out_text": 80_000, "per_request": 740,
    }  # fmt: skip
    text = shown(story)
    assert "app.llm  aa02 ← asked for" in text and "first chunk after 250 ms" in text
    assert "budget: $0.000009000 held before it ran" in text
    assert "answered by exact: paid $0 where a call cost $0.000000800" in text
    assert "90 input at $10 a million = $0.0009000" in text and "prices card v7 (p1)" in text
    assert json.loads(json.dumps(story.to_dict()))["root"]["calls"][1]["saved_by"] == "exact"


def test_charges_add_up_to_what_was_recorded(tmp_path: Path) -> None:
    """With price rows kept by a real kit, the lines of a cost are its recorded cost."""
    kit = costkit.Kit(
        tmp_path / "kit", prices={"own": costkit.Rates("0.25", "2", cache_read="0.025", per_request="0.01")}
    )
    ask = kit.call(scope=None, name="ask")(
        lambda n: response("x", model="own", prompt_tokens_details={"cached_tokens": 300})
    )
    out = ask.outcome(1)
    kit.close()
    (line,) = tell(kit.folder, out.query_id[:20]).root.attempts
    assert line.cost == out.cost.provider == 150_000 + 7_500 + 80_000 + 10_000_000
    assert line.source is not None and line.source.startswith("card")
    assert sum(charge.nano for charge in line.charges) == line.cost


@pytest.mark.parametrize(
    "stored", ["", "[]", "{", '{"in_fresh": "x"}', '{"in_fresh": {}}', '{"per_request": "1/0"}', "[" * 9999]
)
def test_unreadable_rates_show_no_lines(stored: str) -> None:
    """Whatever stands in the rates column, the query is still told."""
    assert charges({"in_fresh": 1}, stored) == ()


def test_last_prefixes_and_unknown_ids(tmp_path: Path) -> None:
    """last is the newest outermost query, a unique beginning is enough, and any other id names near ones."""
    rows = [query(f"0{n}ab", at=START + n) for n in range(9)] + [
        query("0123", at=START),
        query("%_", at=START),
    ]
    folder = folder_of(tmp_path / "kit", queries=rows)
    assert tell(folder, "last").root.id == "08ab" and tell(folder, " 08").root.id == "08ab"
    assert tell(folder, "%_").root.id == "%_"
    with pytest.raises(ConfigError, match=r"several queries begin so \(0123, 01ab, \.\.\.\)"):
        tell(folder, "01")
    with pytest.raises(ConfigError, match=r"no query has this id; near: 02ab, 03ab, 04ab, 05ab"):
        tell(folder, "03zz")
    for odd in ("", "_", "' OR 1=1 --", "\udcff", "x" * 100_000):
        with pytest.raises(ConfigError):
            tell(folder, odd)
    with pytest.raises(ConfigError, match="nothing is recorded"):
        tell(folder_of(tmp_path / "empty"), "last")


def test_why_not_for_calls_no_saving_could_answer(tmp_path: Path) -> None:
    """No saving set, a reference call, a refresh and a refusal each say so; a call that was answered says nothing."""
    assert "no saving is set" in (reason(tmp_path / "1", query("a")) or "")
    assert "costkit.reference()" in (reason(tmp_path / "2", query("a", role="reference")) or "")
    assert "refreshed a stale answer" in (reason(tmp_path / "3", query("a", role="refresh", key="K")) or "")
    for n, role in enumerate(("call", "refresh", "reference")):
        refused = query("a", error="BudgetExceeded", key="K", role=role)
        assert "refused before" in (reason(tmp_path / f"4{n}", refused) or "")
    assert reason(tmp_path / "5", query("a", saved_by="exact", key="K")) is None


@pytest.mark.parametrize(
    ("before", "part"),
    [
        ({"error": "TimeoutError"}, "raised TimeoutError, and errors are not served"),
        ({"complete": 0}, "was left or cancelled"),
        ({"role": "reference"}, "was a reference call"),
        ({"latency": 100.0}, "was still under way"),
        ({}, "answered 60.00 s before, and its answer was gone"),
        ({"key": "L"}, "an argument differs (Kit(store_text=True) would tell which)"),
        ({"key": "L", "version": "0"}, "another version"),
        ({"key": "L", "scope": GLOBEX}, "another scope (scopes share nothing)"),
        ({"key": "L", "request": '{"q": "a", "k": 1}'}, "other arguments: q"),
        ({"key": "L", "request": '{"q": "b", "k": 1}', "scope": GLOBEX}, "the same arguments were asked"),
        ({"name": "app.other", "key": "L"}, "the first call of this function"),
    ],
)
def test_why_not_compares_with_what_came_before(tmp_path: Path, before: dict[str, Any], part: str) -> None:
    """The nearest earlier call of the function tells what was in the way."""
    earlier = query("a", **{"key": "K", "scope": ACME, **before})
    now = query(
        "b", key="K", scope=ACME, at=START + 60, request='{"q": "b", "k": 1}' if "request" in before else None
    )
    assert part in (reason(tmp_path, earlier, now) or "")


def test_a_cut_answer_is_why_it_was_not_kept(tmp_path: Path) -> None:
    """An earlier identical call whose nested model answer was cut left nothing to serve."""
    rows = (
        query("a", key="K"),
        query("b", parent_id="a", root_id="a", name="app.llm"),
        query("c", key="K", at=START + 60),
    )
    assert "ended with 'length'" in (
        reason(tmp_path, *rows, attempts=(attempt("b", root_id="a", finish="length"),)) or ""
    )


def test_an_expired_answer_is_told_with_its_ttl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a real kit, a call after its answer's ttl says how old that was and what its ttl is."""
    kit = costkit.Kit(tmp_path / "kit")
    ask = kit.call(costkit.exact(ttl="1h"), scope=None, name="ask")(lambda n: response(str(n)))
    ask(1)
    kit.close()
    with kit.ledger() as con:
        assert con.execute("SELECT COUNT(*) FROM queries").fetchone()[0] == 1
    with sqlite3.connect(kit.folder / "ledger.db") as con:
        con.execute("UPDATE queries SET at = at - 7200")
        con.execute(
            "INSERT INTO queries (id, root_id, name, version, key, at, latency, provider_cost)"
            " SELECT 'later', 'later', name, version, key, at + 7200, 1, 0 FROM queries"
        )
    con.close()
    said = tell(kit.folder, "later").root.reason or ""
    assert "had expired: it was 2.0 h old, its ttl is 60.0 min" in said


def test_the_next_step_fits_the_query(tmp_path: Path) -> None:
    """A cut answer asks for a higher limit, a call without any saving for exact, an answered one for neither."""
    folder = folder_of(
        tmp_path / "kit",
        queries=[query("a", key="K"), query("b"), query("c", key="K", saved_by="exact")],
        attempts=[attempt("a", finish="length"), attempt("b")],
    )
    assert "raise its output limit" in shown(tell(folder, "a"))
    assert 'Next: put costkit.exact(ttl="1d")' in shown(tell(folder, "b"))
    assert "Next: `costkit report`" in shown(tell(folder, "c"))


def test_unknown_costs_name_their_mend(tmp_path: Path) -> None:
    """A model call without usage or without a price says which of the two it lacks, and what to do."""
    folder = folder_of(
        tmp_path / "kit",
        queries=[query("a", unknown_costs=1), query("b", unknown_costs=1)],
        attempts=[missing("a"), attempt("b", cost=None, price_id=None, model="own")],
    )
    assert "cost unknown: no usage was told" in shown(tell(folder, "a"))
    assert "costkit.record(response)" in shown(tell(folder, "a"))
    assert "cost unknown: no price is known for it" in shown(tell(folder, "b"))


def test_a_deep_or_broken_tree_is_still_told(tmp_path: Path) -> None:
    """A chain of 500 calls, a call whose parent is lost and calls that name each other as parents do not hang it."""
    chain = [query("c000")] + [
        query(f"c{n:03d}", parent_id=f"c{n - 1:03d}", root_id="c000", at=START + n) for n in range(1, 500)
    ]
    loop = [query("l0"), query("l1", parent_id="l2", root_id="l0"), query("l2", parent_id="l1", root_id="l0")]
    lost = [query("m0"), query("m1", parent_id="gone", root_id="m0")]
    folder = folder_of(
        tmp_path / "kit", queries=[*chain, *loop, *lost, query("orphan", parent_id="x", root_id="x")]
    )
    story = tell(folder, "c499")
    assert story.left_out > 0 and "more calls inside" in shown(story)
    json.dumps(story.to_dict())
    assert [call.id for call in tell(folder, "m0").root.calls] == ["m1"]
    assert tell(folder, "l1").root.id == "l0"
    assert tell(folder, "orphan").root.id == "orphan"


def test_what_the_tree_shows_is_text(tmp_path: Path) -> None:
    """Escapes and markup in a name, an error, a model or a finish reason reach no terminal."""
    evil = "\x1b[2J[bold]x\u202e"
    folder = folder_of(
        tmp_path / "kit",
        queries=[query("a", name=evil, error=evil, scope=evil, key="k")],
        attempts=[attempt("a", model=evil, provider=evil, finish=evil, error=evil, role=evil)],
        prices=[{"price_id": "p1", "source": evil, "version": evil, "rates": json.dumps({"in_fresh": evil})}],
    )
    out = StringIO()
    Console(file=out, width=160, force_terminal=True, color_system="truecolor").print(
        to_tree(tell(folder, "a"))
    )
    assert "\x1b[2J" not in out.getvalue() and "\u202e" not in out.getvalue() and "[bold]x" in out.getvalue()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy, of sums beyond a float
@pytest.mark.parametrize("value", ["abc", b"\xff\x00", -1, 2**62, 1e308, float("inf")])
def test_columns_changed_by_hand_end_in_text_or_one_clear_error(tmp_path: Path, value: Any) -> None:
    """Text, bytes and absurd numbers in any column never end in a traceback."""
    columns = {
        "queries": "name version scope key at latency ttft saved_by role provider_cost counterfactual_cost"
        " unknown_costs reserved complete error request",
        "attempts": "role model provider at latency ttft finish error in_fresh cache_read out_text cost price_id",
        "budgets": "label cap spent held lapsed ends",
        "prices": "source version rates",
    }
    budget = {
        "id": "x",
        "label": "b",
        "cap": 9,
        "starts": 0,
        "ends": None,
        "spent": 0,
        "held": 0,
        "lapsed": 0,
    }
    folder = folder_of(
        tmp_path / "kit",
        queries=[query("a", key="K"), query("b", key="K", at=START + 9)],
        attempts=[attempt("a"), attempt("b")],
        budgets=[budget],
        prices=[{"price_id": "p1", "source": "card", "version": "", "rates": rates()}],
    )
    original = (folder / "ledger.db").read_bytes()
    for table, names in columns.items():
        for name in names.split():
            (folder / "ledger.db").write_bytes(original)
            with contextlib.closing(sqlite3.connect(folder / "ledger.db")) as con, con:
                con.execute(f"UPDATE {table} SET {name} = ?", (value,))
            with contextlib.suppress(CostkitError):
                report = make_report(folder, by="model")
                str(report.to_dict())
                Console(file=StringIO()).print(to_table(report))
            with contextlib.suppress(CostkitError):
                shown(tell(folder, "b"))
            assert examine(folder).checks
