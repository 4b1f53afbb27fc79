"""What the drivers perform effects on: the store, the ledger, the leases, the flights of this process."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from . import forks, lease, tokens
from .budget import Refusal, Settle, exceeded
from .effects import (
    Claim,
    Claimed,
    Held,
    Join,
    Judge,
    Keep,
    Land,
    Lead,
    Left,
    Lookup,
    Lost,
    Pause,
    Refused,
    Reserve,
    Seek,
    Taken,
    Write,
)  # fmt: skip
from .errors import BudgetUnavailable
from .flight import Flight, Flights
from .flow import Flow
from .lease import Leases
from .ledger import Ledger
from .plan import Plan
from .refresh import Refreshes
from .reserve import most
from .session import Session
from .store import Store
from .tokens import Ratio

if TYPE_CHECKING:
    from .semantic.pool import Pool, Sought

__all__ = ["LEDGER_PATIENCE", "Plain", "Ports"]

# Longer than the ledger waits for a lock; a writer silent for so long is in trouble.
LEDGER_PATIENCE = 30.0

Plain = Lookup | Seek | Keep | Judge | Land | Write | Claim | Reserve | Pause
"""Effects that no kind of call performs in a way of its own."""


class Ports:
    """What the drivers perform effects on: store, ledger, leases, and the flights of this process."""

    def __init__(self, store: Store, ledger: Ledger, leases: Leases, warn: Callable[[str], None]) -> None:
        self.store, self.ledger, self.leases, self.warn = store, ledger, leases, warn
        self.flights, self.refreshes, self.lessons = Flights(), Refreshes(), Lessons()
        self._lock = threading.Lock()
        self._threads: dict[str, ThreadPoolExecutor] = {}
        self._warmed: dict[str, Future[None]] = {}
        self._priced: set[tuple[str, str | None]] = set()
        # Held here, a flow outlives the coroutine that drives it, which may be collected and still has to end it.
        self.flows: set[Flow] = set()
        self.unrecorded = 0
        self.pools: Callable[[Plan], Pool | None] = lambda plan: None

    def known(self, model: str | None, provider: str | None) -> bool:
        """Whether nothing is left to check about the price of this model."""
        return model is None or (model, provider) in self._priced

    def join(self, effect: Join, session: Session, owner: object) -> Flight | Lead | Lost:
        """Lead a new flight, or get the one under way."""
        exact = session.request.exact
        patience = 60.0 if exact is None else exact.wait
        flight = self.flights.join(effect.key, session.request.epoch, session, owner, patience=patience)
        return flight if effect.wait or not isinstance(flight, Flight) else Lost(alone=True)

    def claim(self, effect: Claim, session: Session) -> Claimed | Taken:
        """Make this call alone among all processes, where no other one does."""
        # An answer begun before an epoch was bumped is not waited for after it.
        name = hashlib.sha256(f"{effect.key} {session.request.epoch}".encode()).hexdigest()
        got = self.leases.claim(name, effect.patience)
        if isinstance(got, lease.Taken):
            return Taken(got.deadline)
        session.lease = got
        return Claimed()

    def need(self, session: Session) -> Refused | None:
        """Before money is spent: the price is known, and every purse has what this call may cost."""
        try:
            if session.model is not None:
                session.prices.check(session.model, session.provider)
                self._priced.add((session.model, session.provider))
            reservation = session.reservation
            if reservation:
                ratio = self.learned(session.request.name, session.model or "")
                needed, reservation.counted = most(
                    session.plan,
                    session.arguments,
                    model=session.model,
                    prices=session.prices,
                    ratio=ratio,
                )
                refusal = reservation.take(needed)
                if refusal is not None:
                    return Refused(exceeded(session.request.name, needed, refusal))
        except Exception as exc:  # noqa: BLE001 - the user's max_cost among them: raised to the caller, nothing is spent
            return Refused(exc)
        return None

    def learned(self, name: str, model: str) -> Ratio | None:
        """What was learned of this function's input and this model's tokenizer."""
        return self.ledger.ratio(name, model)

    def hold(self, session: Session) -> Future[Refusal | None] | None:
        """Ask the ledger to hold what windowed budgets must hold."""
        hold = session.reservation.hold()
        return None if hold is None else self.ledger.hold(hold)

    def held(
        self, session: Session, future: Future[Refusal | None] | None, patience: float = LEDGER_PATIENCE
    ) -> Held | Refused:
        """What the ledger said."""
        reservation = session.reservation
        needed = reservation.amount
        try:
            refusal = None if future is None else future.result(patience)
        except Exception as exc:  # noqa: BLE001 - whatever it is, money may not be spent
            self.release(session)
            why = f"{session.request.name}: a budget is set and the ledger cannot be used ({type(exc).__name__}: {exc})"
            return Refused(BudgetUnavailable(f"{why}; nothing was spent; run `costkit doctor`"))
        if refusal is None:
            return Held(needed)
        reservation.settle(0)
        return Refused(exceeded(session.request.name, needed or 0, refusal))

    def release(self, session: Session, actual: int | None = 0) -> None:
        """Give back what is held: nothing was spent, or ``actual`` nano-dollars were (None: all that is held)."""
        hold = session.reservation.hold()
        spent = session.reservation.settle(actual)
        if spent is not None and hold is not None and not session.inherited:
            self.ledger.release(hold, spent)

    def write(self, effect: Write, session: Session) -> Future[None] | None:
        """Queue the rows; ledger trouble without a budget is an answer and a counted warning."""
        try:
            hold, settle = session.reservation.hold(), None
            if effect.settles:
                actual = session.reservation.settle(effect.actual)
                settle = None if hold is None or actual is None else Settle(hold, actual)
            if session.inherited:
                return None  # the row and the money are the parent's, which goes on with the same call
            written = self.ledger.write(
                effect.query, effect.attempts, durable=effect.durable, settle=settle, evidence=effect.evidence
            )
        except Exception as exc:  # noqa: BLE001 - whatever it is, the answer is there and paid for
            self.trouble(exc)
            return None
        with contextlib.suppress(Exception):  # a lesson less
            self.lessons.learn(self, effect, session)
        return written

    def seek(self, session: Session) -> Sought | None:
        """What is stored that means the same as this call, and what its gate says; trouble is a miss."""
        request, pool = session.request, self.pools(session.plan)
        if pool is None:
            return None
        try:
            session.sought = pool.seek(
                session.arguments,
                keyed=session.plan.keyed(session.arguments),
                model=session.model,
                scope_id=session.scope_id,
                scope=request.scope,
                tag=request.tag,
                epoch=request.epoch,
                moment=request.now,
                stream=request.stream,
                ttl=None if request.exact is None else request.exact.ttl,
                renews=request.role == "refresh",
            )
        except Exception as exc:  # noqa: BLE001 - no saving is worth a call that fails
            session.warn(f"{request.name}: the semantic tier could not be asked ({type(exc).__name__})")
        return session.sought

    def keep(self, effect: Keep, session: Session) -> None:
        """Store the entry, and let it stand for calls that mean the same."""
        session.kept = True
        self.store.set(session.scope_id, effect.key, effect.entry)
        pool = None if effect.sought is None else self.pools(session.plan)
        if pool is None or effect.sought is None:
            return
        try:
            pool.admit(
                effect.sought,
                key=effect.key,
                value=effect.value,
                entry=effect.entry,
            )
        except Exception as exc:  # noqa: BLE001 - a saving less
            session.warn(f"{session.request.name}: an answer was not admitted ({type(exc).__name__})")

    def judge(self, effect: Judge, session: Session) -> bool | None:
        """Whether the candidate was wrong; None: said later."""
        pool, request = self.pools(session.plan), session.request
        if pool is None or session.inherited:
            return None
        try:
            return pool.judge(effect.sought, effect.value, query_id=request.id, stream=request.stream)
        except Exception as exc:  # noqa: BLE001 - the answer is there and paid for; what nobody judged is wrong
            session.warn(
                f"{request.name}: an answer could not be judged ({type(exc).__name__}); it counts as wrong"
            )
            return True

    def judged_later(self, judging: Future[bool | None], effect: Judge, session: Session) -> None:
        """Write the judge's word down when it comes, of a call that could not wait for it."""
        pool, request = self.pools(session.plan), session.request

        def tell(done: Future[bool | None]) -> None:
            wrong = True if done.cancelled() or done.exception() is not None else done.result()
            if wrong is not None and pool is not None:
                pool.label(effect.sought, request.id, wrong)

        judging.add_done_callback(tell)

    def trouble(self, error: BaseException | None) -> None:
        """Say that a row was not written. Rows that the ledger itself gave up are counted there."""
        if error is not None:
            self.unrecorded += isinstance(error, TimeoutError)
            self.warn(
                f"the ledger could not be written ({type(error).__name__}: {error}); calls go on, unrecorded "
                "(rows of a locked ledger are written once it is free)"
            )

    def pool(self, what: str = "io") -> ThreadPoolExecutor:
        """A few threads for what would block an event loop; what takes long has its own, and nobody else waits."""
        with self._lock:
            if what not in self._threads:
                self._threads[what] = ThreadPoolExecutor(4, thread_name_prefix=f"costkit-{what}")
            return self._threads[what]

    def warm(self, what: str, load: Callable[[], None]) -> Future[None]:
        """Load the price table, or the tokenizer, beside the event loop: each takes long, once."""
        if what not in self._warmed:
            self._warmed[what] = self.pool().submit(_unforked, load)
        return self._warmed[what]

    def after_fork(self) -> None:
        """The child has none of the parent's threads."""
        self.flights.after_fork()
        self.leases.after_fork()
        self.refreshes, self.flows = Refreshes(), set()
        self._lock, self._threads, self._warmed = threading.Lock(), {}, {}

    def close(self) -> None:
        """Wait for writes and refreshes under way."""
        self.refreshes.close()
        with self._lock:
            threads, self._threads = self._threads, {}
        for pool in threads.values():
            pool.shutdown(wait=True)
        self.leases.close()

    def land(self, effect: Land, session: Session) -> None:
        """End the flight, and give the claim back."""
        self.flights.land(effect, session.request.epoch, session)
        self.unclaim(session)
        if effect.why is not None:
            session.warn(f"{session.request.name}: its answers cannot be stored ({effect.why})")

    def unclaim(self, session: Session) -> None:
        """Give the claim back, if there is one."""
        held, session.lease = session.lease, None
        if held is not None:
            held.release()

    def perform(self, effect: Plain, session: Session) -> Any:
        """Any effect but Call, Join and Refresh, in this thread."""
        if isinstance(effect, Lookup):
            return self.store.get(session.scope_id, effect.key, session.request.now.wall, fresh=effect.fresh)
        if isinstance(effect, Write):
            future = self.write(effect, session)
            if future is not None:
                try:
                    self.trouble(future.exception(timeout=LEDGER_PATIENCE))
                except TimeoutError as exc:
                    self.trouble(exc)
        elif isinstance(effect, Seek):
            return self.seek(session)
        elif isinstance(effect, Keep):
            self.keep(effect, session)
        elif isinstance(effect, Judge):
            return self.judge(effect, session)
        elif isinstance(effect, Claim):
            return self.claim(effect, session)
        elif isinstance(effect, Reserve):
            try:
                return self.need(session) or self.held(session, self.hold(session))
            except BaseException as exc:  # noqa: BLE001 - Ctrl-C: the flow is told, and raises it
                self.release(session)
                return Left(exc)
        elif isinstance(effect, Pause):
            try:
                time.sleep(effect.seconds)
            except BaseException as exc:  # noqa: BLE001
                return Left(exc)
        else:
            self.land(effect, session)
        return None

    def abort(self, flow: Flow, session: Session) -> None:
        """Leave nothing held, whatever happened."""
        flow.close()
        self.flows.discard(flow)
        if session.flight is not None or session.lease is not None:
            self.land(Land(session.request.key or "", None, None, gone=True), session)
        # A call that was made and whose row was not written is paid for all the same.
        self.release(session, None if session.ended else 0)


def _unforked(load: Callable[[], None]) -> None:
    with forks.inside:  # a child would inherit a half imported module, locked for ever
        load()


class Lessons:
    """Which calls teach how a model's tokenizer counts beside ours: those we counted anyway, and a few more.

    A tokenizer that nobody needed is not loaded for that before a function has been called often.
    """

    OFTEN, FIRST, EVERY, MOST = 50, 16, 64, 10_000

    def __init__(self) -> None:
        self._calls: dict[tuple[str, str], int] = {}

    def learn(self, ports: Ports, effect: Write, session: Session) -> None:
        """Tell the ledger how many tokens the provider reported for how many of ours."""
        usage = effect.attempts[0].usage if len(effect.attempts) == 1 else None
        model = session.model or (effect.attempts[0].model if effect.attempts else None)
        if usage is None or usage.state != "reported" or model is None or not usage.tokens_in:
            return
        name, counted = effect.query.name, session.reservation.counted
        if counted is not None:
            ports.ledger.learn(name, model, counted, usage.tokens_in)
        elif self._chosen(name, model):
            # The caller may go on with a list of his while we count.
            arguments = {k: list(v) if type(v) is list else v for k, v in session.arguments.items()}
            ports.pool().submit(_count, ports.ledger, name, model, arguments, usage.tokens_in)

    def _chosen(self, name: str, model: str) -> bool:
        calls = self._calls.get((name, model), 0) + 1
        if len(self._calls) < self.MOST or calls > 1:
            self._calls[name, model] = calls
        first = self.OFTEN < calls <= self.OFTEN + self.FIRST
        return first or (calls > self.OFTEN and calls % self.EVERY == 0)


def _count(ledger: Ledger, name: str, model: str, arguments: dict[str, Any], reported: int) -> None:
    with contextlib.suppress(Exception):  # a lesson less
        ledger.learn(name, model, tokens.count_arguments(arguments, model=model), reported)
