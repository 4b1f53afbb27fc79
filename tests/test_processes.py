"""Identical calls in several real processes: one upstream call for each cold key, whoever dies or hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from costkit import Kit

WORKER = """
import asyncio, os, sys, time
from pathlib import Path
from costkit import Kit, exact

folder, kind, wait, upstream = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), sys.argv[4]
kit = Kit(folder / "kit")
settings = exact(ttl="1h", wait=wait, **({"negative": 60} if upstream == "fails" else {}),
                 **({"stale": "1h"} if upstream == "stale" else {}))

def begin(q):
    # One line for every call that is made; a line this short is written whole.
    with open(folder / "calls", "a") as calls:
        calls.write(f"{q} {os.getpid()}\\n")
    if upstream == "fails":
        time.sleep(0.3)
        raise ValueError(q)
    return q.upper()

def end():
    deadline = time.monotonic() + 30
    while upstream in ("waits", "stale") and not (folder / "go").exists() and time.monotonic() < deadline:
        time.sleep(0.005)

if kind == "sync":
    @kit.call(settings, scope=None, name="ask", version="1")
    def ask(q):
        made = begin(q)
        end()
        return made
elif kind == "stream":
    @kit.call(settings, scope=None, name="words", version="1")
    def words(q):
        made = begin(q)
        yield made[:1]
        end()
        yield made[1:]
    ask = lambda q: "".join(words(q))
else:
    @kit.call(settings, scope=None, name="aask", version="1")
    async def aask(q):
        made = begin(q)
        await asyncio.sleep(0)
        end()
        return made
    ask = lambda q: asyncio.run(aask(q))

print("ready", flush=True)
for q in sys.stdin:
    try:
        print(ask(q.strip()), flush=True)
    except Exception as error:
        print(type(error).__name__, flush=True)
kit.close()
"""


class Worker:
    """A process that asks the questions it is sent, and answers on its standard output."""

    def __init__(
        self, folder: Path, kind: str = "sync", *, wait: float = 20.0, upstream: str = "waits"
    ) -> None:
        arguments = [str(folder), kind, str(wait), upstream]
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WORKER), *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.read() == "ready"

    def send(self, *questions: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("".join(q + "\n" for q in questions))
        self.process.stdin.flush()

    def end(self) -> None:
        """Let it close its kit."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(20) == 0

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


class Workers(list[Worker]):
    def add(
        self, number: int, folder: Path, *more: str, wait: float = 20.0, upstream: str = "waits"
    ) -> list[Worker]:
        made = [Worker(folder, *more, wait=wait, upstream=upstream) for _ in range(number)]
        self.extend(made)
        return made


@pytest.fixture
def workers() -> Iterator[Workers]:
    made = Workers()
    yield made
    for worker in made:
        worker.process.kill()
        worker.process.wait(10)
        for pipe in (worker.process.stdin, worker.process.stdout):
            assert pipe is not None
            pipe.close()


def calls(folder: Path) -> list[str]:
    """The questions that reached upstream."""
    path = folder / "calls"
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


def until_called(folder: Path, number: int) -> None:
    end = time.monotonic() + 20
    while len(calls(folder)) < number:
        assert time.monotonic() < end, "the call was not made"
        time.sleep(0.005)


@pytest.mark.parametrize("kind", ["sync", "async", "stream"])
def test_one_upstream_call_for_a_cold_key(tmp_path: Path, workers: Workers, kind: str) -> None:
    """Six processes ask the same five questions at once: five calls are made, and everybody is answered."""
    questions = [f"q{n}" for n in range(5)]
    six = workers.add(6, tmp_path, kind)
    for worker in six:
        worker.send(*questions)
    until_called(tmp_path, 1)
    (tmp_path / "go").touch()
    for worker in six:
        assert [worker.read() for _ in questions] == [q.upper() for q in questions]
        worker.end()
    assert sorted(calls(tmp_path)) == questions
    with Kit(tmp_path / "kit") as kit, kit.ledger() as con:
        saved = dict(con.execute("SELECT saved_by, COUNT(*) FROM queries GROUP BY saved_by").fetchall())
    assert saved.pop(None) == 5 and sum(saved.values()) == 25 and set(saved) <= {"exact", "coalesced"}


def test_a_dead_leader_is_replaced(tmp_path: Path, workers: Workers) -> None:
    """When the process that makes the call is killed, one of those who wait makes it, long before ``wait`` is over."""
    (leader,) = workers.add(1, tmp_path)
    leader.send("q")
    until_called(tmp_path, 1)
    others = workers.add(3, tmp_path)
    for worker in others:
        worker.send("q")
    time.sleep(0.3)
    assert calls(tmp_path) == ["q"]
    begun = time.monotonic()
    leader.process.kill()
    until_called(tmp_path, 2)
    assert time.monotonic() - begun < 5
    (tmp_path / "go").touch()
    assert [worker.read() for worker in others] == ["Q"] * 3 and calls(tmp_path) == ["q", "q"]


def test_nobody_waits_past_the_deadline(tmp_path: Path, workers: Workers) -> None:
    """A leader that is stopped, not dead, is waited for as long as it said, then replaced by one other."""
    (leader,) = workers.add(1, tmp_path, wait=1.0)
    leader.send("q")
    until_called(tmp_path, 1)
    os.kill(leader.process.pid, signal.SIGSTOP)
    try:
        others = workers.add(3, tmp_path, wait=20.0)
        for worker in others:
            worker.send("q")
        until_called(tmp_path, 2)
        (tmp_path / "go").touch()
        assert [worker.read() for worker in others] == ["Q"] * 3
        assert calls(tmp_path) == ["q", "q"], "one other has replaced it, not three"
    finally:
        os.kill(leader.process.pid, signal.SIGCONT)
    assert leader.read() == "Q"


def test_a_failure_is_remembered_for_all(tmp_path: Path, workers: Workers) -> None:
    """With ``negative`` one process's failure is everybody's for that while: one call, not six."""
    six = workers.add(6, tmp_path, upstream="fails")
    for worker in six:
        worker.send("q", "q")
    answers = sorted(worker.read() for worker in six for _ in range(2))
    assert answers == ["RecentFailure"] * 11 + ["ValueError"] and calls(tmp_path) == ["q"]


def test_one_refresh_over_all(tmp_path: Path, workers: Workers) -> None:
    """A stale answer is served by every process at once, while one of them makes the new one."""
    (tmp_path / "go").touch()
    (first,) = workers.add(1, tmp_path, upstream="stale")
    first.send("q")
    assert first.read() == "Q"
    (tmp_path / "go").unlink()
    with Kit(tmp_path / "kit") as kit:
        (key,) = [row[0] for row in kit.ledger().execute("SELECT key FROM queries")]
        entry = kit._store.get("-", key, time.time())
        assert entry is not None
        old = replace(entry, at=entry.at - 3601, life=7200.0, boot="")
        assert kit._store.set("-", key, old)
    six = workers.add(6, tmp_path, upstream="stale")
    for worker in six:
        worker.send("q", "q")
    assert [worker.read() for worker in six for _ in range(2)] == ["Q"] * 12
    until_called(tmp_path, 2)
    time.sleep(0.3)
    assert calls(tmp_path) == ["q", "q"]
    (tmp_path / "go").touch()
