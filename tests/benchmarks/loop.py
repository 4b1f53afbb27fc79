"""How long costkit keeps an event loop waiting, beside the machine's own noise.

`python -m tests.benchmarks.loop --json` runs a 1 ms ticker in a loop that makes calls through the public async
decorator: cold misses, hits and streams, under a windowed budget, while other processes write to the same folder.
``kit.warm()`` has run before, as an async program should have it; with ``--cold`` the price table and the tokenizer are
loaded while the loop runs. The control is the same loop with the same calls and
the same writers, without costkit in its process. Rounds take turns, each in a fresh process. A stall is how much later
than 1 ms after the last tick the next one came.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MODEL = "gpt-5-mini"
TICK = 0.001
UPSTREAM = 0.02  # seconds an answer takes, a chunk half of it
TASKS = 8
TEXT = "How long do refunds take, and who pays for the way back? " * 40

Ask = Callable[[str], Awaitable[Any]]


def completion() -> dict[str, Any]:
    """A response with its usage, so that a price is needed."""
    usage = {"prompt_tokens": 600, "completion_tokens": 40, "total_tokens": 640}
    choice = {"index": 0, "message": {"content": "Five days."}, "finish_reason": "stop"}
    return {"object": "chat.completion", "model": MODEL, "choices": [choice], "usage": usage}


async def upstream() -> dict[str, Any]:
    """A model's answer, a while later."""
    await asyncio.sleep(UPSTREAM)
    return completion()


async def bare(prompt: str) -> None:
    """The control's call."""
    await upstream()


async def bare_stream(prompt: str) -> None:
    """The control's stream."""
    for _ in range(4):
        await asyncio.sleep(UPSTREAM / 2)


def wrapped(folder: str) -> tuple[Any, list[Ask]]:
    """A kit under a budget of its own, and three kinds of calls through it."""
    import costkit

    kit = costkit.Kit(folder, budget="1000 USD/day")
    settings: dict[str, Any] = {"scope": None, "max_cost": "0.001 USD"}

    @kit.call(costkit.exact(ttl="1d"), **settings)
    async def reported(prompt: str, model: str = MODEL) -> dict[str, Any]:
        return await upstream()

    @kit.call(costkit.exact(ttl="1d"), **settings)
    async def counted(prompt: str, model: str = MODEL) -> str:
        await asyncio.sleep(UPSTREAM)
        costkit.record(model=model, prompt=prompt, completion="Five days.")
        return "Five days."

    @kit.call(costkit.exact(ttl="1d"), **settings)
    async def streamed(prompt: str, model: str = MODEL) -> AsyncIterator[str]:
        for word in ("Five", " days", " at", " most."):
            await asyncio.sleep(UPSTREAM / 2)
            yield word
        costkit.record(model=model, prompt=prompt, completion="Five days at most.")

    async def read(prompt: str) -> None:
        async for _ in streamed(prompt):
            pass

    return kit, [reported, counted, read]


class Ticker:
    """Ticks every millisecond and keeps how late each tick was, in seconds."""

    def __init__(self) -> None:
        self.stalls: list[float] = []
        self.last = time.perf_counter()

    async def run(self) -> None:
        """Until it is cancelled."""
        self.last = time.perf_counter()
        while True:
            await asyncio.sleep(TICK)
            now = time.perf_counter()
            self.stalls.append(max(0.0, now - self.last - TICK))
            self.last = now

    def watch(self, over: float, done: threading.Event, found: dict[float, str]) -> None:
        """Where the loop's thread is while a tick is late by more than ``over`` seconds; from another thread."""
        main = threading.main_thread().ident or 0
        while not done.wait(over / 4):
            late, tick = time.perf_counter() - self.last, self.last
            if late > over:
                stack = reversed(traceback.extract_stack(sys._current_frames()[main])[-6:])
                places = " < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in stack)
                found[tick] = f"{late * 1e3:6.1f} ms  {places}"


async def calls(asks: Sequence[Ask], until: float, seed: int) -> int:
    """One task's calls: every other prompt is new, the others have been answered before."""
    rng, made = random.Random(seed), 0
    while time.perf_counter() < until:
        new = rng.random() < 0.5
        prompt = f"{seed} {made if new else rng.randrange(made + 1)} {TEXT}"
        await rng.choice(asks)(prompt)
        made += 1
    return made


async def load(asks: Sequence[Ask], ticker: Ticker, seconds: float, planted: float) -> int:
    """All tasks beside the ticker; ``planted`` seconds are slept on the loop, to see that it is seen."""
    ticking = asyncio.create_task(ticker.run())
    await asyncio.sleep(0.02)
    if planted:
        asyncio.get_running_loop().call_later(seconds / 2, time.sleep, planted)
    until = time.perf_counter() + seconds
    made = await asyncio.gather(*(calls(asks, until, seed) for seed in range(TASKS)))
    ticking.cancel()
    return sum(made)


def one(options: argparse.Namespace) -> dict[str, Any]:
    """One round in this process."""
    kit: Any = None
    asks: Sequence[Ask] = (bare, bare, bare_stream)
    if not options.control:
        kit, asks = wrapped(options.folder)
        if not options.cold:
            kit.warm()
    ticker, done, found = Ticker(), threading.Event(), dict[float, str]()
    if options.where:
        threading.Thread(target=ticker.watch, args=(0.02, done, found), daemon=True).start()
    planted = 0.0 if options.control else options.planted
    made = asyncio.run(load(asks, ticker, options.seconds, planted))
    done.set()
    if kit is not None:
        rows = (
            kit.ledger().execute("SELECT COUNT(*) FROM queries WHERE name NOT LIKE 'writer%'").fetchone()[0]
        )
        assert rows >= made, f"{made} calls, {rows} rows"
        kit.close()
    ordered = sorted(ticker.stalls)
    figures = {"longest_ms": ordered[-1] * 1e3, "p999_ms": ordered[int(0.999 * len(ordered))] * 1e3}
    return {
        **figures,
        "calls": made,
        "ticks": len(ordered),
        **({"where": sorted(found.values())[-8:]} if options.where else {}),
    }


def write(folder: str, number: int) -> None:
    """Another process that writes: cold misses of its own, until standard input ends or two minutes are over."""
    import costkit

    ended, i = threading.Event(), 0

    def listen() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=listen, daemon=True).start()
    with costkit.Kit(folder, prices={MODEL: costkit.Rates(1, 2)}) as kit:

        @kit.call(costkit.exact(ttl="1d"), scope=None, name="writer")
        def ask(prompt: str) -> dict[str, Any]:
            return completion()

        until = time.monotonic() + 120
        for i in range(10**6):
            ask(f"{number} {i} {TEXT}")
            if ended.wait(UPSTREAM) or time.monotonic() > until:
                break
        print(i + 1, flush=True)


@contextlib.contextmanager
def writers(folder: str, number: int) -> Iterator[None]:
    """That many writing processes."""
    command = [sys.executable, "-m", "tests.benchmarks.loop", "--folder", folder, "--write"]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = [subprocess.Popen([*command, str(n)], cwd=ROOT, **pipes) for n in range(number)]
    try:
        yield
    finally:
        told = [process.communicate(timeout=60)[0] for process in running]
        assert all(int(rows or 0) > 0 for rows in told), "a writer wrote nothing"


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All rounds, costkit and control in turn."""
    command = [sys.executable, "-m", "tests.benchmarks.loop", "--one", "--seconds", str(options.seconds)]
    command += ["--planted", str(options.planted)]
    command += [flag for flag, said in (("--where", options.where), ("--cold", options.cold)) if said]
    found: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as home, writers(f"{home}/kit", options.writers):
        for turn in range(2 * options.rounds):
            control = turn % 2 == 0
            more = ["--folder", f"{home}/kit", *(["--control"] if control else [])]
            done = subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            found[control].append(json.loads(done.stdout))
    figures: dict[str, Any] = {}
    for control, name in ((False, ""), (True, "control_")):
        longest = [run["longest_ms"] for run in found[control]]
        figures[f"{name}longest_stall_ms"] = round(max(longest), 2)
        figures[f"{name}least_longest_stall_ms"] = round(min(longest), 2)
        figures[f"{name}p999_ms"] = round(max(run["p999_ms"] for run in found[control]), 2)
        figures[f"{name}calls"] = sum(run["calls"] for run in found[control])
    where = [place for run in found[False] for place in run.get("where", ())]
    return {
        **figures,
        "writers": options.writers,
        "rounds": options.rounds,
        **({"where": where} if where else {}),
    }


def main() -> None:
    """Measure and print; --one and --write are the processes it starts."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.loop", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--seconds", type=float, default=10.0, help="of one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument(
        "--planted", type=float, default=0.0, help="seconds to block the loop, to see it seen"
    )
    parser.add_argument(
        "--where", action="store_true", help="tell where the loop was when a tick was 20 ms late"
    )
    parser.add_argument("--cold", action="store_true", help="load prices and tokenizer while the loop runs")
    for inner in ("--one", "--control"):
        parser.add_argument(inner, action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--write", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write is not None:
        write(options.folder, options.write)
    elif options.one:
        print(json.dumps(one(options)))
    else:
        figures = measure(options)
        print(json.dumps(figures, indent=2) if options.json else _text(figures))


def _text(figures: dict[str, Any]) -> str:
    return "\n".join(f"{name:32}{value}" for name, value in figures.items())


if __name__ == "__main__":
    main()
