"""Many flows at once under a seeded scheduler that interleaves them: no I/O, a virtual clock."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from costkit.call import Cost
from costkit.effects import (
    Abandoned,
    Call,
    Claim,
    Claimed,
    Done,
    Effect,
    Join,
    Keep,
    Land,
    Lead,
    Left,
    Lookup,
    Raised,
)
from costkit.exact import exact
from costkit.flight import Flight, Flights
from costkit.flow import flow
from costkit.store import Entry
from tests.flows import REQUEST, Clock, returned, spent


@dataclass
class World:
    """A store, flights and an upstream with faults; every choice comes from one seed."""

    seed: int
    fail: float = 0.0
    cancel: float = 0.0
    lose: float = 0.0
    refuse: float = 0.0
    store: dict[str, Entry] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    flights: Flights = field(default_factory=Flights)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.clock = Clock()

    def chance(self, share: float) -> bool:
        return self.random.random() < share


@dataclass
class Flyer:
    """One call in the world; ``step`` moves it by one effect, or says that it must wait."""

    world: World
    number: int
    key: str
    flight: Flight | None = None
    waited: Flight | None = None
    done: Done | None = None
    led: int = 0
    landed: int = 0
    writes: int = 0
    waiting: bool = False
    calling: bool = False

    def __post_init__(self) -> None:
        request = replace(REQUEST, id=f"q{self.number}", key=self.key, exact=exact())
        self.flow = flow(request, self.world.clock)
        self.effect: Effect = next(self.flow)

    def inside(self, key: str) -> bool:
        return False

    @property
    def blocked(self) -> bool:
        return self.waiting and self.waited is not None and self.waited.landed is None

    def send(self, reply: Any) -> None:
        try:
            self.effect = self.flow.send(reply)
        except StopIteration as stop:
            self.done = stop.value

    def step(self) -> None:
        world, effect = self.world, self.effect
        world.clock.now += 0.001
        if isinstance(effect, Lookup):
            self.send(None if world.chance(world.lose) else world.store.get(effect.key))
        elif isinstance(effect, Join):
            self.join(effect)
        elif isinstance(effect, Call):
            self.call()
        elif isinstance(effect, Keep):
            if not world.chance(world.lose):
                world.store[effect.key] = effect.entry
            self.send(None)
        elif isinstance(effect, Land):
            self.landed += 1
            world.flights.land(effect, "", self)
            self.send(None)
        elif isinstance(effect, Claim):
            self.send(Claimed())
        else:
            self.writes += 1
            self.send(None)

    def join(self, effect: Join) -> None:
        if not self.waiting:
            joined = self.world.flights.join(effect.key, "", self, self.number)
            if not isinstance(joined, Flight):
                self.led += isinstance(joined, Lead)
                self.send(joined)
                return
            self.waiting = True
        if self.world.chance(self.world.cancel):
            self.waiting = False
            self.send(Left(KeyboardInterrupt()))
        elif not self.blocked and self.waited is not None:
            self.waiting = False
            self.send(self.waited.result())

    def call(self) -> None:
        world = self.world
        if not self.calling:  # the call takes at least one more step, so that others come in between
            self.calling = True
            world.calls[self.key] = world.calls.get(self.key, 0) + 1
            return
        if world.chance(world.cancel):
            self.send(Abandoned(KeyboardInterrupt(), spent(), Cost(), 0.1))
        elif world.chance(world.fail):
            self.send(Raised(ConnectionError(self.key), spent(), Cost(), 0.1))
        else:
            value: Any = object() if world.chance(world.refuse) else f"answer to {self.key}"
            self.send(returned(value))


def settle(world: World, flyers: list[Flyer], gather: bool = False) -> None:
    """Run all flows to their end in random order; with ``gather``, no call ends before everybody waits for
    it."""
    if gather:
        for flyer in flyers:
            for _ in range(10):
                if flyer.done is None and not (flyer.calling or flyer.waiting):
                    flyer.step()
    for _ in range(400 * len(flyers)):
        ready = [f for f in flyers if f.done is None and (not f.blocked or world.cancel)]
        if not ready:
            break
        world.random.choice(ready).step()
    assert all(f.done is not None for f in flyers), "a flow is stuck"


def check(world: World, flyers: list[Flyer]) -> None:
    """What must hold whatever happened."""
    assert len(world.flights) == 0
    for flyer in flyers:
        assert flyer.done is not None and flyer.flight is None and flyer.writes == 1
        assert flyer.landed == flyer.led <= 1
        if flyer.done.error is None and isinstance(flyer.done.value, str):
            assert flyer.done.value == f"answer to {flyer.key}"


@pytest.mark.parametrize("seed", range(60))
def test_one_call_per_cold_key_when_nothing_fails(seed: int) -> None:
    """However 60 calls of 5 keys interleave, each key is called once and everybody gets its answer."""
    world = World(seed)
    flyers = [Flyer(world, i, f"k{i % 5}") for i in range(60)]
    settle(world, flyers)
    check(world, flyers)
    assert world.calls == {f"k{i}": 1 for i in range(5)}
    assert all(f.done is not None and f.done.error is None for f in flyers)
    savings = [f.done.saving for f in flyers if f.done is not None]
    assert savings.count(None) == 5


@pytest.mark.parametrize("seed", range(60))
def test_a_failing_upstream_is_called_three_times_at_most(seed: int) -> None:
    """With 40 waiters on one key whose upstream always fails, at most three calls are made, and all get the
    error."""
    world = World(seed, fail=1.0)
    flyers = [Flyer(world, i, "k") for i in range(40)]
    settle(world, flyers, gather=True)
    check(world, flyers)
    assert 2 <= world.calls["k"] <= 3
    assert all(f.done is not None and isinstance(f.done.error, ConnectionError) for f in flyers)


@pytest.mark.parametrize("seed", range(200))
def test_nothing_is_held_under_faults(seed: int) -> None:
    """With failures, cancellations, a losing store and unstorable answers mixed at random, every flow ends,
    every lead lands once, every call has its row, and no answer reaches another key."""
    mix = random.Random(seed)
    world = World(
        seed,
        fail=mix.choice([0, 0.3, 0.9]),
        cancel=mix.choice([0, 0.02, 0.3]),
        lose=mix.choice([0, 0.3, 1.0]),
        refuse=mix.choice([0, 0.3]),
    )
    flyers = [Flyer(world, i, f"k{mix.randrange(4)}") for i in range(mix.randrange(2, 50))]
    settle(world, flyers, gather=mix.random() < 0.5)
    check(world, flyers)
