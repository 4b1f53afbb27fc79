"""What all requests of a server share: its settings, time, slots, prefix cache and truth log."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import IO

from serving.simulated.faults import Fault
from serving.simulated.pace import Pace
from serving.simulated.timing import PrefixCache, Slots, Timeline
from serving.simulated.work import Work


@dataclass(frozen=True, slots=True)
class Settings:
    """How the server behaves; times in simulated seconds, of which `speed` pass in a real one.

    A token takes `tpot_s` when its request is served alone, `load_factor` times that when all slots are taken, and in
    between by how many are as the request begins. `reasoning_share` of an answer's tokens come first, in the delta's
    `reasoning_field`. `retry_after_s` is what 429 and 503 say, None: nothing. `key` is the only one served, None: any
    and none. `freeze` is (seconds, seconds after the first request).
    """

    model: str = "simulated"
    slots: int = 4
    prefill_base_s: float = 0.020
    prefill_per_token_s: float = 0.000_05
    tpot_s: float = 0.010
    load_factor: float = 1.0
    output_tokens_mean: float = 64.0
    output_tokens_sigma: float = 0.5
    tokens_per_chunk: int = 1
    role_chunk_early: bool = False
    reasoning_share: float = 0.0
    reasoning_field: str = "reasoning_content"
    prefix_cache_blocks: int = 0
    block_tokens: int = 16
    queue_limit: int | None = None
    retry_after_s: float | None = 1.0
    key: str | None = None
    answer_html: bool = False
    freeze: tuple[float, float] | None = None
    seed: int = 0
    faults: tuple[Fault, ...] = ()
    speed: float = 1.0


@dataclass(slots=True)
class Truth:
    """One line of the truth log: the schedule and what was done, in simulated seconds since the server's start.

    `start` is when the request got its slot; `first_token` and `last_token` are the deadlines of the first
    and last chunk with text that was sent, `written_first` and `written_last` when they were written, and `late_s` is
    how far behind its deadline the latest of all chunks was. `written_first - arrival` is the true TTFT and
    `written_last - arrival` the true latency, as far as the server is concerned. (A plain answer is written at once, at
    its end.) A request that never came so far has None. `status` is 499 where the client left first. The server's
    first line on standard output gives its start by the system's monotonic clock, as `monotonic`.
    """

    id: str
    arrival: float
    start: float | None = None
    first_token: float | None = None
    last_token: float | None = None
    written_first: float | None = None
    written_last: float | None = None
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
        self.pace = Pace(self.loop)
        self.slots = Slots(settings.slots)
        self.born = self.loop.time()
        self._truth_log = truth_log
        self._prefix = PrefixCache(settings.prefix_cache_blocks, settings.block_tokens)

    def log(self, truth: Truth) -> None:
        """Write a request's line of the truth log."""
        if self._truth_log is not None:
            fields = {name: getattr(truth, name) for name in Truth.__slots__}
            self._truth_log.write(json.dumps(fields) + "\n")

    def since_birth(self, when: float) -> float:
        """Return a time of the loop's clock as simulated seconds since the server's start."""
        return round((when - self.born) * self.settings.speed, 6)

    def timeline(self, work: Work, start: float, fault: Fault | None, struck: int) -> tuple[Timeline, int]:
        """Return the deadlines of an answer whose slot begins at `start` (server time), and its cached tokens."""
        have, count = self.settings, len(work.pieces)
        if work.recorded is not None:
            cached, ttft, total = work.recorded.cached_tokens, work.recorded.ttft_s, work.recorded.e2e_s
        else:
            cached = self._prefix.use(work.prompt_tokens)
            prefill = len(work.prompt_tokens) - cached
            ttft = have.prefill_base_s + have.prefill_per_token_s * prefill
            total = ttft + (count - 1) * have.tpot_s * self._load()
        step = (total - ttft) / (count - 1) if count > 1 else 0.0
        stall = fault.seconds if fault is not None and fault.kind == "stall" else 0.0
        speed = have.speed
        line = Timeline(start + ttft / speed, step / speed, start + total / speed, struck, stall / speed)
        return line, cached

    def _load(self) -> float:
        """By how much tokens are slower now than for a request that is served alone."""
        others = (self.slots.running - 1) / (self.slots.size - 1) if self.slots.size > 1 else 0.0
        return 1.0 + (self.settings.load_factor - 1.0) * others
