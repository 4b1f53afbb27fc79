"""The course of a gate as a picture: what was certified and what came of it beside the bound, and how much it served."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from costkit.bound import PER_REQUEST
from costkit.errors import ConfigError
from costkit.report.gates import Named, named_gates
from costkit.report.plot import HIT, MISS, PAID, SAVED, figure_of, plain, saved_as
from costkit.report.read import clean, percent, reading

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Course", "Moment", "course", "courses", "draw_gates", "risk_axes"]

_MOMENTS = 200
_DRAWN = 4
_TALLEST = 4  # the risk axis ends at so many times the bound: before there is evidence anything is possible


@dataclass(frozen=True, slots=True)
class Moment:
    """One moment of a gate. Risks are in the bound's own unit, None where nothing is certified or audited.

    ``low`` and ``high``: the confidence sequence of the running average; ``served``: the share of the calls since the
    moment before that were served, audited ones included.
    """

    at: float
    certified: float | None
    low: float | None
    high: float | None
    served: float


@dataclass(frozen=True, slots=True)
class Course:
    """One gate over time; ``demoted_at`` in Unix seconds."""

    name: str
    model: str | None
    asked: float
    per: str
    moments: tuple[Moment, ...]
    demoted_at: tuple[float, ...]


def courses(folder: str | os.PathLike[str], name: str | None = None) -> list[Course]:
    """The course of every gate of the folder (of one function), the newest last; reads only.

    Raises:
        FolderError: no kit's folder, or its ledger cannot be read.
    """
    with reading(folder) as con:
        return [] if con is None else [course(con, named) for named in named_gates(con, name)]


def course(con: sqlite3.Connection, named: Named) -> Course:
    """What a gate's evidence says, folded row by row and looked at some 200 times."""
    (rows,) = con.execute("SELECT COUNT(*) FROM evidence WHERE gate = ?", (named.id,)).fetchone()
    tended, moments = named.tended(con), list[Moment]()
    every, calls, passed = max(1, rows // _MOMENTS), 0, 0
    for number, (at, gate) in enumerate(tended.trace(), 1):
        if number % every and number != rows:
            continue
        through = gate.counts["served"] + gate.counts["audit"]
        asked = sum(gate.counts.values()) - gate.counts["rehearsed"]
        share = (through - passed) / (asked - calls) if asked > calls else 0.0
        low, high = gate.running() if gate.counts["audit"] else (None, None)
        moments.append(Moment(at, gate.ladder.certified(), low, high, share))
        calls, passed = asked, through
    demoted = tuple(tended.demoted_at)
    return Course(named.name, named.about.get("model"), named.asked, named.bound.per, tuple(moments), demoted)


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
    axes.fill_between(dates, low, high, color=HIT, alpha=0.18, lw=0, label="running average, confidence sequence")
    axes.plot(dates, certified, color=SAVED, lw=1.6, marker="o", ms=2, label="certified at most")
    axes.axhline(one.asked, color=PAID, ls="--", lw=1.4, label=f"bound {percent(one.asked)}")
    _demotions(axes, one)
    axes.set_ylim(0, _TALLEST * one.asked)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    axes.set_ylabel("wrong, of all calls" if one.per == PER_REQUEST else "wrong, of served")
    name = one.name if one.model is None else f"{one.name}, {one.model}"
    axes.set_title(clean(name, 100).replace("$", r"\$"), loc="left", pad=22)  # matplotlib takes it for a formula
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 0.99), ncols=4, fontsize=8)
    plain(axes)


def _served(axes: Axes, one: Course) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.ticker import PercentFormatter

    locator = AutoDateLocator()
    axes.fill_between(_dates(one), [m.served for m in one.moments], step="pre", color=SAVED, alpha=0.6, lw=0)
    _demotions(axes, one)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylabel("calls it let pass")
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))
    axes.set_xlabel("UTC")
    plain(axes)


def _demotions(axes: Axes, one: Course) -> None:
    for number, at in enumerate(one.demoted_at):
        label = None if number else "closed by its alarm"
        axes.axvline(datetime.fromtimestamp(at, UTC), color=MISS, lw=1.2, label=label)  # type: ignore[arg-type]


def _dates(one: Course) -> list[Any]:
    try:
        return [datetime.fromtimestamp(m.at, UTC) for m in one.moments]
    except (OverflowError, OSError, ValueError) as exc:
        raise ConfigError(f"--plot: the evidence of {one.name!r:.80} has times that are none ({exc})") from exc

