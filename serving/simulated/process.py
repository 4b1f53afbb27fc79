"""What a server of one process needs of its system: an end with its parent, and enough open files."""

from __future__ import annotations

import asyncio
import os
import resource
import stat
from collections.abc import Callable

__all__ = ["raise_file_limit", "watch_parent"]

PARENT_CHECK_S = 0.5


def watch_parent(loop: asyncio.AbstractEventLoop, end: Callable[[], object]) -> None:
    """Call `end` when the parent process goes, or when standard input, if it is a pipe or socket, closes."""
    parent = os.getppid()

    def check() -> None:
        if os.getppid() != parent:
            end()
        else:
            loop.call_later(PARENT_CHECK_S, check)

    def drain() -> None:
        if not os.read(0, 4096):
            loop.remove_reader(0)
            end()

    check()
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        loop.add_reader(0, drain)


def raise_file_limit() -> None:
    """Allow as many open connections as the system grants, up to 65,536."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
