"""The course of a gate as a picture: the bound, what was certified and what came of it, and how much it served."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from costkit.bound import PER_REQUEST
from costkit.errors import ConfigError
from costkit.report.gates_course import Course
from costkit.report.plot import HIT, MISS, PAID, SAVED, figure_of, plain, saved_as
from costkit.report.read import clean, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_gates", "risk_axes", "time_axis"]

_DRAWN = 4
_TALLEST = 4  # the risk axis ends at so many times the bound: before there is evidence anything is possible


def draw_gates(told: list[Course], path: str | os.PathLike[str]) -> Path:
    """Draw the courses into a picture file (.png, .svg or .pdf), at most the four newest.

    Raises:
        MissingExtra: matplotlib is not installed.
        ConfigError: no gate has evidence, no such ending, or the file cannot be written.
    """
    target = Path(path)
    shown = [one for one in told if one.moments][-_DRAWN:]
    with saved_as(target, "there is no evidence of any gate yet" if not shown else None):
        figure = figure_of(10, 4.5 * len(shown) + 1.5)
        axes = figure.subplots(2 * len(shown), 1, squeeze=False, height_ratios=[3, 2] * len(shown))[:, 0]
        for number, one in enumerate(shown):
            top, below = axes[2 * number], axes[2 * number + 1]
            below.sharex(top)
            risk_axes(top, one)
            top.tick_params(labelbottom=False)
            _served(below, one)
        figure.savefig(target)
    return target


def risk_axes(axes: Axes, one: Course) -> None:
    """The bound, what is certified, and where the running average lies."""
    from matplotlib.ticker import PercentFormatter

    dates, nan = _dates(one), float("nan")
    low = [nan if m.low is None else m.low for m in one.moments]
    high = [nan if m.high is None else m.high for m in one.moments]
    certified = [nan if m.certified is None else m.certified for m in one.moments]
    average = [nan if m.average is None else m.average for m in one.moments]
    axes.plot(dates, average, color=HIT, lw=1.4, label="running average, by audits")
    axes.fill_between(dates, low, high, color=HIT, alpha=0.15, lw=0, label="its confidence sequence")
    axes.plot(dates, certified, color=SAVED, lw=1.6, marker="o", ms=2, label="certified at most")
    axes.axhline(one.asked, color=PAID, ls="--", lw=1.4, label=f"bound {percent(one.asked)}")
    _demotions(axes, one)
    axes.set_ylim(0, _TALLEST * one.asked)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    axes.set_ylabel("wrong, of all calls" if one.per == PER_REQUEST else "wrong, of served")
    name = one.name if one.model is None else f"{one.name}, {one.model}"
    axes.set_title(
        clean(name, 100).replace("$", r"\$"), loc="left", pad=22
    )  # matplotlib takes it for a formula
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 0.99), ncols=4, fontsize=8)
    plain(axes)


def _served(axes: Axes, one: Course) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.fill_between(_dates(one), [m.served for m in one.moments], step="pre", color=SAVED, alpha=0.6, lw=0)
    _demotions(axes, one)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylabel("calls it let pass")
    time_axis(axes)
    plain(axes)


def time_axis(axes: Axes) -> None:
    """Dates or hours below, as the span asks for."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator: Any = AutoDateLocator(tz=UTC)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))  # type: ignore[no-untyped-call]
    axes.set_xlabel("UTC")


def _demotions(axes: Axes, one: Course) -> None:
    for number, at in enumerate(one.demoted_at):
        label = None if number else "closed by its alarm"
        axes.axvline(datetime.fromtimestamp(at, UTC), color=MISS, lw=1.2, label=label)  # type: ignore[arg-type]


def _dates(one: Course) -> list[Any]:
    try:
        return [datetime.fromtimestamp(m.at, UTC) for m in one.moments]
    except (OverflowError, OSError, ValueError) as exc:
        raise ConfigError(
            f"--plot: the evidence of {one.name!r:.80} has times that are none ({exc})"
        ) from exc
