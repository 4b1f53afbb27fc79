"""One index, several processes: each sees the others' rows at once, and a killed one leaves nothing torn."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from costkit.index import Index, Row
from tests.indexes import NOW, SECRET, filled, is_true, key, vectors

ROOT = Path(__file__).parent.parent


def started(folder: Path, who: int, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.index_worker", str(folder), str(who), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def test_rows_of_all_processes_are_found_while_they_write(tmp_path: Path) -> None:
    """Four processes add; whatever one says is committed, a reader here finds by the very next search."""
    workers = {who: started(tmp_path, who, 150) for who in range(4)}
    made = {who: vectors(150, 32, who) for who in workers}
    index, found = Index(tmp_path, secret=SECRET), 0
    for who, worker in workers.items():
        assert worker.stdout is not None
        for line in worker.stdout:
            vector = made[who][int(line)]
            near = index.search("s", "n", vector, now=NOW, k=1)
            assert near.keys == (f"{who}-{int(line)}",)
            found += 1
        assert worker.wait(timeout=30) == 0
    assert found > 550 and not any(index.troubles.values())


def test_a_killed_writer_leaves_no_torn_row(tmp_path: Path) -> None:
    """Writers killed at random moments: every row that was acknowledged is found, and no row that is not whole."""
    rng, said = random.Random(2), 0
    for who in range(8):
        worker = started(tmp_path, who, 100_000)
        assert worker.stdout is not None
        made = vectors(100_000, 32, who)
        lines = [worker.stdout.readline() for _ in range(rng.randrange(1, 150))]
        os.kill(worker.pid, signal.SIGKILL)
        lines += worker.stdout.readlines()
        worker.wait(timeout=30)
        numbers = [int(line) for line in lines if line.endswith("\n")]
        index = Index(tmp_path, secret=SECRET)
        truth = {f"{who}-{number}": made[number] for number in (*numbers, numbers[-1] + 1)}
        for number in numbers[-50:]:
            assert index.search("s", "n", made[number], now=NOW, k=1).keys == (f"{who}-{number}",)
        assert (
            len(truth) - 1
            <= sum(
                row.key.startswith(f"{who}-") for row in index.search("s", "n", made[0], now=NOW, k=5000).rows
            )
            <= len(truth)
        )
        assert not any(index.troubles.values())
        said += len(numbers)
        index.close()
    assert said > 200


@pytest.mark.parametrize("busy", [False, True])
def test_a_forked_child_goes_on(tmp_path: Path, busy: bool) -> None:
    """Children forked from a process that searches and adds, in other threads too, search and add on their own."""
    index, made = filled(tmp_path, 50)
    assert index.search("s", "n", made[0], now=NOW).rows
    done = threading.Event()

    def work() -> None:
        number = 0
        while not done.is_set():
            number += 1
            index.add("s", "parent", Row(key(number % 50), NOW), made[number % 50])
            index.search("s", "parent", made[number % 50], now=NOW)

    threads = [threading.Thread(target=work) for _ in range(2 if busy else 0)]
    for thread in threads:
        thread.start()
    children = []
    for child in range(6):
        time.sleep(0.02)
        pid = os.fork()
        if not pid:
            signal.alarm(20)
            index.after_fork()
            truth = {key(n): vector for n, vector in enumerate(made)}
            found = index.search("s", "n", made[child], now=NOW)
            fine = is_true(found, made[child], truth) and found.keys[0] == key(child)
            written = any(index.add("s", f"c{child}", Row("mine", NOW), made[child]) for _ in range(5))
            os._exit(0 if fine and written else 1)
        children.append(pid)
    ends = [os.waitpid(pid, 0)[1] for pid in children]
    done.set()
    for thread in threads:
        thread.join()
    assert ends == [0] * 6
    assert all(index.search("s", f"c{child}", made[child], now=NOW).keys == ("mine",) for child in range(6))


def test_a_new_folder_may_be_opened_by_many_at_once(tmp_path: Path) -> None:
    """Eight that make the index's file at the same moment all succeed, each time."""

    def use(folder: Path, who: int) -> None:
        index, (vector,) = Index(folder), vectors(1, seed=who)
        barrier.wait()
        if (
            not index.add("s", "n", Row(key(who), NOW), vector)
            or not index.search("s", "n", vector, now=NOW).rows
        ):
            failed.append(str(index.troubles))

    failed: list[str] = []
    for round_ in range(12):
        barrier = threading.Barrier(8)
        threads = [threading.Thread(target=use, args=(tmp_path / str(round_), who)) for who in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failed == []
