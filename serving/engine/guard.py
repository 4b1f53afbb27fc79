"""Stand between a server and whoever started it: ``python guard.py LAUNCHER PATIENCE COMMAND ...``.

The guard leads the server's session and starts COMMAND in it. It ends all of the session when it is told to (SIGTERM),
when the server's own first process dies, however that happened, and when the process LAUNCHER dies before it has said
"stay" (SIGUSR1): so a launcher that is killed with kill -9 leaves nothing behind. If the guard itself is killed, the
kernel ends the server's first process. PATIENCE is how many seconds the server has for its own shutdown.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

STAY = signal.SIGUSR1
PATIENCE_S = (
    12.0  # for the server's own shutdown; less than process.LEADER_PATIENCE_S, with which the guard is asked
)
_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Run the command until it ends or is no longer wanted; its exit status."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from serving.engine.process import end_rest

    launcher, patience, command = int(arguments[0]), float(arguments[1]), arguments[2:]
    heard = _listen()
    libc = ctypes.CDLL(None)  # loaded here: between fork and exec there is no room for it
    child = subprocess.Popen(
        command,
        preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM),  # noqa: PLW1509 (there are no threads)
        stdin=subprocess.DEVNULL,
    )
    _wait(child, launcher, heard)
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(patience)
        except subprocess.TimeoutExpired:
            child.kill()
    end_rest(os.getpid())
    return child.wait()


def _listen() -> int:
    """A descriptor from which the numbers of arriving signals can be read."""
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, STAY):
        signal.signal(number, lambda *_: None)
    return reading


def _wait(child: subprocess.Popen[bytes], launcher: int, heard: int) -> None:
    """Return when the server has ended or must."""
    poll = select.poll()
    poll.register(heard, select.POLLIN)
    poll.register(os.pidfd_open(child.pid), select.POLLIN)
    try:
        follow = os.pidfd_open(launcher)
    except ProcessLookupError:
        return
    poll.register(follow, select.POLLIN)
    if os.getppid() != launcher:  # it died before the descriptor was open, which may be a later process's
        return
    following = True
    while True:
        ready = {descriptor for descriptor, _ in poll.poll()}
        told = set(os.read(heard, 64)) if heard in ready else set()
        if STAY in told and following:  # asked first: the launcher ends right after it has said so
            poll.unregister(follow)
            ready.discard(follow)
            following = False
        if ready - {heard} or told - {STAY}:
            return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
