"""One call of one client, moved by one effect at a time, and what must be true of it at each."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

from costkit import flow
from costkit.call import Attempt, Cost, Usage
from costkit.effects import (
    Abandoned,
    Call,
    Claim,
    Claimed,
    Done,
    Effect,
    Held,
    Join,
    Judge,
    Keep,
    Land,
    Landed,
    Lead,
    Left,
    Lookup,
    Lost,
    Pause,
    Raised,
    Refresh,
    Refused,
    Request,
    Reserve,
    Returned,
    Seek,
    Taken,
    Whole,
    Write,
)  # fmt: skip
from costkit.flight import PATIENCE, Flight, Tail
from costkit.refresh import REST
from costkit.store import Entry

from . import meaning
from .checks import check_end, check_kept_failure, check_spending
from .world import HOLD, Answer, Broken, Process, World, Written


class Gone(BaseException):
    """A client that cancels, or a driver that is broken off."""


class Caller:
    """One call. It begins at once, and is over when ``done`` or ``left`` says so."""

    def __init__(self, world: World, process: Process, request: Request) -> None:
        self.world, self.process, self.request = world, process, request
        self.id, self.key = request.id, cast(str, request.key)
        self.flown = f"{self.key}@{request.epoch}"
        self.wait = world.settings.wait
        # What the flights ask of a member.
        self.flight: Flight | None = None
        self.waited: Flight | None = None
        # Where it stands.
        self.done: Done | None = None
        self.left = self.waiting = self.calling = False
        self.wakes, self.emitted = 0.0, 0
        self.tail: Tail | None = None
        # What is known of it.
        self.looked, self.missed = -math.inf, False
        self.lead_since, self.turn, self.patient = math.inf, -math.inf, False
        self.claimed, self.until = False, -math.inf
        self.met = 0  # failed calls that it waited for
        self.result: Returned | Raised | Abandoned | None = None
        self.refused: Refused | Left | None = None
        self.writes: list[Write] = []
        self.sought: Any = None
        self.verdicts: list[bool | None] = []
        self.cut = self.was_whole = False
        self.held = False
        self.cost: int | None = 0
        self.flow: flow.Flow = flow.flow(request, lambda: world.now)
        self.effect: Effect = next(self.flow)

    def inside(self, key: str) -> bool:
        return False

    def over(self) -> bool:
        return self.done is not None or self.left or not self.process.alive

    def ready(self) -> bool:
        """Whether a step can move it now."""
        if self.over() or self.world.now < self.wakes:
            return False
        flight = self.waited
        if not self.waiting or flight is None:
            return True
        on = flight.landed is not None or flight.overdue()
        if self.tail is not None:
            on = on or len(flight.chunks) > self.tail.passed or flight.held_for() >= PATIENCE
        if not on and self.late(flight):
            raise Broken(f"{self.id} waits past its leader's deadline")
        return on

    def late(self, flight: Flight) -> bool:
        return self.world.now >= self.world.touched[flight] + self.wait

    def send(self, reply: Any) -> None:
        try:
            self.effect = self.flow.send(reply)
        except StopIteration as stop:
            self.done = stop.value
            check_end(self, stop.value)
            self.finish()
        else:
            if isinstance(self.effect, Pause) and self.world.now - self.lead_since >= self.wait:
                raise Broken(f"{self.id} waits for another process longer than {self.wait} s")

    def step(self) -> None:
        world, effect = self.world, self.effect
        world.now += 0.001
        if world.chance("leave"):
            self.leave()
        elif isinstance(effect, Join):
            self.join(effect)
        elif isinstance(effect, Call):
            self.call()
        elif isinstance(effect, Lookup):
            self.send(self.lookup(effect))
        elif isinstance(effect, Claim):
            if not world.chance("cancel"):
                self.send(self.claim(effect))
            else:
                self.stopped(Left(Gone()))
        elif isinstance(effect, Pause):
            self.wakes = world.now + effect.seconds
            self.stopped(Left(Gone())) if world.chance("cancel") else self.send(None)
        elif isinstance(effect, Reserve):
            self.reserve()
        elif isinstance(effect, Refresh):
            self.refresh()
            self.send(None)
        else:
            self.plain(effect)

    def plain(self, effect: Keep | Land | Write | Seek | Judge) -> None:
        if isinstance(effect, Seek):
            self.sought = meaning.seek(self)
            return self.send(self.sought)
        if isinstance(effect, Judge):
            return self.send(meaning.judge(self, effect))
        if isinstance(effect, Keep):
            self.keep(effect)
        elif isinstance(effect, Land):
            if isinstance(self.result, Raised) and self.flight is not None:
                self.world.raised.add(self.flight)
            if self.world.mutation != "land forgotten":
                self.land(effect)
        else:
            self.writes.append(effect)
            if effect.settles:
                self.world.settle(self, effect.actual)
                self.held = False
        self.send(None)

    def stopped(self, reply: Refused | Left) -> None:
        self.refused = reply
        self.send(reply)

    # --- the store

    def lookup(self, effect: Lookup) -> Entry | None:
        world, front = self.world, self.process.front
        self.looked, self.missed = world.now, False
        self.patient = world.now - self.lead_since >= self.wait
        known = front.get(effect.key)
        fresh = effect.fresh and world.mutation != "memory is trusted"
        if known is not None and not fresh and self.remembered(known.entry):
            return known.entry
        self.missed = world.chance("miss")
        found = None if self.missed else world.disk(effect.key, self.process)
        if found is not None:
            front[effect.key] = found
        elif effect.fresh:
            found = known
        return None if found is None else found.entry

    def remembered(self, entry: Entry) -> bool:
        return entry.life is None or self.request.now.wall < entry.at + entry.life

    def keep(self, effect: Keep) -> None:
        world, entry = self.world, effect.entry
        world.check_entry(effect.key, entry)
        if entry.epoch != self.request.epoch:
            raise Broken(f"{self.id} stores an answer of {self.request.epoch} as one of {entry.epoch}")
        if entry.failed:
            check_kept_failure(self, world.truth(effect.key, self.process))
        late = world.now + 5.0 if world.chance("late") else 0.0
        written = Written(entry, self.process.number, world.now, late, world.now < self.until)
        if world.chance("damage"):
            damaged = world.random.random() < 0.5
            written = replace(written, damaged=damaged, alien=not damaged)
            if written.alien and not entry.failed:
                written = replace(written, entry=replace(entry, payload=b"?"))
        meaning.admit(self, effect)
        self.process.front[effect.key] = replace(written, damaged=False)
        if not world.chance("lose"):
            world.store[effect.key] = written

    # --- flight and claim

    def join(self, effect: Join) -> None:
        world = self.world
        if not self.waiting:
            epoch = "" if world.mutation == "flights without epoch" else self.request.epoch
            before = self.waited
            joined = self.process.flights.join(effect.key, epoch, self, self, patience=self.wait)
            if isinstance(joined, Lead):
                self.leads(before)
            elif isinstance(joined, Flight) and effect.wait:
                self.waiting = True
                self.tail = Tail(joined, lambda: 0.0) if world.stream else None
                world.seen.add("followed")
                return
            self.send(Lost(alone=True) if isinstance(joined, Flight) else joined)
            return
        if world.chance("cancel"):
            self.stop_waiting(Left(Gone()))
        elif self.tail is None:
            self.stop_waiting(cast(Flight, self.waited).result())
        else:
            for _ in self.tail._ready():
                pass
            if self.tail._over():
                self.stop_waiting(self.tail.result)

    def leads(self, before: Flight | None) -> None:
        """Nobody of this process leads already, and of those that waited for one flight one leads after it."""
        world, mine = self.world, cast(Flight, self.flight)
        under = world.current.get((self.process, self.flown))
        if under is not None and under.landed is None and not self.late(under):
            raise Broken(f"{self.id} leads beside another")
        world.current[self.process, self.flown] = mine
        if before is not None:
            after = world.led_after.get(before)
            if after is not None and (after.landed is not None or not self.late(after)):
                raise Broken(f"{self.id} leads, though another that waited for the same flight did already")
            world.led_after[before] = mine
        world.touched[mine] = self.lead_since = world.now

    def stop_waiting(self, reply: Landed | Whole | Lost | Left | None) -> None:
        flight = cast(Flight, self.waited)
        self.waiting, self.tail, self.was_whole = False, None, isinstance(reply, Whole)
        if flight.landed is None and not isinstance(reply, Left):
            stalled = flight.held_for() >= PATIENCE or (isinstance(reply, Lost) and reply.alone)
            if not stalled and not self.late(flight):
                raise Broken(f"{self.id} gives up waiting before its time")
        told = isinstance(reply, Lost) and not reply.alone
        self.met += told and flight.landed is not None and flight in self.world.raised
        self.stopped(reply) if isinstance(reply, Left) else self.send(reply)

    def claim(self, effect: Claim) -> Claimed | Taken:
        world = self.world
        holder = world.claims.get(self.flown, self)
        if world.mutation != "claims ignored" and holder is not self:
            if holder.process.alive and world.now < holder.turn:
                world.seen.add("waited for a process")
                return Taken(min(holder.turn, world.now + effect.patience))
            world.seen.add("took over")
        world.claims[self.flown], self.claimed = self, True
        self.until = world.now + effect.patience
        self.turn = math.inf if world.chance("blind") else self.until
        return Claimed()

    def land(self, effect: Land) -> None:
        epoch = "" if self.world.mutation == "flights without epoch" else self.request.epoch
        self.process.flights.land(effect, epoch, self)
        self.turn = -math.inf
        if self.world.claims.get(self.flown) is self:
            del self.world.claims[self.flown]

    # --- money

    def reserve(self) -> None:
        world = self.world
        reply = world.hold(self)
        self.held = isinstance(reply, Held)
        if world.chance("cancel"):
            if world.mutation != "a cancelled hold is kept":
                self.release(0)
            self.stopped(Left(Gone()))
        elif isinstance(reply, Refused):
            self.stopped(reply)
        else:
            self.send(reply)

    def release(self, actual: int | None) -> None:
        if self.held:
            self.held = False
            self.world.settle(self, actual)

    def owes(self) -> int:
        """What this call has cost its budget, once it is over."""
        if self.held or (self.left and self.result is not None):
            return HOLD  # its process died with it, or its row was never written
        return HOLD if self.cost is None else self.cost

    # --- the call itself

    def refresh(self) -> None:
        world, process = self.world, self.process
        again = replace(
            self.request, id=f"r{len(world.callers)}", started=world.now, now=world.moment(), role="refresh"
        )
        session = SimpleNamespace(request=again, fruitless=False)
        if process.refreshes._begins(cast(Any, session)) or world.mutation == "every stale hit refreshes":
            if world.now < world.rest.get((process, self.key), -math.inf):
                raise Broken(f"{self.key} is refreshed again though its last refresh has just failed")
            world.seen.add("refreshed")
            world.callers.append(Caller(world, process, again))

    def call(self) -> None:
        """The upstream: begins, streams its chunks, and ends in one of the ways that calls end."""
        world = self.world
        if not self.calling:
            check_spending(self)
            self.begin()
            return
        flight = self.flight
        if world.chance("cancel"):
            self.ended(Abandoned(Gone(), self.own(), Cost(), self.latency()))
        elif world.chance("fail"):
            error = type(f"Failure{self.serial}", (ConnectionError,), {})(self.key)
            self.ended(Raised(error, self.own(), Cost(), self.latency()))
        elif world.stream and self.emitted < len(self.chunks):
            if flight is not None:
                flight.emit(self.chunks[self.emitted])
                flight.held = None if self.emitted + 1 == len(self.chunks) else flight.held
                world.touched[flight] = world.now
            self.emitted += 1
            self.wakes = world.now + (PATIENCE + 1 if world.chance("stall") else 0.01)
        else:
            value = (
                list(self.chunks) if world.stream else self.chunks[0] if self.odd else "".join(self.chunks)
            )
            own, lossy = self.own("length" if self.cut else "stop"), self.lossy()
            self.ended(Returned(value, own, Cost(), self.latency(), lossy=lossy))

    def begin(self) -> None:
        world, dice = self.world, self.world.random
        self.calling, self.serial = True, len(world.answers)
        world.answers[self.serial] = Answer(self, self.request.now, math.inf)
        self.odd, self.cut = world.chance("odd"), world.chance("cut")
        text = f"{self.key}|{self.request.epoch}|{self.serial}|" + ("" if self.cut else ".")
        self.chunks: list[Any] = [text[:2], text[2:], ""]
        if self.odd:
            self.chunks[dice.choice([0, 2]) if world.stream else 0] = object()
        self.wakes = world.now + (self.wait * 3 if world.chance("hang") else dice.random())

    def own(self, finish: str | None = None) -> tuple[Attempt, ...]:
        dice = self.world.random
        self.cost = None if dice.random() < 0.1 else dice.randrange(HOLD + 1)
        return (Attempt("reference", "m", "p", Usage(in_fresh=1), self.cost, finish=finish, at=0.0),)

    def lossy(self) -> bool:
        world = self.world
        lossy = world.meant and world.meanings.random() < 0.1
        world.lossy.update({self.serial} if lossy else ())
        return lossy

    def latency(self) -> float:
        return self.world.now - self.request.started

    def ended(self, result: Returned | Raised | Abandoned) -> None:
        world, self.result = self.world, result
        world.answers[self.serial] = replace(world.answers[self.serial], over=world.now)
        self.send(result)

    def spends(self) -> bool:
        return self.calling and not self.over() and isinstance(self.effect, Call)

    # --- the end

    def leave(self) -> None:
        """The driver is broken off at this effect: a call under way is told, else it does what ``abort`` does."""
        if self.calling and isinstance(self.effect, Call):
            self.ended(Abandoned(Gone(), self.own(), Cost(), self.latency()))
            return
        self.flow.close()
        self.left = True
        if self.flight is not None or self.world.claims.get(self.flown) is self:
            self.land(Land(self.key, None, None, gone=True))
        if self.world.mutation != "an abandoned hold is kept":
            free = self.result is None or self.world.mutation == "an abandoned call is free"
            self.release(0 if free else None)
        self.finish()

    def finish(self) -> None:
        self.waiting = False
        if self.flight is not None or self.world.claims.get(self.flown) is self:
            raise Broken(f"{self.id} ended, and its flight or its claim did not")
        if self.request.role == "refresh":
            failed = (
                self.left or isinstance(self.result, Raised) or (self.done and self.done.error) is not None
            )
            session = SimpleNamespace(request=self.request, fruitless=False)
            self.process.refreshes._ended(cast(Any, session), cast(Any, session), failed)
            if failed:
                self.world.rest[self.process, self.key] = self.world.now + REST
