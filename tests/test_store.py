"""Sealed entries on disk, and what damage, forgery and trouble do: a miss."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from costkit import codec
from costkit.errors import FolderError
from costkit.store import Entry, Epochs, Front, Moment, Store

NOW = 1_700_000_000.0


def entry(text: str = "answer", *, at: float = NOW, life: float | None = None, epoch: str = "") -> Entry:
    return Entry(codec.encode(text), at=at, ttl=life, life=life, cost=7, latency=0.5, epoch=epoch)


def stored(folder: Path, secret: bytes | None = None) -> Store:
    """A store opened afresh: nothing in memory."""
    return Store(folder, secret=secret)


def rows(folder: Path) -> sqlite3.Connection:
    return sqlite3.connect(folder / "cache" / "cache.db", isolation_level=None)


def test_comes_back_from_memory_and_from_disk(tmp_path: Path) -> None:
    """An entry returns with all its fields, from this store and from one opened later."""
    store = Store(tmp_path)
    assert store.get("s", "k", NOW) is None
    made = Entry(codec.encode([1, "é"]), NOW, 60.0, 60.0, None, 1.5, True, "kb=2", "", 7.5, "boot")
    assert store.set("s", "k", made)
    assert store.get("s", "k", NOW) == made
    store.close()
    again = stored(tmp_path)
    assert again.get("s", "k", NOW) == made and made.value() == [1, "é"]
    assert again.troubles == {"damaged": 0, "failed": 0, "unwritten": 0}


def test_rows_are_inline_text_and_bytes(tmp_path: Path) -> None:
    """Even a large value lies in the database itself: no file name, no pickle mode, files private."""
    store = Store(tmp_path)
    store.set("s", "k", entry("x" * 3_000_000))
    found = (
        rows(tmp_path).execute("SELECT key, raw, mode, filename, typeof(value), tag FROM Cache").fetchall()
    )
    assert found == [("k", 1, 1, None, "blob", "s")]
    files = sorted(p for p in (tmp_path / "cache").rglob("*") if p.is_file())
    assert {p.name for p in files} <= {"cache.db", "cache.db-wal", "cache.db-shm"}
    assert all(p.stat().st_mode & 0o077 == 0 for p in files)
    assert stored(tmp_path).get("s", "k", NOW) == entry("x" * 3_000_000)


def test_freshness() -> None:
    """It may be served: within its life, in its own epoch, and not from the future."""
    one = entry(life=10.0, epoch="kb=1")
    assert one.usable(Moment(NOW), "kb=1") and one.usable(Moment(NOW + 9.99), "kb=1")
    assert not one.usable(Moment(NOW + 10), "kb=1")
    assert not one.usable(Moment(NOW), "kb=2") and not one.usable(Moment(NOW), "")
    free = entry()
    assert free.usable(Moment(NOW + 1e9), "") and free.usable(Moment(NOW - 299), "")
    assert not free.usable(Moment(NOW - 301), "")


def test_expired_in_memory_is_looked_up_on_disk(tmp_path: Path) -> None:
    """What another process renewed is found although this one's memory holds the expired entry."""
    one, two = Store(tmp_path), Store(tmp_path)
    now = time.time()
    one.set("s", "k", entry("old", at=now, life=5.0))
    two.set("s", "k", entry("new", at=now + 6, life=54.0))
    found = one.get("s", "k", now + 6)
    assert found is not None and found.value() == "new"


FLIP: dict[str, Callable[[bytes], bytes]] = {
    "body": lambda b: b[:-1] + bytes([b[-1] ^ 1]),
    "seal": lambda b: b[:1] + bytes([b[1] ^ 1]) + b[2:],
    "kind": lambda b: b"\x09" + b[1:],
    "cut": lambda b: b[:20],
    "empty": lambda b: b"",
}


@pytest.mark.parametrize("secret", [None, b"0123456789abcdef"], ids=["checksum", "secret"])
@pytest.mark.parametrize("how", FLIP)
def test_a_damaged_row_is_a_miss(tmp_path: Path, how: str, secret: bytes | None) -> None:
    """One wrong bit anywhere in the row is a counted miss."""
    Store(tmp_path, secret=secret).set("s", "k", entry())
    con = rows(tmp_path)
    (value,) = con.execute("SELECT value FROM Cache").fetchone()
    con.execute("UPDATE Cache SET value = ?", (FLIP[how](value),))
    store = stored(tmp_path, secret)
    assert store.get("s", "k", NOW) is None and store.troubles["damaged"] == 1


def test_a_row_moved_to_another_key_or_scope_is_a_miss(tmp_path: Path) -> None:
    """The seal covers key and scope: a row renamed in the database answers nothing."""
    store = Store(tmp_path)
    store.set("acme", "k", entry())
    rows(tmp_path).execute("UPDATE Cache SET key = 'other'")
    fresh = stored(tmp_path)
    assert fresh.get("acme", "other", NOW) is None
    rows(tmp_path).execute("UPDATE Cache SET key = 'k'")
    assert fresh.get("globex", "k", NOW) is None and fresh.get("acme", "k", NOW) == entry()


def test_a_forger_without_the_secret_is_a_miss(tmp_path: Path) -> None:
    """With a secret, a row sealed with another one, or with a checksum alone, does not verify."""
    secret = b"the-house-secret"
    for forger in (None, b"some-other-secret"):
        Store(tmp_path, secret=forger).set("s", "k", entry("forged"))
        assert stored(tmp_path, secret).get("s", "k", NOW) is None
    Store(tmp_path, secret=secret).set("s", "k", entry("ours"))
    assert stored(tmp_path, secret).get("s", "k", NOW) == entry("ours")
    assert stored(tmp_path, None).get("s", "k", NOW) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"at": "x"},
        {"at": NOW, "life": "soon"},
        {"at": NOW, "cost": "7"},
        {"at": NOW, "epoch": 5},
        {"at": NOW, "stream": "yes"},
        {"at": NOW, "latency": None},
        {"at": NOW, "more": 1},
        {},
        [],
        5,
        {"at": True},
    ],
    ids=str,
)
def test_a_well_sealed_row_of_wrong_fields_is_a_miss(tmp_path: Path, fields: object) -> None:
    """Who can compute the checksum can still not make a header that breaks a call."""
    header = json.dumps(fields).encode()
    body = len(header).to_bytes(4, "big") + header + codec.encode("x")
    store = Store(tmp_path)
    store._cache.set("k", store._seal("s", "k", body))
    assert store.get("s", "k", NOW) is None and store.troubles["damaged"] == 1


PICKLE_THAT_TOUCHES = b"cos\nsystem\n(S'touch %s'\ntR."


@pytest.mark.parametrize("mode", [0, 1, 2, 3, 4, 99])
def test_planted_rows_run_nothing_and_reach_no_file(tmp_path: Path, mode: int) -> None:
    """Rows with diskcache's pickle, file and text modes, and file names, are misses; no file is opened or
    removed."""
    victim, proof = tmp_path / "victim.txt", tmp_path / "proof"
    victim.write_text("precious")
    folder = tmp_path / "kit"
    folder.mkdir()
    Store(folder).set("s", "k", entry())
    evil = PICKLE_THAT_TOUCHES % str(proof).encode()
    for name in (str(victim), "../../victim.txt", None):
        rows(folder).execute(
            "UPDATE Cache SET mode = ?, filename = ?, value = ?, size = 10, expire_time = NULL",
            (mode, name, evil),
        )
        store = stored(folder)
        assert store.get("s", "k", NOW) is None
    rows(folder).execute("UPDATE Cache SET filename = ?, expire_time = 1", (str(victim),))
    store = stored(folder)
    store.set("s", "k", entry("new"))  # replaces the planted row
    rows(folder).execute("UPDATE Cache SET filename = ?", (str(victim),))
    assert store.forget("s") == 1  # evicts it
    assert victim.read_text() == "precious" and not proof.exists()


def test_planted_keys_run_nothing(tmp_path: Path) -> None:
    """A key column with raw = 0, which stock diskcache unpickles, is never unpickled."""
    proof = tmp_path / "proof"
    Store(tmp_path).set("s", "k", entry())
    rows(tmp_path).execute("UPDATE Cache SET raw = 0, key = ?", (PICKLE_THAT_TOUCHES % str(proof).encode(),))
    store = stored(tmp_path)
    assert store.get("s", "k", NOW) is None
    assert [key for key in store._cache] == [""]
    assert not proof.exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("disk_min_file_size", 0),
        ("disk_pickle_protocol", 2),
        ("disk_evil", 1),
        ("eviction_policy", "nonsense"),
        ("sqlite_mmap_size", 2**30),
        ("sqlite_x; DROP TABLE Cache", 1),
        ("cull_limit", "many"),
        ("size_limit", 0),
    ],
)
def test_planted_settings_change_nothing(tmp_path: Path, key: str, value: object) -> None:
    """Settings planted in the database are overruled, or the database is set aside; entries work either
    way."""
    Store(tmp_path).set("s", "k", entry())
    rows(tmp_path).execute("INSERT OR REPLACE INTO Settings VALUES (?, ?)", (key, value))
    store = stored(tmp_path)
    assert store.get("s", "k", NOW) in (entry(), None)
    assert store.set("s", "k2", entry("x" * 100_000)) and stored(tmp_path).get("s", "k2", NOW) is not None
    assert not [p for p in (tmp_path / "cache").iterdir() if not p.name.startswith("cache.db")]


def test_a_ruined_database_is_set_aside(tmp_path: Path) -> None:
    """A file that is no database is kept under another name, and the store starts afresh."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "cache.db").write_bytes(b"not a database" * 1000)
    store = Store(tmp_path)
    assert store.troubles["damaged"] == 1 and store.set("s", "k", entry())
    assert len(list(tmp_path.glob("cache.damaged-*/cache.db"))) == 1


def test_a_planted_link_is_refused(tmp_path: Path) -> None:
    """A database that is a link to elsewhere is a FolderError that names it."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "cache.db").symlink_to(tmp_path / "elsewhere.db")
    with pytest.raises(FolderError, match=r"cache\.db"):
        Store(tmp_path)
    assert not (tmp_path / "elsewhere.db").exists()


def test_trouble_is_a_miss(tmp_path: Path) -> None:
    """A database that fails under way is a counted miss and a counted unwritten entry, never an error."""
    store = Store(tmp_path)
    store.set("s", "k", entry())
    store.front.clear()
    con = rows(tmp_path)
    con.execute("ALTER TABLE Cache RENAME TO Gone")
    assert store.get("s", "k", NOW) is None
    assert store.set("s", "k", entry()) is False
    assert store.troubles == {"damaged": 0, "failed": 1, "unwritten": 1}


def test_size_limit_drops_the_oldest(tmp_path: Path) -> None:
    """Past its size limit the store drops what was stored longest ago, and stays near the limit."""
    store = Store(tmp_path, size_limit=1_000_000)
    for i in range(60):
        store.set("s", f"k{i}", entry(str(i) + "x" * 50_000))
    fresh = stored(tmp_path)
    assert fresh.get("s", "k0", NOW) is None and fresh.get("s", "k59", NOW) is not None
    assert sum(p.stat().st_size for p in (tmp_path / "cache").iterdir()) < 8_000_000


def test_forget_removes_one_scope(tmp_path: Path) -> None:
    """Forgetting a scope deletes its entries on disk and in memory, and no other's."""
    store = Store(tmp_path)
    for scope in ("acme", "globex"):
        for i in range(3):
            store.set(scope, f"{scope}{i}", entry())
    assert store.forget("acme") == 3
    assert store.get("acme", "acme0", NOW) is None and store.get("globex", "globex0", NOW) is not None


@pytest.mark.parametrize("bump_between", [False, True])
def test_forget_reaches_other_processes_memory(tmp_path: Path, bump_between: bool) -> None:
    """Another store that holds a forgotten entry in memory lets go of it at its next call, even after a bump
    of its own."""
    one, two = Store(tmp_path), Store(tmp_path)
    one.set("acme", "k", entry())
    two.sync()
    assert two.get("acme", "k", NOW) is not None
    one.forget("acme")
    if bump_between:
        two.epochs.bump("handbook")
    two.sync()
    assert two.get("acme", "k", NOW) is None


def test_front_is_bounded_and_least_recent_goes_first() -> None:
    """The memory front keeps to its entries and bytes and drops the least recently used."""
    front = Front(max_bytes=1000, max_entries=3)
    small = Entry(b"x" * 10, NOW)
    for key in "abc":
        front.put(key, small)
    assert front.get("a") is small
    front.put("d", small)
    assert front.get("b") is None and front.get("a") is small
    front.put("big", Entry(b"x" * 300, NOW))
    assert front.get("big") is None
    for i in range(10):
        front.put(f"m{i}", Entry(b"x" * 240, NOW))
    assert front._bytes == sum(len(e.payload) for e in front._entries.values()) <= 1000


def test_a_hit_never_shares_a_mutable(tmp_path: Path) -> None:
    """Changing what a hit returned changes no later hit."""
    store = Store(tmp_path)
    store.set("s", "k", Entry(codec.encode({"a": [1]}), NOW))
    for _ in range(2):
        found = store.get("s", "k", NOW)
        assert found is not None
        value = found.value()
        assert value == {"a": [1]}
        value["a"].append(2)


def test_epochs_count_and_are_seen_by_others(tmp_path: Path) -> None:
    """A bump counts by one, is written down, and is seen by another reader at its next refresh."""
    one, two = Epochs(tmp_path), Epochs(tmp_path)
    one.refresh()
    before = one.state(("kb",))
    assert (one.bump("kb"), one.bump("kb"), two.bump("kb"), two.bump("other")) == (1, 2, 3, 1)
    assert one.state(("kb",)) == f"{before},kb=2"
    changes = one.changes
    one.refresh()
    one.refresh()
    assert one.changes == changes + 1
    assert one.state(("kb",)) == f"{before},kb=3" and one.state(("other", "kb")) == f"{before},other=1,kb=3"
    assert one.state(("none",)) == before


@pytest.mark.parametrize("harm", ["delete", "text", "number", "list"])
def test_lost_epochs_bring_nothing_back(tmp_path: Path, harm: str) -> None:
    """When the file is lost or damaged, no state from before is ever seen again, however often epochs are bumped."""
    epochs = Epochs(tmp_path)
    epochs.refresh()
    seen = {epochs.state(("kb",))}
    epochs.bump("kb")
    seen.add(epochs.state(("kb",)))
    path = tmp_path / "epochs.json"
    if harm == "delete":
        path.unlink()
    else:
        path.write_text(
            {"text": "{", "number": '{"identity": "x", "counts": {"kb": "?"}}', "list": "[]"}[harm]
        )
    for fresh in (epochs, Epochs(tmp_path)):
        fresh.refresh()
        assert fresh.state(("kb",)) not in seen
        fresh.bump("kb")
        assert fresh.state(("kb",)) not in seen


def test_processes_lose_no_bump(tmp_path: Path) -> None:
    """Four processes that bump at once lose none."""
    code = (
        "import sys; from pathlib import Path; from costkit.store import Epochs\n"
        "e = Epochs(Path(sys.argv[1]))\nfor _ in range(25): e.bump('kb')"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(4)]
    assert [p.wait(60) for p in running] == [0] * 4
    assert Epochs(tmp_path).bump("kb") == 101


def test_a_fresh_look_sees_what_others_stored(tmp_path: Path) -> None:
    """With ``fresh`` the disk is asked before the memory, which stands in only where the disk has nothing."""
    ours, theirs = Store(tmp_path), Store(tmp_path)
    old, new = entry(), Entry(b"new", NOW, 60.0)
    assert ours.set("s", "k", old) and theirs.set("s", "k", new)
    assert ours.get("s", "k", NOW) == old and ours.get("s", "k", NOW, fresh=True) == new
    assert ours.get("s", "k", NOW) == new, "and it is remembered"
    ours.front.put("only here", old)
    assert ours.get("s", "only here", NOW, fresh=True) == old
