"""Precision against hit rate, and the hit rate as it grows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .figures import curve
from .seeds import Job, Seed

__all__ = ["draw"]

_PARTS = 30


def draw(path: Path, seeds: Sequence[Seed], job: Job, found: dict[str, Any]) -> None:
    """Write the picture; needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    _against(left, seeds, job, found)
    _over_time(right, seeds, found)
    figure.savefig(path, dpi=140)
    pyplot.close(figure)


def _against(axes: Any, seeds: Sequence[Seed], job: Job, found: dict[str, Any]) -> None:
    ruled = [seed.ruled for seed in seeds]
    for name in ruled[0]:
        rates, precisions = curve(ruled, name)
        axes.plot(rates, precisions, lw=1.2, label=f"one threshold, {name[:40]}")
    axes.plot(
        found["net_hit_rate"], 1 - found["wrong_per_hit"], "o", color="black", label="costkit, net of audits"
    )
    entries = [tally for of in ruled for tally in [of[next(iter(of))].per_entry]]
    served = max(1, sum(tally.hits for tally in entries))
    axes.plot(
        sum(tally.hit_rate for tally in entries) / len(entries),
        1 - sum(tally.wrong for tally in entries) / served,
        "^", color="tab:red", label="a threshold for each entry",
    )  # fmt: skip
    if job.bound.per == "hit":
        axes.axhline(1 - job.bound.max_error, color="grey", lw=0.8, ls="--", label="the bound")
    else:
        grid = np.linspace(max(job.bound.max_error, 0.01), 1, 200)
        axes.plot(grid, 1 - job.bound.max_error / grid, color="grey", lw=0.8, ls="--", label="the bound")
    axes.set(xlabel="hit rate", ylabel="right answers among hits", xlim=(0, 1), ylim=(0.8, 1.005))
    axes.legend(fontsize=7, loc="lower left")


def _over_time(axes: Any, seeds: Sequence[Seed], found: dict[str, Any]) -> None:
    runs = [np.frombuffer(seed.cold.served, np.uint8).astype(float) for seed in seeds]
    parts = np.array([[part.mean() for part in np.array_split(run, min(_PARTS, len(run)))] for run in runs])
    at = (np.arange(parts.shape[1]) + 0.5) / parts.shape[1] * len(runs[0])
    low, high = np.quantile(parts, [0.05, 0.95], axis=0)
    axes.fill_between(at, low, high, alpha=0.25, lw=0, label="5th to 95th percentile of seeds")
    axes.plot(at, parts.mean(axis=0), label="costkit, net of audits")
    if found["best_static_hit_rate"] is not None:
        axes.axhline(
            found["best_static_hit_rate"], color="grey", ls="--", lw=0.8, label="best threshold, whole stream"
        )
    axes.set(xlabel="questions asked", ylabel="hit rate", ylim=(0, None))
    axes.legend(fontsize=7, loc="lower right")
