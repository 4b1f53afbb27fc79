"""Runs one seed to its end."""

from __future__ import annotations

import math
from collections.abc import Callable

from costkit.effects import Request

from .caller import Caller
from .mutations import mutated
from .world import DAY, Broken, World, virtual

STEPS = 20_000


def run(seed: int, mutation: str = "", trace: Callable[[str], None] | None = None) -> World:
    """One seed to its end; ``trace`` is told every step.

    Raises:
        Broken: an invariant does not hold; the message says how to replay it.
    """
    world = World(seed, mutation)
    try:
        with virtual(world), mutated(mutation):
            _steps(world, trace)
            world.end()
    except Broken as broken:
        option = f" --mutation '{mutation}'" if mutation else ""
        replay = f"python -m tests.simulation --seed {seed} --trace{option}"
        raise Broken(f"seed {seed}: {broken}; replay: {replay}") from None
    return world


def _steps(world: World, trace: Callable[[str], None] | None) -> None:
    dice, planned = world.random, world.random.randrange(2, 16)
    for _ in range(STEPS):
        ready = [caller for caller in world.callers if caller.ready()]
        if planned and (not ready or dice.random() < 0.3):
            planned -= 1
            _arrive(world)
            ready = [caller for caller in world.callers if caller.ready()]
        if ready:
            caller = dice.choice(ready)
            if trace is not None:
                trace(
                    f"{world.now:10.3f} {caller.process.number} {caller.id:4} {caller.flown} {caller.effect}"
                )
            caller.step()
            _disturb(world, trace)
            world.check()
        elif all(caller.over() for caller in world.callers):
            if not planned:
                return
        else:
            wakes = min(
                (c.wakes for c in world.callers if not c.over() and c.wakes > world.now), default=math.inf
            )
            world.now = min(world.now + 0.5, wakes)
    raise Broken("the calls do not end")


def _arrive(world: World) -> None:
    """One call more."""
    dice = world.random
    tenant, word = dice.choice(world.tenants), dice.choice(world.words)
    if dice.random() < world.gaps:
        world.now += dice.choice([1.0, 4.0, 6.0, 70.0])
    process = dice.choice([process for process in world.processes if process.alive])
    if process.synced != world.bumps:
        process.synced = world.bumps
        process.front.clear()
    number = f"q{len(world.callers)}"
    key = word if world.mutation == "keys without scope" else f"{tenant}/{word}"
    request = Request(
        id=number, parent_id=None, root_id=number, name="ask", version="1", scope=tenant, key=key,
        exact=world.settings, epoch=f"{tenant}={world.epochs[tenant]}", stream=world.stream, started=world.now,
        now=world.moment(), reserves=world.budgeted, meaning=world.meant,
    )  # fmt: skip
    world.callers.append(Caller(world, process, request))


def _disturb(world: World, trace: Callable[[str], None] | None) -> None:
    """What happens beside the calls: processes die and start, epochs are bumped, clocks jump."""
    dice, said = world.random, ""
    living = [process for process in world.processes if process.alive]
    if world.chance("kill"):
        process = dice.choice(living)
        process.alive, said = False, f"process {process.number} dies"
        if len(living) == 1 or dice.random() < 0.5:
            world.start()
    if world.chance("bump"):
        tenant = dice.choice(world.tenants)
        world.epochs[tenant] += 1
        world.bumps += 1
        said = f"{said} {tenant} is bumped"
    if world.chance("jump"):
        world.jumped += dice.choice([dice.uniform(-DAY, DAY), dice.uniform(-5, 5), -6.0, -70.0])
        said = f"{said} the wall clock jumps to {world.moment().wall:.3f}"
    if said and trace is not None:
        trace(f"{world.now:10.3f} {said.strip()}")
