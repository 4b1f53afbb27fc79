"""What all requests of a server share: its settings, clock, slots, prefix cache and truth log."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import IO

from serving.simulated.faults import Fault
from serving.simulated.timing import PrefixCache, Slots, Timeline
from serving.simulated.work import Work


@dataclass(frozen=True, slots=True)
class Settings:
    """How the server behaves; times in simulated seconds, of which `speed` pass in a real one."""

    model: str = "simulated"
    slots: int = 4
    prefill_base_s: float = 0.020
    prefill_per_token_s: float = 0.000_05
    tpot_s: float = 0.010
    output_tokens_mean: float = 64.0
    output_tokens_sigma: float = 0.5
    tokens_per_chunk: int = 1
    role_chunk_early: bool = False
    prefix_cache_blocks: int = 0
    block_tokens: int = 16
    queue_limit: int | None = None
    seed: int = 0
    faults: tuple[Fault, ...] = ()
    speed: float = 1.0


@dataclass(slots=True)
class Truth:
    """One line of the truth log: what the schedule was, in simulated seconds since the server's start.

    `start` is when the request got its slot; `first_token` and `last_token` are the deadlines of the first
    and last chunk with text that was sent, and `late_s` is how far behind its deadline the latest of them
    was written. A request that never came so far has None. `status` is 499 where the client left first.
    """

    id: str
    arrival: float
    start: float | None = None
    first_token: float | None = None
    last_token: float | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    status: int = 200
    fault: str | None = None
    queue_s: float | None = None
    late_s: float | None = None


class World:
    """The shared state; made inside a running event loop."""

    def __init__(self, settings: Settings, truth_log: IO[str] | None) -> None:
        self.settings = settings
        self.loop = asyncio.get_running_loop()
        self.slots = Slots(settings.slots)
        self._truth_log = truth_log
        self._prefix = PrefixCache(settings.prefix_cache_blocks, settings.block_tokens)
        self._born = self.loop.time()

    def log(self, truth: Truth) -> None:
        """Write a request's line of the truth log."""
        if self._truth_log is not None:
            fields = {name: getattr(truth, name) for name in Truth.__slots__}
            self._truth_log.write(json.dumps(fields) + "\n")

    def since_birth(self, when: float) -> float:
        """Return a time of the loop's clock as simulated seconds since the server's start."""
        return round((when - self._born) * self.settings.speed, 6)

    def timeline(self, work: Work, start: float, fault: Fault | None, struck: int) -> tuple[Timeline, int]:
        """Return the deadlines of an answer whose slot begins at `start`, and its cached prompt tokens."""
        have, count = self.settings, len(work.pieces)
        if work.recorded is not None:
            cached, ttft, total = work.recorded.cached_tokens, work.recorded.ttft_s, work.recorded.e2e_s
        else:
            cached = self._prefix.use(work.prompt_tokens)
            prefill = len(work.prompt_tokens) - cached
            ttft = have.prefill_base_s + have.prefill_per_token_s * prefill
            total = ttft + (count - 1) * have.tpot_s
        step = (total - ttft) / (count - 1) if count > 1 else 0.0
        stall = fault.seconds if fault is not None and fault.kind == "stall" else 0.0
        speed = have.speed
        line = Timeline(start + ttft / speed, step / speed, start + total / speed, struck, stall / speed)
        return line, cached
