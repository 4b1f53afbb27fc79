"""costkit doctor: what is wrong with a folder is said with its mend, and looking changes and breaks nothing."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import costkit
from costkit.report import Health, examine
from costkit.report.doctor_folder import _file_system
from costkit.report.doctor_versions import wal_reset_bug
from tests.recorded import START, attempt, folder_of, query, response

SECRET = "a secret of more than sixteen bytes"


@pytest.fixture(autouse=True)
def _no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COSTKIT_SECRET", raising=False)
    monkeypatch.delenv("COSTKIT_SECRET_FILE", raising=False)


def used(path: Path, **options: Any) -> Path:
    """A folder in which a kit has stored and recorded five answers."""
    kit = costkit.Kit(path, **options)
    ask = kit.call(costkit.exact(), scope=None, name="ask")(lambda n: response(str(n)))
    for n in range(5):
        ask(n)
    kit.close()
    return path


def level(health: Health, what: str) -> str:
    """The worst level among the checks of this name."""
    return max((c.level for c in health.checks if c.what == what), key=["ok", "warn", "bad"].index)


def found(health: Health, what: str) -> str:
    return " | ".join(f"{c.found} -> {c.mend}" for c in health.checks if c.what == what)


@contextlib.contextmanager
def database(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path)) as con, con:
        yield con


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_sound_folder_has_nothing_bad(tmp_path: Path) -> None:
    """After real use every check is ok, but for the secret that is not set and an old SQLite."""
    health = examine(used(tmp_path / "kit"))
    assert health.bad == 0, health.checks
    assert {c.what for c in health.checks if c.level == "warn"} <= {"secret", "SQLite", "disk", "price list"}
    assert "the newest 5 answers verify" in found(health, "seal")
    assert "5 rows" in found(health, "clock") and "in both tables" in found(health, "money")


def test_looking_changes_nothing(tmp_path: Path) -> None:
    """Every file has the bytes it had, and a folder that is not there is not made."""
    folder = used(tmp_path / "kit")
    before = contents(folder)
    examine(folder)
    after = contents(folder)
    assert {name: after[name] for name in before} == before
    assert all(name.endswith(("-wal", "-shm")) for name in after.keys() - before.keys())
    health = examine(tmp_path / "nowhere")
    assert health.bad == 1 and not (tmp_path / "nowhere").exists()
    assert "--folder" in health.advice()


def test_the_secret_is_tried_and_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the kit's secret its answers verify, with another none does, and no line shows a byte of either."""
    folder = used(tmp_path / "kit", secret=SECRET)
    assert level(examine(folder), "seal") == "warn" and "they are sealed" in found(examine(folder), "seal")
    monkeypatch.setenv("COSTKIT_SECRET", SECRET)
    good = examine(folder)
    assert level(good, "seal") == "ok" and level(good, "secret") == "ok"
    monkeypatch.setenv("COSTKIT_SECRET", SECRET[::-1])
    wrong = examine(folder)
    assert "5 of the newest 5 answers do not verify" in found(wrong, "seal") and level(wrong, "seal") == "bad"
    assert SECRET not in repr(good) and SECRET[::-1] not in repr(wrong)
    monkeypatch.setenv("COSTKIT_SECRET", "short")
    assert level(examine(folder), "secret") == "bad"


def test_open_files_links_and_strangers_are_named(tmp_path: Path) -> None:
    """A file others may read, a link, a file of somebody else and one set aside are each found with a mend."""
    folder = used(tmp_path / "kit")
    (folder / "ledger.db").chmod(0o644)
    (folder / "notes.txt").write_text("x")
    (folder / "notes.txt").chmod(0o600)
    (folder / "ledger.damaged-1.db").write_text("x")
    (folder / "ledger.damaged-1.db").chmod(0o600)
    health = examine(folder)
    assert "ledger.db (644)" in found(health, "files") and "chmod -R" in found(health, "files")
    assert "notes.txt" in found(health, "foreign files") and "ledger.db" not in found(health, "foreign files")
    assert "ledger.damaged-1.db" in found(health, "set aside")
    (folder / "cache" / "link").symlink_to("/etc/passwd")
    assert "link" in found(examine(folder), "files") and level(examine(folder), "files") == "bad"


def test_money_that_does_not_add_up_is_bad(tmp_path: Path) -> None:
    """A cost changed by hand in one table is found against the other, to the nano-dollar."""
    folder = folder_of(
        tmp_path / "kit", queries=[query("a", provider_cost=1000)], attempts=[attempt("a", cost=1000)]
    )
    assert level(examine(folder), "money") == "ok"
    with database(folder / "ledger.db") as con:
        con.execute("UPDATE attempts SET cost = 999")
    assert level(examine(folder), "money") == "bad"


def test_rows_from_the_future_and_stuck_money_are_named(tmp_path: Path) -> None:
    """A clock that was ahead, calls that died holding money, and a budget that was tampered with."""
    now = START
    budget = {
        "id": "B",
        "label": "kit",
        "cap": 100,
        "starts": 0,
        "ends": None,
        "spent": 10,
        "held": 7,
        "lapsed": 10,
    }
    folder = folder_of(
        tmp_path / "kit",
        queries=[query("a", at=START + 86_400)],
        budgets=[budget],
        holds=[
            {"id": "h1", "budget_id": "B", "amount": 7, "expires": now - 1000, "lapsed": 0},
            {"id": "h2", "budget_id": "B", "amount": 10, "expires": now - 1000, "lapsed": 1},
        ],
        meta=[{"name": "damaged_at", "value": str(now)}],
    )
    health = examine(folder, now=now)
    assert "1 rows lie in the future" in found(health, "clock")
    assert "1 of calls that died" in found(health, "held") and level(health, "held") == "ok"
    assert "1 calls died holding $0.000000010" in found(health, "lapsed")
    assert "--accept-loss" in found(health, "budgets") and level(health, "budgets") == "bad"
    with database(folder / "ledger.db") as con:
        con.execute("UPDATE budgets SET held = 99")
    assert level(examine(folder, now=now), "held") == "bad"


def test_foreign_newer_and_text_ledgers_are_findings(tmp_path: Path) -> None:
    """Another program's database, a newer version and a file that is no database are each one bad line."""
    folder = folder_of(tmp_path / "kit")
    with database(folder / "ledger.db") as con:
        con.execute("PRAGMA user_version=99")
    assert "pip install -U costkit" in found(examine(folder), "ledger's version")
    with database(folder / "ledger.db") as con:
        con.execute("PRAGMA application_id=1")
    assert level(examine(folder), "ledger's owner") == "bad"
    (folder / "ledger.db").write_text("hello " * 1000)
    health = examine(folder)
    assert level(health, "ledger") == "bad" and "move ledger.db" in health.advice()


def test_planted_cache_rows_are_bad(tmp_path: Path) -> None:
    """A row that names a file or asks to be unpickled is reported and neither opened nor loaded."""
    folder = used(tmp_path / "kit")
    trap = tmp_path / "trap"
    with database(folder / "cache" / "cache.db") as con:
        con.execute("UPDATE Cache SET mode = 4, filename = ? WHERE rowid = 1", (str(trap),))
    assert "1 of 5 rows are none of ours" in found(examine(folder), "cache")
    assert not trap.exists()


@pytest.mark.parametrize("name", ["ledger.db", "cache/cache.db", "costkit.json", "epochs.json"])
def test_no_damage_makes_it_raise(tmp_path: Path, name: str) -> None:
    """Flipped bytes, a cut, an empty file, a folder or a pipe in a file's place end in findings, in bounded time."""
    seed = random.Random(name)
    whole = used(tmp_path / "kit")
    original = (whole / name).read_bytes()
    path = whole / name
    started = time.monotonic()
    for _ in range(15):
        raw = bytearray(original)
        for _ in range(20):
            raw[seed.randrange(len(raw))] ^= 1 << seed.randrange(8)
        path.write_bytes(raw[: seed.randrange(1, len(raw) + 1)] if seed.random() < 0.5 else raw)
        assert examine(whole).checks
    path.write_bytes(b"")
    assert examine(whole).checks
    path.unlink()
    path.mkdir()
    assert examine(whole).checks
    path.rmdir()
    os.mkfifo(path)
    assert examine(whole).checks
    assert time.monotonic() - started < 60


def test_the_file_system_is_found_by_its_longest_mount(tmp_path: Path) -> None:
    """On Linux the folder's own mount decides, /proc for /proc, not that of the root."""
    if not Path("/proc/self/mounts").exists():
        pytest.skip("no /proc here")
    assert _file_system(Path("/proc/self")) == "proc"
    assert _file_system(tmp_path) not in (None, "proc")


@pytest.mark.parametrize(
    ("version", "has"),
    [((3, 6, 23), False), ((3, 7, 0), True), ((3, 51, 2), True), ((3, 51, 3), False), ((4, 0, 0), False)],
)
def test_versions_with_the_wal_reset_bug(version: tuple[int, ...], has: bool) -> None:
    """SQLite 3.7.0 to 3.51.2 has it."""
    assert wal_reset_bug(version) is has
