"""costkit report reads ledgers it may not write, damaged ones, ones in use, none at all, and long ones."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path

import pytest

import costkit
from costkit.errors import FolderError, LedgerVersionError
from costkit.ledger import connect
from costkit.report import make_report
from tests import reports
from tests.recorded import START, folder_of, response
from tests.reports import shown

folder = reports.folder


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
