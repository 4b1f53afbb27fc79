"""Start the assistant's service in a process of its own, for as long as a `with` block lasts."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Started", "running"]

ROOT = Path(__file__).parents[2]
LAST_ANSWERS_S = 60.0


@dataclass(frozen=True, slots=True)
class Started:
    """A running service: its base URL and its process."""

    base_url: str
    pid: int


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[Started]:
    """Run `python -m serving.assistant.service` with these arguments on a free port; at the end it drains and flushes.

    Raises:
        ChildProcessError: it did not start; its own message stands on stderr.
    """
    command = [sys.executable, "-m", "serving.assistant.service", "--die-with-parent", *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise ChildProcessError("the assistant's service did not start; its message stands above")
            yield Started(json.loads(line)["base_url"], process.pid)
        finally:
            process.terminate()
            try:
                process.wait(LAST_ANSWERS_S)
            except subprocess.TimeoutExpired:
                process.kill()
