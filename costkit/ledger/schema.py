"""The schema, and how a ledger file is opened: made, brought up to date, refused, or set aside when damaged."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from costkit.errors import FolderError, LedgerVersionError
from costkit.folder import private_file

APPLICATION_ID = 0x636F7374

# Seconds to wait for another process that replaces a damaged ledger.
_PATIENCE = 10.0

_MONEY_TABLES = ("budgets", "holds", "meta")

_TRIAL = """
INSERT INTO queries (id, root_id, name, version, at, latency, provider_cost) VALUES ('~', '~', '', '', 0, 0, 0);
INSERT INTO attempts (query_id, root_id, role, at, usage_state) VALUES ('~', '~', '', 0, 'missing');
"""

MIGRATIONS: Sequence[str] = (
    """
CREATE TABLE queries (
  id TEXT PRIMARY KEY,                 -- sorts by time
  parent_id TEXT,                      -- NULL: outermost call
  root_id TEXT NOT NULL,               -- the outermost call this one belongs to
  name TEXT NOT NULL,                  -- the function, module.qualname unless named
  version TEXT NOT NULL,
  scope TEXT,                          -- JSON object, NULL for scope=None
  key TEXT,                            -- digest of the canonical call, NULL where none was made
  at REAL NOT NULL,
  latency REAL NOT NULL,               -- as the caller waited
  ttft REAL,                           -- streams: to the first chunk
  saved_by TEXT,                       -- exact, coalesced, stale (while one refresh runs), semantic; NULL: it ran
  role TEXT NOT NULL DEFAULT 'call',   -- call, reference (inside costkit.reference()), refresh (renews a stale answer)
  provider_cost INTEGER NOT NULL,      -- this row's own attempts; children have their own rows
  counterfactual_cost INTEGER,         -- NULL: unknown
  overhead_cost INTEGER NOT NULL DEFAULT 0,
  saving INTEGER GENERATED ALWAYS AS (counterfactual_cost - provider_cost - overhead_cost) VIRTUAL,
  unknown_costs INTEGER NOT NULL DEFAULT 0,
  reserved INTEGER,                    -- held for this call before it ran; NULL: no budget was in force
  complete INTEGER NOT NULL DEFAULT 1, -- 0: cancelled, or a stream left before its end
  error TEXT,                          -- class of the exception; BudgetExceeded: refused, nothing was spent
  request TEXT, response TEXT          -- NULL unless Kit(store_text=True)
);
CREATE INDEX queries_at ON queries (at);
CREATE INDEX queries_root ON queries (root_id);
CREATE TABLE attempts (
  id INTEGER PRIMARY KEY,
  query_id TEXT NOT NULL,
  root_id TEXT NOT NULL,
  role TEXT NOT NULL,                  -- reference, audit, judge, ...
  model TEXT, provider TEXT,
  at REAL NOT NULL, latency REAL, ttft REAL,
  finish TEXT, error TEXT,
  usage_state TEXT NOT NULL CHECK (usage_state IN ('reported', 'estimated', 'missing')),
  in_fresh INTEGER, cache_read INTEGER, cache_write_5m INTEGER, cache_write_1h INTEGER,
  out_text INTEGER, out_reasoning INTEGER,
  cost INTEGER,                        -- NULL: usage missing or no price known
  price_id TEXT,                       -- which price rows were used: a row of prices
  raw_usage TEXT                       -- the provider's usage, as JSON
);
CREATE INDEX attempts_query ON attempts (query_id);
CREATE INDEX attempts_root ON attempts (root_id);
CREATE TABLE prices (
  price_id TEXT PRIMARY KEY,           -- digest of what follows
  source TEXT, version TEXT,           -- where the rates come from
  rates TEXT,                          -- JSON: token class to USD per million tokens, per_request to USD, all as text
  first_used REAL
);
CREATE TABLE token_ratios (
  name TEXT, model TEXT,
  calls INTEGER NOT NULL,
  counted INTEGER NOT NULL,            -- input tokens as we counted them from the arguments' text
  reported INTEGER NOT NULL,           -- input tokens as the provider reported them
  most REAL NOT NULL,                  -- largest reported / counted of a single call
  at REAL NOT NULL,
  PRIMARY KEY (name, model)
);
CREATE TABLE budgets (                 -- one row per budget with a window, and window
  id TEXT PRIMARY KEY,                 -- digest of whose it is, the window and its start; not of the cap
  label TEXT NOT NULL,
  cap INTEGER NOT NULL,
  starts REAL NOT NULL, ends REAL,     -- ends NULL: never
  spent INTEGER NOT NULL,              -- settled calls, and lapsed holds
  held INTEGER NOT NULL,               -- calls under way
  lapsed INTEGER NOT NULL              -- the part of spent that no caller has settled
);
CREATE TABLE holds (
  id TEXT, budget_id TEXT,             -- id: the query's
  amount INTEGER NOT NULL,
  expires REAL NOT NULL,               -- renewed while its process lives
  lapsed INTEGER NOT NULL,             -- 1: counted as spent, until a late settle says what it was
  PRIMARY KEY (id, budget_id)
);
CREATE INDEX holds_open ON holds (budget_id, expires) WHERE lapsed = 0;
CREATE TABLE gates (
  id TEXT PRIMARY KEY,                 -- digest of function, version, saving, settings, encoder, judge and model
  name TEXT NOT NULL, version TEXT NOT NULL,
  saving TEXT NOT NULL,                -- semantic, ...
  bound TEXT NOT NULL,                 -- JSON: max_error, per, confidence, audit, arl
  about TEXT NOT NULL,                 -- JSON: encoder, judge, model
  at REAL NOT NULL
);
CREATE TABLE evidence (                -- append-only: a gate's state is a fold over its rows, by id
  id INTEGER PRIMARY KEY,
  gate TEXT NOT NULL,
  query_id TEXT,                       -- NULL: from a log or gold tests, before the first call
  at REAL NOT NULL,
  kind TEXT NOT NULL,                  -- none, declined, audit, served, rehearsed; label: of a row before; fresh
                                       -- unlabelled: declined, without a label; unanswered: an audit without one
  rung INTEGER, risk REAL, features BLOB,
  chance REAL NOT NULL,                -- with which a served answer like this one is audited
  generation INTEGER NOT NULL,         -- demotions before it
  scope TEXT, tag TEXT,
  wrong INTEGER,                       -- NULL: not judged yet; of fresh: two answers to one call differ
  pair TEXT                            -- digest of the question and the stored answer: rightly answered, it counts once
);
CREATE INDEX evidence_gate ON evidence (gate, id);
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT);
CREATE VIEW query_costs AS
  SELECT r.id, r.name, r.version, r.scope, r.at, r.latency, r.ttft, r.role, r.complete, r.error,
         COALESCE(r.saved_by, (SELECT MIN(c.saved_by) FROM queries c WHERE c.root_id = r.id)) AS saved_by,
         t.provider_cost, t.counterfactual_cost, t.overhead_cost,
         t.counterfactual_cost - t.provider_cost - t.overhead_cost AS saving, t.unknown_costs,
         (SELECT COUNT(*) FROM attempts a WHERE a.root_id = r.id AND a.usage_state = 'estimated') AS estimated
  FROM queries r JOIN (
         SELECT root_id, SUM(provider_cost) AS provider_cost, SUM(counterfactual_cost) AS counterfactual_cost,
                SUM(overhead_cost) AS overhead_cost, SUM(unknown_costs) AS unknown_costs
         FROM queries GROUP BY root_id) t ON t.root_id = r.id
  WHERE r.parent_id IS NULL;
CREATE VIEW savings AS
  SELECT name, saved_by, COUNT(*) AS calls, SUM(provider_cost) AS provider_cost,
         SUM(counterfactual_cost) AS counterfactual_cost, SUM(saving) AS saving
  FROM queries WHERE role = 'call' GROUP BY name, saved_by;
CREATE VIEW daily AS
  SELECT date(at, 'unixepoch') AS day, name, COUNT(*) AS calls, SUM(saved_by IS NOT NULL) AS saved_calls,
         SUM(provider_cost) AS provider_cost, SUM(counterfactual_cost) AS counterfactual_cost,
         SUM(saving) AS saving
  FROM query_costs GROUP BY day, name;
""",
    """
CREATE TABLE gate_states (             -- where the fold over a gate's evidence has come; without it, all is folded
  gate TEXT PRIMARY KEY,
  upto INTEGER NOT NULL,               -- id of the last row folded
  about TEXT NOT NULL,                 -- digest of the bound and of the code that folded
  body BLOB NOT NULL                   -- with a checksum before it
);
""",
)


def connect(path: Path) -> sqlite3.Connection:
    """Open the ledger, make it or bring it up to date.

    Raises:
        FolderError: the file is another program's database, damaged, or cannot be written.
        LedgerVersionError: a newer costkit wrote it.
    """
    made = path.with_suffix(".made")
    sizes = _sizes(path, made)
    private_file(path)
    con = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
    try:
        cut = _cut(*sizes, page=con.execute("PRAGMA page_size").fetchone()[0])
        if cut is not None:
            raise _Malformed(cut)
        con.execute("PRAGMA journal_mode=WAL")
        con.execute("PRAGMA synchronous=FULL")
        con.execute("PRAGMA trusted_schema=OFF")
        con.execute("BEGIN IMMEDIATE")
        _migrate(con, path)
        _try_out(con)
        con.execute("COMMIT")
        private_file(made)
    except sqlite3.Error as exc:
        con.close()
        raise FolderError(
            f"the ledger {path.name} cannot be used ({exc}); move it aside to start a new one, nothing is "
            "overwritten"
        ) from exc
    except Exception:
        con.close()
        raise
    return con


def _sizes(path: Path, made: Path) -> tuple[int, int, bool]:
    """Bytes of the ledger and of its log, and whether it was made before; the file itself is not opened, for closing
    it again would drop the locks that SQLite holds on it for this process."""
    size, logged = (os.path.getsize(p) if os.path.exists(p) else 0 for p in (path, f"{path}-wal"))
    return size, logged, made.exists()


def _cut(size: int, logged: int, was_made: bool, *, page: int) -> str | None:
    """What SQLite does not mind: a ledger cut to nothing is a new file to it, a part of a page is a page."""
    if not size:
        return "the file is empty" if was_made else None
    if size % page and not logged:  # with a log, a whole page is still to come from there
        return "its last page is cut"
    return None


def _migrate(con: sqlite3.Connection, path: Path) -> None:
    owner = con.execute("PRAGMA application_id").fetchone()[0]
    version = con.execute("PRAGMA user_version").fetchone()[0]
    if owner != APPLICATION_ID and con.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
        raise FolderError(f"{path.name} is not a costkit ledger; name another folder, nothing was changed")
    if version > len(MIGRATIONS):
        raise LedgerVersionError(
            f"the ledger {path.name} has version {version}, this costkit knows {len(MIGRATIONS)}: upgrade "
            "costkit "
            "(pip install -U costkit) or name another folder; nothing was changed"
        )
    for step in MIGRATIONS[version:]:
        for statement in _statements(step):
            con.execute(statement)
    con.execute(f"PRAGMA application_id={APPLICATION_ID}")
    con.execute(f"PRAGMA user_version={len(MIGRATIONS)}")


def _statements(script: str) -> list[str]:
    found, pending = [], ""
    for line in script.splitlines():
        pending += line + "\n"
        if sqlite3.complete_statement(pending):
            found.append(pending)
            pending = ""
    return found


def _try_out(con: sqlite3.Connection) -> None:
    """Damage in the budgets, or where the next row will go, shows now and not with the first call."""
    for table in _MONEY_TABLES:
        (said,) = con.execute(f"PRAGMA quick_check({table})").fetchone()
        if said != "ok":
            raise _Malformed(f"{table}: {said}")
    con.execute("SAVEPOINT trial")
    for statement in _statements(_TRIAL):
        con.execute(statement)
    con.execute("ROLLBACK TO trial")
    con.execute("RELEASE trial")


class _Malformed(sqlite3.DatabaseError):
    """What SQLite's own check found."""


def is_damage(error: BaseException | None) -> bool:
    """Whether this says that the file is broken, not that it is busy or somebody else's."""
    return isinstance(error, _Malformed) or primary(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def primary(error: BaseException | None) -> int | None:
    """SQLite's primary result code."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def open_ledger(path: Path, now: float) -> tuple[sqlite3.Connection, str | None]:
    """As :func:`connect`, but a damaged file is set aside: then the name it has now comes along.

    The new ledger knows since when (``meta.damaged_at``), for what was spent before is unknown.
    """
    try:
        return connect(path), None
    except FolderError as exc:
        if not is_damage(exc.__cause__):
            raise
    with _alone(path.with_name("ledger.lock")):
        try:
            return connect(path), None  # another process was faster
        except FolderError as exc:
            if not is_damage(exc.__cause__):
                raise
        aside = f"ledger.damaged-{time.time_ns()}.db"
        _replace(path, aside, now)
        return connect(path), aside


def _replace(path: Path, aside: str, now: float) -> None:
    """At no moment is there a ledger that does not know of the damage."""
    fresh = path.with_name("ledger.new.db")
    for name in (fresh.name, f"{fresh.name}-wal", f"{fresh.name}-shm"):
        fresh.with_name(name).unlink(missing_ok=True)
    con = connect(fresh)
    con.execute("INSERT INTO meta VALUES ('damaged_at', ?)", (repr(now),))
    con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    con.close()
    for end in ("-shm", "-wal"):  # before the file itself: an old WAL must never meet the new one
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{path}{end}", path.with_name(f"{aside}{end}"))
    try:
        os.link(path, path.with_name(aside))
    except OSError:  # a file system without hard links
        os.rename(path, path.with_name(aside))
    os.replace(fresh, path)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Among processes, for as long as the block lasts; the kernel ends it when we die."""
    import fcntl

    private_file(path)
    with open(path, "rb") as handle:
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise FolderError(
                        f"{path.name}: another process has been replacing the damaged ledger for {_PATIENCE:.0f} s; "
                        "end it, or try again"
                    ) from None
                time.sleep(0.05)
        yield
