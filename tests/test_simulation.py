"""The simulation of the whole flow: all its seeds hold, any of them can be replayed, and it finds every mistake."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest

from tests.simulation.mutations import MUTATIONS, WORLDS
from tests.simulation.run import run
from tests.simulation.world import Broken, World

SEEDS, EACH = 10_000, 1_000

# Within how many seeds a mistake must be found; those that are not named, within 500.
RARE = {
    "every stale hit refreshes": 4_000, "remembers failures too long": 4_000, "a failed refresh is kept": 2_000,
    "followers take what is too old": 1_000, "trusts the wall clock": 1_000, "followers hear of old failures": 1_000,
    "all lead after one that is overdue": 1_000, "a failure replaces an answer": 1_000,
}  # fmt: skip


@pytest.mark.parametrize("first", range(0, SEEDS, EACH))
def test_every_invariant_holds_at_every_step(first: int) -> None:
    """Whatever goes wrong, no call is made twice, no answer is foreign, half or old, and no money is lost."""
    seen: set[str] = set()
    for seed in range(first, first + EACH):
        seen |= run(seed).seen
    flown = {"followed", "waited for a process", "took over", "refreshed"}
    assert seen == {*flown, "served", "audit", "declined"}, "the seeds are too tame"


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_every_mistake_is_found(mutation: str) -> None:
    """A mistake put into the flow, the flights or the drivers breaks an invariant within so many seeds."""
    for seed in range(RARE.get(mutation, 500)):
        try:
            run(seed, mutation)
        except Broken as broken:
            assert f"--seed {seed} --trace --mutation '{mutation}'" in str(broken)
            return
    pytest.fail(f"{mutation}: not found")


def test_mistakes_are_undone() -> None:
    """After a mutated run the flow is what it was."""
    for mutation in MUTATIONS:
        try:
            run(0, mutation)
        except Broken:
            continue
    assert isinstance(run(0), World)


def traced(seed: int) -> str:
    lines: list[str] = []
    run(seed, trace=lines.append)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def test_a_seed_is_the_same_run_every_time() -> None:
    """A seed gives the same trace, step by step, in this process and in one with other hashes."""
    seeds = range(40)
    here = [traced(seed) for seed in seeds]
    assert here == [traced(seed) for seed in seeds] and len(set(here)) == len(here)
    code = "from tests.test_simulation import traced; print(*[traced(seed) for seed in range(40)])"
    env = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": "."}
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=60)
    assert other.stdout.split() == here, other.stderr


def test_the_message_replays_the_failure() -> None:
    """The command that a broken run names gives that very failure, with its trace, and exits with 1."""
    message = ""
    for seed in range(100):
        try:
            run(seed, WORLDS[0])
        except Broken as broken:
            message = str(broken)
            break
    command = message.split("replay: python -m ")[1].replace("'", "").split(" ", 4)
    seed_text, mutation = command[2], command[4].removeprefix("--mutation ")
    again = subprocess.run(
        [sys.executable, "-m", command[0], "--seed", seed_text, "--trace", "--mutation", mutation],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert again.returncode == 1 and message in again.stderr and "Lookup(" in again.stdout
