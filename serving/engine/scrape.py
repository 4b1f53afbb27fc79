"""What a vLLM server says of itself on ``/metrics``: the few figures that explain cost and p95.

Counters only grow, so a figure for a run is the difference of two scrapes: `between`. The server's own latency
histograms are left out: their buckets are too coarse for the p95 of a small model.

>>> before = Scrape({"vllm:prefix_cache_queries_total": 100.0, "vllm:prefix_cache_hits_total": 0.0})
>>> after = Scrape({"vllm:prefix_cache_queries_total": 300.0, "vllm:prefix_cache_hits_total": 128.0})
>>> between(before, after).prefix_hit_rate
0.64
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from serving.engine.layout import EngineError
from serving.engine.warm import open_url

_LINE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?")
_MOST_BYTES = 16_000_000


@dataclass(frozen=True, slots=True)
class Scrape:
    """Values by metric name, summed over all its labels (engines, models, reasons)."""

    values: Mapping[str, float]

    def get(self, name: str) -> float:
        """The value of ``vllm:name``.

        Raises:
            EngineError: the server does not report it; another version may have renamed it.
        """
        try:
            return self.values[f"vllm:{name}"]
        except KeyError:
            raise EngineError(f"the server reports no vllm:{name}; is it vLLM 0.32?") from None


@dataclass(frozen=True, slots=True)
class Work:
    """What a server did between two scrapes."""

    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    finished: int
    refused: int
    preempted: int
    prefix_hit_rate: float | None
    """Share of looked-up prompt tokens that were in the prefix cache; ``None`` where none was looked up."""


def parse(text: str) -> Scrape:
    """Read the Prometheus text format; lines of other programs and histogram buckets are passed over."""
    values: dict[str, float] = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line.strip())
        if not match or not match[1].startswith("vllm:") or match[1].endswith(("_bucket", "_created")):
            continue
        try:
            value = float(match[3])
        except ValueError:
            continue
        if math.isfinite(value):
            values[match[1]] = values.get(match[1], 0.0) + value
    return Scrape(values)


def scrape(root: str, seconds: float = 5) -> Scrape:
    """The metrics of the server at ``root`` ("http://127.0.0.1:8000").

    Raises:
        EngineError: nothing answers there, or what answers is no vLLM.
    """
    try:
        with open_url(f"{root}/metrics", timeout=seconds) as answer:
            text = answer.read(_MOST_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise EngineError(f"{root}/metrics does not answer ({error}); is the server up?") from None
    found = parse(text)
    if not found.values:
        raise EngineError(f"{root}/metrics holds nothing of vLLM's; is another server on this port?")
    return found


def between(before: Scrape, after: Scrape) -> Work:
    """The work between two scrapes of one server.

    Raises:
        EngineError: a counter went down, so the server was started anew in between.
    """

    def grown(name: str) -> int:
        change = after.values.get(f"vllm:{name}", 0.0) - before.values.get(f"vllm:{name}", 0.0)
        if change < 0:
            raise EngineError(f"vllm:{name} went down between the scrapes: the server was started anew")
        return int(change)

    queries, hits = grown("prefix_cache_queries_total"), grown("prefix_cache_hits_total")
    return Work(
        prompt_tokens=grown("prompt_tokens_total"),
        cached_tokens=grown("prompt_tokens_cached_total"),
        output_tokens=grown("generation_tokens_total"),
        finished=grown("request_success_total"),
        refused=grown("admission_rejections_total"),
        preempted=grown("num_preemptions_total"),
        prefix_hit_rate=hits / queries if queries else None,
    )
