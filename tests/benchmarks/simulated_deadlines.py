"""Does the simulated server hold its deadlines? Lateness of its writes and CPU per request, by its own log.

    python -m tests.benchmarks.simulated_deadlines --rate 500 --seconds 15 --json

Requests come as a Poisson process over kept-alive connections, from the cheapest client that Python's standard library
allows: bytes are searched, nothing is parsed. Lateness is deadline against write inside the server (`written_first`
less `first_token` in its truth log; `late_s`, the latest chunk of each request), so that the client's own lateness
stays apart; what the client saw stands beside it. Fixed answers: TTFT 50 ms, 50 tokens, one every 10 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from tests.serving.simulators import body, post

ROOT = Path(__file__).parents[2]
TTFT_MS, TPOT_MS, TOKENS = 50.0, 10.0, 50
WARM_S = 1.0
SHAPE = [
    "--prefill-base-ms", str(TTFT_MS), "--prefill-ms-per-token", "0", "--tpot-ms", str(TPOT_MS),
    "--output-tokens-mean", str(TOKENS), "--output-tokens-sigma", "0", "--slots", "100000",
]  # fmt: skip
REQUEST = post(json.dumps(body(stream=True, stream_options={"include_usage": True})).encode())


@dataclass
class Seen:
    """What the client saw of one request: seconds from its sending to its first text and to its end."""

    sent: float
    first: float | None = None
    last: float | None = None


@dataclass(eq=False)
class Caller(asyncio.Protocol):
    """One kept-alive connection; gives itself back to `idle` after each answer."""

    loop: asyncio.AbstractEventLoop
    idle: deque[Caller]
    seen: Seen | None = None
    transport: asyncio.Transport = field(init=False)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def ask(self, seen: Seen) -> None:
        self.seen = seen
        self.transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        assert self.seen is not None
        if self.seen.first is None and b'"content":"' in data.replace(b'"content":""', b""):
            self.seen.first = self.loop.time() - self.seen.sent
        if data.endswith(b"\r\n0\r\n\r\n"):
            self.seen.last = self.loop.time() - self.seen.sent
            self.idle.append(self)


async def drive(host: str, port: int, rate: float, seconds: float, seed: int = 1) -> list[Seen]:
    """Send at this rate for so long; return all requests when the last has been answered."""
    loop, rng = asyncio.get_running_loop(), random.Random(seed)
    idle: deque[Caller] = deque()
    for _ in range(int(rate * (TTFT_MS + TPOT_MS * TOKENS) / 1000 * 1.5) + 20):
        idle.append((await loop.create_connection(lambda: Caller(loop, idle), host, port))[1])
    callers = list(idle)
    seen: list[Seen] = []
    due, end = loop.time() + 0.1, loop.time() + 0.1 + seconds
    while (due := due + rng.expovariate(rate)) < end:
        if (wait := due - loop.time()) > 0.0005:
            await asyncio.sleep(wait)
        while not idle:
            await asyncio.sleep(0.001)
        one = Seen(loop.time())
        seen.append(one)
        idle.popleft().ask(one)
    while any(one.last is None for one in seen):
        await asyncio.sleep(0.05)
    for caller in callers:
        caller.transport.close()
    return seen


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(rate: float, seconds: float, *more: str) -> dict[str, Any]:
    """Run once; times in milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "truth.jsonl"
        command = [sys.executable, "-m", "serving.simulated", "--die-with-parent", "--truth-log", str(log)]
        with subprocess.Popen(
            [*command, *SHAPE, *more], cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
        ) as server:
            assert server.stdout is not None
            ready = json.loads(server.stdout.readline())
            host, _, port = ready["url"].removeprefix("http://").partition(":")
            asyncio.run(drive(host, int(port), min(rate, 50), WARM_S))
            warm = len(log.read_text().splitlines())
            before, mine = cpu_seconds(server.pid), cpu_seconds(os.getpid())
            seen = asyncio.run(drive(host, int(port), rate, seconds))
            spent, mine = cpu_seconds(server.pid) - before, cpu_seconds(os.getpid()) - mine
            server.terminate()
            server.wait(10)
        rows = [json.loads(line) for line in log.read_text().splitlines()][warm:]
    return {
        "rate": rate,
        "seconds": seconds,
        "requests": len(rows),
        "whole": sum(row["completion_tokens"] == TOKENS and row["status"] == 200 for row in rows),
        "late_first_ms": _quantiles([row["written_first"] - row["first_token"] for row in rows]),
        "late_last_ms": _quantiles([row["written_last"] - row["last_token"] for row in rows]),
        "late_worst_chunk_ms": _quantiles([row["late_s"] for row in rows]),
        "client_ttft_ms": _quantiles([one.first or 0.0 for one in seen]),
        "client_e2e_ms": _quantiles([one.last or 0.0 for one in seen]),
        "server_cpu_ms_per_request": round(1000 * spent / len(rows), 3),
        "client_cpu_ms_per_request": round(1000 * mine / len(rows), 3),
        "load_average": os.getloadavg()[0],
    }


def _quantiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    at = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {
        name: round(1000 * ordered[min(len(ordered) - 1, int(q * len(ordered)))], 2) for name, q in at.items()
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rate", type=float, default=500.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--json", action="store_true", help="one JSON object on one line")
    options, more = parser.parse_known_args(arguments)
    told = measure(options.rate, options.seconds, *more)
    print(json.dumps(told, indent=None if options.json else 2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
