"""A hard cap under many processes, with and without kill -9 of those that hold, and calls cancelled at random.

`python -m tests.benchmarks.budget --json` prints one JSON object. Each run: 16 processes share "500 USD/total", each
call holds and costs 1 USD and is counted by a stand-in for the provider before it is settled. Where processes are
killed in the middle of calls, their holds count as spent after the lease (here one second): a cap counts what may
have been paid. `over` is what the provider saw beyond the cap. Latencies are of one hold, asked for and committed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import costkit
from costkit.budget import Hold, Settle, line, parse
from costkit.call import NANO, new_id
from costkit.ledger import Ledger, Query

ROOT = Path(__file__).parents[2]
CAP, LEASE, PATIENCE = 500, 1.0, 120.0


def worker(folder: Path, call_s: float) -> None:
    """Make calls until the budget is spent; latencies of the holds go into a file of one's own."""
    ledger = Ledger(folder, lease=LEASE)
    budget = line(parse(f"{CAP} USD/total", "budget")[0], "kit", "all calls", time.time())
    provider = os.open(folder / "provider", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    taken: list[float] = []
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        hold = Hold(new_id(), NANO, (budget,))
        start = time.perf_counter()
        refusal = ledger.hold(hold).result(60)
        if refusal is None:
            taken.append(time.perf_counter() - start)
            os.write(provider, b".")
            time.sleep(call_s)
            row = Query(
                hold.id, None, hold.id, "ask", "1", None, None, time.time(), 0, None, None, "call", NANO, NANO
            )
            row = replace(row, reserved=NANO)
            done = ledger.write(row, (), durable=True, settle=Settle(hold, NANO))
            assert done is not None
            done.result(60)
        elif not refusal.held:
            break
        else:  # others may give theirs back, or die
            time.sleep(0.02)
    (folder / f"{os.getpid()}.json").write_text(json.dumps(taken))


def spend(folder: Path, processes: int, kills: int, seed: int, call_s: float = 0.002) -> dict[str, Any]:
    """One run; ``kills`` processes die by SIGKILL at random moments, each replaced by a new one."""
    dice = random.Random(seed)
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.budget",
        "--worker",
        str(folder),
        "--call-s",
        str(call_s),
    ]
    Ledger(folder).close()
    start = time.perf_counter()
    running = [subprocess.Popen(command, cwd=ROOT) for _ in range(processes)]
    killed = 0
    try:
        while killed < kills and any(one.poll() is None for one in running):
            time.sleep(dice.uniform(0.02, 0.2))
            if _seen(folder) >= (killed + 1) * CAP // (kills + 2):
                victim = dice.randrange(processes)
                running[victim].send_signal(signal.SIGKILL)
                running[victim].wait()
                running[victim] = subprocess.Popen(command, cwd=ROOT)
                killed += 1
        for one in running:
            one.wait(PATIENCE)
        seconds = time.perf_counter() - start
    finally:
        for one in running:
            one.kill()
            one.wait()
    taken = [t for path in folder.glob("*.json") for t in json.loads(path.read_text())]
    return {
        "processes": processes,
        "kills": killed,
        "seconds": seconds,
        **_stands(folder),
        **_speed(taken, seconds),
    }


def _seen(folder: Path) -> int:
    path = folder / "provider"
    return path.stat().st_size if path.exists() else 0


def _stands(folder: Path) -> dict[str, Any]:
    con = sqlite3.connect(folder / "ledger.db")
    spent, held, lapsed = con.execute("SELECT spent, held, lapsed FROM budgets").fetchone()
    (left,) = con.execute("SELECT COUNT(*) FROM holds WHERE lapsed = 0").fetchone()
    (rows,) = con.execute("SELECT COUNT(*) FROM queries").fetchone()
    con.close()
    calls = _seen(folder)
    over = max(0, calls - CAP, spent // NANO - CAP)
    return {
        "cap": CAP,
        "spent": spent / NANO,
        "lapsed": lapsed / NANO,
        "calls": calls,
        "rows": rows,
        "over": over,
        "left_held": held / NANO + left,
    }


def _speed(taken: list[float], seconds: float) -> dict[str, float]:
    if len(taken) < 2:
        return {}
    return {
        "holds_per_s": len(taken) / seconds,
        "hold_p50_us": statistics.median(taken) * 1e6,
        "hold_p95_us": statistics.quantiles(taken, n=20)[18] * 1e6,
    }


def alone(folder: Path, holds: int = 2000) -> dict[str, float]:
    """Holds one after the other, and all at once, in one process: what grouping them gives."""
    ledger = Ledger(folder)
    budget = line(parse("1000000 USD/total", "budget")[0], "kit", "all calls", time.time())
    taken = []
    for _ in range(holds):
        start = time.perf_counter()
        assert ledger.hold(Hold(new_id(), 1, (budget,))).result(60) is None
        taken.append(time.perf_counter() - start)
    start = time.perf_counter()
    asked = [ledger.hold(Hold(new_id(), 1, (budget,))) for _ in range(holds)]
    assert not any(future.result(60) for future in asked)
    grouped = holds / (time.perf_counter() - start)
    ledger.close()
    return {"holds": holds, **_speed(taken, sum(taken)), "grouped_holds_per_s": grouped}


async def cancelled(folder: Path, calls: int = 2000, together: int = 50, seed: int = 7) -> dict[str, Any]:
    """Calls of the public decorator under a budget, each task cancelled at a random moment; what is left held."""
    dice = random.Random(seed)
    prices = {"m": costkit.Rates(1, 2)}
    ended = {"cancelled": 0, "answered": 0}
    with costkit.Kit(folder, budget="1000 USD/total", prices=prices) as kit:

        @kit.call(costkit.exact(ttl="1h"), scope=None, max_cost="0.01 USD")
        async def ask(question: str) -> str:
            await asyncio.sleep(0.003)
            costkit.record(usage=costkit.Usage(in_fresh=10, out_text=5), model="m")
            return "answer"

        await ask("warm")
        for start in range(0, calls, together):
            tasks = [asyncio.create_task(ask(f"{start + i}")) for i in range(together)]
            loop = asyncio.get_running_loop()
            for task in tasks:
                loop.call_later(dice.uniform(0, 0.03), task.cancel)
            for answer in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(answer, asyncio.CancelledError):
                    ended["cancelled"] += 1
                elif isinstance(answer, str):
                    ended["answered"] += 1
                else:
                    raise answer
        con = kit.ledger()
        (left,) = con.execute("SELECT COUNT(*) FROM holds").fetchone()
        (held,) = con.execute("SELECT TOTAL(held) FROM budgets").fetchone()
    return {"calls": calls, **ended, "holds_left": left, "held_left": held / NANO}


def measure(runs: int, processes: int, kills: int, calls: int) -> dict[str, Any]:
    """All figures."""
    results = []
    for number in range(runs * 2):
        with tempfile.TemporaryDirectory() as folder:
            results.append(spend(Path(folder), processes, kills if number % 2 else 0, seed=number))
    with tempfile.TemporaryDirectory() as folder:
        one = alone(Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        left = asyncio.run(cancelled(Path(folder) / "kit", calls))
    return {
        "runs": results,
        "over": max(run["over"] for run in results),
        "left_held": max(run["left_held"] for run in results),
        "one_process": one,
        "cancelled": left,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.budget", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--runs", type=int, default=3, help="with kills, and as many without")
    parser.add_argument("--processes", type=int, default=16)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--calls", type=int, default=2000, help="to be cancelled")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--call-s", type=float, default=0.002, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        worker(options.worker, options.call_s)
        return
    figures = measure(options.runs, options.processes, options.kills, options.calls)
    if options.json:
        print(json.dumps(figures, indent=2))
        return
    for run in figures["runs"]:
        print(
            f"{run['processes']} processes, {run['kills']:2} killed: {run['spent']:.0f} of {run['cap']} spent "
            f"({run['lapsed']:.0f} lapsed), {run['over']} over, {run['left_held']:.0f} left held, "
            f"{run['holds_per_s']:.0f} holds/s, hold p50 {run['hold_p50_us'] / 1e3:.1f} ms"
        )
    left = figures["cancelled"]
    print(f"{left['calls']} calls, {left['cancelled']} cancelled: {left['holds_left']} reservations left")


if __name__ == "__main__":
    main()
