"""What a wrapped call costs beside raw diskcache, its `memoize`, and other caches of LLM answers.

`python -m tests.benchmarks.overhead --json` prints one JSON object. ``sync``, ``async``, ``diskcache``, ``memoize``:
microseconds (p50, p99) of single calls with a 2 KB argument around a function that does nothing, one thread, ledger
on; every hit's row is committed before the run is over ("drained"). ``hit_us``: the same chat request in every cache,
each in a process of its own, in interleaved rounds; see :mod:`tests.benchmarks.peers`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import diskcache

import costkit

from .peers import compare

PROMPT = "x" * 2048


def timed(call: Callable[[int], Any], calls: int) -> dict[str, float]:
    """p50 and p99 of ``call(i)``, in microseconds."""
    taken = []
    for i in range(calls):
        start = time.perf_counter_ns()
        call(i)
        taken.append(time.perf_counter_ns() - start)
    return summary(taken)


async def timed_async(call: Callable[[int], Awaitable[Any]], calls: int) -> dict[str, float]:
    """The same for a coroutine function, awaited one after the other in one task."""
    taken = []
    for i in range(calls):
        start = time.perf_counter_ns()
        await call(i)
        taken.append(time.perf_counter_ns() - start)
    return summary(taken)


def summary(nanoseconds: list[int]) -> dict[str, float]:
    """Microseconds: median, 99th percentile, and how many calls."""
    ordered = sorted(nanoseconds)
    p99 = ordered[int(0.99 * len(ordered))]
    return {"p50_us": statistics.median(ordered) / 1e3, "p99_us": p99 / 1e3, "calls": len(ordered)}


def costkit_sync(folder: str, hits: int, misses: int) -> dict[str, Any]:
    """Hit and miss of a plain function."""
    with costkit.Kit(folder) as kit:

        @kit.call(costkit.exact(ttl="1d"), scope="tenant")
        def ask(prompt: str, *, tenant: str) -> str:
            return "answer"

        miss = timed(lambda i: ask(f"{i}{PROMPT}", tenant="acme"), misses)
        ask(PROMPT, tenant="acme")
        hit = timed(lambda i: ask(PROMPT, tenant="acme"), hits)
        start = time.perf_counter()
        rows = kit.ledger().execute("SELECT COUNT(*) FROM queries").fetchone()[0]
        drained = time.perf_counter() - start
    assert rows == hits + misses + 1, "a row of the ledger is missing"
    return {"hit": hit, "miss": miss, "ledger_rows": rows, "last_drain_ms": drained * 1e3}


def costkit_async(folder: str, hits: int, misses: int) -> dict[str, Any]:
    """Hit and miss of a coroutine function."""

    async def run(kit: costkit.Kit) -> dict[str, Any]:
        @kit.call(costkit.exact(ttl="1d"), scope="tenant")
        async def ask(prompt: str, *, tenant: str) -> str:
            return "answer"

        miss = await timed_async(lambda i: ask(f"{i}{PROMPT}", tenant="acme"), misses)
        await ask(PROMPT, tenant="acme")
        hit = await timed_async(lambda i: ask(PROMPT, tenant="acme"), hits)
        return {"hit": hit, "miss": miss}

    with costkit.Kit(folder) as kit:
        return asyncio.run(run(kit))


def costkit_budgeted(folder: str, misses: int) -> dict[str, Any]:
    """A miss under a budget of the whole folder: held in the ledger before the call, settled with its row."""
    with costkit.Kit(folder, budget="1000 USD/day") as kit:

        @kit.call(costkit.exact(ttl="1d"), scope="tenant", max_cost="0.001 USD")
        def ask(prompt: str, *, tenant: str) -> str:
            return "answer"

        return {"miss": timed(lambda i: ask(f"{i}{PROMPT}", tenant="acme"), misses)}


def raw(folder: str, hits: int, misses: int) -> dict[str, Any]:
    """Raw diskcache get and set, and `memoize`: no scope, no ledger, no coalescing, sync only."""
    with diskcache.Cache(folder + "/raw") as cache:
        miss = timed(lambda i: cache.set(f"{i}{PROMPT}", "answer", expire=86400), misses)
        cache.set(PROMPT, "answer", expire=86400)
        plain = {"hit": timed(lambda i: cache.get(PROMPT), hits), "miss": miss}
    with diskcache.Cache(folder + "/memoize") as cache:

        @cache.memoize(expire=86400)
        def ask(prompt: str, *, tenant: str) -> str:
            return "answer"

        miss = timed(lambda i: ask(f"{i}{PROMPT}", tenant="acme"), misses)
        ask(PROMPT, tenant="acme")
        memoize = {"hit": timed(lambda i: ask(PROMPT, tenant="acme"), hits), "miss": miss}
    return {"diskcache": plain, "memoize": memoize}


def import_ms(module: str, repeats: int = 7) -> float:
    """Median milliseconds that a fresh interpreter needs to import the module, its own start-up left out."""
    code = f"import time; t = time.perf_counter(); import {module}; print((time.perf_counter() - t) * 1e3)"
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(repeats)
    ]
    return statistics.median(float(run.stdout) for run in runs)


def measure(hits: int, misses: int, rounds: int) -> dict[str, Any]:
    """All figures; the comparison with other caches of LLM answers is left out with no rounds."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    with tempfile.TemporaryDirectory() as folder:
        return {
            "sync": costkit_sync(folder + "/sync", hits, misses),
            "async": costkit_async(folder + "/async", hits, misses),
            "budgeted": costkit_budgeted(folder + "/budgeted", misses),
            **raw(folder, hits, misses),
            **(compare(rounds, 200) if rounds else {}),
            "import_ms": import_ms("costkit"),
            "direct_dependencies": len(project["dependencies"]),
        }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.overhead", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--hits", type=int, default=20_000)
    parser.add_argument("--misses", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=15, help="of the comparison with other caches; 0: none")
    options = parser.parse_args()
    figures = measure(options.hits, options.misses, options.rounds)
    if options.json:
        print(json.dumps(figures, indent=2))
        return
    print(f"{'':12}{'hit p50':>10}{'hit p99':>10}{'miss p50':>10}{'miss p99':>10}   microseconds")
    for name in ("sync", "async", "diskcache", "memoize"):
        cells = [figures[name][kind][p] for kind in ("hit", "miss") for p in ("p50_us", "p99_us")]
        print(f"{name:12}" + "".join(f"{cell:10.1f}" for cell in cells))
    miss = figures["budgeted"]["miss"]
    print(f"{'budgeted':12}{'':20}{miss['p50_us']:10.1f}{miss['p99_us']:10.1f}")
    for name, us in figures.get("hit_us", {}).items():
        print(f"{name:20}{us:10.1f}   a 2.5 KB chat request, p50 of a hit")
    for name, why in figures.get("skipped", {}).items():
        print(f"{name:20}   skipped: {why}")
    print(f"import {figures['import_ms']:.0f} ms, {figures['direct_dependencies']} direct dependencies")


if __name__ == "__main__":
    main()
