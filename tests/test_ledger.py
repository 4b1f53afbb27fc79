"""The record: what is written is what happened, and nothing queued is forgotten."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from costkit.call import Attempt, Usage
from costkit.errors import FolderError, LedgerVersionError
from costkit.ledger import MIGRATIONS, Ledger, Query, connect


def query(id: str, **changes: Any) -> Query:
    fields: dict[str, Any] = {
        "id": id,
        "parent_id": None,
        "root_id": id,
        "name": "app.ask",
        "version": "1",
        "scope": None,
        "key": None,
        "at": 1_700_000_000.0,
        "latency": 0.5,
        "ttft": None,
        "saved_by": None,
        "role": "call",
        "provider_cost": 0,
        "counterfactual_cost": 0,
    }
    return Query(**{**fields, **changes})


def attempt(cost: int | None = 100, usage: Usage | None = None) -> Attempt:
    return Attempt(
        "reference", "m", "openai", usage or Usage(in_fresh=10, out_text=5), cost, "p1", "stop", 0.4
    )


def wait(future: Any) -> None:
    assert future is not None and future.result(timeout=20) is None


def test_rows_come_back_as_written(tmp_path: Path) -> None:
    """Every field of a query and its attempts is in its column; unknown is NULL, never zero."""
    ledger = Ledger(tmp_path)
    full = query(
        "a",
        scope='{"tenant": "acme"}',
        key="k",
        ttft=0.1,
        provider_cost=100,
        counterfactual_cost=100,
        overhead_cost=1,
        unknown_costs=1,
        complete=False,
        error="ValueError",
        request="q",
        response="r",
        reserved=200,
    )
    usage = Usage(1, 2, 3, 4, 5, 6, "estimated", {"prompt_tokens": 1})
    wait(ledger.write(full, (attempt(usage=usage), Attempt("judge", None, None, None, None)), durable=True))
    con = ledger.read()
    row = dict(con.execute("SELECT * FROM queries").fetchone())
    assert row.pop("saving") == -1
    assert row == {name: getattr(full, name) for name in Query.__dataclass_fields__} | {"complete": 0}
    known, unknown = (dict(r) for r in con.execute("SELECT * FROM attempts ORDER BY id"))
    assert [known[c] for c in ("in_fresh", "cache_read", "cache_write_5m", "cache_write_1h")] == [1, 2, 3, 4]
    assert [known[c] for c in ("out_text", "out_reasoning", "cost", "price_id")] == [5, 6, 100, "p1"]
    assert (known["usage_state"], known["raw_usage"]) == ("estimated", '{"prompt_tokens": 1}')
    assert (unknown["usage_state"], unknown["in_fresh"], unknown["cost"]) == ("missing", None, None)


def test_durable_is_on_disk_when_the_future_resolves(tmp_path: Path) -> None:
    """Once a durable row's future has resolved, another connection sees the row."""
    ledger = Ledger(tmp_path, interval=60)
    wait(ledger.write(query("a"), (attempt(),), durable=True))
    assert sqlite3.connect(ledger.path).execute("SELECT COUNT(*) FROM queries").fetchone() == (1,)


def test_free_rows_are_committed_in_groups(tmp_path: Path) -> None:
    """Rows that are not durable have no future, and are there after a flush, all of them."""
    ledger = Ledger(tmp_path, interval=60)
    assert [ledger.write(query(f"{i}"), (), durable=False) for i in range(500)] == [None] * 500
    assert ledger.read().execute("SELECT COUNT(*) FROM queries").fetchone()[0] == 500


def test_the_prices_used_are_kept_once(tmp_path: Path) -> None:
    """The rates behind a price_id go into `prices` with their first use, however many calls use them."""
    rates = {"in_fresh": "1.25", "per_request": "0"}
    snapshot = {"source": "card", "version": "7", "model": "m", "rates": rates}
    priced = replace(attempt(), snapshot=snapshot, at=5.0)
    ledger = Ledger(tmp_path)
    for number in range(3):
        wait(ledger.write(query(f"{number}"), (priced, replace(priced, at=6.0)), durable=True))
    wait(Ledger(tmp_path).write(query("z"), (replace(priced, at=7.0), attempt()), durable=True))
    (row,) = map(dict, ledger.read().execute("SELECT * FROM prices"))
    assert json.loads(row.pop("rates")) == rates
    assert row == {"price_id": "p1", "source": "card", "version": "7", "first_used": 5.0}


def test_what_tokenizers_teach_is_added_up(tmp_path: Path) -> None:
    """Lessons of several ledgers on one folder add up by function and model; nothing known is None."""
    first, second = Ledger(tmp_path), Ledger(tmp_path)
    first.learn("ask", "m", 100, 130)
    first.learn("ask", "m", 0, 10)
    first.flush()
    second.learn("ask", "m", 300, 300)
    second.flush()
    known = Ledger(tmp_path).ratio("ask", "m")
    assert known is not None
    assert (known.calls, known.counted, known.reported, known.most) == (2, 400, 430, 1.3)
    assert Ledger(tmp_path).ratio("ask", "other") is None


def test_lessons_are_read_without_waiting(tmp_path: Path) -> None:
    """While another process holds the database, or where there is none, a lesson is None at once."""
    ledger = Ledger(tmp_path)
    holder = sqlite3.connect(ledger.path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    start = time.perf_counter()
    assert ledger.ratio("ask", "m") is None
    assert time.perf_counter() - start < 2
    holder.close()


def test_many_threads_lose_nothing(tmp_path: Path) -> None:
    """Sixteen threads writing durable and free rows at once all find them in the record."""
    ledger = Ledger(tmp_path, interval=0.01)

    def work(t: int) -> None:
        for i in range(30):
            future = ledger.write(query(f"{t}-{i}"), (attempt(),), durable=i % 3 == 0)
            if future is not None:
                future.result(timeout=20)

    threads = [threading.Thread(target=work, args=(t,)) for t in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    con = ledger.read()
    assert con.execute("SELECT COUNT(*) FROM queries").fetchone()[0] == 480
    assert con.execute("SELECT COUNT(*) FROM attempts").fetchone()[0] == 480 and ledger.lost == 0


def test_closed_and_used_again(tmp_path: Path) -> None:
    """A row written after close is still recorded."""
    ledger = Ledger(tmp_path)
    ledger.write(query("a"), (), durable=False)
    ledger.close()
    wait(ledger.write(query("b"), (attempt(),), durable=True))
    assert Ledger(tmp_path).read().execute("SELECT COUNT(*) FROM queries").fetchone()[0] == 2


def test_one_bad_row_takes_no_other_with_it(tmp_path: Path) -> None:
    """A row that SQLite cannot hold fails alone: the rows queued with it are kept and the writer lives on."""
    ledger = Ledger(tmp_path, interval=60)
    ledger.write(query("a"), (), durable=False)
    ledger.write(query("b", provider_cost=1 << 70), (), durable=False)
    ledger.write(query("c", response="\ud800"), (), durable=False)
    wait(ledger.write(query("d"), (attempt(),), durable=True))
    wait(ledger.write(query("e"), (attempt(),), durable=True))
    assert [r[0] for r in ledger.read().execute("SELECT id FROM queries ORDER BY id")] == ["a", "d", "e"]
    assert ledger.lost == 2


def test_trouble_reaches_the_future_and_is_counted(tmp_path: Path) -> None:
    """When the rows cannot be written the durable future raises, the loss is counted, and later rows work."""
    ledger = Ledger(tmp_path)
    other = sqlite3.connect(ledger.path, isolation_level=None)
    other.execute("ALTER TABLE attempts RENAME TO gone")
    future = ledger.write(query("a"), (attempt(),), durable=True)
    assert future is not None and isinstance(future.exception(timeout=20), sqlite3.OperationalError)
    assert ledger.lost == 1
    other.execute("ALTER TABLE gone RENAME TO attempts")
    wait(ledger.write(query("b"), (attempt(),), durable=True))
    assert [r[0] for r in ledger.read().execute("SELECT id FROM queries")] == ["b"]


def test_a_cancelled_waiter_does_not_cancel_the_row(tmp_path: Path) -> None:
    """The row's future cannot be cancelled, so the writer survives whoever stopped waiting."""
    ledger = Ledger(tmp_path)
    future = ledger.write(query("a"), (attempt(),), durable=True)
    assert future is not None and not future.cancel()
    wait(future)
    wait(ledger.write(query("b"), (attempt(),), durable=True))


def test_views_add_up_nested_calls(tmp_path: Path) -> None:
    """query_costs sums an outermost call with what ran inside it; savings and daily agree with it."""
    ledger = Ledger(tmp_path)
    ledger.write(query("a", counterfactual_cost=50, provider_cost=50), (attempt(50),), durable=False)
    child = {"parent_id": "a", "root_id": "a", "name": "app.complete"}
    ledger.write(
        query("b", **child, provider_cost=100, counterfactual_cost=100), (attempt(100),), durable=False
    )
    ledger.write(query("c", **child, counterfactual_cost=300, saved_by="exact"), (), durable=False)
    ledger.write(query("d", counterfactual_cost=None, saved_by="exact"), (), durable=False)
    con = ledger.read()
    costs = {r["id"]: dict(r) for r in con.execute("SELECT * FROM query_costs")}
    assert set(costs) == {"a", "d"}
    assert [
        costs["a"][c] for c in ("provider_cost", "counterfactual_cost", "saving", "saved_by", "estimated")
    ] == [
        150,
        450,
        300,
        "exact",
        0,
    ]
    assert costs["d"]["counterfactual_cost"] is None and costs["d"]["saving"] is None
    saved = {(r["name"], r["saved_by"]): r["saving"] for r in con.execute("SELECT * FROM savings")}
    assert saved == {
        ("app.ask", None): 0,
        ("app.ask", "exact"): None,
        ("app.complete", None): 0,
        ("app.complete", "exact"): 300,
    }
    (day,) = (dict(r) for r in con.execute("SELECT * FROM daily"))
    assert (day["day"], day["calls"], day["saved_calls"], day["provider_cost"]) == ("2023-11-14", 2, 2, 150)


def test_reading_cannot_write(tmp_path: Path) -> None:
    """The connection handed out for reading refuses to change the record."""
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        Ledger(tmp_path).read().execute("DELETE FROM queries")


def test_private_and_marked(tmp_path: Path) -> None:
    """The file is 0600 and carries costkit's application id and the number of migrations."""
    con = connect(tmp_path / "ledger.db")
    assert (tmp_path / "ledger.db").stat().st_mode & 0o777 == 0o600
    assert con.execute("PRAGMA application_id").fetchone() == (0x636F7374,)
    assert con.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)


def test_a_newer_ledger_is_refused_untouched(tmp_path: Path) -> None:
    """A ledger from a newer version raises, says what to do, and is not changed."""
    path = tmp_path / "ledger.db"
    con = connect(path)
    con.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    con.close()
    before = path.read_bytes()
    with pytest.raises(LedgerVersionError, match="upgrade costkit"):
        Ledger(tmp_path)
    assert path.read_bytes() == before


def test_another_programs_database_is_refused_untouched(tmp_path: Path) -> None:
    """A database with tables of someone else's is not taken over."""
    con = sqlite3.connect(tmp_path / "ledger.db")
    con.execute("CREATE TABLE notes (text)")
    con.close()
    with pytest.raises(FolderError, match="not a costkit ledger"):
        Ledger(tmp_path)
    names = sqlite3.connect(tmp_path / "ledger.db").execute("SELECT name FROM sqlite_master").fetchall()
    assert names == [("notes",)]


def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    """A folder where the ledger should be is a FolderError that names the file."""
    (tmp_path / "ledger.db").mkdir()
    with pytest.raises(FolderError, match=r"ledger\.db"):
        Ledger(tmp_path)


def test_flushed_at_exit(tmp_path: Path) -> None:
    """Rows still queued when the interpreter ends normally are in the record."""
    code = f"""
    from pathlib import Path
    import sys
    sys.path.insert(0, {str(Path(__file__).parent)!r})
    from test_ledger import Ledger, query
    ledger = Ledger(Path({str(tmp_path)!r}), interval=60)
    for i in range(20):
        ledger.write(query(str(i)), (), durable=False)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=60)
    assert Ledger(tmp_path).read().execute("SELECT COUNT(*) FROM queries").fetchone()[0] == 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_both_halves_of_a_fork_write_their_own_rows(tmp_path: Path) -> None:
    """After a fork parent and child each record their own rows, once."""
    ledger = Ledger(tmp_path, interval=60)
    ledger.write(query("before"), (), durable=False)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            wait(ledger.write(query("child"), (attempt(),), durable=True))
            code = 0
        finally:
            os._exit(code)
    wait(ledger.write(query("parent"), (attempt(),), durable=True))
    assert os.waitpid(child, 0)[1] == 0
    found = [r[0] for r in ledger.read().execute("SELECT id FROM queries ORDER BY id")]
    assert found == ["before", "child", "parent"]


def test_rows_wait_while_the_disk_is_full(tmp_path: Path) -> None:
    """With no room on the disk a durable row's waiter is told; the rows go in once there is room, each once."""
    ledger = Ledger(tmp_path, interval=60)
    ledger._tended = float("inf")  # nobody else uses its connection
    wait(ledger.write(query("a"), (), durable=True))
    assert ledger._con is not None
    (pages,) = ledger._con.execute("PRAGMA page_count").fetchone()
    ledger._con.execute(f"PRAGMA max_page_count={pages}")
    futures = [ledger.write(query(f"{i}", response="x" * 20_000), (), durable=True) for i in range(3)]
    for future in futures:
        assert future is not None and isinstance(future.exception(timeout=10), sqlite3.OperationalError)
    assert ledger.lost == 0
    ledger._con.execute("PRAGMA max_page_count=1000000")
    ledger.flush()
    assert [r[0] for r in ledger.read().execute("SELECT id FROM queries ORDER BY id")] == ["0", "1", "2", "a"]
    ledger.close()


def test_a_ledger_that_was_moved_away_is_made_again(tmp_path: Path) -> None:
    """Rows go to the file under the ledger's name, also when the one that was opened has gone from there."""
    ledger = Ledger(tmp_path)
    wait(ledger.write(query("a"), (), durable=True))
    for path in tmp_path.glob("ledger.db*"):
        path.rename(tmp_path / path.name.replace("ledger", "old"))
    wait(ledger.write(query("b"), (attempt(),), durable=True))
    assert [r[0] for r in ledger.read().execute("SELECT id FROM queries")] == ["b"]
    assert sqlite3.connect(tmp_path / "old.db").execute("SELECT id FROM queries").fetchall() == [("a",)]


def test_rows_of_a_locked_ledger_are_written_later(tmp_path: Path) -> None:
    """While another process holds the database a durable row's waiter is told; the row goes in once it is free."""
    ledger = Ledger(tmp_path, interval=0.05)
    ledger._tended = float("inf")
    assert ledger._con is not None
    ledger._con.execute("PRAGMA busy_timeout=50")
    holder = sqlite3.connect(ledger.path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    futures = [ledger.write(query(f"q{i}"), (), durable=True) for i in range(3)]
    for future in futures:
        assert future is not None and isinstance(future.exception(timeout=10), sqlite3.OperationalError)
    holder.execute("ROLLBACK")
    holder.close()
    ledger.flush()
    assert [row["id"] for row in ledger.read().execute("SELECT id FROM queries ORDER BY id")] == [
        "q0",
        "q1",
        "q2",
    ]
    assert ledger.lost == 0
    ledger.close()
