"""An engine with continuous batching, simulated step by step, whose machine time per token is known."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from loadtests.sample import Sample

PREFILL, CACHED, STEP, DECODE = (
    0.5e-3,
    0.02e-3,
    6e-3,
    1e-3,
)  # seconds a token, a cached token, a step, an answer in it


@dataclass(frozen=True, slots=True)
class Truth:
    """The samples of a run and what the engine's time truly went to, in seconds."""

    samples: list[Sample]
    output: float
    busy: float
    seconds: float


class _Request:
    def __init__(self, rng: np.random.Generator, arrived: float) -> None:
        self.arrived = arrived
        self.prompt = int(rng.integers(40, 800))
        self.cached = int(self.prompt * rng.random()) // 128 * 128 if rng.random() < 0.4 else 0
        self.output = int(rng.geometric(1 / 50)) + 1
        self.to_fill, self.to_write = self.prompt - self.cached, self.output
        self.first = self.last = 0.0


def simulate(seed: int, rate: float, *, number: int = 600, slots: int = 8, budget: int = 1024) -> Truth:
    """``number`` Poisson arrivals at ``rate`` a second: first come, first served, chunked prefill, one token a step."""
    rng = np.random.default_rng(seed)
    coming = deque(_Request(rng, float(at)) for at in np.cumsum(rng.exponential(1 / rate, number)))
    everything, waiting, running = list(coming), deque[_Request](), list[_Request]()
    now = busy = prompts = 0.0
    while coming or waiting or running:
        while coming and coming[0].arrived <= now:
            waiting.append(coming.popleft())
        while waiting and len(running) < slots:
            running.append(waiting.popleft())
        if not running:
            now = coming[0].arrived
            continue
        step, left, wrote = STEP, budget, []
        for one in running:
            if one.first:
                step += DECODE
                wrote.append(one)
                continue
            taken = min(one.to_fill, left)
            one.to_fill, left = one.to_fill - taken, left - taken
            cost = PREFILL * taken + (0 if one.to_fill else CACHED * one.cached)
            step, prompts = step + cost, prompts + cost
            wrote += [] if one.to_fill else [one]
        now, busy = now + step, busy + step
        for one in wrote:
            one.first, one.last, one.to_write = one.first or now, now, one.to_write - 1
        running = [one for one in running if one.to_write]
    samples = [
        Sample(
            number, "chat", one.arrived, one.arrived, one.last, first=one.first, last=one.last,
            prompt_tokens=one.prompt, cached_tokens=one.cached, output_tokens=one.output, finish="stop",
        )
        for number, one in enumerate(everything)
    ]  # fmt: skip
    return Truth(samples, (busy - prompts) / sum(one.output for one in everything), busy, now)
