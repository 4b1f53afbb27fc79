"""What answers the demo's questions: the replayed recording, a real vLLM, or a provider."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import costkit
from serving.record import SLOTS
from serving.simulated.recording import Recording, load_recording
from serving.simulated.run import running

__all__ = [
    "SLOTS",
    "USD_PER_HOUR",
    "Machine",
    "fit_machine",
    "live_vllm",
    "machine_prices",
    "replayed",
    "usual_answer",
]

ROOT = Path(__file__).parents[2]
RECORDING = ROOT / "serving" / "recording"
# What two cores of a rented machine cost; an assumption, printed with every figure, set by --usd-per-hour.
USD_PER_HOUR = 0.10


@dataclass(frozen=True, slots=True)
class Machine:
    """How fast the recorded engine is with ``SLOTS`` requests at a time.

    ``prefill`` and ``decode``: seconds per uncached prompt token and per output token; ``service``: seconds per answer;
    ``stretch``: by how much the load makes an answer slower than it was when it was recorded alone.
    """

    prefill: float
    decode: float
    service: float
    stretch: float

    def rate(self, utilisation: float) -> float:
        """Questions a second that keep the slots this busy."""
        return utilisation * SLOTS / self.service

    def price(self, usd_per_hour: float) -> costkit.OwnGPU:
        """The recorded machine as a priced one: its hour is shared by ``SLOTS`` requests at a time."""
        return costkit.OwnGPU(
            usd_per_hour=usd_per_hour,
            tokens_per_second=Decimal(str(round(SLOTS / self.decode, 6))),
            weight_in=Decimal(str(round(self.prefill / self.decode, 6))),
        )


def fit_machine(recording: Recording) -> Machine:
    """Medians give the ratio of prefill to decode; both are scaled so that they add up to the time measured."""
    rows = list(recording.answers.values())
    loaded: Any = recording.meta["loaded"]
    stretch = float(loaded["stretch"])
    uncached = [a.prompt_tokens - a.cached_tokens for a in rows]
    prefill = statistics.median(a.ttft_s / max(1, n) for a, n in zip(rows, uncached, strict=True))
    decode = statistics.median(
        (a.e2e_s - a.ttft_s) / (a.completion_tokens - 1) for a in rows if a.completion_tokens > 1
    )
    fitted = prefill * sum(uncached) + decode * sum(a.completion_tokens for a in rows)
    scale = stretch * sum(a.e2e_s for a in rows) / fitted
    return Machine(prefill * scale, decode * scale, stretch * statistics.mean(a.e2e_s for a in rows), stretch)


def machine_prices(usd_per_hour: float = USD_PER_HOUR) -> costkit.Prices:
    """The recorded model at the price of the machine that served it; other models by the public list."""
    recording = load_recording(RECORDING)
    return costkit.Prices({recording.model: fit_machine(recording).price(usd_per_hour)})


def usual_answer(recording: Recording) -> dict[str, Any]:
    """A provider's response of the recording's mean size: what a call without an answer of its own is charged as."""
    rows = list(recording.answers.values())
    usage = {
        "prompt_tokens": round(statistics.mean(a.prompt_tokens for a in rows)),
        "completion_tokens": round(statistics.mean(a.completion_tokens for a in rows)),
    }
    return {"object": "chat.completion", "model": recording.model, "choices": [], "usage": usage}


def replayed(folder: Path, speed: float) -> contextlib.AbstractContextManager[str]:
    """A simulated server that replays the recording; yields its base URL."""
    return running("--slots", str(SLOTS), "--speed", str(speed), "--recording", str(folder))


@contextlib.contextmanager
def live_vllm(port: int = 8000) -> Iterator[str]:
    """A real vLLM on this machine: set up once, started, and stopped again; yields its base URL."""
    engine = [sys.executable, "-m", "serving.engine"]
    status = subprocess.run([*engine, "status"], cwd=ROOT, capture_output=True, text=True, check=False)
    ours = status.returncode != 0
    if ours:
        subprocess.run([*engine, "serve", "--background", "--port", str(port)], cwd=ROOT, check=True)
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        if ours:
            subprocess.run(
                [*engine, "stop", "--port", str(port)], cwd=ROOT, check=False, env=dict(os.environ)
            )
