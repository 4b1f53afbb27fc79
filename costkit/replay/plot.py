"""Precision against hit rate, with the bounds as points, as a picture."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..bound import PER_HIT
from ..errors import ConfigError, MissingExtra
from .measure import Replay

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["check_plot", "plot"]

ENDINGS = (".png", ".svg", ".pdf")
COLOURS = ("#2f7fb8", "#c1553b")
POINTS, MARKS = ("#222222", "#4a9a6f", "#7a5195", "#d08a2e"), ("o", "s", "D", "^", "v")
_FEWEST = 30  # answers below which a precision is chance


def check_plot(path: str | os.PathLike[str]) -> Path:
    """The file, if it can be drawn into; before any work is done.

    Raises:
        MissingExtra: matplotlib is not installed.
        ConfigError: no such ending or folder.
    """
    target = Path(path)
    if target.suffix.lower() not in ENDINGS:
        raise ConfigError(f"--plot {target}: end the name in {', '.join(ENDINGS)}")
    if not target.absolute().parent.is_dir():
        raise ConfigError(f"--plot {target}: the folder does not exist; make it first")
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as exc:
        raise MissingExtra("--plot needs matplotlib: pip install 'costkit[plot]'") from exc
    return target


def plot(told: Replay, path: str | os.PathLike[str]) -> Path:
    """Draw the curves of a replay (made with ``curves=True``) and its bounds; raises as :func:`check_plot`."""
    target = check_plot(path)
    from matplotlib.figure import Figure as Picture

    picture = Picture(figsize=(8, 5), dpi=120, layout="constrained")
    axes = picture.subplots()
    lowest = _curves(axes, told)
    _points(axes, told)
    axes.set_xlabel("hit rate: share of all calls answered by meaning")
    axes.set_ylabel("precision: share of those answers that are right")
    axes.set_title(f"Precision against hit rate, {told.rows:,} calls", loc="left")
    axes.set_xlim(left=0)
    axes.set_ylim(max(0.0, lowest - 0.02), 1.004)
    axes.legend(frameon=False, loc="lower left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    try:
        picture.savefig(target)
    except OSError as exc:
        raise ConfigError(f"--plot {target}: {exc.strerror or exc}; name a file that can be written") from exc
    return target


def _curves(axes: Axes, told: Replay) -> float:
    """Draws them, without their first few candidates, whose precision is chance; returns the lowest drawn."""
    lowest = 1.0
    for curve, colour in zip(told.curves, COLOURS, strict=False):
        kept = [
            (x, y) for x, y in zip(curve.hit_rate, curve.precision, strict=True) if x * told.rows >= _FEWEST
        ]
        if kept:
            axes.plot(*zip(*kept, strict=True), color=colour, label=f"every row in the pool, by {curve.name}")
            lowest = min(lowest, *(y for _, y in kept))
    return max(lowest, 0.5)


def _points(axes: Axes, told: Replay) -> None:
    """What each bound would have served, of a pool without the rows it served, and with its first rows in shadow."""
    shown = [at for at in told.bounds if at.hits >= _FEWEST]
    for at, mark, colour in zip(shown, itertools.cycle(MARKS), itertools.cycle(POINTS)):
        precision = 1 - at.wrong / at.hits
        label = f"bound {at.bound.max_error * 100:g} % per {at.bound.per}"
        axes.plot([at.net.value], [precision], mark, color=colour, ms=8, mec="white", label=label)
    for limit in {at.bound.max_error for at in told.bounds if at.bound.per == PER_HIT}:
        axes.axhline(1 - limit, color="#999999", linewidth=0.6, linestyle=":")
