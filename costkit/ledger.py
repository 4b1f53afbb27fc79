"""The record: one SQLite file with a documented, public schema.

``queries`` holds one row per call of a wrapped function, nested calls below their parent; ``attempts`` one
row per call to a model. Money is integer nano-dollars, times are Unix seconds, durations seconds, and NULL
means unknown, never zero. Read through the views, which stay stable while tables grow:

- ``query_costs``: one row per outermost call, nested calls added up: ``provider_cost`` (paid),
  ``counterfactual_cost`` (the same query without the savings), ``overhead_cost``, ``saving``,
  ``unknown_costs`` (attempts without a known cost), ``estimated`` (attempts whose usage was estimated),
  ``latency``, ``saved_by``;
- ``savings``: the same money by function and kind of saving; ``daily``: by day (UTC).

>>> print(MIGRATIONS[0].strip().splitlines()[0])
CREATE TABLE queries (
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import sqlite3
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from .call import Attempt, Usage
from .errors import FolderError, LedgerVersionError
from .folder import private_file

__all__ = ["MIGRATIONS", "Ledger", "Query", "connect"]

APPLICATION_ID = 0x636F7374

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
  saved_by TEXT,                       -- exact, coalesced, ...; NULL: the function ran
  role TEXT NOT NULL DEFAULT 'call',   -- call, or reference (inside costkit.reference())
  provider_cost INTEGER NOT NULL,      -- this row's own attempts; children have their own rows
  counterfactual_cost INTEGER,         -- NULL: unknown
  overhead_cost INTEGER NOT NULL DEFAULT 0,
  saving INTEGER GENERATED ALWAYS AS (counterfactual_cost - provider_cost - overhead_cost) VIRTUAL,
  unknown_costs INTEGER NOT NULL DEFAULT 0,
  complete INTEGER NOT NULL DEFAULT 1, -- 0: cancelled, or a stream left before its end
  error TEXT,                          -- class of the function's own exception
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
  price_id TEXT,                       -- which price rows were used
  raw_usage TEXT                       -- the provider's usage, as JSON
);
CREATE INDEX attempts_query ON attempts (query_id);
CREATE INDEX attempts_root ON attempts (root_id);
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
)


@dataclass(frozen=True, slots=True)
class Query:
    """One row of ``queries``; see the schema for the meaning of each field."""

    id: str
    parent_id: str | None
    root_id: str
    name: str
    version: str
    scope: str | None
    key: str | None
    at: float
    latency: float
    ttft: float | None
    saved_by: str | None
    role: str
    provider_cost: int
    counterfactual_cost: int | None
    overhead_cost: int = 0
    unknown_costs: int = 0
    complete: bool = True
    error: str | None = None
    request: str | None = None
    response: str | None = None


_QUERY_COLUMNS = tuple(Query.__dataclass_fields__)
_INSERT_QUERY = (
    f"INSERT INTO queries ({', '.join(_QUERY_COLUMNS)}) VALUES ({', '.join('?' * len(_QUERY_COLUMNS))})"
)
_INSERT_ATTEMPT = f"""INSERT INTO attempts (
 query_id, root_id, role, model, provider, at, latency, ttft, finish, error, usage_state, in_fresh,
 cache_read, cache_write_5m, cache_write_1h, out_text, out_reasoning, cost, price_id, raw_usage)
 VALUES ({", ".join("?" * 20)})"""

# Rows kept in memory while another process holds the database.
_MOST_WAITING = 100_000

_Item = tuple[Query, tuple[Attempt, ...], "Future[None] | None"]


def connect(path: Path) -> sqlite3.Connection:
    """Open the ledger, make it or bring it up to date.

    Raises:
        FolderError: the file is another program's database, damaged, or cannot be written.
        LedgerVersionError: a newer costkit wrote it.
    """
    private_file(path)
    con = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
    try:
        con.execute("PRAGMA journal_mode=WAL")
        con.execute("PRAGMA synchronous=FULL")
        con.execute("PRAGMA trusted_schema=OFF")
        con.execute("BEGIN IMMEDIATE")
        _migrate(con, path)
        con.execute("COMMIT")
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


class Ledger:
    """Rows in, by one writer thread a process that commits them in groups.

    A durable row is committed before its future resolves; other rows are committed within ``interval``
    seconds, at exit and at close. A process that forks goes on in both halves, each with its own rows.
    """

    def __init__(self, folder: Path, *, interval: float = 0.25) -> None:
        self.path = folder / "ledger.db"
        self._interval = interval
        self._pending: deque[_Item] = deque()
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._closed = False
        self.lost = 0
        self._con: sqlite3.Connection | None = connect(self.path)
        _open_ledgers.add(self)

    def write(self, query: Query, attempts: tuple[Attempt, ...], *, durable: bool) -> Future[None] | None:
        """Queue the rows; with ``durable`` the future resolves when they are committed, or raises."""
        future: Future[None] | None = Future() if durable else None
        if future is not None:
            future.set_running_or_notify_cancel()  # a cancelled waiter must not cancel the row
        self._pending.append((query, attempts, future))
        if self._closed:
            self.flush()
            return future
        if self._thread is None or self._pid != os.getpid():
            self._start()
        if durable:
            self._wake.set()
        return future

    def flush(self) -> None:
        """Wait until everything queued so far is committed; raises sqlite3.Error if it cannot be."""
        with self._lock:
            self._drain()

    def close(self) -> None:
        """Commit what is queued and stop the writer."""
        self._closed = True
        self._wake.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread() and self._pid == os.getpid():
            thread.join(timeout=10)
        self.flush()
        with self._lock:
            if self._con is not None:
                self._con.close()
                self._con = None

    def read(self) -> sqlite3.Connection:
        """A read-only connection; rows queued are flushed first."""
        self.flush()
        con = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)
        con.row_factory = sqlite3.Row
        return con

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None and self._pid == os.getpid():
                return
            self._pid = os.getpid()
            self._wake = threading.Event()
            self._thread = threading.Thread(target=self._run, name="costkit-ledger", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        wake = self._wake
        while not self._closed:
            wake.wait(self._interval)
            wake.clear()
            if self._pending:
                with self._lock, contextlib.suppress(Exception):
                    self._drain()

    def _drain(self) -> None:
        batch: list[_Item] = []
        while self._pending:
            batch.append(self._pending.popleft())
        if not batch:
            return
        try:
            self._commit(batch)
        except Exception as exc:
            if len(batch) > 1 and not isinstance(exc, (sqlite3.OperationalError, FolderError)):
                self._commit_singly(batch)  # one row that cannot be written does not take the others with it
                return
            if _is_busy(exc) and not self._closed:
                self._put_back(batch, exc)
            else:
                self._give_up(batch, exc)
            raise
        for _, _, future in batch:
            if future is not None:
                future.set_result(None)

    def _commit_singly(self, batch: list[_Item]) -> None:
        for item in batch:
            try:
                self._commit([item])
            except Exception as exc:  # noqa: BLE001 - every future must be told, whatever went wrong
                self._give_up([item], exc)
            else:
                if item[2] is not None:
                    item[2].set_result(None)

    def _put_back(self, batch: list[_Item], error: Exception) -> None:
        """Somebody holds the database: nobody waits longer, and the rows go in when it is free again."""
        room = max(0, _MOST_WAITING - len(self._pending))
        self._give_up([(query, attempts, None) for query, attempts, _ in batch[room:]], error)
        self._pending.extendleft((query, attempts, None) for query, attempts, _ in reversed(batch[:room]))
        for _, _, future in batch:
            if future is not None:
                future.set_exception(error)

    def _give_up(self, batch: list[_Item], error: Exception) -> None:
        self.lost += len(batch)
        for _, _, future in batch:
            if future is not None:
                future.set_exception(error)

    def _commit(self, batch: list[_Item]) -> None:
        if self._con is None:
            self._con = connect(self.path)
        con = self._con
        con.execute("BEGIN IMMEDIATE")
        try:
            con.executemany(_INSERT_QUERY, [_query_row(query) for query, _, _ in batch])
            con.executemany(
                _INSERT_ATTEMPT, [_attempt_row(q, a) for q, attempts, _ in batch for a in attempts]
            )
            con.execute("COMMIT")
        except BaseException:
            if con.in_transaction:
                con.execute("ROLLBACK")
            raise

    def _after_fork(self) -> None:
        _inherited.append(self._con)
        self._con = None
        self._pending.clear()
        self._lock = threading.Lock()
        self._thread = None


def _is_busy(error: Exception) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


def _query_row(query: Query) -> tuple[object, ...]:
    return tuple(getattr(query, column) for column in _QUERY_COLUMNS)


def _attempt_row(query: Query, attempt: Attempt) -> tuple[object, ...]:
    u = attempt.usage
    tokens = (None,) * 6 if u is None else _tokens(u)
    raw = None if u is None or u.raw is None else json.dumps(u.raw, default=str)
    head = (
        query.id,
        query.root_id,
        attempt.role,
        attempt.model,
        attempt.provider,
        attempt.at,
        attempt.latency,
    )
    tail = (attempt.ttft, attempt.finish, attempt.error, attempt.usage_state)
    return (*head, *tail, *tokens, attempt.cost, attempt.price_id, raw)


def _tokens(u: Usage) -> tuple[int, ...]:
    return (u.in_fresh, u.cache_read, u.cache_write_5m, u.cache_write_1h, u.out_text, u.out_reasoning)


# A connection must not be closed, nor used, by a process that inherited it through fork.
_inherited: list[sqlite3.Connection | None] = []
_open_ledgers: weakref.WeakSet[Ledger] = weakref.WeakSet()


def _flush_all() -> None:
    for ledger in list(_open_ledgers):
        if ledger._pid == os.getpid():
            with contextlib.suppress(Exception):
                ledger.close()


def _forked() -> None:
    for ledger in list(_open_ledgers):
        ledger._after_fork()


atexit.register(_flush_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
