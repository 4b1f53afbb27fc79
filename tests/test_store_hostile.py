"""A cache that somebody tampered with, a damaged or a full disk: answers flow, nothing runs, nothing is forged."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import costkit
from costkit import Kit, exact
from costkit.disk import SealedCache
from costkit.store import Entry, Store

ROOT = Path(__file__).parent.parent


def hostile(*arguments: str) -> dict[str, Any]:
    """What the benchmark of that name finds."""
    command = [sys.executable, "-m", "tests.benchmarks.hostile", "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=110)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_tampering_costs_misses_only() -> None:
    """1,000 rows tampered with in every column, 100 planted settings, triggers, views and schemas, 40 damaged files,
    before a kit opens them and while it runs: every call answered, right and soon, nothing run, nothing touched."""
    found = hostile("--rows", "1000", "--damaged", "40")
    assert {k: found[k] for k in ("code_ran", "outside_touched", "wrong", "unanswered")} == {
        "code_ran": 0, "outside_touched": 0, "wrong": 0, "unanswered": 0,
    }  # fmt: skip
    assert found["rows"] > 900 and found["plants"] > 90 and found["damaged_files"] == 40
    assert found["answered"] > 10_000 and found["hits_after"] > 0 and found["slowest_s"] < 10


def test_the_same_tampering_breaks_stock_diskcache() -> None:
    """What is done to the rows does bite: plain diskcache runs the code, deletes the file, serves wrong values."""
    found = hostile("--rows", "1000", "--stock")
    assert found["code_ran"] > 0 and found["outside_touched"] > 0 and found["wrong"] > 0


def test_a_planted_setting_cannot_move_the_cache(tmp_path: Path) -> None:
    """A Settings row that names the cache's own attributes (its folder, say) opens no database elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder = tmp_path / "kit"
    folder.mkdir()
    Store(folder).close()
    con = sqlite3.connect(folder / "cache" / "cache.db", isolation_level=None)
    con.execute("INSERT INTO Settings VALUES ('_directory', ?)", (str(elsewhere),))
    con.close()
    store = Store(folder)
    store.close()
    assert store.troubles["damaged"] == 1 and store.get("s", "k", time.time()) is None
    assert list(elsewhere.iterdir()) == []


def test_only_what_the_cache_needs_is_authorized(tmp_path: Path) -> None:
    """No attach, no recursion, no pragma beyond the cache's own, nothing but counters in triggers."""
    cache = SealedCache(tmp_path, size_limit=1 << 20)
    cache.set("k", b"v")
    for sql in (
        f"ATTACH '{tmp_path}/other.db' AS other",
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n LIMIT 3",
        "PRAGMA writable_schema = ON",
        "PRAGMA temp_store_directory = '/tmp'",
        "PRAGMA trusted_schema = ON",
        "CREATE VIRTUAL TABLE t USING fts5(x)",
    ):
        with pytest.raises(sqlite3.DatabaseError, match=r"not authorized|prohibited"):
            cache._sql(sql)
    assert cache.get("k") == b"v" and not (tmp_path / "other.db").exists()
    cache.close()


def asking(kit: Kit, size: int = 0) -> tuple[Any, list[int]]:
    """A wrapped function and the questions that reached it."""
    made: list[int] = []

    @kit.call(exact(ttl="1d"), scope=None, name="ask", version="1")
    def ask(i: int) -> str:
        made.append(i)
        costkit.record(free=True)
        return f"answer {i}" + "x" * size

    return ask, made


def test_a_locked_database_is_not_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that somebody holds is no damaged one: calls are answered meanwhile, and it serves again afterwards."""
    with Kit(tmp_path / "kit") as kit:
        asking(kit)[0](1)
    monkeypatch.setattr("costkit.store._PATIENCE", 0.1)
    monkeypatch.setattr("costkit.store._BUSY", 0.0)
    with held(tmp_path / "kit"):
        kit = Kit(tmp_path / "kit")
        ask, made = asking(kit)
        assert ask(1) == "answer 1" and made == [1]
        assert kit.health()["unwritten"] == 1 and kit.health()["damaged"] == 0
    assert ask(2) == "answer 2"
    kit.close()
    with Kit(tmp_path / "kit") as kit:
        ask, made = asking(kit)
        assert [ask(1), ask(2)] == ["answer 1", "answer 2"] and made == []
    assert not list((tmp_path / "kit").glob("cache.damaged-*"))


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """While somebody has the cache's file to himself."""
    path = folder / "cache" / "cache.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as holder:
        holder.execute("PRAGMA locking_mode = EXCLUSIVE")
        holder.execute("BEGIN EXCLUSIVE")
        yield


def test_a_cache_held_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    """A store made while another process holds the file for half a second serves what is stored in it."""
    entry = Entry(b"payload", time.time())
    first = Store(tmp_path)
    assert first.set("s", "k", entry)
    first.close()
    with contextlib.ExitStack() as holding:
        holding.enter_context(held(tmp_path))
        release = threading.Timer(0.5, holding.pop_all().close)
        release.start()
        store = Store(tmp_path)
    release.join()
    assert store.get("s", "k", time.time()) == entry
    assert store.troubles == {"damaged": 0, "failed": 0, "unwritten": 0}


def test_a_cache_that_was_held_is_tried_again_by_readers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that only reads finds its entries a second after the file is let go, and does not try at each read."""
    monkeypatch.setattr("costkit.store._PATIENCE", 0.0)
    entry = Entry(b"payload", time.time())
    first = Store(tmp_path)
    assert first.set("s", "k", entry)
    first.close()
    with held(tmp_path):
        store = Store(tmp_path)
        assert store.get("s", "k", time.time()) is None and store.troubles["failed"] == 1
    opened: list[object] = []

    def counted(_: float) -> object:
        opened.append(None)
        return Store._connect(store, 0.0)

    monkeypatch.setattr(store, "_connect", counted)
    assert store.get("s", "k", time.time()) is None and not opened
    time.sleep(1.1)
    assert store.get("s", "k", time.time()) == entry and len(opened) == 1


def test_a_damaged_ledger_under_way_costs_no_answer(tmp_path: Path) -> None:
    """When the ledger breaks while the kit runs, every call is answered, and what went unrecorded is counted."""
    code = """if True:
        import costkit, sys, warnings
        warnings.simplefilter("ignore")
        kit = costkit.Kit(sys.argv[1], prices={"m": costkit.Rates(1, 2)})
        @kit.call(costkit.exact(ttl="1d"), scope=None)
        def ask(i):
            costkit.record(usage=costkit.Usage(in_fresh=1000, out_text=500), model="m")
            return f"answer {i}"
        for i in range(20): assert ask(i) == f"answer {i}"
        for name in ("ledger.db", "ledger.db-wal"):
            with open(f"{sys.argv[1]}/{name}", "r+b") as handle:
                size = handle.seek(0, 2)
                handle.seek(0)
                handle.write(b"damaged " * (size // 8))
        for i in range(10, 40): assert ask(i) == f"answer {i}"
        print(kit.health())
    """
    command = [sys.executable, "-c", code, str(tmp_path / "kit")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=110)
    assert done.returncode == 0, done.stderr[-2000:]


FULL = """
import costkit, json, os, resource, sqlite3, sys, warnings
warnings.simplefilter("always")
kit = costkit.Kit(sys.argv[1], prices={"m": costkit.Rates(1, 2)})

@kit.call(costkit.exact(ttl="1d"), scope=None)
def ask(i):
    costkit.record(usage=costkit.Usage(in_fresh=1000, out_text=500), model="m")
    return f"answer {i} " + "x" * 20_000

if sys.argv[2] == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    right = sum(ask(i) == f"answer {i} " + "x" * 20_000 for i in range(int(sys.argv[3])))
    again = sum(ask(i) == f"answer {i} " + "x" * 20_000 for i in range(20))

@kit.call(scope=None, max_cost="0.01 USD", budget="1 USD/day")
def dear(i):
    raise AssertionError("spent without a budget that can be checked")
held = 0
for i in range(3):
    try:
        dear(i)
    except costkit.CostkitError:
        held += 1
    except AssertionError:
        held -= 100
health = kit.health()
if sys.argv[2] == "disk":
    os.remove(sys.argv[4])  # room again
kit.close()
recorded = sqlite3.connect(sys.argv[1] + "/ledger.db").execute("SELECT COUNT(*) FROM queries WHERE error IS NULL")
found = {"right": right, "again": again, "health": health, "warned": len(said), "held": held}
print(json.dumps({**found, "recorded": recorded.fetchone()[0]}))
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real filesystem of 4 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no small filesystem can be mounted here; the size limit of the process stands in")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def full(folder: Path, how: str) -> dict[str, Any]:
    """400 answers of 20 KB where there is no room for them."""
    filler = folder / "filler"
    if how == "disk":
        filler.write_bytes(bytes(2 << 20))
    command = [sys.executable, "-c", FULL, str(folder / "kit"), how, "400", str(filler)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=110)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_full_disk_costs_no_answer(small_disk: Path) -> None:
    """On a full filesystem every call is answered, with a warning and a count; a call under a budget is refused; and
    the rows that waited go in when there is room again."""
    found = full(small_disk, "disk")
    assert (found["right"], found["again"], found["held"]) == (400, 20, 3)
    assert found["health"]["unwritten"] > 0 and found["warned"] > 0
    assert found["recorded"] + found["health"]["unrecorded"] == 420


def test_a_file_size_limit_costs_no_answer(tmp_path: Path) -> None:
    """The same where no file may grow further."""
    found = full(tmp_path, "limit")
    assert (found["right"], found["again"], found["held"]) == (400, 20, 3)
    assert found["health"]["unwritten"] > 0 and found["warned"] > 0
