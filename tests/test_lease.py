"""Who makes a cold call, across processes: one at a time, whoever dies, hangs, forks or damages the file."""

from __future__ import annotations

import fcntl
import gc
import importlib.util
import itertools
import os
import random
import resource
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from costkit import lease
from costkit.lease import Lease, Leases, Taken
from tests.lease_worker import target

ROOT = Path(__file__).parent.parent
KEY = "0123456789abcdef" * 4
OTHER = "f" * 64

pytestmark = pytest.mark.skipif(not hasattr(fcntl, "F_OFD_SETLK"), reason="locks of open files are Linux's")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def held(got: Lease | Taken) -> Lease:
    assert isinstance(got, Lease) and got.held, got
    return got


def test_one_at_a_time(tmp_path: Path, clock: Clock) -> None:
    """Two kits of one process, and two threads of one kit, exclude each other; what is given back is free."""
    one, two = Leases(tmp_path, clock=clock), Leases(tmp_path, clock=clock)
    mine = held(one.claim(KEY, 60.0))
    assert mine.deadline == 1060.0
    assert one.claim(KEY, 60.0) == two.claim(KEY, 60.0) == Taken(1060.0)
    held(two.claim(OTHER, 60.0))
    mine.release()
    again = held(two.claim(KEY, 60.0))
    mine.release()
    assert one.claim(KEY, 60.0) == Taken(1060.0)
    again.release()
    held(one.claim(KEY, 60.0))
    assert one.troubles == two.troubles == 0


def test_nobody_is_told_to_wait_longer_than_it_would(tmp_path: Path, clock: Clock) -> None:
    """The holder's deadline, or the asker's own patience where that is shorter."""
    one, two = Leases(tmp_path, clock=clock), Leases(tmp_path, clock=clock)
    held(one.claim(KEY, 60.0))
    clock.now += 20
    assert two.claim(KEY, 5.0) == Taken(1025.0)
    assert two.claim(KEY, 600.0) == Taken(1060.0)


def test_released_twice_frees_nobody_elses(tmp_path: Path) -> None:
    """A second release of a lease leaves its successor's alone, in the same kit too."""
    leases = Leases(tmp_path)
    first = held(leases.claim(KEY, 60.0))
    first.release()
    held(leases.claim(KEY, 60.0))
    first.release()
    assert isinstance(leases.claim(KEY, 60.0), Taken) and isinstance(Leases(tmp_path).claim(KEY, 60.0), Taken)


@pytest.mark.parametrize("same", [False, True], ids=["two kits", "one kit"])
def test_a_holder_that_hangs_is_taken_over_from_once(tmp_path: Path, clock: Clock, same: bool) -> None:
    """Not before its deadline, then by one; what the old one gives back is its own, and later turns start afresh."""
    first = Leases(tmp_path, clock=clock)
    others = [first if same else Leases(tmp_path, clock=clock) for _ in range(3)]
    hanging = held(first.claim(KEY, 60.0))
    clock.now += 59.9
    assert {other.claim(KEY, 60.0) for other in others} == {Taken(1060.0)}
    clock.now += 0.1
    winner = held(others[1].claim(KEY, 60.0))
    assert {other.claim(KEY, 60.0) for other in [first, *others]} == {Taken(1120.0)}
    hanging.release()
    assert {other.claim(KEY, 60.0) for other in [first, *others]} == {Taken(1120.0)}
    winner.release()
    assert held(others[2].claim(KEY, 60.0))._turn == 0


def test_the_successor_of_one_that_hangs_may_die_or_hang_too(tmp_path: Path, clock: Clock) -> None:
    """While the first hangs on, a successor that died is replaced at once, and one that hangs at its deadline."""
    first, second, third = (Leases(tmp_path, clock=clock) for _ in range(3))
    held(first.claim(KEY, 60.0))
    clock.now += 60
    held(second.claim(KEY, 60.0))
    second.close()
    replacement = held(third.claim(KEY, 60.0))
    assert replacement._turn == 1
    for hung in range(lease._TURNS - 2):
        clock.now += 59
        assert isinstance(first.claim(KEY, 60.0), Taken)
        clock.now += 1
        assert held(Leases.claim([second, third][hung % 2], KEY, 60.0))._turn == hung + 2
    clock.now += 60
    assert second.claim(KEY, 60.0) == Taken(clock.now + 60), "every turn hangs: all that is left is patience"


@pytest.mark.parametrize(
    "key",
    ["", "../" + KEY, "/etc/passwd", KEY.upper(), KEY[:31], KEY + "\n", KEY[:32] + " ", "g" * 32, "0" * 129],
)
def test_only_digests_are_keys(tmp_path: Path, key: str) -> None:
    """A key that is no hex digest is an error that says what is needed, and no file is made."""
    with pytest.raises(ValueError, match="a hex digest of 32 to 128 characters is needed"):
        Leases(tmp_path).claim(key, 60.0)
    assert list(tmp_path.iterdir()) == []


def open_files(folder: Path) -> int:
    """How many descriptors of this process lead into a folder."""
    return sum(target(descriptor).startswith(f"{folder}/") for descriptor in os.listdir("/proc/self/fd"))


def test_nothing_is_left(tmp_path: Path) -> None:
    """A thousand keys leave one private file of bounded size and no descriptor, whatever the umask."""
    umask = os.umask(0)
    try:
        leases = Leases(tmp_path)
        claims = [held(leases.claim(f"{random.getrandbits(256):064x}", 60.0)) for _ in range(1000)]
    finally:
        os.umask(umask)
    assert open_files(tmp_path) == 1
    while len(claims) > 500:
        claims.pop().release()
    leases.close()
    assert open_files(tmp_path) == 0 and leases._mine == {}
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and file.stat().st_size <= 2 << 20
    held(leases.claim(KEY, 60.0))
    del leases, claims
    gc.collect()
    assert open_files(tmp_path) == 0, "one that is forgotten closes its file too"
    held(Leases(tmp_path).claim(KEY, 60.0))


def planted_link(folder: Path) -> None:
    (folder / "target").write_text("mine")
    (folder / "leases").symlink_to(folder / "target")


HARM: dict[str, Callable[[Path], object]] = {
    "link": planted_link,
    "folder": lambda folder: (folder / "leases").mkdir(),
    "pipe": lambda folder: os.mkfifo(folder / "leases"),
    "no folder": lambda folder: folder.rmdir(),
}


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM.keys())
def test_trouble_costs_no_answer(tmp_path: Path, harm: Callable[[Path], object]) -> None:
    """Without a usable file everybody leads, it is counted, nothing else is touched, and nothing stays open."""
    folder = tmp_path / "kit"
    folder.mkdir()
    harm(folder)
    leases = Leases(folder)
    for _ in range(2):
        got = leases.claim(KEY, 60.0)
        assert isinstance(got, Lease) and not got.held
        got.release()
    assert (leases.troubles, open_files(folder)) == (2, 0)
    assert not (folder / "target").exists() or (folder / "target").read_text() == "mine"


def test_a_full_disk_holds_nothing(tmp_path: Path) -> None:
    """Where the record cannot be written the claim holds nothing, so that nobody waits for it blindly."""
    full, other = Leases(tmp_path), Leases(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        got = full.claim(KEY, 60.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert isinstance(got, Lease) and not got.held and full.troubles == 1
    held(other.claim(KEY, 60.0))
    assert isinstance(full.claim(KEY, 60.0), Taken)


def test_interrupted_claims_hold_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of a claim is passed on, and the key is free."""
    leases, other = Leases(tmp_path), Leases(tmp_path)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:

        def undo(tag: bytes, before: tuple[Lease, ...]) -> None:
            patch.undo()
            Leases._undo(leases, tag, before)

        patch.setattr(lease, "_unlock", interrupt)
        patch.setattr(leases, "_undo", undo)
        with pytest.raises(KeyboardInterrupt):
            leases.claim(KEY, 60.0)
    held(other.claim(KEY, 60.0)).release()
    held(leases.claim(KEY, 60.0))


def test_a_removed_file_is_made_again(tmp_path: Path) -> None:
    """Two kits that both had the file open meet again in the new one."""
    one, two = Leases(tmp_path), Leases(tmp_path)
    stale = held(one.claim(KEY, 60.0))
    held(two.claim(OTHER, 60.0))
    (tmp_path / "leases").unlink()
    held(one.claim(KEY, 60.0))
    stale.release()
    assert isinstance(two.claim(KEY, 60.0), Taken) and one.troubles == two.troubles == 0


@pytest.mark.parametrize("deadline", [float("nan"), float("inf"), -float("inf"), 1e300])
def test_absurd_deadlines_are_not_waited_for(tmp_path: Path, clock: Clock, deadline: float) -> None:
    """Whatever the record says, nobody is told to wait longer than its own patience."""
    one, two = Leases(tmp_path, clock=clock), Leases(tmp_path, clock=clock)
    held(one.claim(KEY, 60.0))
    tag = bytes.fromhex(KEY[:32])
    with open(tmp_path / "leases", "r+b") as file:
        file.seek(lease._place(tag))
        file.write(one._record(tag, deadline, 0))
    got = two.claim(KEY, 30.0)
    assert got == Taken(1030.0) or deadline == -float("inf")


def test_records_of_another_boot_say_nothing(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine's clock is not compared with ours: its holder is waited for, but never taken over from."""
    monkeypatch.setattr(lease, "_boot", lambda: b"another")
    far = Leases(tmp_path, clock=clock)
    monkeypatch.undo()
    theirs = held(far.claim(KEY, 1.0))
    clock.now += 1000
    here = Leases(tmp_path, clock=clock)
    assert here.claim(KEY, 60.0) == Taken(clock.now + 60)
    theirs.release()
    held(here.claim(KEY, 60.0))


@pytest.mark.parametrize("seed", range(20))
def test_damage_never_makes_two_holders(tmp_path: Path, seed: int) -> None:
    """Random bytes, cuts and zeros in the file while a key is held: others wait or give up, none of them leads."""
    rng, one, two = random.Random(seed), Leases(tmp_path), Leases(tmp_path)
    for _ in range(20):
        mine = held(one.claim(KEY, 60.0))
        size = (tmp_path / "leases").stat().st_size
        with open(tmp_path / "leases", "r+b") as file:
            place = rng.choice(
                [rng.randrange(size), lease._place(bytes.fromhex(KEY[:32])) + rng.randrange(32)]
            )
            file.seek(place)
            file.write(rng.choice([rng.randbytes(40), bytes(40), rng.randbytes(1)]))
            if rng.random() < 0.3:
                file.truncate(rng.randrange(size))
        assert isinstance(two.claim(KEY, 60.0), Taken) and two.troubles == 0
        mine.release()


# Real processes


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


# Every order of the steps of a claim


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
