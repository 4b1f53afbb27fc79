"""Hits of costkit beside other caches of LLM answers, in interleaved rounds of one run.

`python -m tests.benchmarks.peers setup` makes an environment for each peer below .venv-peers (half a gigabyte, pinned);
`python -m tests.benchmarks.overhead --json` then measures them. One that is not installed or does not work is skipped,
and the reason is printed. See :mod:`tests.benchmarks.contenders` for what a hit of each one is.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .contenders import HITS

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".venv-peers"

# LiteLLM imports its proxy for a cache hit, which its own requirements leave out: fastapi, orjson, soundfile.
# GPTCache's adapter is written for the SDK before its version 1.
PINS: Mapping[str, tuple[str, ...]] = {
    "litellm": (
        "litellm==1.106.2",
        "diskcache==5.6.3",
        "fastapi==0.165.0",
        "orjson==3.13.0",
        "soundfile==0.14.0",
    ),
    "langchain": ("langchain-community==0.4.2", "langchain-core==1.7.2", "sqlalchemy==2.1.9"),
    "gptcache": ("gptcache==0.1.44", "openai==0.28.1", "tiktoken==0.14.0"),
}
ENVIRONMENT = {
    "litellm": "litellm",
    "litellm_disk": "litellm",
    "langchain_sqlite": "langchain",
    "gptcache_exact": "gptcache",
    "gptcache_map": "gptcache",
}
"""The environment of a contender; the others run in this one."""

LLM_PEERS = ("litellm", "litellm_disk", "langchain_sqlite", "gptcache_exact")
"""What knows requests and answers of models, as its users call it; ``gptcache_map`` is a part of one."""

CONTENDERS = ("costkit", "costkit_async", *(name for name in HITS if name != "costkit"))


class Skipped(Exception):
    """Why a contender is not measured."""


class Contender:
    """One cache in a process of its own, warm, giving timings on request."""

    def __init__(
        self,
        name: str,
        folder: Path,
        *more: str,
        module: str = "tests.benchmarks.contenders",
        environment: Mapping[str, str] = ENVIRONMENT,
        make: str = "overhead-peers",
    ) -> None:
        self.name, home = name, environment.get(name)
        python = sys.executable if home is None else str(HOME / home / "bin" / "python")
        if not Path(python).exists():
            raise Skipped(f"not installed: make {make}")
        self.errors = (folder.parent / f"{name}.err").open("w+")
        self.process = subprocess.Popen(
            [python, "-W", "ignore", "-m", module, name, str(folder), *more],
            cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
        )  # fmt: skip
        self._reply()

    def round(self, calls: int) -> list[int]:
        """Nanoseconds of that many hits."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            print(calls, file=self.process.stdin, flush=True)
        reply = self._reply()
        if reply["upstream"] > 1 and self.name != "openai_sdk":
            raise Skipped(f"not hits: {reply['upstream']} calls went past the cache")
        return [int(taken) for taken in reply["taken"]]

    def _reply(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line:
            reply: dict[str, Any] = json.loads(line)
            return reply
        self.process.wait()
        self.errors.seek(0)
        told = [text.strip() for text in self.errors if text.strip()]
        raise Skipped(told[-1][:200] if told else f"exit status {self.process.returncode}")

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=20)
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()


def compare(rounds: int, calls: int, names: tuple[str, ...] = CONTENDERS) -> dict[str, Any]:
    """Microseconds of a hit: the median of the rounds' medians, round and round in turn, and why some are left out."""
    medians: dict[str, list[float]] = {name: [] for name in names}
    skipped: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder, _vocabulary(folder), contextlib.ExitStack() as stack:
        running = {}
        for name in names:
            try:
                running[name] = Contender(name, Path(folder) / name)
                stack.callback(running[name].close)
            except Skipped as why:
                skipped[name] = str(why)
        for _ in range(rounds):
            for name in [name for name in running if name not in skipped]:
                try:
                    medians[name].append(statistics.median(running[name].round(calls)) / 1e3)
                except Skipped as why:
                    skipped[name] = str(why)
    hits = {n: round(statistics.median(m), 2) for n, m in medians.items() if m and n not in skipped}
    return {"hit_us": hits, "skipped": skipped, **_ratios(hits), "rounds": rounds, "calls_a_round": calls}


def _ratios(hits: Mapping[str, float]) -> dict[str, Any]:
    """How often costkit's hit fits into that of each LLM-aware peer."""
    own = hits.get("costkit")
    ratios = {n: round(hits[n] / own, 2) for n in (*LLM_PEERS, "gptcache_map") if own and n in hits}
    best = min((n for n in LLM_PEERS if n in ratios), key=ratios.__getitem__, default=None)
    return {"ratios": ratios, "best_llm_peer": best, "ratio_best_llm_peer": best and ratios[best]}


@contextlib.contextmanager
def _vocabulary(folder: str) -> Iterator[None]:
    """GPTCache counts tokens with tiktoken, which would download its vocabulary: it finds costkit's offline one."""
    from costkit import tokens

    before = os.environ.get("TIKTOKEN_CACHE_DIR")
    os.environ["TIKTOKEN_CACHE_DIR"] = f"{folder}/vocabulary"
    try:
        tokens.count("", model="gpt-4")
        yield
    finally:
        if before is None:
            del os.environ["TIKTOKEN_CACHE_DIR"]
        else:
            os.environ["TIKTOKEN_CACHE_DIR"] = before


def setup(wanted: Mapping[str, tuple[str, ...]] = PINS) -> None:
    """Make the environments that are not there yet."""
    for name, pins in wanted.items():
        done, stamp = HOME / name / "pins.txt", "\n".join(pins)
        if done.exists() and done.read_text() == stamp:
            continue
        print(f"setting up {done.parent.relative_to(ROOT)} ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(done.parent)], check=True)
        python = str(done.parent / "bin" / "python")
        pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-compile", *pins]
        if subprocess.run(pip).returncode == 0:
            done.write_text(stamp)
        else:
            print(f"{name} could not be installed; the benchmark will skip it", flush=True)


if __name__ == "__main__":
    if sys.argv[1:] != ["setup"]:
        sys.exit("python -m tests.benchmarks.peers setup; the figures: python -m tests.benchmarks.overhead")
    setup()
