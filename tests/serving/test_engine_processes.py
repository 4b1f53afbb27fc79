"""The engine's processes: who is ended, when, and by whom."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from serving.engine import server
from serving.engine.command import choose_port
from serving.engine.layout import EngineError, Layout, private_folder
from serving.engine.process import end_group, members, started_at
from serving.engine.warm import healthy

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="the engine reads /proc")

STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setpgid(0, 0)  # leaves the group, stays in the session, as some workers do
os.write(1, b"up\\n")
time.sleep(60)
"""


def stubborn_pair() -> subprocess.Popen[str]:
    """A process and its child in a session of their own; both ignore SIGTERM."""
    process = subprocess.Popen(
        [sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout
    assert [process.stdout.readline() for _ in range(2)] == ["up\n", "up\n"]
    return process


@needs_linux
def test_a_group_that_ignores_sigterm_is_ended_to_the_last_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leader and child ignore SIGTERM, the child even left the group: both are gone afterwards."""
    monkeypatch.setattr("serving.engine.process.GROUP_PATIENCE_S", 0.3)
    with stubborn_pair() as process:
        assert len(members(process.pid)) == 2
        assert end_group(process.pid, leader_patience=0.3) == ()
        assert process.wait(5) == -signal.SIGKILL


@needs_linux
def test_children_of_a_dead_leader_are_still_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """If the leader was killed and its child lives on, the server counts as alive and can be stopped."""
    monkeypatch.setattr("serving.engine.process.GROUP_PATIENCE_S", 0.3)
    with stubborn_pair() as process:
        running = record(process.pid, tmp_path)
        process.kill()
        process.wait(5)
        assert server.alive(running)
        server.stop(Layout(tmp_path), running)
        assert members(process.pid) == ()


@needs_linux
def test_a_recycled_process_number_is_not_stopped(tmp_path: Path) -> None:
    """A later process with the number of a dead server is not taken for it."""
    with subprocess.Popen(["sleep", "30"], start_new_session=True) as other:
        stale = replace(record(other.pid, tmp_path), started=1)
        assert not server.alive(stale)
        server.stop(Layout(tmp_path), stale)
        assert other.poll() is None
        other.kill()


@needs_linux
def test_a_server_that_dies_at_start_is_reported_with_its_last_error(tmp_path: Path) -> None:
    """When the process ends before it is healthy, the error quotes the log's last error at once."""
    (tmp_path / "log").write_text("starting\nValueError: no such dtype\nbye\n", encoding="utf-8")
    with subprocess.Popen(["true"], start_new_session=True) as child:
        running = record(child.pid, tmp_path)
        child.wait(5)
        begun = time.monotonic()
        with pytest.raises(EngineError, match="ended while starting: ValueError: no such dtype"):
            server.wait_ready(running, 30)
        assert time.monotonic() - begun < 5


def test_a_damaged_note_is_named(tmp_path: Path) -> None:
    """A record that cannot be read is refused by name, not taken for "nothing runs"."""
    (private_folder(tmp_path / ".run") / "8000.json").write_text("{", encoding="utf-8")
    with pytest.raises(EngineError, match=r"8000\.json is damaged"):
        server.running(Layout(tmp_path))


def record(pid: int, folder: Path) -> server.Server:
    """A server's note about process ``pid``."""
    return server.Server(
        pid, started_at(pid) or 0, choose_port(0), "tiny-random", "float32", str(folder / "log"), ""
    )


# --- the guard ------------------------------------------------------------------------------------------

FAMILY = """
import os, sys, time
if os.fork() == 0:
    time.sleep(60)
print(os.getpid(), flush=True)
time.sleep(60)
"""
LAUNCHER = """
import os, subprocess, sys, time
from pathlib import Path
from serving.engine import server
from serving.engine.layout import Layout
line = [sys.executable, "-c", sys.argv[2]]
one = server.launch(
    Layout(Path(sys.argv[1])), line, lambda scratch: dict(os.environ),
    server.Naming("m", "p", "", int(sys.argv[3])), patience=0.3,
)
deadline = time.monotonic() + 10
while len(server.members(one.group)) < 3 and time.monotonic() < deadline:
    time.sleep(0.02)
if sys.argv[4] == "stay":
    server.stay(one)
print(one.group, flush=True)
time.sleep(60 if sys.argv[4] == "wait" else 0)
"""
ROOT = Path(__file__).resolve().parents[2]


def launched(folder: Path, then: str, command: str = FAMILY) -> tuple[subprocess.Popen[str], int]:
    """A launcher in a process of its own and the session of the server that it started, both processes up."""
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(folder), command, str(choose_port(0)), then],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    group = int(process.stdout.readline())
    assert then == "leave" or len(members(group)) == 3, "guard, first process, its child"
    return process, group


def gone(group: int, seconds: float = 10) -> bool:
    """Whether the session empties within ``seconds``."""
    deadline = time.monotonic() + seconds
    while members(group) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not members(group)


@needs_linux
@pytest.mark.parametrize("then", ["wait", "leave"])
def test_a_launcher_killed_with_kill_9_leaves_no_process(tmp_path: Path, then: str) -> None:
    """kill -9 of the launcher, or its end without a word, ends the server and the server's children."""
    process, group = launched(tmp_path, then)
    process.kill()
    process.wait(10)
    assert gone(group)


@needs_linux
def test_a_server_told_to_stay_outlives_its_launcher_and_can_be_stopped(tmp_path: Path) -> None:
    """After `stay` the launcher's end changes nothing, and `stop` from elsewhere ends all of it."""
    process, group = launched(tmp_path, "stay")
    assert process.wait(10) == 0
    time.sleep(0.5)
    assert len(members(group)) == 3
    (found,) = server.running(Layout(tmp_path))
    assert found.group == group
    server.stop(Layout(tmp_path), found)
    assert members(group) == () and server.running(Layout(tmp_path)) == []


@needs_linux
@pytest.mark.parametrize("victim", ["first process", "guard"])
def test_killing_one_of_the_server_ends_the_rest(tmp_path: Path, victim: str) -> None:
    """kill -9 of the server's first process ends its orphans; kill -9 of the guard ends the first process."""
    process, group = launched(tmp_path, "stay")
    process.wait(10)
    first = next(pid for pid in sorted(members(group)) if pid != group)
    os.kill(first if victim == "first process" else group, signal.SIGKILL)
    if victim == "first process":
        assert gone(group)
    else:
        deadline = time.monotonic() + 10
        while first in members(group) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert first not in members(group)
        (found,) = server.running(Layout(tmp_path))
        server.stop(Layout(tmp_path), found)
        assert members(group) == ()


@needs_linux
def test_a_stubborn_server_is_ended_when_its_launcher_dies(tmp_path: Path) -> None:
    """Processes that ignore SIGTERM, one of which left the group, are killed too."""
    process, group = launched(tmp_path, "wait", STUBBORN)
    process.kill()
    process.wait(10)
    assert gone(group, 30)


def test_an_earlier_log_is_kept(tmp_path: Path) -> None:
    """Starting on a port anew keeps the log of the server that was there, under a name of its own."""
    layout = Layout(tmp_path)
    log = private_folder(layout.run) / "8000.log"
    log.write_text("why it died\n", encoding="utf-8")
    one = server.launch(layout, ["true"], lambda scratch: dict(os.environ), server.Naming("m", "p", "", 8000))
    assert gone(one.group)
    assert (layout.run / "8000.log.1").read_text(encoding="utf-8") == "why it died\n"
    assert not healthy(f"http://127.0.0.1:{choose_port(0)}", 1)
