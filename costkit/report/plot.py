"""The report as a picture: money a day, latency a day with hits apart from misses, and each gate's bound and risk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..call import NANO
from ..errors import ConfigError, MissingExtra
from ..stats import quantile
from . import facts
from .facts import Select
from .gates import deciding
from .gates_course import Course, course
from .read import reading

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["HIT", "MISS", "PAID", "SAVED", "Day", "Days", "daily", "figure_of", "plain", "plot", "saved_as"]

Pair = tuple[float, float]
PAID, SAVED, HIT, MISS = "#c1553b", "#4a9a6f", "#2f7fb8", "#7a5195"
_TICKS = 10
_GATES = 3
ENDINGS = (".png", ".svg", ".pdf")


@dataclass(frozen=True, slots=True)
class Day:
    """One day (UTC, ``YYYY-MM-DD``): nano-dollars, and (p50, p95) in seconds; None: no such queries."""

    day: str
    paid: int
    saved: int
    hits: Pair | None
    misses: Pair | None


@dataclass(frozen=True, slots=True)
class Days:
    """The days of a period that have queries, in their order, and the gates that decided on them."""

    days: tuple[Day, ...]
    gates: tuple[Course, ...] = ()


def daily(folder: str | os.PathLike[str], select: Select | None = None) -> Days:
    """What the picture shows, as data. Raises as :func:`make_report` does."""
    with reading(folder) as con:
        if con is None:
            return Days(())
        facts.pick(con, select or Select())
        label, ran = facts.dates()["day"], "role = 'call' AND ran"
        both = [
            {
                day: (quantile(found, 0.5), quantile(found, 0.95))
                for day, found in facts.quantiles_by(con, label, f"{ran} AND {which}")
            }
            for which in ("hit", "NOT hit")
        ]
        # A refresh is paid for too, and is taken off what serving the stale answer saved.
        money = con.execute(
            f"SELECT {label}, SUM(paid), SUM(CASE role WHEN 'call' THEN without - overhead ELSE 0 END - paid)"
            " FROM trees WHERE role IN ('call', 'refresh') GROUP BY 1"
        )
        return Days(
            tuple(
                Day(day, paid, saved, both[0].get(day), both[1].get(day))
                for day, paid, saved in money
                if day is not None
            ),
            tuple(course(con, named) for named in deciding(con)),
        )


def plot(days: Days, path: str | os.PathLike[str]) -> Path:
    """Draw the days into a picture file (.png, .svg or .pdf).

    Raises:
        MissingExtra: matplotlib is not installed.
        ConfigError: no days, no such ending, or the file cannot be written.
    """
    target = Path(path)
    with saved_as(target, None if days.days else "there are no queries in this period"):
        gates = days.gates[:_GATES]
        figure = figure_of(10, 7 + 3 * len(gates))
        money, latency, *risks = figure.subplots(2 + len(gates), 1)
        _money(money, days)
        _latency(latency, days)
        money.sharex(latency)
        money.tick_params(labelbottom=False)
        for axes, one in zip(risks, gates, strict=True):
            _risk(axes, one)
        figure.savefig(target)
    return target


def figure_of(width: float, height: float) -> Figure:
    """An empty picture, in inches; raises MissingExtra where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise MissingExtra("--plot needs matplotlib: pip install 'costkit[plot]'") from exc
    return Figure(figsize=(width, height), dpi=120, layout="constrained")


@contextlib.contextmanager
def saved_as(target: Path, nothing: str | None = None) -> Iterator[None]:
    """Raises ConfigError where the file has another ending or cannot be written, or there is nothing to draw."""
    if target.suffix.lower() not in ENDINGS:
        raise ConfigError(f"--plot {target}: end the name in {', '.join(ENDINGS)}")
    if nothing is not None:
        raise ConfigError(f"--plot {target}: {nothing}, nothing was drawn")
    try:
        yield
    except OSError as exc:
        raise ConfigError(f"--plot {target}: {exc.strerror or exc}; name a file that can be written") from exc


def _risk(axes: Axes, one: Course) -> None:
    from .gates_plot import risk_axes, time_axis

    risk_axes(axes, one)
    time_axis(axes)


def _dates(days: Days) -> list[Any]:
    return [datetime.strptime(day.day, "%Y-%m-%d").replace(tzinfo=UTC) for day in days.days]


def _money(axes: Axes, days: Days) -> None:
    dates = _dates(days)
    paid = [day.paid / NANO for day in days.days]
    # A saving that cost more than it saved is drawn below zero, not hidden.
    saved = [day.saved / NANO for day in days.days]
    base = [p if s >= 0 else 0.0 for p, s in zip(paid, saved, strict=True)]
    axes.bar(dates, paid, width=0.8, color=PAID, label="paid")
    axes.bar(dates, saved, width=0.8, bottom=base, color=SAVED, label="saved")
    axes.set_ylabel("USD a day")
    axes.set_title(f"Paid {sum(paid):,.4g} USD, saved {sum(saved):,.4g} USD", loc="left")
    axes.legend(frameon=False, loc="upper left", ncols=2)
    axes.margins(y=0.15)
    plain(axes)


def _latency(axes: Axes, days: Days) -> None:
    from matplotlib.ticker import FuncFormatter

    from .read import seconds_text

    dates = _dates(days)
    for name, colour in (("misses", MISS), ("hits", HIT)):
        for at, style, label in ((1, "-", "p95"), (0, "--", "p50")):
            pairs: list[Pair | None] = [getattr(day, name) for day in days.days]
            if any(pairs):
                line = [float("nan") if pair is None else max(pair[at], 1e-6) for pair in pairs]
                axes.plot(dates, line, style, marker="o", ms=3, color=colour, label=f"{name}, {label}")
    axes.set_yscale("log")  # a hit is a thousand times faster than a miss
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: seconds_text(value)))
    axes.set_ylabel("latency")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 1.16), ncols=4)
    span = (dates[-1] - dates[0]).days
    ticks = [dates[0] + timedelta(days=n) for n in range(0, span + 1, max(1, -(-span // _TICKS)))]
    axes.set_xticks(ticks, [f"{tick:%d %b}" for tick in ticks])
    axes.set_xlim(dates[0] - timedelta(days=0.7), dates[-1] + timedelta(days=0.7))
    axes.set_xlabel(f"day (UTC), {dates[0]:%Y-%m-%d} to {dates[-1]:%Y-%m-%d}")
    plain(axes)


def plain(axes: Axes) -> None:
    """No box around it, faint lines for the eye."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
