"""Who makes a cold call, in every order of the steps of a claim: one at a time, whoever is killed."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from costkit import lease
from costkit.lease import Lease, Leases
from tests.leases import KEY, OTHER, Clock

pytestmark = pytest.mark.skipif(not hasattr(fcntl, "F_OFD_SETLK"), reason="locks of open files are Linux's")


class Killed(BaseException):
    """The process of this actor dies here."""


class Actors:
    """Processes as threads of which one runs at a time, until its next system call; a seed says which, who dies and
    who hangs. Their locks are real: every actor has a file of its own open."""

    def __init__(self, module: Any, folder: Path, seed: int) -> None:
        self.module, self.folder, self.rng, self.clock = module, folder, random.Random(seed), Clock()
        self.baton = threading.Condition()
        self.running: int | None = None
        self.left: set[int] = set()
        self.held: list[tuple[str, Lease]] = []
        self.asking: list[str] = []
        self.changes = 0
        self.wrong: list[str] = []
        self.leads = 0
        self.shared = self.rng.random() < 0.3
        self.keys = [KEY, "1" * 28 + KEY[28:] if self.shared else OTHER]

    def run(self, many: int) -> None:
        threads = [
            threading.Thread(target=self._act, args=(me,), name=str(me), daemon=True) for me in range(many)
        ]
        self.left = set(range(many))
        for thread in threads:
            thread.start()
        staying = self.rng.choice([0.0, 0.7, 0.9])
        chosen = 0
        for _ in range(20_000):
            with self.baton:
                if not self.left:
                    break
                if chosen not in self.left or self.rng.random() >= staying:
                    chosen = self.rng.choice(sorted(self.left))
                self.running = chosen
                self.baton.notify_all()
                assert self.baton.wait_for(lambda: self.running is None, 10.0)
            self.clock.now += self.rng.choice([0.0, 0.0, 0.01, 0.3])
        for thread in threads:
            thread.join(10.0)

    def step(self) -> None:
        """Called before and after every system call of an actor: let another one run."""
        me = int(threading.current_thread().name)
        with self.baton:
            self.running = None
            self.baton.notify_all()
            assert self.baton.wait_for(lambda: self.running == me, 10.0)
        if self.rng.random() < 0.004:
            raise Killed

    def _act(self, me: int) -> None:
        leases = self.module.Leases(self.folder, clock=self.clock)
        with self.baton:
            self.baton.wait_for(lambda: self.running == me, 10.0)
        try:
            for _ in range(4):
                self._call(leases, self.rng.choice(self.keys))
        except Killed:
            # Its locks go, and no word of its clean-up reaches the file.
            if leases._descriptor is not None:
                nowhere = os.open(os.devnull, os.O_RDWR)
                os.dup2(nowhere, leases._descriptor)
                os.close(nowhere)
        finally:
            self.held = [(key, mine) for key, mine in self.held if mine._leases is not leases]
            self.changes += 1
            leases.close()
            with self.baton:
                self.left.discard(me)
                self.running = None
                self.baton.notify_all()

    def _call(self, leases: Leases, key: str) -> None:
        free = key not in self.asking and self._rivals(key) == []
        # Two keys with one record: who hangs may have been overwritten, and is not taken over from then.
        free = free and not (self.shared and self.held)
        got = self._asks(leases, key, free)
        if isinstance(got, self.module.Taken):
            if got.deadline > self.clock.now + 1.0:
                self.wrong.append("told to wait longer than its patience")
            self.step()
            return
        if self._rivals(key) and got.deadline > self.clock.now:
            self.wrong.append("two whose turn it is")
        if not got.held:
            self.wrong.append("trouble")
        self.leads += 1
        self.held.append((key, got))
        for _ in range(self.rng.choice([1, 5, 80])):
            self.step()
        self.held = [(other, mine) for other, mine in self.held if mine is not got]
        self.asking.append(key)
        try:
            got.release()
        finally:
            self.asking.remove(key)
            self.changes += 1

    def _asks(self, leases: Leases, key: str, free: bool) -> Any:
        self.changes += 1
        self.asking.append(key)
        changes = self.changes
        try:
            got = leases.claim(key, 1.0)
        finally:
            self.asking.remove(key)
        if free and self.changes == changes and isinstance(got, self.module.Taken):
            self.wrong.append("taken by nobody whose turn it is")
        self.changes += 1
        return got

    def _rivals(self, key: str) -> list[Lease]:
        return [mine for other, mine in self.held if other == key and mine.deadline > self.clock.now]


@contextmanager
def stepping(actors: Actors, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every lock, read and write is a step of its own."""

    def around(call: Callable[..., object]) -> Callable[..., object]:
        def stepped(*arguments: object) -> object:
            if not threading.current_thread().name.isdecimal():
                return call(*arguments)
            actors.step()
            told = call(*arguments)
            actors.step()
            return told

        return stepped

    with monkeypatch.context() as patch:
        patch.setattr(actors.module, "_set", around(actors.module._set))
        patch.setattr(os, "pread", around(os.pread))
        patch.setattr(os, "pwrite", around(os.pwrite))
        yield


def interleave(module: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], int]:
    """What went wrong in 150 orders, with the seed of the first that did; and how many calls led."""
    leads = 0
    for seed in range(150):
        place = folder / str(seed)
        place.mkdir()
        actors = Actors(module, place, seed)
        with stepping(actors, monkeypatch):
            actors.run(5)
        after = module.Leases(place, clock=actors.clock)
        if actors.left or any(not hasattr(after.claim(key, 1.0), "release") for key in actors.keys):
            actors.wrong.append("not free at the end")
        if actors.wrong:
            return [f"seed {seed}", *actors.wrong], leads
        leads += actors.leads
    return [], leads


def test_any_order_of_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five actors in 150 seeded orders of their system calls, dying and hanging: never two whose turn it is, nobody
    kept out by nobody, and at the end every key is free."""
    wrong, leads = interleave(lease, tmp_path, monkeypatch)
    assert wrong == [] and leads > 500


MUTATIONS = {
    "later turns freed before the record is written": (
        "        os.pwrite(file, self._record(tag, deadline, turn), _place(tag))\n"
        "        _unlock(file, tag, turn + 1, _TURNS)\n",
        "        _unlock(file, tag, turn + 1, _TURNS)\n"
        "        os.pwrite(file, self._record(tag, deadline, turn), _place(tag))\n",
    ),
    "no second look at the record": ("if self._read(file, tag) == found:", "if True:"),
    "no waiting for the deadline": ("over = self._clock() >= found.until", "over = True"),
    "only the turn's own byte locked": ("_row(tag) + turn, _TURNS - turn)", "_row(tag) + turn, 1)"),
    "the loser of a race keeps its locks": ("_unlock(file, tag, turn, _TURNS)  #", "pass  #"),
    "released in memory only": (
        "_unlock(self._descriptor, lease._tag, lease._turn, lease._turn + 1)",
        "pass",
    ),
    "nobody takes over": ("(found.turn, found.turn + 1) if over else", "(found.turn,) if over else"),
}


@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS.keys())
def test_the_orders_show_mistakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mutation: tuple[str, str]
) -> None:
    """A claim with one planted mistake is caught within the same 150 orders."""
    right = Path(lease.__file__).read_text()
    assert right.count(mutation[0]) == 1
    (tmp_path / "lease_mutant.py").write_text(right.replace(*mutation))
    spec = importlib.util.spec_from_file_location("lease_mutant", tmp_path / "lease_mutant.py")
    assert spec is not None and spec.loader is not None
    mutant = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "lease_mutant", mutant)
    spec.loader.exec_module(mutant)
    wrong, _ = interleave(mutant, tmp_path, monkeypatch)
    assert wrong
