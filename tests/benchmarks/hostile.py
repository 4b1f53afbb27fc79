"""What somebody who can write a kit's cache can make it do: random tampering with every column, setting and table.

`python -m tests.benchmarks.hostile --rows 10000 --json` tampers with that many rows (half of the rounds under a
secret), plants settings, triggers, views and broken schemas, and flips and cuts bytes of the files, before a kit
opens them and while it runs; it prints what came of it. `--stock` does the row tampering to plain diskcache, which
shows that the tampering bites.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import sqlite3
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import diskcache
from rich.progress import Progress

import costkit
from costkit.secret import Seal

ROWS_A_ROUND = 250
SECRET = b"a secret of this benchmark"

Row = dict[str, Any]


class Trap:
    """Files that nobody may touch, and a record of everything this process opens, removes or runs."""

    def __init__(self, base: Path, home: Path) -> None:
        self.base, self.home = base, home
        self.victim, self.proof, self.outside = base / "victim.txt", base / "proof", base / "outside"
        self.outside.mkdir()
        self.seen: Counter[str] = Counter()
        self.armed = False
        sys.addaudithook(self._hear)
        self.set()

    def set(self) -> None:
        """Lay the files out afresh."""
        self.victim.write_text("precious")
        with contextlib.suppress(OSError):
            self.proof.rmdir()

    def look(self) -> None:
        """Count what happened to them since."""
        self.seen["code_ran"] += self.proof.exists()
        intact = self.victim.exists() and self.victim.read_text() == "precious"
        self.seen["outside_touched"] += not intact or bool(list(self.outside.iterdir()))
        for path in self.outside.iterdir():
            path.unlink()
        self.set()

    @contextlib.contextmanager
    def sprung(self) -> Iterator[None]:
        """While the kit works: nothing outside its folder may be opened by name."""
        self.armed = True
        try:
            yield
        finally:
            self.armed = False
            self.look()

    def payload(self) -> bytes:
        """A pickle that makes the folder ``proof``."""
        return b"cos\nmkdir\n(S'%s'\ntR." % os.fsencode(self.proof)

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.armed:
            return
        if event in ("pickle.find_class", "os.system", "marshal.loads"):
            self.seen["code_ran"] += event != "marshal.loads" or "importlib" not in str(sys._getframe(1))
        elif event in ("open", "os.remove", "os.rename", "os.mkdir", "sqlite3.connect") and args:
            path = os.fsdecode(args[0]) if isinstance(args[0], (str, bytes)) else ""
            inside = path.startswith((str(self.home), f"file://{self.home}"))
            if path.startswith(str(self.base)) and not inside:
                self.seen["outside_touched"] += 1


def tampers(trap: Trap, rng: random.Random, other: Row, forged: bytes | None) -> list[tuple[str, Any]]:
    """Everything that is done to a row: a column and what it becomes."""
    value = other["value"] if isinstance(other["value"], bytes) else b"x"
    place = rng.randrange(len(value) or 1)
    flipped = (
        value[:place] + bytes([value[place] ^ 1 << rng.randrange(8)]) + value[place + 1 :] if value else b""
    )
    junk: list[Any] = [None, 0, -1, 1e308, 2**62, "text", b"\x80\x04.", rng.randbytes(40), "9" * 1000]
    paths = [str(trap.victim), "../../../victim.txt", "../victim.txt", str(trap.proof), "\0", b"\xff/x"]
    found: list[tuple[str, Any]] = [
        *[("key", k) for k in (other["key"], "k" * 64, trap.payload(), None, 7, 1.5)],
        *[("raw", r) for r in (0, 2, None, "1")],
        *[(c, rng.choice(junk)) for c in ("store_time", "access_time", "access_count", "size", "tag")],
        *[("expire_time", e) for e in (None, 0, 1e18, -1e18, "never", b"\xff")],
        *[("mode", m) for m in (0, 1, 2, 3, 4, 5, 99, "4", None, b"\x04")],
        *[("filename", p) for p in paths],
        *[("value", v) for v in (value, flipped, value[:place], value + b"x", b"", trap.payload(), *junk)],
    ]
    if forged is not None:
        found += [("value", forged)] * 3
    return found


def tamper_rows(folder: Path, trap: Trap, rng: random.Random, secret: bytes | None) -> int:
    """Change one to three columns of every row; returns how many rows were changed."""
    con = sqlite3.connect(folder / "cache.db", isolation_level=None)
    con.row_factory = sqlite3.Row
    rows = [dict(row) for row in con.execute("SELECT rowid AS id, * FROM Cache")]
    body = b"\x00\x00\x00\x0a" + b'{"at":1.0}' + b"sforged"
    changed = 0
    con.execute("BEGIN")
    for row in rows:
        other = rng.choice(rows)
        signer = rng.choice([None, b"a forger's own secret"])
        names = str(row["tag"]).encode(), str(row["key"]).encode()
        forged = None if secret is None else Seal(signer, "entry").mark(*names, body) + body
        some = rng.sample(tampers(trap, rng, other, forged), rng.choice((1, 1, 2, 3)))
        if any(column in ("mode", "filename") for column, _ in some) and rng.random() < 0.5:
            some.append(("value", trap.payload()))
        done = 0
        for column, value in some:
            done += con.execute(
                f"UPDATE OR IGNORE Cache SET {column} = ? WHERE rowid = ?", (value, row["id"])
            ).rowcount
        changed += done > 0
    con.execute("COMMIT")
    con.close()
    return changed


def plants(trap: Trap) -> list[tuple[str, Callable[[sqlite3.Connection], object]]]:
    """Settings, triggers, views and schemas that somebody could leave in the database."""
    outside, never = (
        str(trap.outside),
        "(SELECT count(*) FROM Cache a, Cache b, Cache c, Cache d, Cache e, Cache f)",
    )
    settings = [
        *[
            ("_directory", outside),
            ("directory", outside),
            ("_timeout", 9e9),
            ("_con", 1),
            ("_sql", 1),
            ("_local", 1),
        ],
        *[("get", 1), ("set", 1), ("reset", 1), ("_disk", 1), ("disk_get", 1), ("disk__directory", outside)],
        *[("disk_min_file_size", 0), ("disk_pickle_protocol", 5), ("disk_remove", 1), ("disk_fetch", "x")],
        *[
            ("sqlite_temp_store_directory", f"'{outside}'"),
            ("sqlite_journal_mode", "off"),
            ("sqlite_mmap_size", 2**40),
        ],
        *[
            ("sqlite_writable_schema", 1),
            ("sqlite_x; DROP TABLE Cache", 1),
            ("sqlite_locking_mode", "exclusive"),
        ],
        *[("size", "much"), ("size", 2**62), ("count", b"\xff"), ("size_limit", 0), ("cull_limit", -1)],
        *[
            ("cull_limit", "many"),
            ("eviction_policy", "nonsense"),
            ("statistics", 1),
            ("tag_index", "x"),
            (b"\xff", 1),
        ],
    ]
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT"
    columns = "rowid, key, raw, store_time, expire_time, access_time, access_count, tag, size, mode, filename, value"
    scripts = [
        "CREATE TRIGGER evil AFTER INSERT ON Cache BEGIN UPDATE Cache SET value = x'00', filename = 'x'; END",
        "CREATE TRIGGER evil BEFORE INSERT ON Cache BEGIN DELETE FROM Cache; END",
        f"CREATE TRIGGER evil BEFORE INSERT ON Cache BEGIN SELECT {never}; END",
        f"CREATE TRIGGER evil BEFORE UPDATE ON Settings BEGIN SELECT {never}; END",
        "CREATE TRIGGER evil AFTER INSERT ON Cache BEGIN SELECT load_extension('/tmp/evil.so'); END",
        f"CREATE TRIGGER evil AFTER INSERT ON Cache BEGIN SELECT writefile('{trap.victim}', 'gone'); END",
        "DROP TRIGGER Settings_count_insert; "
        f"CREATE TRIGGER Settings_count_insert AFTER INSERT ON Cache BEGIN SELECT {never}; END",
        f"ALTER TABLE Cache RENAME TO Old; CREATE VIEW Cache AS {endless} {columns.replace('rowid', 'x')} FROM n, Old",
        f"DROP TABLE Settings; CREATE VIEW Settings AS {endless} 'k' || x AS key, x AS value FROM n",
        "DROP TABLE Settings",
        "DROP TABLE Cache",
        "DROP TABLE Cache; CREATE TABLE Cache (key, raw)",
        "CREATE INDEX evil ON Cache (length(hex(zeroblob(100000))))",
        "PRAGMA application_id = 7; PRAGMA user_version = 99",
        "PRAGMA journal_mode = delete",
        "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = 'CREATE TABLE Cache (key' WHERE name = 'Cache'",
        "PRAGMA writable_schema = ON; UPDATE sqlite_master SET rootpage = 1 WHERE name = 'Cache_key_raw'",
        "PRAGMA writable_schema = ON; DELETE FROM sqlite_master",
    ]

    def setting(key: object, value: object) -> Callable[[sqlite3.Connection], object]:
        return lambda con: con.execute("INSERT OR REPLACE INTO Settings VALUES (?, ?)", (key, value))

    def script(text: str) -> Callable[[sqlite3.Connection], object]:
        return lambda con: con.executescript(text)

    named = [(f"setting {key!r:.40} = {value!r:.20}", setting(key, value)) for key, value in settings]
    return named + [(text[:90], script(text)) for text in scripts]


def damages(rng: random.Random, path: Path) -> None:
    """Flip a few bits, cut the file short, or overwrite a stretch of it."""
    raw = bytearray(path.read_bytes()) if path.exists() else bytearray()
    if not raw:
        return
    how = rng.randrange(4)
    if how == 0:
        for _ in range(8):
            raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    elif how == 1:
        del raw[rng.randrange(len(raw)) :]
    elif how == 2:
        start = rng.randrange(len(raw))
        raw[start : start + 4096] = bytes(len(raw[start : start + 4096]))
    else:
        start = rng.randrange(len(raw))
        raw[start : start + 512] = rng.randbytes(len(raw[start : start + 512]))
    with open(path, "r+b") as handle:  # in place: processes that have the file open see it
        handle.write(raw)
        handle.truncate(len(raw))


class Caller:
    """Calls a function through a kit, and counts what it gets."""

    def __init__(self, home: Path, secret: bytes | None, seen: Counter[str]) -> None:
        self.home, self.secret, self.seen = home, secret, seen
        self.slowest = 0.0

    def open(self) -> tuple[costkit.Kit, Callable[[int], Any]]:
        """A kit with nothing in memory, and the function."""
        kit = costkit.Kit(self.home, secret=self.secret or "")

        @kit.call(costkit.exact(ttl="1d"), scope="tenant", name="answer", version="1")
        def answer(i: int, *, tenant: str) -> str:
            costkit.record(free=True)
            return f"answer {i}"

        return kit, lambda i: answer.outcome(i, tenant=f"t{i % 3}")

    def ask(self, call: Callable[[int], Any], rows: range) -> int:
        """Ask everything; returns the hits."""
        hits = 0
        for i in rows:
            began = time.perf_counter()
            try:
                outcome = call(i)
            except Exception as exc:  # noqa: BLE001 - that is what is counted
                self.seen["unanswered"] += 1
                self.seen[f"unanswered: {type(exc).__name__}: {exc}"[:200]] += 1
            else:
                self.seen["answered"] += 1
                self.seen["wrong"] += outcome.value != f"answer {i}"
                hits += outcome.saving is not None
            self.slowest = max(self.slowest, time.perf_counter() - began)
        return hits


def rows_round(caller: Caller, trap: Trap, rng: random.Random, secret: bytes | None) -> None:
    """Fill, tamper with every row, ask again in a fresh kit, forget, ask again."""
    kit, call = caller.open()
    caller.ask(call, range(ROWS_A_ROUND))
    kit.close()
    caller.seen["rows"] += tamper_rows(caller.home / "cache", trap, rng, secret)
    with trap.sprung():
        kit, call = caller.open()
        caller.seen["hits_after"] += caller.ask(call, range(ROWS_A_ROUND))
        kit.forget(tenant="t1")
        caller.ask(call, range(0, ROWS_A_ROUND, 10))
        kit.close()


def plant_round(
    caller: Caller, trap: Trap, plant: Callable[[sqlite3.Connection], object], running: bool
) -> None:
    """Plant one thing, before the kit opens the database or while it runs, and ask."""
    kit, call = caller.open()
    caller.ask(call, range(30))
    if not running:
        kit.close()
    con = sqlite3.connect(caller.home / "cache" / "cache.db", isolation_level=None, timeout=10)
    try:
        plant(con)
        caller.seen["plants"] += 1
    except sqlite3.Error:
        caller.seen["plants_refused_by_sqlite"] += 1
    con.close()
    with trap.sprung():
        if not running:
            kit, call = caller.open()
        kit._store.front.clear()
        caller.ask(call, range(40))
        with contextlib.suppress(costkit.CostkitError):
            kit.forget(tenant="t1")
        kit.close()


def damage_round(caller: Caller, trap: Trap, rng: random.Random, name: str, running: bool) -> None:
    """Damage one file, before the kit opens it or while it runs, and ask."""
    kit, call = caller.open()
    kit.bump("kb")
    caller.ask(call, range(30))
    if not running:
        if name.endswith("-wal"):  # as a crash leaves it: closing would fold it into the database
            wal = (caller.home / name).read_bytes()
            kit.close()
            (caller.home / name).write_bytes(wal)
        else:
            kit.close()
    damages(rng, caller.home / name)
    with trap.sprung():
        if not running:
            kit, call = caller.open()
        kit._store.front.clear()
        caller.ask(call, range(40))
        kit.close()
    caller.seen["damaged_files"] += 1


def stock(trap: Trap, rng: random.Random, rows: int) -> Counter[str]:
    """The same tampering with plain diskcache: what it would have done to us."""
    for number in range(max(1, rows // ROWS_A_ROUND)):
        folder = trap.home / f"stock{number}"
        with diskcache.Cache(str(folder)) as cache:
            for i in range(ROWS_A_ROUND):
                cache.set(f"key {i}", b"answer %d" % i, tag="t")
        trap.seen["rows"] += tamper_rows(folder, trap, rng, None)
        trap.armed = True
        with contextlib.suppress(Exception), diskcache.Cache(str(folder)) as cache:
            for i in range(ROWS_A_ROUND):
                with contextlib.suppress(Exception):
                    found = cache.get(f"key {i}")
                    trap.seen["wrong"] += found is not None and found != b"answer %d" % i
            with contextlib.suppress(Exception):
                cache.clear()
        trap.armed = False
        trap.look()
    return trap.seen


FILES = ("cache/cache.db", "cache/cache.db-wal", "epochs.json", "costkit.json")


def measure(base: Path, rows: int, damaged: int, seed: int) -> dict[str, Any]:
    """All rounds, in folders below ``base``; the counts."""
    rng = random.Random(seed)
    warnings.simplefilter("ignore")
    trap = Trap(base, base / "kit")
    slowest = 0.0
    planted = plants(trap)
    rounds = -(-rows // ROWS_A_ROUND)
    with Progress(disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("tampering", total=rounds + 2 * len(planted) + damaged)
        for i in range(rounds):
            secret = SECRET if i % 2 else None
            caller = Caller(trap.home / f"rows{i}", secret, trap.seen)
            rows_round(caller, trap, rng, secret)
            slowest = max(slowest, caller.slowest)
            bar.advance(task)
        for i, (name, plant) in enumerate(planted):
            for running in (False, True):
                caller = Caller(trap.home / f"plant{i}{running}", SECRET if i % 2 else None, trap.seen)
                plant_round(caller, trap, plant, running)
                trap.seen[f"slow: {name}"] += caller.slowest > 10
                slowest = max(slowest, caller.slowest)
                bar.advance(task)
        for i in range(damaged):
            caller = Caller(trap.home / f"damage{i}", SECRET if i % 2 else None, trap.seen)
            damage_round(caller, trap, rng, FILES[i % len(FILES)], running=bool(i // len(FILES) % 2))
            slowest = max(slowest, caller.slowest)
            bar.advance(task)
    asked = ("code_ran", "outside_touched", "wrong", "unanswered")
    return {
        **dict.fromkeys(asked, 0),
        **{k: n for k, n in trap.seen.items() if n},
        "slowest_s": round(slowest, 2),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.hostile", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--damaged", type=int, default=400, help="files to damage")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stock", action="store_true", help="plain diskcache, for comparison")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="costkit-hostile-", ignore_cleanup_errors=True) as folder:
        base, rng = Path(folder).resolve(), random.Random(options.seed)
        if options.stock:
            found: dict[str, Any] = dict(stock(Trap(base, base / "kit"), rng, options.rows))
        else:
            found = measure(base, options.rows, options.damaged, options.seed)
    print(
        json.dumps(found, indent=2) if options.json else "\n".join(f"{n:>10} {k}" for k, n in found.items())
    )


if __name__ == "__main__":
    main()
