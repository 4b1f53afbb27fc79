"""Fit the simulated server to a real run: `python -m serving.simulated.fit RUN --out profile.json`.

RUN is a load run (its folder, or its requests.jsonl) or a recording (`serving/recording`). From a load run:

- prefill: TTFT from the sending, as a line over uncached prompt tokens (Theil–Sen: the median of all slopes), from the
  quarter of the requests that found the fewest others in flight, so that no queueing is in it. A run that keeps its
  server busy all the time has no such requests; what then comes out is too slow.
- slots: how many requests were served at once, but for 1 % of the time; a lower bound unless requests had to wait.
- time per token alone, and how much slower with all slots taken: a line over how many others were served.
- lengths: a lognormal law, by maximum likelihood, of the answers that ended by themselves.

Then `python -m serving.simulated --profile profile.json`. One server, one model; the simulated one has neither chunked
prefill nor preemption, so compare its TTFT and latency with the run's before you trust it for another load.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.simulated.profile import write_profile
from serving.simulated.recording import META_FILE, load_recording

__all__ = ["FitError", "Fitted", "Point", "fit_recording", "fit_run", "main"]

Numbers = npt.NDArray[np.float64]
FEWEST = 20
MOST_PAIRS_OF = 400
OVER_SLOTS = 0.01
WAITING = 0.05


class FitError(ValueError):
    """The run cannot be fitted; the message is one line and says why."""


@dataclass(frozen=True, slots=True)
class Point:
    """One answered request: when it was sent, its first and last token (seconds of one clock), and its tokens."""

    sent: float
    first: float
    last: float
    uncached: int
    output: int
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a run says of its server: seconds and tokens.

    ``slots_known`` is False where no request had to wait, so that there may be more of them. ``ttft_off`` is the
    median distance between the fitted prefill and the TTFT of the requests it was fitted to, as a share of it.
    """

    slots: int
    slots_known: bool
    prefill_base: float
    prefill_per_token: float
    tpot: float
    load_factor: float
    output_mean: float
    output_sigma: float
    requests: int
    ttft_off: float

    def settings(self) -> dict[str, float]:
        """As the simulated server's settings: milliseconds."""
        return {
            "slots": self.slots,
            "prefill_base_ms": round(1000 * self.prefill_base, 4),
            "prefill_ms_per_token": round(1000 * self.prefill_per_token, 6),
            "tpot_ms": round(1000 * self.tpot, 4),
            "load_factor": round(self.load_factor, 4),
            "output_tokens_mean": round(self.output_mean, 2),
            "output_tokens_sigma": round(self.output_sigma, 4),
        }


def fit_run(points: Sequence[Point], slots: int | None = None) -> Fitted:
    """Fit a load run; ``slots`` where they are known.

    Raises:
        FitError: fewer than 20 answered requests with token counts.

    >>> points = [Point(i, i + 0.05 + 0.001 * (i % 7), i + 0.55 + 0.001 * (i % 7), i % 7, 51) for i in range(40)]
    >>> fitted = fit_run(points)
    >>> round(fitted.prefill_base, 6), round(fitted.prefill_per_token, 6), round(fitted.tpot, 6), fitted.slots
    (0.05, 0.001, 0.01, 1)
    """
    if len(points) < FEWEST:
        raise FitError(f"{len(points)} answered requests with token counts; a fit needs {FEWEST}")
    sent, first, last = (_array(getattr(p, name) for p in points) for name in ("sent", "first", "last"))
    uncached, output = _array(p.uncached for p in points), _array(p.output for p in points)
    ttft, others = first - sent, _running(sent, last, sent) - 1
    alone = others <= np.quantile(others, 0.25)
    base, per_token = _line(uncached[alone], ttft[alone])
    prefill = base + per_token * uncached
    began = np.maximum(sent, first - prefill)
    found = slots or _slots(began, last)
    # Waiting: clearly more than the prefill and its noise.
    waited = float(np.mean(ttft > prefill + max(0.01, 0.5 * float(np.median(prefill)))))
    tpot, factor = _decode(began, last, (last - first), output, found)
    mean, sigma = _lengths([p.output for p in points if p.whole] or [p.output for p in points])
    off = float(np.median(np.abs(ttft[alone] - prefill[alone]) / np.maximum(ttft[alone], 1e-9)))
    known = slots is not None or waited >= WAITING
    return Fitted(found, known, base, per_token, tpot, factor, mean, sigma, len(points), off)


def fit_recording(folder: str | Path) -> Fitted:
    """Fit a recording, whose answers were asked one at a time; slots and their slowing are what it says was measured.

    Raises:
        RecordingError: the recording is missing, broken or stale.
        FitError: it holds fewer than 20 answers.
    """
    recording = load_recording(folder)
    points, now = [], 0.0
    for answer in recording.answers.values():
        fresh = answer.prompt_tokens - answer.cached_tokens
        first, last = now + answer.ttft_s, now + answer.e2e_s
        points.append(
            Point(now, first, last, fresh, answer.completion_tokens, answer.finish_reason == "stop")
        )
        now = last + 1.0
    alone = fit_run(points, slots=1)
    loaded: Any = recording.meta.get("loaded")
    if not isinstance(loaded, dict):
        return alone
    values = {name: getattr(alone, name) for name in alone.__slots__}
    return Fitted(**{**values, "slots": int(loaded["concurrency"]), "load_factor": float(loaded["stretch"])})


def _array(values: Iterable[float]) -> Numbers:
    return np.array(list(values), dtype=np.float64)


def _running(begin: Numbers, end: Numbers, at: Numbers) -> Numbers:
    """How many of the spans [begin, end) hold each time."""
    begun = np.searchsorted(np.sort(begin), at, side="right")
    return np.asarray(begun - np.searchsorted(np.sort(end), at, side="right"), dtype=np.float64)


def _line(x: Numbers, y: Numbers) -> tuple[float, float]:
    """Base and slope, neither below 0, by the median of all slopes; of a sample of the points if they are many."""
    if len(x) > MOST_PAIRS_OF:
        chosen = np.random.default_rng(0).choice(len(x), MOST_PAIRS_OF, replace=False)
        x, y = x[chosen], y[chosen]
    first, second = np.triu_indices(len(x), 1)
    apart = x[second] != x[first]
    slopes = (y[second] - y[first])[apart] / (x[second] - x[first])[apart]
    slope = max(0.0, float(np.median(slopes))) if len(slopes) else 0.0
    return max(0.0, float(np.median(y - slope * x))), slope


def _slots(begin: Numbers, end: Numbers) -> int:
    """The level of requests served at once that is passed in only 1 % of the time in which any is served."""
    times = np.concatenate([begin, end])
    steps = np.concatenate([np.ones(len(begin)), -np.ones(len(end))])
    order = np.argsort(times, kind="stable")
    level, width = np.cumsum(steps[order])[:-1], np.diff(times[order])
    busy = float(width[level > 0].sum())
    most = int(level.max())
    return next(k for k in range(1, most + 1) if width[level > k].sum() <= OVER_SLOTS * busy)


def _decode(began: Numbers, last: Numbers, took: Numbers, output: Numbers, slots: int) -> tuple[float, float]:
    """Seconds a token when served alone, and the factor on it with all slots taken."""
    several = output > 1
    if not several.any():
        return 0.0, 1.0
    tpot = took[several] / (output[several] - 1)
    if slots == 1:
        return float(np.median(tpot)), 1.0
    beside = np.clip((_running(began, last, began[several]) - 1) / (slots - 1), 0.0, 1.0)
    alone, more = _line(beside, tpot)
    if alone <= 0.0:
        return float(np.median(tpot)), 1.0
    return alone, (alone + more) / alone


def _lengths(outputs: Sequence[int]) -> tuple[float, float]:
    """Mean and sigma of the lognormal law that makes these lengths likeliest."""
    logs = np.log(np.maximum(1.0, _array(outputs)))
    sigma = float(logs.std())
    return math.exp(float(logs.mean()) + sigma * sigma / 2), sigma


def _read(run: Path) -> list[Point]:
    """The answered requests of a load run."""
    from loadtests.sample import read_samples

    points = []
    for one in read_samples(run / "requests.jsonl" if run.is_dir() else run):
        if one.error is None and one.first is not None and one.last is not None:
            if one.prompt_tokens is None or not one.output_tokens or one.saving is not None:
                continue
            uncached = one.prompt_tokens - (one.cached_tokens or 0)
            points.append(
                Point(one.sent, one.first, one.last, uncached, one.output_tokens, one.finish == "stop")
            )
    return points


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit and write; 0 when it is written, 2 with one line when it cannot be."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.simulated.fit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "run", type=Path, help="a load run's folder or requests.jsonl, or a recording's folder"
    )
    parser.add_argument("--out", type=Path, default=Path("profile.json"))
    parser.add_argument(
        "--slots", type=int, help="how many it serves at once, where you know (vLLM: max-num-seqs)"
    )
    options = parser.parse_args(arguments)
    try:
        recorded = (options.run / META_FILE).exists()
        fitted = fit_recording(options.run) if recorded else fit_run(_read(options.run), options.slots)
        told = {"from": options.run.name, "requests": fitted.requests, "ttft_off": round(fitted.ttft_off, 4)}
        write_profile(options.out, fitted.settings(), {**told, "slots_known": fitted.slots_known})
    except OSError as error:
        print(f"fit: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except ValueError as error:
        print(f"fit: {error}", file=sys.stderr)
        return 2
    print(json.dumps(fitted.settings()))
    least = "" if fitted.slots_known else "; slots is a lower bound, for no request had to wait (--slots N)"
    print(
        f"{fitted.requests} requests; TTFT is off the fitted line by {fitted.ttft_off:.1%} in the median{least}\n"
        f"next: python -m serving.simulated --profile {options.out}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
