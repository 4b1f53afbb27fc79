"""A damaged record is set aside, never overwritten, and budgets know that their count is gone."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from costkit.budget import Hold, Line, line, parse
from costkit.errors import FolderError
from costkit.ledger import Ledger, Query

NOW = 1_700_000_000.0
DAY = 86_400.0


def query(id: str) -> Query:
    return Query(id, None, id, "app.ask", "1", None, None, NOW, 0.5, None, None, "call", 0, 0)


def today(text: str = "5 USD/day", now: float = NOW) -> Line:
    return line(parse(text, "budget")[0], "kit", "all calls", now)


def ledger(folder: Path, now: float = NOW, **more: Any) -> Ledger:
    return Ledger(folder, clock=lambda: now, **more)


def spoil(path: Path, how: str) -> None:
    raw = bytearray(path.read_bytes())
    if how == "garbage":
        raw = bytearray(b"garbage" * 1000)
    elif how == "text":
        raw = bytearray(b"not a database, but short")
    elif how == "zero header":
        raw[:100] = bytes(100)
    elif how == "empty":
        raw = bytearray()
    elif how == "half":
        raw = raw[: len(raw) // 2]
    elif how == "one page":
        raw = raw[:4096]
    elif how == "torn page":
        raw = raw[:-1000]
    elif how == "first bytes":
        raw = raw[:60]
    path.write_bytes(raw)


def filled(folder: Path) -> None:
    """A ledger with rows and a hold, all of it in the file itself."""
    written = ledger(folder)
    for number in range(200):
        written.write(query(f"{number:03}"), (), durable=False)
    assert written.hold(Hold("h", 10, (today(),))).result(20) is None
    written.close()
    assert not (folder / "ledger.db-wal").exists()


WAYS = ["garbage", "text", "zero header", "empty", "half", "one page", "torn page", "first bytes"]


@pytest.mark.parametrize("how", WAYS)
def test_damage_is_set_aside(tmp_path: Path, how: str) -> None:
    """However the file is broken, it is kept under a new name, and rows go into a new ledger."""
    filled(tmp_path)
    spoil(tmp_path / "ledger.db", how)
    broken = (tmp_path / "ledger.db").read_bytes()
    fresh = ledger(tmp_path)
    assert fresh.damaged is not None and (tmp_path / fresh.damaged).read_bytes() == broken
    future = fresh.write(query("new"), (), durable=True)
    assert future is not None and future.result(20) is None
    assert [r[0] for r in fresh.read().execute("SELECT id FROM queries")] == ["new"]
    assert {p.stat().st_mode & 0o777 for p in tmp_path.iterdir()} == {0o600}
    fresh.close()
    assert Ledger(tmp_path).damaged is None, "only once"


@pytest.mark.parametrize("table", ["budgets", "holds", "meta", "queries", "attempts"])
def test_damage_inside_shows_at_once(tmp_path: Path, table: str) -> None:
    """A broken page of the money's tables, or where the next row goes, is found when the ledger is opened."""
    filled(tmp_path)
    path = tmp_path / "ledger.db"
    con = sqlite3.connect(path)
    (page,) = con.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    (size,) = con.execute("PRAGMA page_size").fetchone()
    con.close()
    with path.open("r+b") as handle:
        handle.seek((page - 1) * size)
        handle.write(b"\xff" * size)
    assert ledger(tmp_path).damaged is not None


def test_windows_begun_before_the_damage_are_refused(tmp_path: Path) -> None:
    """What was spent of them is unknown, so they give nothing; the next window, and blank calls, go on."""
    filled(tmp_path)
    spoil(tmp_path / "ledger.db", "half")
    fresh = ledger(tmp_path)
    for text in ("5 USD/day", "5 USD/total", "5 USD/month"):
        refusal = fresh.hold(Hold(text, 1, (today(text),))).result(20)
        assert refusal is not None and refusal.damaged and refusal.left == 0
    assert fresh.hold(Hold("free", 0, (today(),))).result(20) is None
    later = ledger(tmp_path, NOW + DAY)
    assert later.hold(Hold("next", 1, (today(now=NOW + DAY),))).result(20) is None
    con = sqlite3.connect(fresh.path)
    con.execute("DELETE FROM meta WHERE name = 'damaged_at'")
    con.commit()
    assert fresh.hold(Hold("accepted", 1, (today(),))).result(20) is None, "after `doctor --accept-loss`"


def test_damage_while_running(tmp_path: Path) -> None:
    """A ledger that breaks under its writer loses that row, counted, and the next ones go into a new one."""
    filled(tmp_path)
    running = ledger(tmp_path, interval=60)
    running._tended = float("inf")  # its housekeeping would find the damage first
    future = running.write(query("a"), (), durable=True)
    assert future is not None and future.result(20) is None
    sqlite3.connect(running.path).execute("PRAGMA wal_checkpoint(TRUNCATE)")
    spoil(tmp_path / "ledger.db", "garbage")
    with running._lock:
        assert running._con is not None
        running._con.execute(
            "PRAGMA shrink_memory"
        )  # what it has read before would hide the damage for a while
    told = [running.write(query(f"b{i}"), (), durable=True) for i in range(2)]
    errors = [future.exception(20) for future in told if future is not None]
    assert any(errors) and running.lost == sum(e is not None for e in errors)
    refusal = running.hold(Hold("h2", 1, (today(),))).result(20)
    assert refusal is not None and refusal.damaged
    assert running.damaged is not None and (tmp_path / running.damaged).exists()


def test_many_openers_set_it_aside_once(tmp_path: Path) -> None:
    """Sixteen threads that open a damaged ledger at once make one new ledger and keep one damaged file."""
    filled(tmp_path)
    spoil(tmp_path / "ledger.db", "zero header")
    opened: list[Ledger] = []
    threads = [threading.Thread(target=lambda: opened.append(ledger(tmp_path))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(opened) == 16 and sum(one.damaged is not None for one in opened) == 1
    assert len(list(tmp_path.glob("ledger.damaged-*.db"))) == 1
    for number, one in enumerate(opened):
        refusal = one.hold(Hold(f"{number}", 1, (today(),))).result(20)
        assert refusal is not None and refusal.damaged


def test_a_process_on_the_old_file_moves_to_the_new_one(tmp_path: Path) -> None:
    """Who had the ledger open when another process set it aside writes to the new one, under its refusals."""
    filled(tmp_path)
    old = ledger(tmp_path)
    assert old.hold(Hold("before", 1, (today(),))).result(20) is None
    spoil(tmp_path / "ledger.db", "zero header")
    (tmp_path / "ledger.db-wal").unlink()
    new = ledger(tmp_path)
    assert new.damaged is not None
    refusal = old.hold(Hold("after", 1, (today(),))).result(20)
    assert refusal is not None and refusal.damaged
    old.write(query("x"), (), durable=False)
    assert [r[0] for r in old.read().execute("SELECT id FROM queries")] == ["x"]
    assert [r[0] for r in new.read().execute("SELECT id FROM queries")] == ["x"]


def test_an_unfinished_replacement_harms_nothing(tmp_path: Path) -> None:
    """What a process killed while replacing the ledger left behind is no obstacle for the next."""
    filled(tmp_path)
    spoil(tmp_path / "ledger.db", "half")
    (tmp_path / "ledger.new.db").write_bytes(b"half made")
    (tmp_path / "ledger.new.db-wal").write_bytes(b"and its log")
    assert ledger(tmp_path).damaged is not None


def test_waiting_for_a_stuck_replacement_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When another process holds the replacement's lock for too long, opening says so instead of hanging."""
    import fcntl

    from costkit.ledger import schema

    filled(tmp_path)
    spoil(tmp_path / "ledger.db", "half")
    monkeypatch.setattr(schema, "_PATIENCE", 0.1)
    with (tmp_path / "ledger.lock").open("wb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        start = time.monotonic()
        with pytest.raises(FolderError, match="another process"):
            ledger(tmp_path)
        assert time.monotonic() - start < 5
