"""What the tests of whole load runs share: a real locust in a process of its own, and what it leaves."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.sample import Sample, read_samples

ROOT = Path(__file__).parents[2]


@dataclass
class Run:
    """A locust that was started; everything it leaves lies in ``folder``."""

    process: subprocess.Popen[str]
    folder: Path
    out: str = ""
    err: str = ""

    def wait(self, seconds: float = 30) -> int:
        """Its exit code."""
        if not self.out:
            self.out, self.err = self.process.communicate(timeout=seconds)
        return self.process.returncode

    def interrupt(self) -> None:
        """Ctrl-C: every process of the group gets it."""
        os.killpg(self.process.pid, signal.SIGINT)

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.communicate()

    @property
    def told(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads((self.folder / "run" / "run.json").read_text())
        return told

    @property
    def samples(self) -> list[Sample]:
        return list(read_samples(self.folder / "run" / "requests.jsonl"))


def start(folder: Path, file: str, *arguments: str, headless: bool = True, **environ: str) -> Run:
    """Start locust on one of the locust files, in a group of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    if "--processes" in arguments:
        # Each master has a port of its own: locust's default one can be had but once.
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        arguments = (*arguments, "--master-bind-port", port, "--master-port", port)
    command = [
        sys.executable,
        "-m",
        "locust",
        "-f",
        f"loadtests/{file}.py",
        "--out",
        str(folder),
        "--run-name",
        "run",
    ]
    command += ["--headless"] if headless else []
    clean = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    process = subprocess.Popen(
        [*command, *arguments], cwd=ROOT, env={**clean, **environ}, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    return Run(process, folder)
