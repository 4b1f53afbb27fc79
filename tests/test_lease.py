"""Who makes a cold call: one at a time, whoever hangs, is interrupted or damages the file."""

from __future__ import annotations

import fcntl
import gc
import os
import random
import resource
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from costkit import lease
from costkit.lease import Lease, Leases, Taken
from tests import leases
from tests.lease_worker import target
from tests.leases import KEY, OTHER, Clock, held

clock = leases.clock

pytestmark = pytest.mark.skipif(not hasattr(fcntl, "F_OFD_SETLK"), reason="locks of open files are Linux's")


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
