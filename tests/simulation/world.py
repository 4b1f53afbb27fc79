"""What all calls share: time, processes, the store, the claims, the budget. And the truth about every answer."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from costkit import codec, flight, refresh
from costkit.effects import Held, Refused, Request
from costkit.errors import BudgetUnavailable
from costkit.exact import Exact, exact
from costkit.flight import Flight, Flights
from costkit.refresh import Refreshes
from costkit.store import Entry, Moment

if TYPE_CHECKING:
    from .caller import Caller

WALL = 1_700_000_000.0
HOLD = 10
LEASE = 60.0
DAY = 86_400.0
SHARES = {"kill": (0.005, 0.02), "leave": (0.01, 0.05), "jump": (0.02, 0.1), "fail": (0.02, 0.4, 0.9)}
FUTURE = 300.0  # an entry may be dated so much after now


class Broken(AssertionError):
    """An invariant does not hold."""


@dataclass
class Faults:
    """How likely each thing is to go wrong, at every step where it can."""

    fail: float = 0.0  # the call raises
    cut: float = 0.0  # the answer is not whole
    odd: float = 0.0  # the answer cannot be stored
    hang: float = 0.0  # the call takes longer than others wait
    stall: float = 0.0  # a stream's reader does not read on for a while
    cancel: float = 0.0  # the client cancels, waiting or calling
    leave: float = 0.0  # the driver is broken off, at any effect
    kill: float = 0.0  # the process dies, perhaps another one starts
    miss: float = 0.0  # the disk fails to read
    lose: float = 0.0  # the disk fails to write
    damage: float = 0.0  # what is stored is unreadable
    late: float = 0.0  # a write is seen by others a while later
    blind: float = 0.0  # a claim whose deadline nobody can read
    ledger: float = 0.0  # the ledger cannot hold money
    bump: float = 0.0  # an epoch is bumped
    jump: float = 0.0  # the wall clock jumps by up to a day


@dataclass(eq=False)
class Process:
    """One process: its flights, its refreshes, what it has in memory."""

    number: int
    flights: Flights = field(default_factory=Flights)
    refreshes: Refreshes = field(default_factory=Refreshes)
    front: dict[str, Written] = field(default_factory=dict)
    synced: int = 0
    alive: bool = True


@dataclass(frozen=True)
class Written:
    """An entry as it lies in the store; ``claimed``: its writer's turn lasted when it was written."""

    entry: Entry
    by: int
    at: float
    seen_from: float
    claimed: bool
    damaged: bool = False  # the seal does not fit: as if there were nothing
    alien: bool = False  # it fits, but its class is not loaded


@dataclass(frozen=True)
class Answer:
    """The truth about one call of the upstream: for whom it was made, asked for when, over when."""

    caller: Caller
    asked: Moment
    over: float


class World:
    """Everything that calls share."""

    def __init__(self, seed: int, mutation: str = "") -> None:
        self.random, self.mutation = random.Random(seed), mutation
        self.now, self.jumped = 1000.0, 0.0
        self.meanings = random.Random(f"meaning {seed}")  # dice of their own: other worlds stay as they are
        self.meant = self.meanings.random() < 0.3
        dice = self.random
        chosen = dice.sample([*Faults.__dataclass_fields__], dice.choice([0, 1, 1, 2, 2, 3, 4, 5, 8]))
        chosen += ["fail"] * (dice.random() < 0.2)
        self.faults = Faults(**{name: dice.choice(SHARES.get(name, (0.02, 0.2))) for name in chosen})
        self.gaps = dice.choice([0.0, 0.1, 0.5])  # how often time passes between two calls
        short = exact(ttl=5, stale=60)
        both, plain = replace(short, negative=3.0), [exact(), exact(ttl=3600)]
        self.settings: Exact = dice.choice([*plain, exact(negative=3), short, short, both])
        self.settings = replace(self.settings, wait=dice.choice([2.0, 60.0]))
        self.stream, self.budgeted = dice.random() < 0.3, dice.random() < 0.5
        self.cap = HOLD * dice.randrange(1, 12)
        self.spent = 0
        self.holds: dict[Caller, float] = {}  # who holds money, until when if nobody renews it
        self.processes = [Process(n) for n in range(dice.choice([1, 1, 2, 3]))]
        self.tenants = ["acme", "bolt"][: dice.choice([1, 1, 2])]
        self.words = ["x", "y", "z"][: dice.choice([1, 1, 2, 3])]
        self.words = [*"wxyz"] if self.meant else self.words
        self.epochs = dict.fromkeys(self.tenants, 0)
        self.bumps = 0
        self.store: dict[str, Written] = {}
        self.claims: dict[str, Caller] = {}
        self.answers: dict[int, Answer] = {}
        self.touched: dict[Flight, float] = {}  # when each flight began, or got its last chunk
        self.raised: set[Flight] = set()  # flights whose call failed, and was not broken off before it landed
        self.current: dict[tuple[Process, str], Flight] = {}  # the flight that newcomers are to join
        self.led_after: dict[Flight, Flight] = {}
        self.rest: dict[tuple[Process, str], float] = {}
        self.callers: list[Caller] = []
        self.pool: dict[
            tuple[str, str], set[str]
        ] = {}  # what may be served to other questions, by scope and epoch
        self.lossy: set[int] = set()  # answers that a lossy saving had a part in
        self.seen: set[str] = set()  # what this run came by, for a test of the simulation itself

    def chance(self, name: str) -> bool:
        share = getattr(self.faults, name)
        return bool(share) and self.random.random() < share

    def start(self) -> None:
        self.processes.append(Process(len(self.processes), synced=self.bumps))

    def moment(self) -> Moment:
        return Moment(WALL + self.now + self.jumped, self.now, "boot")

    # --- the store

    def disk(self, key: str, process: Process) -> Written | None:
        """What the disk truly holds for this process."""
        written = self.store.get(key)
        if written is None or written.damaged:
            return None
        return None if written.by != process.number and self.now < written.seen_from else written

    def truth(self, key: str, process: Process) -> Written | None:
        """What a look past the memory, without a fault, would find now."""
        return self.disk(key, process) or process.front.get(key)

    def servable(self, written: Written, request: Request) -> bool:
        """Whether it answers this request; said here once more, for the flow's own word is on trial."""
        entry, now, settings = written.entry, request.now, self.settings
        if written.alien or entry.epoch != request.epoch or entry.stream != request.stream:
            return False
        if entry.at > now.wall + FUTURE:
            return False
        age = max(now.wall - entry.at, now.mono - entry.mono)
        if entry.failed:
            return age < settings.negative
        limit = settings.ttl if request.role == "refresh" else settings.life
        return limit is None or age < limit

    def check_entry(self, key: str, entry: Entry) -> None:
        """Only whole answers are stored, each under its own key, for as long as the settings say."""
        if entry.failed:
            if not self.settings.negative or entry.payload or entry.life != self.settings.negative:
                raise Broken(f"{key}: a failure is stored as {entry}")
            return
        try:
            value = entry.value()
        except codec.Unreadable:
            return
        text = "".join(value) if isinstance(value, list) else value
        if not isinstance(text, str) or not text.endswith("."):
            raise Broken(f"{key}: {value!r} is stored, which is not whole")
        if text.split("|")[0] != key:
            raise Broken(f"{key}: holds {text!r}, a foreign answer")
        if int(text.split("|")[2]) in self.lossy:
            raise Broken(f"{key}: holds {text!r}, which a lossy saving had a part in")
        if entry.life != self.settings.life:
            raise Broken(f"{key}: is stored for {entry.life} s")

    # --- the budget

    def hold(self, caller: Caller) -> Held | Refused:
        self.lapse()
        if self.chance("ledger"):
            return Refused(BudgetUnavailable("locked"))
        if self.spent + (len(self.holds) + 1) * HOLD > self.cap:
            return Refused(BudgetUnavailable("nothing left"))
        self.holds[caller] = self.now + LEASE
        return Held(HOLD)

    def settle(self, caller: Caller, actual: int | None) -> None:
        if self.holds.pop(caller, None) is None:
            raise Broken(f"{caller.id} settles what it does not hold")
        self.spent += HOLD if actual is None else actual

    def lapse(self) -> None:
        """What dead processes held counts as spent; the living renew."""
        for caller, until in list(self.holds.items()):
            if caller.process.alive:
                self.holds[caller] = self.now + LEASE
            elif until <= self.now:
                self.settle(caller, None)

    # --- the invariants of all calls together

    def check(self) -> None:
        """Holds at every step."""
        if self.spent + len(self.holds) * HOLD > self.cap:
            raise Broken("the budget is overspent")

    def end(self) -> None:
        """What must be left when all calls are over: nothing, and every nano-dollar is accounted for."""
        self.now += 2 * LEASE
        self.lapse()
        if self.holds:
            raise Broken(f"money is still held by {[c.id for c in self.holds]}")
        for process in self.processes:
            if process.alive and (len(process.flights) or process.refreshes._under):
                raise Broken("a flight or a refresh is still under way")
        for flown, holder in self.claims.items():
            if holder.process.alive:
                raise Broken(f"{flown} is still claimed by {holder.id}")
        owed = sum(caller.owes() for caller in self.callers) if self.budgeted else 0
        if self.spent != owed:
            raise Broken(f"the budget says {self.spent} were spent, the calls say {owed}")
        for key, written in self.store.items():
            self.check_entry(key, written.entry)


@contextmanager
def virtual(world: World) -> Iterator[None]:
    """The clock of flights and refreshes is the world's."""

    class Clock:
        monotonic: Callable[[], float] = staticmethod(lambda: world.now)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flight, "time", Clock)
        patch.setattr(refresh, "time", Clock)
        yield
