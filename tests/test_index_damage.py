"""An index that is damaged, tampered with, full or held by somebody: a miss, never a wrong row."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import costkit.index.database
import costkit.index.index
from costkit.errors import FolderError
from costkit.index import Index, Row
from costkit.index.rows import packed
from costkit.index.space import Space
from costkit.secret import Seal
from tests.indexes import NOW, SECRET, database, filled, is_true, key, vectors


@pytest.mark.parametrize("secret", [None, SECRET])
def test_a_changed_bit_costs_its_row(tmp_path: Path, secret: bytes | None) -> None:
    """Whichever bit of a row is flipped, the row is gone and counted; the others are still exact."""
    index, made = filled(tmp_path, 40, secret=secret)
    index.close()
    rng, con = random.Random(1), database(tmp_path)
    for number in range(0, 40, 2):
        (body,) = con.execute("SELECT body FROM entries WHERE key = ?", (key(number),)).fetchone()
        raw = bytearray(body)
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        con.execute("UPDATE entries SET body = ? WHERE key = ?", (bytes(raw), key(number)))
    found = index.search("s", "n", made[0], now=NOW, k=40)
    assert sorted(found.keys) == [key(n) for n in range(1, 40, 2)]
    assert index.troubles["damaged"] == 20
    assert is_true(found, made[0], {key(n): v for n, v in enumerate(made)})


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE entries SET key = 'other' WHERE key = ?",
        "UPDATE entries SET space = (SELECT space FROM entries WHERE scope = 't') WHERE key = ?",
        "UPDATE entries SET body = (SELECT body FROM entries WHERE scope = 't') WHERE key = ?",
        "UPDATE entries SET body = CAST(body AS TEXT) WHERE key = ?",
        "UPDATE entries SET body = 7 WHERE key = ?",
        "UPDATE entries SET key = x'00ff' WHERE key = ?",
        "UPDATE entries SET body = substr(body, 1, 20) WHERE key = ?",
        "UPDATE entries SET body = zeroblob(2000) WHERE key = ?",
        "UPDATE entries SET body = zeroblob(0) WHERE key = ?",
    ],
)
def test_a_row_holds_only_where_it_was_written(tmp_path: Path, change: str) -> None:
    """A row moved to another key, namespace or scope, or made something else, is found nowhere."""
    index, made = filled(tmp_path, 2, secret=SECRET)
    index.add("t", "m", Row("theirs", NOW), made[1])
    assert index.search("s", "n", made[0], now=NOW).keys == (key(0), key(1))
    database(tmp_path).execute(change, (key(0),))
    reader = Index(tmp_path, secret=SECRET)
    assert reader.search("s", "n", made[0], now=NOW).keys == (key(1),)
    assert reader.search("t", "m", made[0], now=NOW).keys == ("theirs",)


def test_a_forged_row_is_found_by_nobody_who_has_a_secret(tmp_path: Path) -> None:
    """A whole row with a checksum, or sealed under another secret, is no row to a kit with its own secret."""
    index, made = filled(tmp_path, 1, secret=SECRET)
    for number, other in enumerate([None, b"somebody else's secret"], 5):
        forger = Index(tmp_path, secret=other)
        assert forger.add("s", "n", Row(key(number), NOW), made[0])
    assert index.search("s", "n", made[0], now=NOW).keys == (key(0),)
    assert index.troubles["damaged"] == 2


def test_a_newer_row_that_cannot_be_read_takes_the_old_one_away(tmp_path: Path) -> None:
    """Where what is said of a key now cannot be read, what was said before is not served in its stead."""
    index, made = filled(tmp_path, 2)
    assert len(index.search("s", "n", made[0], now=NOW).rows) == 2
    con = database(tmp_path)
    con.execute(
        "INSERT OR REPLACE INTO entries (space, scope, key, body) SELECT space, scope, key, x'0102' FROM entries "
        "WHERE key = ?",
        (key(0),),
    )
    assert index.search("s", "n", made[0], now=NOW).keys == (key(1),)


def test_a_vector_that_is_none_is_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sealed row whose vector is not of length 1 (an older program's, say) is skipped and counted, and what
    stood under its key before is not served in its stead."""
    index, made = filled(tmp_path, 2)
    body = packed(Seal(None, "index"), b"x" * 16, Row("bad", NOW), made[0])
    assert len(index.search("s", "n", made[0], now=NOW).rows) == 2
    head = body[Seal.SIZE : -made[0].nbytes]
    for name, vector in ((key(1), made[0] * 9), ("nan", made[0] * float("nan")), ("other", made[0][:4])):
        said = head + vector.astype("<f4").tobytes()
        said = said[:32] + len(said[36:]).to_bytes(4, "little") + said[36:]
        space = costkit.index.index._space("s", "n")
        mark = Seal(None, "index").mark(space, name.encode(), said)
        database(tmp_path).execute(
            "REPLACE INTO entries (space, scope, key, body) VALUES (?, 's', ?, ?)", (space, name, mark + said)
        )
    assert set(index.search("s", "n", made[0], now=NOW).keys) == {key(0)}
    assert index.troubles["damaged"] == 3


@pytest.mark.parametrize("seed", range(12))
def test_damage_anywhere_in_the_file(tmp_path: Path, seed: int) -> None:
    """Bytes changed anywhere, a part cut off or a part zeroed: what is found is true, and adding works again."""
    index, made = filled(tmp_path, 120, dimension=64)
    index.close()
    path, rng = tmp_path / "index" / "vectors-1.db", random.Random(seed)
    raw = bytearray(path.read_bytes())
    if seed % 3 == 0:
        for _ in range(40):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
    elif seed % 3 == 1:
        del raw[rng.randrange(len(raw)) :]
    else:
        at = rng.randrange(len(raw))
        raw[at : at + 20_000] = bytes(len(raw[at : at + 20_000]))
    path.write_bytes(bytes(raw))
    truth = {key(n): vector for n, vector in enumerate(made)}
    for reader in (Index(tmp_path), Index(tmp_path)):
        for vector in made[:20]:
            assert is_true(reader.search("s", "n", vector, now=NOW), vector, truth)
    added = [index.add("s", "n", Row(key(n), NOW), made[n]) for n in range(5)]
    reader = Index(tmp_path)
    seen = reader.search("s", "n", made[0], now=NOW, k=200)
    added += [reader.add("s", "n", Row(key(n), NOW), made[n]) for n in range(5)]
    assert is_true(seen, made[0], truth) and any(added)
    again = Index(tmp_path).search("s", "n", made[4], now=NOW)
    assert is_true(again, made[4], truth)


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000, b"SQLite format 3\x00" + bytes(8000)])
def test_a_file_that_is_none_is_replaced_and_others_follow(tmp_path: Path, content: bytes) -> None:
    """A file of rubbish is set aside for an empty one; an index that had the old one open finds what is in the new."""
    index, made = filled(tmp_path, 5)
    stays = Index(tmp_path)
    assert len(stays.search("s", "n", made[0], now=NOW).rows) == 5
    index.close()
    for name in ("vectors-1.db-wal", "vectors-1.db-shm"):
        (tmp_path / "index" / name).unlink(missing_ok=True)
    (tmp_path / "index" / "new").write_bytes(content)
    os.replace(tmp_path / "index" / "new", tmp_path / "index" / "vectors-1.db")
    fresh = Index(tmp_path)
    assert fresh.search("s", "n", made[0], now=NOW).rows == ()
    assert fresh.add("s", "n", Row("new", NOW), made[1])
    assert fresh.search("s", "n", made[1], now=NOW).keys == ("new",)
    assert stays.search("s", "n", made[1], now=NOW).keys == ("new",)
    assert bool(list(tmp_path.glob("index.damaged-*"))) == bool(content)


def test_a_folder_that_is_gone_is_made_again(tmp_path: Path) -> None:
    """Somebody removes the index's folder while it is used: misses, and the next row is kept."""
    index, made = filled(tmp_path, 5)
    assert index.search("s", "n", made[0], now=NOW).rows
    shutil.rmtree(tmp_path / "index")
    assert index.search("s", "n", made[0], now=NOW).rows == ()
    assert index.add("s", "n", Row(key(1), NOW), made[1])
    assert index.search("s", "n", made[1], now=NOW).keys == (key(1),)


@pytest.mark.parametrize(
    "plant",
    [
        "CREATE TRIGGER t AFTER INSERT ON entries BEGIN DELETE FROM entries; END",
        "CREATE VIEW v AS SELECT 1",
        "CREATE TABLE more (x)",
        "DROP INDEX by_key",
        "DROP TABLE cuts",
        "ALTER TABLE entries ADD COLUMN more",
    ],
)
@pytest.mark.parametrize("running", [False, True])
def test_a_planted_schema_runs_nothing(tmp_path: Path, plant: str, running: bool) -> None:
    """A trigger, view, table or missing index, planted before or while the index is open, never bites."""
    index, made = filled(tmp_path, 5)
    assert index.search("s", "n", made[0], now=NOW).rows
    if not running:
        index.close()
    con = database(tmp_path)
    con.execute(plant)
    con.close()
    truth = {key(n): vector for n, vector in enumerate(made)}
    for number in range(3):
        index.add("s", "n", Row(key(number), NOW), made[number])
        assert is_true(index.search("s", "n", made[number], now=NOW), made[number], truth)
    if running and "TRIGGER" in plant:
        assert index.troubles["damaged"] == 1  # the statement that would set it off is not even compiled
    if not running:
        assert index.search("s", "n", made[2], now=NOW).keys[0] == key(2)
        assert index.troubles["damaged"] == 1 and list(tmp_path.glob("index.damaged-*"))


def test_a_link_in_the_files_place_is_not_followed(tmp_path: Path) -> None:
    """An index file that is a link to somebody's database stays a miss, and that database as it is."""
    elsewhere = tmp_path / "elsewhere.db"
    elsewhere.write_bytes(b"precious")
    (tmp_path / "kit" / "index").mkdir(parents=True)
    (tmp_path / "kit" / "index" / "vectors-1.db").symlink_to(elsewhere)
    index, (vector,) = Index(tmp_path / "kit"), vectors(1)
    assert not index.add("s", "n", Row(key(1), NOW), vector)
    assert index.search("s", "n", vector, now=NOW).rows == ()
    assert (
        elsewhere.read_bytes() == b"precious" and index.troubles["failed"] == index.troubles["unwritten"] == 1
    )


def held(folder: Path) -> contextlib.AbstractContextManager[sqlite3.Connection]:
    con = database(folder)
    con.execute("BEGIN IMMEDIATE")
    return contextlib.closing(con)


def test_a_held_file_costs_no_long_wait(tmp_path: Path) -> None:
    """While another process holds the write lock, searches go on and an add is given up soon, counted."""
    index, made = filled(tmp_path, 5)
    with held(tmp_path):
        began = time.monotonic()
        assert not index.add("s", "n", Row(key(9), NOW), -made[0])
        assert time.monotonic() - began < 3
        assert index.search("s", "n", made[0], now=NOW).keys[0] == key(0)
    assert index.troubles == {"damaged": 0, "failed": 0, "unwritten": 1}
    assert index.add("s", "n", Row(key(9), NOW), -made[0])


def test_opening_waits_for_who_makes_the_file(tmp_path: Path) -> None:
    """A new file that another process is about to write to is waited for, though SQLite itself would not wait."""
    (tmp_path / "index").mkdir()
    con = sqlite3.connect(tmp_path / "index" / "vectors-1.db", isolation_level=None, check_same_thread=False)
    con.execute("BEGIN IMMEDIATE")
    index, (vector,) = Index(tmp_path), vectors(1)
    release = threading.Timer(0.15, con.execute, ("ROLLBACK",))
    release.start()
    assert index.add("s", "n", Row(key(1), NOW), vector)
    release.join()
    con.close()
    assert index.search("s", "n", vector, now=NOW).keys == (key(1),)


@pytest.mark.parametrize(
    "ask", [lambda index: index.forget("s"), lambda index: index.remove("s", "n", key(1))]
)
def test_what_must_go_is_never_silently_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Callable[[Index], object]
) -> None:
    """Where a row cannot be taken out, that is said; and where the lock is let go in time, it is taken out."""
    index, _ = filled(tmp_path, 5)
    monkeypatch.setattr(costkit.index.index, "_PATIENCE", 0.2)
    with held(tmp_path), pytest.raises(FolderError, match="call again"):
        ask(index)
    assert ask(index) in (True, 5)


def test_a_full_disk_is_not_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When no page can be added, rows are lost and counted; what is there is found and nothing is set aside."""
    index, made = filled(tmp_path, 5)
    con = index._writer.open()
    con.set_authorizer(None)
    (pages,) = con.execute("PRAGMA page_count").fetchone()
    con.execute(f"PRAGMA max_page_count = {pages}")
    written = [index.add("s", "n", Row(key(n), NOW, features=bytes(4000)), made[0]) for n in range(10, 60)]
    assert not all(written) and index.troubles["unwritten"] == written.count(False)
    assert index.search("s", "n", made[1], now=NOW).keys[0] == key(1)
    assert not index.troubles["damaged"] and not list(tmp_path.glob("index.damaged-*"))


def test_running_out_of_memory_is_not_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A MemoryError while rows are read is a miss, and the file stays."""
    index, made = filled(tmp_path, 5)

    def full(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(Space, "reserve", full)
        assert index.search("s", "n", made[0], now=NOW).rows == ()
    assert index.troubles == {"damaged": 0, "failed": 1, "unwritten": 0}
    assert len(index.search("s", "n", made[0], now=NOW).rows) == 5
