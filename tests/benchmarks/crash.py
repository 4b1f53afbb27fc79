"""Kill -9 at random points: is every call that returned on record, whole and once, and is what is served right?

`python -m tests.benchmarks.crash --rounds 500 --json`: in each round two processes of several threads call a function
that spends, through the public kit, in one folder. Each tells the parent of every call that has returned; the parent
kills both at random points, some while they are still opening the folder. Then every acknowledged call must have its
query and its attempt in the ledger, with the right money, exactly once; no row may be half there; the database must
pass SQLite's integrity check; and what was cached is asked for again: the right answer or a miss.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import selectors
import signal
import sqlite3
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from rich.progress import Progress

import costkit

WRITERS, THREADS = 2, 8
RATES = {"m": costkit.Rates(1, 2)}
COST = 1000 * 1000 + 500 * 2000  # nano-dollars of the usage below at these rates
USAGE = costkit.Usage(in_fresh=1000, out_text=500)
LATE = 60.0  # seconds after which a round that got nothing is given up

Acks = list[tuple[str, str]]


def tenant(question: str) -> str:
    """Whose question it is: one tenant for each thread."""
    return f"t{question.split('.')[2]}"


def wrapped(kit: costkit.Kit, spends: bool) -> Callable[..., Any]:
    """The function that is called, before the crash (it spends) and after it (it does not)."""

    @kit.call(costkit.exact(ttl="1d"), scope="tenant", name="ask", version="1")
    def ask(question: str, *, tenant: str) -> str:
        if spends:
            costkit.record(usage=USAGE, model="m")
            return f"answer to {question}"
        costkit.record(free=True)
        return "asked anew"

    return ask


def write(home: Path, out: int, name: str) -> None:
    """A writer: calls until it is killed, and acknowledges what returned."""
    kit = costkit.Kit(home, prices=RATES)
    ask = wrapped(kit, spends=True)

    def work(thread: int) -> None:
        number = 0
        while True:
            question = f"{name}.{thread}.{number}"
            outcome = ask.outcome(question, tenant=tenant(question))  # type: ignore[attr-defined]
            os.write(out, f"{outcome.query_id} {question}\n".encode())
            number += 1

    for thread in range(THREADS):
        threading.Thread(target=work, args=(thread,), daemon=True).start()
    time.sleep(LATE * 2)


def fork(work: Callable[[], object]) -> int:
    """Run ``work`` in a child that leaves without any clean-up; returns its process id."""
    pid = os.fork()
    if pid:
        return pid
    _child(work)


def _child(work: Callable[[], object]) -> NoReturn:
    code = 1
    try:
        warnings.simplefilter("ignore")
        work()
        code = 0
    except BaseException as exc:  # noqa: BLE001 - a child must never run on in its parent's code
        with contextlib.suppress(Exception):
            sys.stderr.write(f"{type(exc).__name__}: {exc}\n")
    finally:
        os._exit(code)


def crash(home: Path, name: str, rng: random.Random, mean: float) -> Acks:
    """One round: start the writers, kill each after a random number of acknowledgements (or moments)."""
    pipes: dict[int, int] = {}
    for writer in range(WRITERS):
        inward, outward = os.pipe()

        def work(writer: int = writer, inward: int = inward, outward: int = outward) -> None:
            os.close(inward)
            write(home, outward, f"{name}.{writer}")

        pipes[inward] = fork(work)
        os.close(outward)
    at_once = rng.random() < 0.1
    enough = {inward: rng.randint(0, int(2 * mean / WRITERS)) for inward in pipes}
    if at_once:
        enough = dict.fromkeys(pipes, 1 << 30)
        time.sleep(rng.uniform(0, 0.1))
        for pid in pipes.values():
            os.kill(pid, signal.SIGKILL)
    acks: Acks = []
    with selectors.DefaultSelector() as selector:
        for inward in pipes:
            selector.register(inward, selectors.EVENT_READ)
        _read(selector, pipes, enough, acks, rng)
    for inward, pid in pipes.items():
        os.close(inward)
        os.waitpid(pid, 0)
    return acks


def _read(
    selector: selectors.BaseSelector,
    pipes: dict[int, int],
    enough: dict[int, int],
    acks: Acks,
    rng: random.Random,
) -> None:
    rest, got, end = dict.fromkeys(pipes, b""), Counter[int](), time.monotonic() + LATE
    while selector.get_map():
        if time.monotonic() > end:
            for pid in pipes.values():
                os.kill(pid, signal.SIGKILL)
            end += LATE
        for key, _ in selector.select(1.0):
            inward = key.fd
            piece = os.read(inward, 1 << 16)
            if not piece:
                selector.unregister(inward)
                continue
            *lines, rest[inward] = (rest[inward] + piece).split(b"\n")
            for line in lines:
                query_id, question = line.decode().split(" ")
                acks.append((query_id, question))
            got[inward] += len(lines)
            if got[inward] >= enough[inward]:
                enough[inward] = 1 << 30
                time.sleep(rng.uniform(0, 0.004))
                os.kill(pipes[inward], signal.SIGKILL)


def served(home: Path, acks: Acks, seen: Counter[str]) -> None:
    """Ask for what was cached before the crash, in a process of its own: the right answer or a miss."""
    inward, outward = os.pipe()

    def work() -> None:
        counts = Counter[str]()
        with costkit.Kit(home, prices=RATES) as kit:
            ask = wrapped(kit, spends=False)
            for _, question in acks:
                outcome = ask.outcome(question, tenant=tenant(question))  # type: ignore[attr-defined]
                right = outcome.value == (f"answer to {question}" if outcome.saving else "asked anew")
                counts["hits" if outcome.saving else "misses"] += 1
                counts["wrong"] += not right
        os.write(outward, json.dumps(counts).encode())

    pid = fork(work)
    os.close(outward)
    with os.fdopen(inward, "rb") as handle:
        told = handle.read()
    _, status = os.waitpid(pid, 0)
    seen["reopen_failed"] += status != 0
    seen.update(json.loads(told or b"{}"))


def check(home: Path, acks: Acks, seen: Counter[str], whole: bool) -> None:
    """Look up every acknowledged row; with ``whole`` also every other row and the database itself."""
    con = sqlite3.connect(f"{(home / 'ledger.db').as_uri()}?mode=ro", uri=True, timeout=30)
    right = ("ask", COST, COST, 0, 1, None)
    try:
        for query_id, question in acks:
            rows = con.execute(
                "SELECT scope, name, provider_cost, counterfactual_cost, unknown_costs, complete, error "
                "FROM queries WHERE id = ?",
                (query_id,),
            ).fetchall()
            spent = con.execute(
                "SELECT cost, usage_state, model FROM attempts WHERE query_id = ?", (query_id,)
            )
            wanted = (json.dumps({"tenant": tenant(question)}), *right)
            if not rows:
                seen["lost"] += 1
            elif rows != [wanted] or spent.fetchall() != [(COST, "reported", "m")]:
                seen["torn"] += 1
        if whole:
            seen["torn"] += con.execute(
                "SELECT (SELECT COUNT(*) FROM queries q WHERE provider_cost > 0 AND 1 != "
                " (SELECT COUNT(*) FROM attempts a WHERE a.query_id = q.id AND a.cost = q.provider_cost)) + "
                "(SELECT COUNT(*) FROM attempts a WHERE NOT EXISTS (SELECT 1 FROM queries q WHERE q.id = a.query_id))"
            ).fetchone()[0]
            seen["integrity_failed"] += con.execute("PRAGMA integrity_check").fetchall() != [("ok",)]
            seen["rows_in_ledger"] = con.execute("SELECT COUNT(*) FROM attempts").fetchone()[0]
    finally:
        con.close()


def measure(home: Path, rounds: int, acked: int, seed: int) -> dict[str, Any]:
    """All rounds; what was acknowledged, lost, torn, served."""
    rng, seen, everything = random.Random(seed), Counter[str](), Acks()
    mean = acked / rounds * 1.25
    began = time.monotonic()
    # No refresh thread: the rounds fork.
    with Progress(disable=not sys.stderr.isatty(), auto_refresh=False) as bar:
        task = bar.add_task("killing", total=rounds)
        for number in range(rounds):
            acks = crash(home, str(number), rng, mean)
            everything += acks
            last = number == rounds - 1
            if (home / "ledger.db").exists() and (acks or last):
                check(home, acks, seen, whole=last or number % 25 == 24)
                if number % 5 == 4 or last:
                    served(home, rng.sample(acks, min(40, len(acks))), seen)
            bar.update(task, advance=1, refresh=True, description=f"killing ({len(everything)} rows)")
    check(home, everything, seen, whole=True)
    keys = ("lost", "torn", "integrity_failed", "reopen_failed", "hits", "misses", "wrong", "rows_in_ledger")
    return {
        "rounds": rounds, "writers": WRITERS, "threads": THREADS, "kills": rounds * WRITERS,
        "acknowledged": len(everything), **{key: seen[key] for key in keys},
        "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.crash", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--acked", type=int, help="rows to be acknowledged, about (default 200 a round)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="costkit-crash-") as folder:
        home = Path(folder).resolve() / "kit"
        found = measure(home, options.rounds, options.acked or 200 * options.rounds, options.seed)
    print(
        json.dumps(found, indent=2) if options.json else "\n".join(f"{n:>10} {k}" for k, n in found.items())
    )


if __name__ == "__main__":
    main()
