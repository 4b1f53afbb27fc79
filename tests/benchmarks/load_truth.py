"""Does the load generator tell the truth? Its p95 beside the simulated server's own log, and its verdict on itself.

    python -m tests.benchmarks.load_truth --rate 50 --seconds 20 --json
    python -m tests.benchmarks.load_truth --rate 50 --fault sleep       (the generator stands still for 200 ms)
    python -m tests.benchmarks.load_truth --rate 50 --fault drop        (a tenth of the requests is not sent)
    python -m tests.benchmarks.load_truth --freeze                      (the server stands still: coordinated omission)
    python -m tests.benchmarks.load_truth --clients                     (processor time beside other clients)

Answers have 50 tokens, the first after 50 ms, then one every 10 ms. Latencies of the generator count from the intended
send, the server's from a request's arrival; both are judged on all requests of the run, the trial request left out.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from costkit.stats import quantile
from loadtests.metrics import series
from loadtests.sample import read_samples
from serving.engine.layout import here
from tests.benchmarks import peers
from tests.benchmarks.load_clients import NAMES
from tests.benchmarks.simulated_deadlines import SHAPE

ROOT = Path(__file__).parents[2]
LOCUST = [sys.executable, "-m", "locust", "--headless", "--only-summary", "--skip-log-setup", "-f"]
PEERS = {"load": ("aiohttp==3.14.2",)}


@contextmanager
def server(log: Path, *more: str) -> Iterator[str]:
    """A simulated server; its address."""
    command = [
        sys.executable,
        "-m",
        "serving.simulated",
        "--die-with-parent",
        "--truth-log",
        str(log),
        *SHAPE,
    ]
    process = subprocess.Popen(
        [*command, *more], cwd=ROOT, text=True, stdout=subprocess.PIPE, stdin=subprocess.PIPE,
        start_new_session=True,  # Linux shares the processor out by session: neither is to starve the other
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.terminate()
        process.wait(10)


def locust(file: str, url: str, *more: str, **environ: str) -> int:
    """Run a locust file to its end and return the exit code."""
    done = subprocess.run(
        [*LOCUST, file, "--host", url, *more],
        cwd=ROOT, env={**os.environ, **environ}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        start_new_session=True,
    )  # fmt: skip
    if done.returncode not in {0, 1, 3, 4, 5}:
        sys.exit(f"locust ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.returncode


def truth(log: Path) -> list[dict[str, Any]]:
    """The server's lines, the trial request left out."""
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    return sorted(rows, key=lambda row: row["arrival"])[1:]


def measure(
    rate: float, seconds: float, *, seed: int = 0, processes: int = 1, fault: str = "", freeze: str = ""
) -> dict[str, Any]:
    """One run; times in milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        log, environ = Path(folder) / "truth.jsonl", {}
        file = "tests/benchmarks/load_faulty.py" if fault else "loadtests/chat.py"
        if fault:
            environ = {"LOAD_FAULT": fault, "LOAD_FAULT_AT": str(int(rate * seconds / 2))}
        wanted = ["--rate", str(rate), "--run-time", f"{seconds:g}s", "--seed", str(seed), "--words", "20"]
        wanted += ["--out", folder, "--run-name", "run"]
        wanted += ["--processes", str(processes)] if processes > 1 else []
        with server(log, *(["--freeze", freeze] if freeze else [])) as url:
            code = locust(file, url, *wanted, **environ)
        told = json.loads((Path(folder) / "run" / "run.json").read_text())
        samples = list(read_samples(Path(folder) / "run" / "requests.jsonl"))
        rows = truth(log)
    return {
        "rate": rate,
        "seconds": seconds,
        "requests": len(samples),
        "ttft_p95_ms": _p95(series(samples, "ttft").tolist()),
        "true_ttft_p95_ms": _p95([row["written_first"] - row["arrival"] for row in rows]),
        "e2e_p95_ms": _p95(series(samples, "e2e").tolist()),
        "true_e2e_p95_ms": _p95([row["written_last"] - row["arrival"] for row in rows]),
        "achieved_rate": round(told["verdict"]["rate"], 2),
        "planned_rate": round(told["verdict"]["rate_asked"], 2),
        "lag_p99_ms": round(1000 * told["verdict"]["lag_p99"], 2),
        "cpu_ms_per_request": round(1000 * told["settings"]["generator_cpu_s"] / max(1, len(samples)), 3),
        "verdict": "valid" if told["verdict"]["valid"] else "invalid",
        "reason": told["verdict"]["reason"],
        "exit_code": code,
        "fault": fault,
        "load_average": os.getloadavg()[0],
    }


def omission(seconds: float = 15.0) -> dict[str, Any]:
    """The server freezes for 2 s in mid-run, at 20 requests a second: what open loop sees, what closed loop does."""
    freeze = f"2@{seconds / 2:g}"
    opened = measure(20.0, seconds, freeze=freeze)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "closed.json"
        with server(Path(folder) / "truth.jsonl", "--freeze", freeze) as url:
            more = ["--users", "11", "--spawn-rate", "11", "--run-time", f"{seconds:g}s"]
            locust("tests/benchmarks/load_closed.py", url, *more, LOAD_CLOSED_OUT=str(out))
        closed = [one / 1000 for one in json.loads(out.read_text())]
    return {
        "frozen_s": 2.0,
        "open_requests": opened["requests"],
        "open_ttft_p95_ms": opened["ttft_p95_ms"],
        "open_verdict": opened["verdict"],
        "closed_requests": len(closed),
        "closed_ttft_p95_ms": _p95(closed),
    }


def clients(rate: float, seconds: float) -> dict[str, Any]:
    """Processor milliseconds per request of each client in turn, at one rate, and of the whole of locust with ours."""
    peers.setup(PEERS)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, server(Path(folder) / "truth.jsonl") as url:
        for name in NAMES:
            python = str(peers.HOME / "load" / "bin" / "python") if name == "aiohttp" else sys.executable
            command = [python, "-m", "tests.benchmarks.load_clients", name, url]
            command += ["--rate", str(rate), "--seconds", str(seconds)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            last = done.stdout.splitlines()[-1:] or [
                json.dumps({"client": name, "skipped": done.stderr[-200:]})
            ]
            found[name] = json.loads(last[0])
        found["vllm bench serve"] = _vllm(url, rate, seconds)
    found["loadtests in locust"] = measure(rate, seconds)
    return {"rate": rate, "seconds": seconds, "clients": found, "load_average": os.getloadavg()[0]}


def _vllm(url: str, rate: float, seconds: float) -> Mapping[str, Any]:
    """vLLM's own benchmark, where vLLM is set up; its start-up, measured with one request, is taken off."""
    home = here()
    models = sorted(ROOT.glob("serving/.models/*/tokenizer.json"))
    if not home.python.exists() or not models:
        return {"skipped": "python3 -m serving.engine setup"}
    command = [str(home.python), "-P", str(ROOT / "serving" / "engine" / "launch.py"), "bench", "serve"]
    command += ["--backend", "openai-chat", "--endpoint", "/v1/chat/completions", "--base-url", url]
    command += ["--model", "simulated", "--tokenizer", str(models[0].parent), "--seed", "1", "--disable-tqdm"]
    command += ["--dataset-name", "random", "--random-input-len", "20", "--random-output-len", "50"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    spent = []
    for count in (1, int(rate * seconds)):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [*command, "--num-prompts", str(count), "--request-rate", str(rate)],
            env=environment,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            return {"skipped": done.stderr[-200:]}
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    each = 1000 * (spent[1] - spent[0]) / int(rate * seconds)
    return {"cpu_ms_per_request": round(each, 3), "start_up_cpu_s": round(spent[0], 1)}


def _p95(values: list[float]) -> float | None:
    return round(1000 * quantile(values, 0.95), 2) if values else None


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--fault", choices=("", "sleep", "drop"), default="")
    parser.add_argument("--freeze", action="store_true", help="coordinated omission")
    parser.add_argument("--clients", action="store_true", help="processor time beside other clients")
    parser.add_argument("--json", action="store_true", help="one JSON object on one line")
    given = parser.parse_args(arguments)
    if given.clients:
        told = clients(given.rate, given.seconds)
    elif given.freeze:
        told = omission(given.seconds)
    else:
        told = measure(
            given.rate, given.seconds, seed=given.seed, processes=given.processes, fault=given.fault
        )
    print(json.dumps(told, indent=None if given.json else 2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
