"""The simulated server as a process: its arguments, its port, and everything that ends it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving import simulators
from tests.serving.simulators import FIXED, ROOT, Server, body, exchange, post, refused, serving, statuses

shared_server = simulators.shared_server


@pytest.mark.parametrize(
    "arguments",
    [
        ["--fault", "explode:0.5"],
        ["--fault", "drop:0.7", "stall:1:0.7"],
        ["--slots", "0"],
        ["--tpot-ms", "nan"],
    ],
)
def test_bad_arguments(arguments: list[str]) -> None:
    """Arguments that make no sense are refused with code 2 and no traceback."""
    ended = refused(*arguments)
    assert ended.returncode == 2 and "error:" in ended.stderr and "Traceback" not in ended.stderr


def test_port_in_use(shared_server: Server) -> None:
    """A second server on a taken port says so and ends with code 1."""
    ended = refused("--port", str(shared_server.port))
    assert ended.returncode == 1 and "in use" in ended.stderr and "Traceback" not in ended.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_in_mid_answer(tmp_path: Path, number: signal.Signals) -> None:
    """A signal ends the server with code 0, closes open streams and logs them."""
    with serving(tmp_path, "--output-tokens-mean", "3000", *FIXED) as server:
        with socket.create_connection((server.host, server.port), timeout=10) as connection:
            connection.sendall(post(json.dumps(body(stream=True)).encode()))
            assert connection.recv(100)
            server.process.send_signal(number)
            assert server.process.wait(10) == 0
        assert '"status": 499' in server.log.read_text()


def test_ends_when_standard_input_closes(tmp_path: Path) -> None:
    """With --die-with-parent the server ends when the pipe to its standard input closes."""
    with serving(tmp_path, "--die-with-parent") as server:
        assert statuses(exchange(server, b"GET /health HTTP/1.1\r\nconnection: close\r\n\r\n")) == [200]
        assert server.process.stdin is not None
        server.process.stdin.close()
        server.process.stdin = None
        assert server.process.wait(10) == 0


def test_ends_when_its_parent_is_killed() -> None:
    """With --die-with-parent no process is left when the parent is killed, even without a pipe to it."""
    script = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-m', 'serving.simulated',"
        " '--die-with-parent'], stdin=subprocess.DEVNULL); p.wait()"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert parent.stdout is not None
    child = json.loads(parent.stdout.readline())["pid"]
    try:
        parent.kill()
        parent.wait(10)
        # The child holds the other end of the pipe: its end is the end of the file.
        assert parent.stdout.read() == ""
    finally:
        parent.stdout.close()
        if (
            Path(f"/proc/{child}/cmdline").exists()
            and b"simulated" in Path(f"/proc/{child}/cmdline").read_bytes()
        ):
            os.kill(child, signal.SIGKILL)
            pytest.fail("the server outlived its parent")
