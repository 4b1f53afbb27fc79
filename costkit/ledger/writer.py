"""The writer: everything that goes into the ledger, in groups, by one thread a process."""

from __future__ import annotations

import atexit
import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from costkit import forks
from costkit.budget import Hold, Refusal, Settle
from costkit.call import Attempt
from costkit.errors import FolderError
from costkit.ledger import evidence, holds
from costkit.ledger.evidence import Evidence, GateRow, GateState
from costkit.ledger.rows import Query, insert
from costkit.ledger.schema import is_damage, open_ledger, primary

if TYPE_CHECKING:
    from costkit.tokens import Ratio

# Jobs kept in memory while the database cannot be written, and jobs in one transaction.
_MOST_WAITING, _MOST_TOGETHER = 100_000, 5_000

# Seconds between two looks at what other processes have learned of tokenizers, and how many lessons are kept.
_RATIOS_EVERY, _MOST_RATIOS = 60.0, 10_000

_FORGET_EVERY = 3600.0

# Troubles that may pass: what was to be written waits. Any other is for good.
_PASSING = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}


@dataclass(frozen=True, slots=True)
class _Job:
    """One thing to be written: rows, then a step in the same transaction, whose result the future gets."""

    rows: tuple[Query, tuple[Attempt, ...]] | None = None
    step: Callable[[sqlite3.Connection], Any] | None = None
    future: Future[Any] | None = None
    durable: bool = False
    waits: bool = True  # for trouble to pass
    holds: str | None = None
    frees: str | None = None
    evidence: Evidence | None = None


class Ledger:
    """Rows in, by one writer thread a process that commits them in groups.

    A durable row is committed before its future resolves; other rows are committed within ``interval``
    seconds, at exit and at close. A process that forks goes on in both halves, each with its own rows.

    What calls hold of a budget expires ``lease`` seconds after this process last renewed it, which the writer
    does three times as often: what a killed process held is counted as spent after that. ``clock`` gives Unix
    seconds. ``damaged`` is the name that a damaged file got when it was set aside for a new one, else None;
    ``lost`` counts rows that could not be written; ``failing``: nothing could be, the last time it was tried.
    """

    def __init__(
        self,
        folder: Path,
        *,
        interval: float = 0.25,
        lease: float = 60.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = folder / "ledger.db"
        self.damaged: str | None = None
        self.lost = 0
        self.failing = False
        self._interval, self._lease, self._clock = interval, lease, clock
        self._pending: deque[_Job] = deque()
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._closed = False
        self._held: set[str] = set()
        self._tended = self._forgot = float("-inf")
        self._ratios: dict[tuple[str, str], tuple[int, int, int, float]] = {}
        self._ratios_read = float("-inf")
        self._con: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._durable = True
        self._priced: set[str] = set()
        with forks.inside:
            self._connect()
        _open_ledgers.add(self)

    def write(
        self,
        query: Query,
        attempts: tuple[Attempt, ...],
        *,
        durable: bool,
        settle: Settle | None = None,
        evidence: Evidence | None = None,
    ) -> Future[None] | None:
        """Queue the rows; with ``durable`` the future resolves when they are committed, or raises.

        ``settle`` says what the call has cost of what it held, ``evidence`` what a gate made of it: in the same
        transaction as the rows.
        """
        future: Future[None] | None = _future() if durable else None
        if settle is None:
            job = _Job((query, attempts), None, future, durable, evidence=evidence)
        else:
            id = settle.hold.id
            step = partial(holds.settle, id=id, actual=settle.actual)
            job = _Job((query, attempts), step, future, True, frees=id, evidence=evidence)
        self._put(job, now=durable)
        return future

    def hold(self, hold: Hold) -> Future[Refusal | None]:
        """Hold the amount in every line of it, or in none: the future says which has too little left.

        The future raises sqlite3.Error or FolderError where the ledger cannot be written; then nothing is held.
        """
        future: Future[Refusal | None] = _future()

        def step(con: sqlite3.Connection) -> Refusal | None:
            now = self._clock()
            return holds.hold(con, hold, now, now + self._lease)

        self._put(_Job(step=step, future=future, waits=False, holds=hold.id))
        return future

    def release(self, hold: Hold, actual: int = 0) -> None:
        """So much was spent of what the call held, or was to hold; a hold still in the queue is undone too."""
        self._put(_Job(step=partial(holds.settle, id=hold.id, actual=actual), frees=hold.id))

    def learn(self, name: str, model: str, counted: int, reported: int) -> None:
        """A call of the function ``name`` had ``counted`` input tokens by our count, ``reported`` by the model's."""
        if counted > 0 and reported > 0:
            step = partial(
                holds.learn, name=name, model=model, counted=counted, reported=reported, now=self._clock()
            )
            self._put(_Job(step=step), now=False)

    def testify(self, rows: Sequence[Evidence]) -> None:
        """Queue rows of evidence that belong to no call under way: a label that took its time, a log read in."""
        for row in rows:
            self._put(_Job(durable=True, evidence=row), now=False)
        self._wake.set()

    def testify_once(self, rows: Sequence[Evidence]) -> Future[int]:
        """Write the rows in one transaction, without those whose tag their gate has: the future says how many were.

        It raises sqlite3.Error or FolderError where they could not be written.
        """
        future: Future[int] = _future()
        self._put(_Job(step=partial(evidence.insert_once, rows=tuple(rows)), future=future, durable=True))
        return future

    def name_gate(self, row: GateRow) -> None:
        """Queue the row that says whose gate it is."""
        self._put(_Job(step=partial(evidence.name_gate, row=row)), now=False)

    def keep_state(self, state: GateState) -> None:
        """Queue a gate's state, for processes that start later."""
        self._put(_Job(step=partial(evidence.keep_state, state=state)), now=False)

    def reader(self) -> sqlite3.Connection:
        """A read-only connection for a gate to follow its evidence with; nothing is flushed, and no lock waited for."""
        with forks.inside:
            return self._reader(timeout=0)

    def ratio(self, name: str, model: str) -> Ratio | None:
        """What :meth:`learn` was told of them, by any process, at most a minute ago; None: nothing known.

        Never waits for a lock: where the ledger cannot be read, what was known before holds.
        """
        from costkit.tokens import Ratio

        if time.monotonic() - self._ratios_read > _RATIOS_EVERY:
            self._ratios_read = time.monotonic()
            with (
                contextlib.suppress(sqlite3.Error),
                forks.inside,
                contextlib.closing(self._reader(timeout=0)) as con,
            ):
                rows = con.execute("SELECT * FROM token_ratios ORDER BY at DESC LIMIT ?", (_MOST_RATIOS,))
                self._ratios = {(r["name"], r["model"]): tuple(r)[2:6] for r in rows}
        known = self._ratios.get((name, model))
        return None if known is None else Ratio(*known)

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
        with self._lock, forks.inside:
            self._disconnect()

    def read(self) -> sqlite3.Connection:
        """A read-only connection; rows queued are flushed first."""
        self.flush()
        with forks.inside:
            return self._reader(timeout=10)

    def _reader(self, timeout: float) -> sqlite3.Connection:
        uri = f"{self.path.absolute().as_uri()}?mode=ro"
        con = sqlite3.connect(uri, uri=True, timeout=timeout, check_same_thread=False)
        con.row_factory = sqlite3.Row
        return con

    def _put(self, job: _Job, *, now: bool = True) -> None:
        self._pending.append(job)
        if self._closed:
            with contextlib.suppress(Exception):  # the job's future has it
                self.flush()
            return
        if self._thread is None or self._pid != os.getpid():
            self._start()
        if now:
            self._wake.set()

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None and self._pid == os.getpid():
                return
            self._pid = os.getpid()
            self._wake = threading.Event()
            self._thread = threading.Thread(target=self._run, name="costkit-ledger", daemon=True)
            self._thread.start()
        self._wake.set()

    def _run(self) -> None:
        wake = self._wake
        interval = min(self._interval, self._lease / 3)
        while not self._closed:
            wake.wait(interval)
            wake.clear()
            if self._pending:
                with self._lock, contextlib.suppress(Exception):
                    self._drain()
            if time.monotonic() - self._tended >= self._lease / 3:
                with self._lock, contextlib.suppress(Exception), forks.inside:
                    self._tend()

    def _tend(self) -> None:
        """Renew what calls of this process hold, and let lapse what others no longer renew."""
        self._tended = time.monotonic()
        if self._held or holds.overdue(self._connected(), self._clock(), self._lease):
            ids = tuple(self._held)
            self._transaction(lambda con: holds.renew(con, ids, self._clock(), self._lease), durable=False)
        if self._tended - self._forgot >= _FORGET_EVERY:
            self._forgot = self._tended
            self._transaction(lambda con: holds.forget(con, self._clock()), durable=False)

    def _drain(self) -> None:
        with forks.inside:
            self._write_down()

    def _write_down(self) -> None:
        batch: list[_Job] = []
        while self._pending:
            batch.append(self._pending.popleft())
        singly = 0
        while batch:
            together = batch[: 1 if singly else _MOST_TOGETHER]
            try:
                results = self._commit(together)
            except Exception as exc:
                if _hopeless(exc):
                    self._trouble(batch, exc)
                    raise
                if len(together) > 1:  # one row that cannot be written does not take the others with it
                    singly = len(together)
                    continue
                self._give_up(together, exc)
                if batch[0].rows is not None and batch[0].step is not None:
                    batch[0] = replace(batch[0], rows=None, future=None)  # its money is settled all the same
                    continue
            else:
                for job, result in zip(together, results, strict=True):
                    self._done(job, result)
            batch, singly = batch[len(together) :], max(0, singly - 1)

    def _done(self, job: _Job, result: Any) -> None:
        if job.holds is not None and result is None:
            self._held.add(job.holds)
        if job.frees is not None:
            self._held.discard(job.frees)
        if job.future is not None:
            job.future.set_result(result if job.rows is None else None)

    def _trouble(self, batch: list[_Job], error: Exception) -> None:
        """The database cannot be written: nobody waits longer. If it may pass, the rows go in when it has."""
        self.failing = True
        if self._closed or not _passes(error):
            self._give_up(batch, error)
            return
        kept = [replace(job, future=None) for job in batch if job.waits]
        room = max(0, _MOST_WAITING - len(self._pending))
        self._give_up(kept[room:], error)
        self._pending.extendleft(reversed(kept[:room]))
        _fail(batch, error)

    def _give_up(self, batch: list[_Job], error: Exception) -> None:
        self.lost += sum(job.rows is not None for job in batch)
        for job in batch:
            if job.frees is not None:
                self._held.discard(job.frees)  # it lapses, and so counts as spent
        _fail(batch, error)

    def _commit(self, batch: list[_Job]) -> list[Any]:
        fresh: set[str] = set()

        def steps(con: sqlite3.Connection) -> list[Any]:
            fresh.update(insert(con, [job.rows for job in batch if job.rows is not None], self._priced))
            evidence.insert(con, [job.evidence for job in batch if job.evidence is not None])
            return [None if job.step is None else job.step(con) for job in batch]

        results: list[Any] = self._transaction(steps, durable=any(job.durable for job in batch))
        self.failing = False
        self._priced |= fresh
        return results

    def _transaction(self, steps: Callable[[sqlite3.Connection], Any], *, durable: bool) -> Any:
        con = self._connected()
        if durable != self._durable:
            con.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self._durable = durable
        try:
            con.execute("BEGIN IMMEDIATE")
            result = steps(con)
            con.execute("COMMIT")
        except BaseException as exc:
            if con.in_transaction:
                con.execute("ROLLBACK")
            if is_damage(exc) or primary(exc) == sqlite3.SQLITE_IOERR:  # the next one looks at the file anew
                self._disconnect()
            raise
        return result

    def _connected(self) -> sqlite3.Connection:
        """Our connection, or a new one where the file is no longer the one that we opened."""
        if self._con is not None and _identity(self.path) != self._file:
            self._disconnect()
        return self._con or self._connect()

    def _connect(self) -> sqlite3.Connection:
        before = _identity(self.path)
        con, aside = open_ledger(self.path, self._clock())
        # A file that another process replaced meanwhile is noticed with the next look.
        self._file = _identity(self.path) if before is None or aside is not None else before
        self._con, self._durable, self._priced = con, True, set()
        self.damaged = aside or self.damaged
        return con

    def _disconnect(self) -> None:
        con, self._con = self._con, None
        if con is not None:
            con.close()

    def _after_fork(self) -> None:
        _inherited.append(self._con)
        self._con = None
        self._pending.clear()
        self._held.clear()
        self._lock = threading.Lock()
        self._thread = None


def _hopeless(error: Exception) -> bool:
    """Whether the trouble is the database's, not a row's."""
    return isinstance(error, (sqlite3.OperationalError, FolderError)) or is_damage(error)


def _passes(error: Exception) -> bool:
    return primary(error) in _PASSING or (
        isinstance(error, FolderError) and primary(error.__cause__) in _PASSING
    )


def _fail(batch: list[_Job], error: Exception) -> None:
    for job in batch:
        if job.future is not None:
            job.future.set_exception(error)


def _future() -> Future[Any]:
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()  # a cancelled waiter must not cancel what it waits for
    return future


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_dev, info.st_ino


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
