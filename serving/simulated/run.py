"""Start the simulated server in a process of its own, for as long as a `with` block lasts."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[str]:
    """Yield the base URL of a server on a free port, started with these command-line arguments.

    Raises:
        ChildProcessError: it did not start; its own message stands on stderr.
    """
    command = [sys.executable, "-m", "serving.simulated", "--port", "0", "--die-with-parent", *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise ChildProcessError("the simulated server did not start; its message stands above")
            yield json.loads(line)["base_url"]
        finally:
            process.terminate()
