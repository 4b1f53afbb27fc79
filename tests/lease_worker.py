"""A process that claims, told by its standard input what to do; `test_lease.py` kills and stops it."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from pathlib import Path

from costkit import lease
from costkit.lease import Lease, Leases


def obey(leases: Leases) -> None:
    """Do what each line says: claim KEY PATIENCE, release, take KEY PATIENCE UNTIL, fork tidy|untidy, contend
    KEYS ROUNDS WITNESSES."""
    held: Lease | None = None
    for line in sys.stdin:
        command, *words = line.split()
        if command == "claim":
            got = leases.claim(words[0], float(words[1]))
            held = got if isinstance(got, Lease) else held
            say(type(got).__name__, got.deadline)
        elif command == "release" and held is not None:
            held.release()
            say("released")
        elif command == "take":
            say(*take(leases, words[0], float(words[1]), float(words[2])))
        elif command == "fork":
            fork(leases, held, tidy=words[0] == "tidy")
        elif command == "contend":
            say(*contend(leases, words[0].split(","), int(words[1]), Path(words[2])))


def say(*words: object) -> None:
    """A line in one write: a parent and its child share the pipe."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def take(leases: Leases, key: str, patience: float, until: float) -> tuple[str, float]:
    """Ask until the key is ours, or until that moment; when it was."""
    while True:
        got = leases.claim(key, patience)
        if isinstance(got, Lease) or time.monotonic() > until:
            return type(got).__name__, time.monotonic()
        time.sleep(0.005)


def contend(leases: Leases, keys: list[str], rounds: int, witnesses: Path) -> tuple[int, int, int]:
    """Hold every key once a round; how often, how often it was taken, and how often somebody else held it too."""
    seen = Counter[str]()
    for _ in range(rounds):
        waiting = list(keys)
        for _ in range(100_000):
            if not waiting:
                break
            key = waiting.pop(0)
            got = leases.claim(key, 60.0)
            if not isinstance(got, Lease):
                waiting.append(key)
                seen["taken"] += 1
                time.sleep(0.001)
                continue
            seen["held"] += 1
            seen["both"] += not alone(witnesses / key)
            got.release()
    return seen["held"], seen["taken"], seen["both"]


def alone(witness: Path) -> bool:
    """Whether nobody else is here; for as long as the others may need to come."""
    try:
        os.close(os.open(witness, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    time.sleep(0.0002)
    witness.unlink(missing_ok=True)
    return True


def fork(leases: Leases, held: Lease | None, *, tidy: bool) -> None:
    """A child that lives on; tidy, it lets go of what it inherited, as a kit's does."""
    before = {descriptor: target(descriptor) for descriptor in os.listdir("/proc/self/fd")}
    child = os.fork()
    if child:
        say("forked", child)
        return
    if tidy:
        leases.after_fork()
        kept = [d for d, path in before.items() if path.endswith("/leases") and target(d) == path]
        if held is not None:
            held.release()
        say("child", len(kept))
    time.sleep(60.0)
    os._exit(0)


def target(descriptor: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""


if __name__ == "__main__":
    if "unlocked" in sys.argv:
        lease._lock = lambda file, tag, turn: True
    if "portable" in sys.argv:
        import fcntl

        del fcntl.F_OFD_SETLK
    obey(Leases(Path(sys.argv[1])))
