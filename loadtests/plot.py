"""A load run as a picture: how latencies are spread, how they went over time, and what queries cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from costkit.errors import ConfigError, MissingExtra
from loadtests.metrics import ordered, series
from loadtests.report import Report
from loadtests.sample import Sample
from loadtests.words import money

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

__all__ = ["BAD", "GOOD", "GREY", "HUES", "INK", "clear", "draw", "figure_of", "log_ticks", "saved"]

HUES = {"ttft": "#2f7fb8", "e2e": "#7a5195"}
NAMES = {"ttft": "first token", "e2e": "last token"}
GOOD, BAD, GREY, INK = "#4a9a6f", "#c1553b", "#8a8f98", "#24292f"
ENDINGS = (".png", ".svg", ".pdf")
_CROWDED = 100.0  # from the smallest value to the largest, in times


def draw(report: Report, samples: Sequence[Sample], path: Path) -> Path:
    """Draw a run into a picture file (.png, .svg or .pdf).

    Raises:
        MissingExtra: matplotlib is not installed.
        ConfigError: no request succeeded, no such ending, or the file cannot be written.
    """
    rows = ordered(samples)
    if not any(one.error is None and one.e2e is not None for one in rows):
        raise ConfigError(f"{path}: no request succeeded, so there is nothing to draw")
    costs = series(rows, "cost")
    figure = figure_of(9, 10.5 if costs.size else 8)
    heights = [3.0, 2.4, 1.3, *([2.2] if costs.size else [])]
    axes = figure.subplots(len(heights), 1, height_ratios=heights)
    _spread(axes[0], report, rows)
    _course(axes[1], report, rows)
    _flight(axes[2], rows)
    axes[2].sharex(axes[1])
    axes[1].tick_params(labelbottom=False)
    if costs.size:
        _money(axes[3], report, rows)
    verdict = "" if report.verdict.valid else " - INVALID, see the report"
    rate = f"{report.requests:,} requests, {report.verdict.rate:.3g} a second"
    figure.suptitle(f"{report.name}: {rate}{verdict}", x=0.01, ha="left", fontsize=12, color=INK)
    return saved(figure, path)


def figure_of(width: float, height: float) -> Figure:
    """An empty picture, in inches; raises MissingExtra where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise MissingExtra("pictures need matplotlib: pip install 'costkit[plot]'") from exc
    return Figure(figsize=(width, height), dpi=120, layout="constrained", facecolor="white")


def saved(figure: Figure, path: Path) -> Path:
    """Write the picture; raises ConfigError where the ending is none or the file cannot be written."""
    if path.suffix.lower() not in ENDINGS:
        raise ConfigError(f"{path}: end the name in {', '.join(ENDINGS)}")
    try:
        figure.savefig(path)
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror or exc}; name a file that can be written") from exc
    return path


def clear(axes: Axes) -> None:
    """No box around it, faint lines for the eye."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e2e2e2", linewidth=0.6)
    axes.set_axisbelow(True)


def log_ticks(axis: Axis) -> None:
    """Plain numbers at 1, 2 and 5 of each decade of a log axis that has its data, at 1 and 3 where that is crowded."""
    from matplotlib.ticker import LogLocator, NullLocator

    low, high = axis.get_view_interval()
    crowded = low > 0 and high / low > _CROWDED
    axis.set_major_locator(LogLocator(10, subs=(1.0, 3.0) if crowded else (1.0, 2.0, 5.0)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:g}")


def _spread(axes: Axes, report: Report, rows: Sequence[Sample]) -> None:
    """Empirical distributions over all requests: those that failed never arrive, so the curves end below 100%."""
    for metric, hue in HUES.items():
        values, shown = np.sort(series(rows, metric)), report.figures.get(metric)
        if shown is None:
            continue
        shares = np.arange(1, values.size + 1) / len(rows) * 100
        axes.step(values, shares, where="post", color=hue, lw=1.8, label=NAMES[metric])
        if shown.p95.interval is not None and shown.p95.trusted:
            low, high = shown.p95.interval
            label = f"p95 of the {NAMES[metric]}, 95 % interval"
            axes.plot([low, high], [95, 95], color=hue, lw=6, alpha=0.45, solid_capstyle="butt", label=label)
        axes.plot([shown.p95.value], [95], "o", color=hue, ms=5, mec="white")
    for one in report.checked:
        if one.objective.metric in HUES:
            hue = {"pass": GOOD, "breach": BAD}.get(one.answer, GREY)
            axes.axvline(
                one.objective.limit, color=hue, lw=1.2, ls="--", label=f"{one.objective}: {one.answer}"
            )
    axes.axhline(95, color=GREY, lw=0.6, ls=":")
    axes.set(
        xscale="log", ylim=(0, 101), ylabel="% of all requests", xlabel="seconds from the intended send (log)"
    )
    log_ticks(axes.xaxis)
    axes.legend(frameon=False, fontsize=8, loc="upper left", ncols=3, bbox_to_anchor=(0, 1.18))
    clear(axes)


def _course(axes: Axes, report: Report, rows: Sequence[Sample]) -> None:
    for metric, hue in HUES.items():
        both = [(one.intended, getattr(one, metric)) for one in rows if one.error is None]
        # Clocks that run backwards make times below zero, which a log axis does not have.
        pairs = [(at, value) for at, value in both if value is not None and value > 0]
        if pairs:
            # Thousands of dots are drawn as one image inside a vector file.
            at, found = zip(*pairs, strict=True)
            axes.plot(at, found, ".", color=hue, ms=2.5, alpha=0.6, label=NAMES[metric], rasterized=True)
    failed = [one.intended for one in rows if one.error is not None]
    if failed:
        low = axes.get_xaxis_transform()
        axes.plot(failed, [0.02] * len(failed), "|", color=BAD, ms=9, label="failed", transform=low)
    axes.set(yscale="log", ylabel="seconds (log)")
    log_ticks(axes.yaxis)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            frameon=False, fontsize=8, loc="upper left", ncols=3, bbox_to_anchor=(0, 1.14), markerscale=2
        )
    clear(axes)


def _flight(axes: Axes, rows: Sequence[Sample]) -> None:
    at = [one.intended for one in rows]
    axes.step(at, [one.in_flight for one in rows], where="post", color=INK, lw=1, label="requests in flight")
    axes.set(ylabel="in flight", xlabel="seconds since the start", ylim=(0, None))
    lag = axes.twinx()
    lag.plot(at, [one.lag * 1000 for one in rows], color="#d08a2e", lw=0.9, label="schedule lag (ms)")
    lag.set(ylabel="lag, ms", ylim=(0, None))
    lag.spines[["top", "left"]].set_visible(False)
    handles = [*axes.get_lines(), *lag.get_lines()]
    axes.legend(
        handles=handles, frameon=False, fontsize=8, loc="upper left", ncols=2, bbox_to_anchor=(0, 1.25)
    )
    clear(axes)


def _money(axes: Axes, report: Report, rows: Sequence[Sample]) -> None:
    """Spent so far, and what each kind of saving answered."""
    paid = [one for one in rows if one.cost_nano is not None]
    at, total = [one.intended for one in paid], np.cumsum([(one.cost_nano or 0) / 1e9 for one in paid])
    axes.fill_between(at, total, color=BAD, alpha=0.15, lw=0)
    axes.plot(at, total, color=BAD, lw=1.6)
    cost = report.cost
    interval = "" if cost.interval is None else f" [{money(cost.interval[0])} - {money(cost.interval[1])}]"
    each = f"{money(cost.mean)} a query{interval}" if cost.mean is not None else "cost unknown"
    kinds = "".join(f", {count:,} saved by {kind}" for kind, (count, _) in cost.savings.items())
    axes.set_title(f"{each}{kinds}", loc="left", fontsize=9)
    axes.set(ylabel="USD spent so far", xlabel="seconds since the start", ylim=(0, None))
    clear(axes)
