"""Who makes a cold call, across real processes: one at a time, whoever dies, stops or forks."""

from __future__ import annotations

import fcntl
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from costkit.lease import Lease, Leases, Taken
from tests.leases import KEY, OTHER, held

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(not hasattr(fcntl, "F_OFD_SETLK"), reason="locks of open files are Linux's")


class Worker:
    """A process of `lease_worker.py`."""

    def __init__(self, folder: Path, *settings: str) -> None:
        command = [sys.executable, "-m", "tests.lease_worker", str(folder), *settings]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )

    def tell(self, *words: object) -> None:
        assert self.process.stdin is not None
        print(*words, file=self.process.stdin, flush=True)

    def hear(self) -> list[str]:
        assert self.process.stdout is not None
        return self.process.stdout.readline().split()

    def ask(self, *words: object) -> list[str]:
        self.tell(*words)
        return self.hear()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@contextmanager
def workers(folder: Path, many: int, *settings: str) -> Iterator[list[Worker]]:
    started = [Worker(folder, *settings) for _ in range(many)]
    try:
        yield started
    finally:
        for worker in started:
            worker.kill()


@pytest.mark.parametrize(
    ("setting", "broken"), [("as is", False), ("portable", False), ("unlocked", True)], ids=str
)
def test_one_holder_ever(tmp_path: Path, setting: str, broken: bool) -> None:
    """Eight processes that all want the same 200 keys each have every key, one at a time (and without locks do not)."""
    (tmp_path / "witnesses").mkdir()
    keys = ",".join(f"{number:064x}" for number in range(1 << 40, (1 << 40) + 200))
    with workers(tmp_path, 8, setting) as started:
        for worker in started:
            worker.ask("claim", OTHER, 0)  # all of them are up
        for worker in started:
            worker.tell("contend", keys, 2, tmp_path / "witnesses")
        told = [[int(word) for word in worker.hear()] for worker in started]
    holds, taken, both = (sum(column) for column in zip(*told, strict=True))
    assert holds == 8 * 200 * 2 and list((tmp_path / "witnesses").iterdir()) == []
    assert both > 0 if broken else both == 0 < taken


@pytest.mark.parametrize("setting", ["as is", "portable"])
def test_a_killed_holder_is_replaced_at_once(tmp_path: Path, setting: str) -> None:
    """The first to ask after kill -9 has the claim, ten times of ten, and nothing of the dead is left."""
    with workers(tmp_path, 10, setting) as started:
        assert started[0].ask("claim", KEY, 600)[0] == "Lease"
        for dying, next_one in itertools.pairwise(started):
            assert next_one.ask("claim", KEY, 600)[0] == "Taken"
            dying.kill()
            assert next_one.ask("claim", KEY, 600)[0] == "Lease"
    held(Leases(tmp_path).claim(KEY, 60.0))
    assert [path.name for path in tmp_path.iterdir()] == ["leases"]


def test_a_stopped_holder_is_taken_over_from_by_one_of_eight(tmp_path: Path) -> None:
    """SIGSTOP: none leads before the deadline, then exactly one; going on and releasing changes nothing."""
    leases = Leases(tmp_path)
    with workers(tmp_path, 9) as (stopped, *followers):
        for worker in (stopped, *followers):
            worker.ask("claim", OTHER, 0)  # all of them are up
        name, deadline = stopped.ask("claim", KEY, 1.0)
        assert name == "Lease"
        stopped.process.send_signal(signal.SIGSTOP)
        for follower in followers:
            follower.tell("take", KEY, 30.0, float(deadline) + 0.5)
        told = [follower.hear() for follower in followers]
        assert sorted(name for name, _ in told) == ["Lease"] + ["Taken"] * 7
        (winner,) = [follower for follower, (name, _) in zip(followers, told, strict=True) if name == "Lease"]
        (when,) = [float(at) for name, at in told if name == "Lease"]
        assert when >= float(deadline)
        stopped.process.send_signal(signal.SIGCONT)
        assert stopped.ask("release") == ["released"]
        assert isinstance(leases.claim(KEY, 30.0), Taken)
        winner.kill()
        held(leases.claim(KEY, 30.0))


@pytest.mark.parametrize("tidy", [True, False])
def test_a_forked_child_holds_nothing_of_its_dead_parent(tmp_path: Path, tidy: bool) -> None:
    """The child's copy of the file is closed, its release frees nothing, and a killed parent's claim is free at once.

    A child that does not let go keeps the claim alive: what this test would look like if nothing were done.
    """
    leases = Leases(tmp_path)
    with workers(tmp_path, 1) as (parent,):
        assert parent.ask("claim", KEY, 600)[0] == "Lease"
        parent.tell("fork", "tidy" if tidy else "untidy")
        told = dict(parent.hear() for _ in range(2 if tidy else 1))
        child = int(told["forked"])
        try:
            assert told.get("child", "0") == "0"
            assert isinstance(leases.claim(KEY, 60.0), Taken)
            parent.process.kill()
            parent.process.wait()
            assert isinstance(leases.claim(KEY, 60.0), Lease if tidy else Taken)
        finally:
            os.kill(child, signal.SIGKILL)
