"""Process groups on Linux, read from /proc: who is in one, and ending all of it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

LEADER_PATIENCE_S = 15.0  # vLLM's own shutdown takes about 2 s; a busy machine is slower
GROUP_PATIENCE_S = 5.0


def started_at(pid: int) -> int | None:
    """Start time of ``pid`` in clock ticks since boot: tells it from a later process with its number."""
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def members(group: int) -> tuple[int, ...]:
    """Live processes (zombies left out) of the process group or session ``group``.

    >>> os.getpid() in members(os.getpgid(0))
    True
    """
    return tuple(
        pid
        for pid, (state, _parent, pgrp, session, *_rest) in _all_processes()
        if state != "Z" and str(group) in (pgrp, session)
    )


def end_group(group: int, leader_patience: float = LEADER_PATIENCE_S) -> tuple[int, ...]:
    """End every process of ``group``: ask the leader, then all of them, then kill. Returns who is left.

    The leader is asked first because vLLM's API server ends its own workers tidily. ``leader_patience`` is
    in seconds; at most that and 2 x 5 more pass.
    """
    if group == os.getpgid(0):
        raise ValueError(f"{group} is this process's own group")
    if group in members(group):
        _signal((group,), signal.SIGTERM)
        if _wait_empty(group, leader_patience):
            return ()
    _signal(members(group), signal.SIGTERM)
    if _wait_empty(group, GROUP_PATIENCE_S):
        return ()
    _signal(members(group), signal.SIGKILL)
    _wait_empty(group, GROUP_PATIENCE_S)
    return members(group)


def end_rest(leader: int) -> None:
    """End every process of the group or session ``leader`` but the leader itself, by force after 5 seconds."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        _signal(_rest(leader), number)
        if _wait_empty(leader, GROUP_PATIENCE_S, spared=1):
            return


def _rest(leader: int) -> tuple[int, ...]:
    return tuple(pid for pid in members(leader) if pid != leader)


def _signal(pids: tuple[int, ...], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _wait_empty(group: int, seconds: float, spared: int = 0) -> bool:
    deadline = time.monotonic() + seconds
    while len(members(group)) > spared:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _all_processes() -> Iterator[tuple[int, list[str]]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            yield int(entry.name), fields


def _stat(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    # The command, in brackets, may itself hold brackets and spaces: fields start after the last bracket.
    return text.rpartition(")")[2].split()
