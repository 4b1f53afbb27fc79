"""A long run of the assistant's service with costkit on: does it grow, does it lose rows, what does costkit take?

    python -m tests.benchmarks.soak --minutes 30 --json          (make soak MINUTES=30)

A simulated model, and before it two services of the same code, one with costkit and one without. Both get the same
trace at the same rate (open loop, Poisson, questions of the sample help desk by a Zipf law), each request a twentieth
of a second apart, first the one and then the other in turn. Stored answers live for `--ttl` seconds, so that there are
calls to the end while what is asked stays finite. A hundredth of the model's answers are errors and a fiftieth of the
clients leave in mid-answer: these must have their rows too.

- Memory: resident size of the service every second. After a fifth of the run as warm-up, the slope over ten blocks'
  means with a 95 % t-interval (blocks, since neighbouring seconds are alike), in MB an hour. Caches that fill up to
  their bounds are in it (SQLite keeps up to 2 MB of pages for each connection), so a short run shows a slope that a
  long one does not.
- Rows: every request sent has its row in the ledger after the service was ended, and every id told to a client is
  there.
- Overhead, over the pairs of which both were answered: of calls (`miss`) what they take longer with costkit than the
  same requests without it, of answers out of the cache (`hit`) their whole time, and what they are faster by. Times run
  from the intended sending to the last token; intervals are 95 %, by a bootstrap of blocks of 50 neighbours.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.assistant import run as assistant
from serving.assistant.documents import load_questions
from serving.assistant.upstream import Upstream, UpstreamError
from serving.demo.traffic import Arrival, Traffic, stream
from serving.simulated import run as simulated

QUESTIONS = Path(__file__).parents[2] / "serving" / "assistant" / "questions"
MODEL = [
    "--slots", "256", "--prefill-base-ms", "20", "--prefill-ms-per-token", "0.05", "--tpot-ms", "3",
    "--fault", "error503:0.01",
]  # fmt: skip
ON = ["--costkit", "on", "--price-in", "1", "--price-out", "2"]
APART_S = 0.05
LEAVE = 0.02
WARM_SHARE = 0.2
BLOCKS = 10
PAGE = os.sysconf("SC_PAGE_SIZE")
# Student's t, 97.5 %, for BLOCKS - 2 degrees of freedom.
T_8 = 2.306

Numbers = npt.NDArray[np.float64]


@dataclass(slots=True)
class Asked:
    """One request to one service, ``due`` by the loop's clock; the other times in seconds from then.

    ``lag`` is the client's own lateness, ``left`` whether it went away in mid-answer.
    """

    arm: str
    number: int
    due: float
    lag: float = 0.0
    e2e: float | None = None
    status: int = 200
    left: bool = False
    saving: str | None = None
    query_id: str | None = None


@dataclass
class Run:
    """What was seen."""

    asked: list[Asked] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)


def resident(pid: int) -> float:
    """Resident memory of a process in MB (Linux)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 1e6


async def drive(arrivals: Sequence[Arrival], arms: dict[str, str], pid: int) -> Run:
    """Send the trace to both services; returns when all is answered."""
    run, loop = Run(), asyncio.get_running_loop()
    rng = np.random.default_rng(0)
    leaves = rng.random(len(arrivals)) < LEAVE
    tenants = {arrival.question.tenant for arrival in arrivals}
    clients = {(a, t): Upstream(url, headers={"x-tenant": t}) for a, url in arms.items() for t in tenants}
    start = loop.time() + 0.2
    watching = loop.create_task(_watch(run, pid))
    waiting: set[asyncio.Task[None]] = set()
    for number, arrival in enumerate(arrivals):
        await asyncio.sleep(max(0.0, start + arrival.at - loop.time()))
        for turn, arm in enumerate(arms if number % 2 else reversed(list(arms))):
            asked = Asked(arm, number, start + arrival.at + turn * APART_S)
            run.asked.append(asked)
            one = _one(
                clients[arm, arrival.question.tenant], asked, arrival.question.question, bool(leaves[number])
            )
            task = loop.create_task(one)
            waiting.add(task)
            task.add_done_callback(waiting.discard)
    while waiting:
        await asyncio.wait(tuple(waiting))
    watching.cancel()
    for client in clients.values():
        client.close()
    return run


async def _one(client: Upstream, asked: Asked, question: str, leaves: bool) -> None:
    loop, due = asyncio.get_running_loop(), asked.due
    await asyncio.sleep(max(0.0, due - loop.time()))
    asked.lag = loop.time() - due
    body = {"model": "simulated", "messages": [{"role": "user", "content": question}]}
    try:
        async with contextlib.aclosing(client.chat(body)) as chunks:
            async for chunk in chunks:
                if chunk.get("choices") and chunk["choices"][0]["delta"].get("content"):
                    asked.e2e = loop.time() - due
                    if leaves:
                        asked.left, asked.e2e = True, None
                        return
                account = (chunk.get("usage") or {}).get("costkit") or {}
                asked.saving = account.get("saving", asked.saving)
                asked.query_id = account.get("query_id", asked.query_id)
    except UpstreamError as error:
        asked.status, asked.e2e = error.status, None


async def _watch(run: Run, pid: int) -> None:
    began = time.monotonic()
    while True:
        run.memory.append((time.monotonic() - began, resident(pid)))
        await asyncio.sleep(1.0)


def slope(memory: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """MB an hour after the warm-up, with its interval; None where there is too little to tell."""
    at, size = np.array(memory).T
    after = at >= WARM_SHARE * at[-1]
    told = {"at_start_mb": round(size[0], 1), "after_warm_up_mb": round(float(size[after][0]), 1),
            "at_end_mb": round(size[-1], 1), "most_mb": round(float(size.max()), 1)}  # fmt: skip
    if after.sum() < 3 * BLOCKS:
        return {**told, "mb_per_hour": None, "interval_95": None}
    means = [[block.mean() for block in np.array_split(values[after], BLOCKS)] for values in (at, size)]
    x, y = np.array(means[0]) / 3600, np.array(means[1])
    x = x - x.mean()
    rate = float(x @ y / (x @ x))
    rest = y - y.mean() - rate * x
    error = T_8 * float(np.sqrt(rest @ rest / (BLOCKS - 2) / (x @ x)))
    interval = [round(rate - error, 2), round(rate + error, 2)]
    return {**told, "mb_per_hour": round(rate, 2), "interval_95": interval}


def overhead(asked: Sequence[Asked]) -> dict[str, Any]:
    """What costkit takes on calls and on hits, in milliseconds, by pairs."""
    off = {one.number: one.e2e for one in asked if one.arm == "off" and one.e2e is not None}
    on = sorted((one for one in asked if one.arm == "on" and one.e2e is not None), key=lambda one: one.number)
    told: dict[str, Any] = {}
    # A request that shared another's call, while it was made, is neither.
    for kind, wanted in (("miss", {None}), ("hit", {"exact", "semantic", "stale"})):
        pairs = [
            (1000 * (one.e2e or 0.0), 1000 * (off[one.number] or 0.0))
            for one in on
            if one.number in off and one.saving in wanted
        ]
        told[kind] = {"pairs": len(pairs)}
        if len(pairs) < 40:
            continue
        mine, theirs = np.array(pairs).T
        told[kind] |= {
            "on_p50_ms": round(float(np.median(mine)), 2),
            "on_p95_ms": round(float(np.quantile(mine, 0.95)), 2),
            "off_p95_ms": round(float(np.quantile(theirs, 0.95)), 2),
            "difference_p50_ms": round(float(np.median(mine - theirs)), 2),
            "p95_difference_ms": round(float(np.quantile(mine, 0.95) - np.quantile(theirs, 0.95)), 2),
            "p95_difference_interval_95_ms": _bootstrap(mine, theirs),
        }
    return told


def _bootstrap(mine: Numbers, theirs: Numbers, block: int = 50, repeats: int = 1000) -> list[float]:
    """95 % percentile interval of the difference of the two p95, blocks of neighbours drawn together."""
    rng, n = np.random.default_rng(1), len(mine)
    block = min(block, max(1, n // 10))
    starts = rng.integers(0, n - block + 1, size=(repeats, -(-n // block)))
    rows = (starts[:, :, None] + np.arange(block)).reshape(repeats, -1)[:, :n]
    found = np.quantile(mine[rows], 0.95, axis=1) - np.quantile(theirs[rows], 0.95, axis=1)
    low, high = np.quantile(found, [0.025, 0.975])
    return [round(float(low), 2), round(float(high), 2)]


def rows(folder: Path, asked: Sequence[Asked]) -> dict[str, int]:
    """Whether each request to the service with costkit has its row.

    An answered one by the id that its client was told. Of the others (errors, clients that left) as many rows must be
    there; a stream that was lost and asked for again has a row of its own beside, which counts for none.
    """
    mine = [one for one in asked if one.arm == "on"]
    ids = {one.query_id for one in mine if one.query_id is not None}
    unanswered = sum(one.query_id is None for one in mine)
    with contextlib.closing(sqlite3.connect(folder / "ledger.db")) as ledger:
        named = "SELECT id, error FROM query_costs WHERE name = 'ask' AND role = 'call'"
        found = dict(ledger.execute(named).fetchall())
        unknown = ledger.execute("SELECT SUM(unknown_costs) FROM query_costs").fetchone()[0]
    others = sum(error != "StreamLost" for id, error in found.items() if id not in ids)
    return {
        "requests": len(mine),
        "rows": len(found),
        "answered": len(ids),
        "answered_without_row": len(ids - found.keys()),
        "unanswered": unanswered,
        "unanswered_without_row": max(0, unanswered - others),
        "asked_again": sum(error == "StreamLost" for error in found.values()),
        "unknown_costs": int(unknown or 0),
    }


def soak(minutes: float, rate: float, ttl: str, *more: str, save: Path | None = None) -> dict[str, Any]:
    """Run it; returns the figures, and keeps every request and memory sample in ``save``."""
    traffic = Traffic(count=max(50, round(60 * minutes * rate)), rate=rate, zipf_intents=1.0, bursts=0)
    arrivals = stream(load_questions(QUESTIONS), traffic)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "kit"
        with (
            simulated.running(*MODEL) as model,
            assistant.running("--upstream", model, *ON, "--folder", str(folder), "--ttl", ttl, *more) as on,
            assistant.running("--upstream", model, "--costkit", "off") as off,
        ):
            before = os.getloadavg()[0]
            run = asyncio.run(drive(arrivals, {"on": on.base_url, "off": off.base_url}, on.pid))
        told = rows(folder, run.asked)
        disk = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
    mine = [one for one in run.asked if one.arm == "on"]
    lags = np.array([one.lag for one in run.asked])
    size = slope(run.memory)
    grown = size["mb_per_hour"]
    if save is not None:
        save.mkdir(parents=True, exist_ok=True)
        kept = {"asked": [asdict(one) for one in run.asked], "memory": run.memory}
        (save / "soak-samples.json").write_text(json.dumps(kept), encoding="utf-8")
    return {
        "minutes": minutes,
        "rate_each": rate,
        "options": list(more),
        "statuses": dict(Counter(str(one.status) for one in mine)),
        "left_early": sum(one.left for one in mine),
        "answered_by": dict(Counter(one.saving or "call" for one in mine if one.e2e is not None)),
        "memory": size | {"bytes_per_request": grown and round(1e6 * grown / 3600 / rate)},
        "ledger": told,
        "folder_mb": round(disk, 1),
        "overhead": overhead(run.asked),
        "client_lag_p95_ms": round(1000 * float(np.quantile(lags, 0.95)), 2),
        "load_average": [round(before, 2), round(os.getloadavg()[0], 2)],
    }


def draw(save: Path, told: dict[str, Any]) -> Path:
    """Memory over time, and the times of calls and hits with and without costkit."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    kept = json.loads((save / "soak-samples.json").read_text(encoding="utf-8"))
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    at, size = np.array(kept["memory"]).T
    left.plot(at / 60, size, lw=1)
    left.axvspan(0, WARM_SHARE * at[-1] / 60, color="0.92", lw=0)
    left.set(xlabel="minutes (grey: warm-up)", ylabel="resident memory, MB", ylim=(0, 1.25 * size.max()))
    memory = told["memory"]
    if memory["interval_95"]:
        low, high = memory["interval_95"]
        left.set_title(f"{memory['mb_per_hour']:+.1f} MB an hour [{low:+.1f}, {high:+.1f}]")
    off = {one["number"]: one["e2e"] for one in kept["asked"] if one["arm"] == "off" and one["e2e"]}
    on = [one for one in kept["asked"] if one["arm"] == "on" and one["e2e"] and one["number"] in off]
    series = {
        "call, without costkit": [off[one["number"]] for one in on if not one["saving"]],
        "the same calls with it": [one["e2e"] for one in on if not one["saving"]],
        "answered from the cache": [one["e2e"] for one in on if one["saving"] not in (None, "coalesced")],
    }
    for name, values in series.items():
        if values:
            right.ecdf(1000 * np.array(values), label=f"{name} ({len(values)})")
    right.axhline(0.95, color="0.7", lw=0.8)
    right.set(xscale="log", xlabel="milliseconds to the last token", ylabel="share of requests")
    right.legend(loc="lower right")
    path = save / "soak.png"
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and tell; 1 where a row was lost."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=15.0, help="requests a second to each service")
    parser.add_argument("--ttl", default="30s", help="how long an answer is stored")
    parser.add_argument("--semantic", action="store_true", help="the semantic tier too, at --max-error 0.05")
    parser.add_argument("--out", type=Path, default=Path("soak-out"), help="folder of samples and plot")
    parser.add_argument("--json", action="store_true", help="one JSON object on one line")
    options = parser.parse_args(arguments)
    more = ["--semantic", "--max-error", "0.05"] if options.semantic else []
    told = soak(options.minutes, options.rate, options.ttl, *more, save=options.out)
    told["plot"] = str(draw(options.out, told))
    print(json.dumps(told, indent=None if options.json else 2))
    return 1 if told["ledger"]["answered_without_row"] or told["ledger"]["unanswered_without_row"] else 0


if __name__ == "__main__":
    sys.exit(main())
