"""Load runs against a real vLLM: beside ``vllm bench serve``, with and without the prefix cache and costkit.

    python -m tests.benchmarks.vllm_compare --parts bench,prefix,savings --out DIR --json

- ``bench``: the same prompts at the same rate to the same server, in the order ours, theirs, theirs, ours. For every
  metric that both report, their value and ours with its 95 % interval, and whether the intervals meet. ``vllm bench
  serve`` takes the first chunk for the first token, and that chunk carries only the role: how much earlier it comes is
  measured by reading the socket, and with it their figures are worked out from our samples.
- ``prefix``: two servers, one without prefix caching, and a system message that all requests share.
- ``savings``: the sample assistant as a service over one server, without costkit and with its exact cache, then with
  its semantic cache too, which stays in shadow for as long as it has no evidence.

The last two are ``loadtests.compare``: paired by request, in ABBA order, conditional on the trace. Each run begins with
an empty prefix cache: in one that still holds an earlier run's prompts, every prompt would be a repeat.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from loadtests.compare import Comparison, compare, draw, tell
from loadtests.metrics import figure
from loadtests.runs import Finished, as_interrupts, locust
from loadtests.sample import Sample
from serving.engine import profile, server
from serving.engine.layout import SERVED_NAMES, here
from serving.engine.scrape import between, scrape

ROOT = Path(__file__).parents[2]
SHARED = ("ttft", "tpot", "e2e")
PRICES = ["--price-in", "0.25", "--price-out", "2", "--price-cached", "0.025"]
WORDS = (
    "order",
    "invoice",
    "refund",
    "plan",
    "device",
    "folder",
    "backup",
    "login",
    "password",
    "admin",
    "policy",
)


@as_interrupts()
def main() -> None:
    """Measure the parts asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.vllm_compare", description=__doc__)
    parser.add_argument("--parts", default="bench,prefix,savings")
    parser.add_argument("--model", choices=sorted(SERVED_NAMES), default="smollm2")
    parser.add_argument("--profile", default="local")
    parser.add_argument("--rate", type=float, default=1.0, help="requests a second")
    parser.add_argument("--requests", type=int, default=120, help="of one run")
    parser.add_argument("--tokens", type=int, default=32, help="longest answer")
    parser.add_argument("--out", type=Path, default=ROOT / "loadtest-out" / "vllm-compare")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    parts = {"bench": bench, "prefix": prefix, "savings": savings}
    found: dict[str, Any] = {
        "load_before": os.getloadavg(),
        "settings": vars(options) | {"out": str(options.out)},
    }
    for name in options.parts.split(","):
        found[name] = parts[name](options)
        (options.out / "vllm-compare.json").write_text(
            json.dumps(found, indent=2, default=str), encoding="utf-8"
        )
    found["load_after"] = os.getloadavg()
    if options.json:
        print(json.dumps(found, default=str))


@contextlib.contextmanager
def served(options: argparse.Namespace, *flags: str) -> Iterator[str]:
    """A server of the model on a free port, with further flags of vLLM, that ends with this process; its address."""
    made = profile.load(options.profile)
    made = replace(made, env={**made.env, "VLLM_SERVER_DEV_MODE": "1"})  # for emptying the prefix cache
    one = server.start(here(), options.model, 0, made, extra=flags)
    try:
        server.wait_ready(one)
        yield one.root
    finally:
        server.stop(here(), one)


# --- beside vllm bench serve -----------------------------------------------------------------------------


def bench(options: argparse.Namespace) -> dict[str, Any]:
    """Both tools, twice each, on one server."""
    prompts = options.out / "prompts.jsonl"
    rng = random.Random(0)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(20, 300))) for _ in range(options.requests)]
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts), encoding="utf-8")
    # The same for `vllm bench serve`, in the one format of a file that it reads without further packages.
    turns = [{"conversations": [{"value": text}, {"value": "-"}]} for text in texts]
    prompts.with_suffix(".json").write_text(json.dumps(turns), encoding="utf-8")
    samples: dict[str, list[Sample]] = {"ours": [], "theirs": []}
    reported, verdicts = [], []
    with served(options) as root:
        lead = role_lead(root, SERVED_NAMES[options.model])
        for number, tool in enumerate(("ours", "theirs", "theirs", "ours")):
            # Every run starts where the others did: prompts of an earlier run are in the prefix cache.
            if number == 0:
                ours(options, root, prompts, options.out / "warm")
            if tool == "ours":
                made, why = ours(options, root, prompts, options.out / f"{number}-ours")
                verdicts.append(why)
            else:
                told = theirs(options, root, prompts, options.out / f"{number}-theirs.json")
                made = from_bench(told)
                reported.append({name: told[name] for name in sorted(told) if name.endswith("_ms")})
            samples[tool] += made
    return {
        "metrics": {name: beside(samples, name) for name in SHARED},
        "role_chunk_lead_ms": {
            "median": 1000 * float(np.median(lead)),
            "max": 1000 * max(lead),
            "streams": len(lead),
        },
        "itl_mean_ms": gaps_beside(samples, float(np.median(lead))),
        "verdicts": verdicts,
        "bench_reports": reported,
        "counts": {name: len(rows) for name, rows in samples.items()},
    }


def ours(options: argparse.Namespace, root: str, prompts: Path, folder: Path) -> tuple[list[Sample], str]:
    """One run of the locust file; its samples and what is wrong with it, if anything."""
    seconds = round(options.requests / options.rate)
    more = [
        "--prompts",
        str(prompts),
        "--rate",
        str(options.rate),
        "--run-time",
        f"{seconds}s",
        "--temperature",
        "0",
    ]
    more += ["--max-tokens", str(options.tokens), "--body", '{"ignore_eos": true}', *PRICES]
    done = locust("chat")(root, folder, more, seconds)
    # Each run counts its own seconds: side by side they must not look like one crowd.
    begun = time.monotonic()
    moved = [
        replace(
            one, intended=one.intended + begun, sent=one.sent + begun, ended=one.ended + begun,
            first=None if one.first is None else one.first + begun, last=None if one.last is None else one.last + begun,
        )
        for one in done.samples
    ]  # fmt: skip
    return moved, str(done.told["verdict"]["reason"])


def theirs(options: argparse.Namespace, root: str, prompts: Path, result: Path) -> dict[str, Any]:
    """One run of ``vllm bench serve``; its JSON."""
    line = [str(here().python), "-P", str(ROOT / "serving" / "engine" / "launch.py"), "bench", "serve"]
    line += [
        "--backend",
        "openai-chat",
        "--endpoint",
        "/v1/chat/completions",
        "--base-url",
        root,
        "--temperature",
        "0",
    ]
    line += [
        "--model",
        SERVED_NAMES[options.model],
        "--tokenizer",
        str(here().model(options.model)),
        "--ignore-eos",
    ]
    line += [
        "--dataset-name",
        "sharegpt",
        "--dataset-path",
        str(prompts.with_suffix(".json")),
        "--disable-shuffle",
    ]
    line += [
        "--sharegpt-output-len",
        str(options.tokens),
        "--num-prompts",
        str(options.requests),
        "--disable-tqdm",
    ]
    line += ["--request-rate", str(options.rate), "--percentile-metrics", "ttft,tpot,itl,e2el"]
    line += ["--metric-percentiles", "50,95", "--save-result", "--save-detailed"]
    line += ["--result-dir", str(result.parent), "--result-filename", result.name]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False, timeout=1800)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    told: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return told


def from_bench(told: Mapping[str, Any]) -> list[Sample]:
    """The detailed result as samples, with their own stamps: the first is that of the role chunk."""
    rows = zip(
        told["start_times"], told["ttfts"], told["itls"], told["input_lens"], told["output_lens"], told["errors"],
        strict=True,
    )  # fmt: skip
    made = []
    for number, (start, first, gaps, prompt, output, error) in enumerate(rows):
        last = start + first + sum(gaps)
        one = Sample(number, "bench", start, start, last, first=start + first, last=last, gaps=tuple(gaps))
        made += [] if error else [replace(one, prompt_tokens=prompt, output_tokens=output, finish="length")]
    return made


def beside(samples: Mapping[str, Sequence[Sample]], metric: str) -> dict[str, Any]:
    """Median, p95 and mean of both tools in milliseconds, with intervals, and whether those meet."""
    found: dict[str, Any] = {}
    sides = {name: figure(rows, metric) for name, rows in samples.items()}
    for statistic in ("mean", "p50", "p95"):
        cells: dict[str, Any] = {}
        for name, one in sides.items():
            assert one is not None
            value = one.mean if statistic == "mean" else getattr(one, statistic).value
            limits = one.mean_interval if statistic == "mean" else getattr(one, statistic).interval
            cells[name] = round(1000 * value, 2)
            cells[f"{name}_95"] = limits and [round(1000 * end, 2) for end in limits]
        low, high = cells["ours_95"], cells["theirs_95"]
        cells["meet"] = low[0] <= high[1] and high[0] <= low[1] if low and high else None
        cells["inside"] = low[0] <= cells["theirs"] <= low[1] if low else None
        found[statistic] = cells
    return found


def gaps_beside(samples: Mapping[str, Sequence[Sample]], lead: float) -> dict[str, float]:
    """Mean gap in both tools, and ours counted as theirs: the gap between role chunk and first token is one more."""
    gaps = [list(one.gaps) for one in samples["ours"]]
    counted = sum(map(len, gaps))
    total = sum(map(sum, gaps))
    other = [gap for one in samples["theirs"] for gap in one.gaps]
    return {
        "ours": 1000 * total / counted,
        "theirs": 1000 * float(np.mean(other)),
        "ours_counted_as_theirs": 1000 * (total + lead * len(gaps)) / (counted + len(gaps)),
    }


def role_lead(root: str, model: str, streams: int = 20) -> list[float]:
    """Seconds from the chunk with the role to the first one with content, off the socket, a stream at a time."""
    host = root.removeprefix("http://")
    found = []
    for number in range(streams):
        body = {
            "model": model, "messages": [{"role": "user", "content": f"Say something about {number}."}],
            "max_tokens": 4, "temperature": 0, "stream": True, "ignore_eos": True,
        }  # fmt: skip
        link = http.client.HTTPConnection(host, timeout=60)
        link.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
        answer = link.getresponse()
        role = None
        for line in answer:
            now = time.perf_counter()
            if not line.startswith(b"data: {"):
                continue
            delta = json.loads(line[6:])["choices"][0]["delta"]
            role = role or now
            if delta.get("content"):
                found.append(now - role)
                break
        link.close()
    return found


# --- prefix cache, costkit -------------------------------------------------------------------------------


def prefix(options: argparse.Namespace) -> dict[str, Any]:
    """Without the prefix cache and with it, for requests that share a system message of about 900 tokens."""
    system = options.out / "system.txt"
    rng = random.Random(1)
    system.write_text(" ".join(rng.choices(WORDS, k=700)), encoding="utf-8")
    more = [
        "--body",
        '{"ignore_eos": true}',
        "--system",
        str(system),
        "--words",
        "30",
        "--temperature",
        "0",
        "--max-tokens",
        str(options.tokens),
    ]
    with served(options, "--no-enable-prefix-caching") as off, served(options) as on:
        before = scrape(on)
        result = compared(options, "chat", (off, on), options.out / "prefix", more, emptied=(off, on))
        result["prefix_hit_rate"] = between(before, scrape(on)).prefix_hit_rate
    return result


def savings(options: argparse.Namespace) -> dict[str, Any]:
    """The assistant without costkit, and with its exact cache, then its semantic one too."""
    found = {}
    with served(options) as root:
        service = f"{sys.executable} -m serving.assistant.service --upstream {root}/v1 " + " ".join(PRICES)
        off = f"{service} --costkit off"
        for name, flags in (("exact", ""), ("exact+semantic", " --semantic --max-error 0.05")):
            fresh = f"sh -c 'exec {service} --costkit on{flags} --folder $(mktemp -d)'"
            found[name] = compared(options, "rag", (off, fresh), options.out / name, [], emptied=(root,))
    return found


def compared(
    options: argparse.Namespace,
    file: str,
    sides: tuple[str, str],
    folder: Path,
    more: Sequence[str],
    *,
    emptied: Sequence[str],
) -> dict[str, Any]:
    """``loadtests.compare`` in ABBA order, told and drawn; the servers ``emptied`` forget all prefixes before a run."""
    once = locust(file)

    def run(host: str, folder: Path, args: Sequence[str], seconds: float) -> Finished:
        for root in emptied:
            _empty(root)
        return once(host, folder, args, seconds)

    seconds = round(options.requests / options.rate)
    line = [*more, "--rate", str(options.rate), "--run-time", f"{seconds}s", *PRICES]
    result, pairs = compare(run, *sides, folder, args=line, seconds=seconds)
    print("\n".join([folder.name, *tell(result)]), file=sys.stderr)
    draw(result, pairs, folder / "compare.png")
    return {**result.as_json(), **answered(result)}


def _empty(root: str) -> None:
    """Drop a server's prefix cache, once its last requests have let go of it."""
    ask = urllib.request.Request(f"{root}/reset_prefix_cache", method="POST")
    for _ in range(50):
        with urllib.request.urlopen(ask, timeout=30) as answer:
            if json.load(answer)["success"]:
                return
        time.sleep(0.2)
    raise SystemExit(f"the prefix cache of {root} could not be emptied")


def answered(result: Comparison) -> dict[str, Any]:
    """How many requests of side B each saving answered."""
    from loadtests.sample import read_samples

    rows = [
        one
        for side, folder, _ in result.runs
        if side == "b"
        for one in read_samples(Path(folder) / "requests.jsonl")
    ]
    kinds = sorted({one.saving for one in rows if one.saving})
    return {
        "requests_b": len(rows),
        "answered_b": {kind: sum(one.saving == kind for one in rows) for kind in kinds},
    }


if __name__ == "__main__":
    main()
