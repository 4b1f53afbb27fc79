"""The cost of one's own serving as text and as a curve."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from loadtests.plot import BAD, GOOD, GREY, INK, clear, figure_of, saved
from loadtests.words import money
from serving.own_cost.bill import SHARES, BreakEven, OwnCost

LOOSE = 0.4  # width of the prompt weight's interval, relative to it, from which the split deserves a warning
UNTOLD = 0.02  # share of requests without usage from which the weights deserve a warning


def tables(cost: OwnCost) -> Group:
    """Weights, bill and break-even, and what to do next."""
    parts: list[Table | Text] = [_weights(cost), _bill(cost)]
    if cost.even is not None:
        parts.append(_curve(cost.even, str(cost.against)))
    return Group(*parts, *(Text(line) for line in notes(cost)))


def _weights(cost: OwnCost) -> Table:
    table = _table("machine time per token (95 % interval)", "", "ms", "low", "high")
    weights = cost.weights
    for name, value, limits in (
        ("uncached prompt token", weights.fresh, weights.fresh_limits),
        ("cached prompt token", weights.cached, weights.cached_limits),
        ("output token", weights.output, weights.output_limits),
    ):
        table.add_row(name, *(f"{1000 * one:.3g}" for one in (value, *limits)))
    return table


def _bill(cost: OwnCost) -> Table:
    bill = cost.bill
    table = _table(
        f"{bill.seconds:.0f} s at {money(bill.usd_per_hour)} an hour", "", "USD", "share", "per query"
    )
    lines = [
        ("uncached prompt tokens", bill.prompts),
        ("cached prompt tokens", bill.cached),
        ("output tokens", bill.output),
        ("requests without usage", bill.failed),
        ("idle", bill.idle),
    ]
    for name, usd in [*lines, ("the machine", bill.total)]:
        each = (
            "-"
            if name == "idle"
            else money((usd - (bill.idle if name == "the machine" else 0)) / bill.queries)
        )
        table.add_row(name, money(usd), f"{usd / bill.total:.1%}", each)
    return table


def _curve(even: BreakEven, against: str) -> Table:
    low, mean, high = even.api
    head = f"1,000 queries: {against} {money(1000 * mean)} ({money(1000 * low)} to {money(1000 * high)})"
    table = _table(head, "used of the sustained rate", "queries/s", "own machine", "cheaper")
    for share in SHARES:
        own = even.own(share)
        cheaper = "own" if own < low else "API" if own > high else "about equal"
        table.add_row(f"{share:.0%}", f"{share * even.sustained:.3g}", money(1000 * own), cheaper)
    return table


def notes(cost: OwnCost) -> Iterator[str]:
    """What the figures rest on, and what to do next."""
    low, high = cost.weights.fresh_limits
    if high - low > LOOSE * cost.weights.fresh:
        yield (
            "The time of a prompt token is hard to tell from waiting here: take a run at a lower rate, or a longer "
            "one, with prompts of different lengths."
        )
    if cost.lost > UNTOLD:
        yield f"{cost.lost:.0%} of the requests report no tokens; their machine time has a line of its own."
    even = cost.even
    if even is not None:
        low, mean, high = even.utilisation
        rate = even.sustained
        if low > 1:
            yield (
                f"At {rate:.3g} queries/s the machine is never cheaper than {cost.against}: even fully used it costs "
                f"{mean:.1f} times as much."
            )
        else:
            ends = list(dict.fromkeys(f"{min(end, 1):.0%}" for end in (low, high)))
            yield (
                f"The machine is cheaper than {cost.against} where more than {' to '.join(ends)} of "
                f"{rate:.3g} queries/s are asked on average over the hours you pay; below that the API is."
            )
        if not even.given:
            yield (
                "That rate is the run's own. What the machine holds at your SLO is more, and the API is then dearer in "
                "comparison: find it with python -m loadtests.capacity and give it with --sustained."
            )
        yield "Answers may differ in quality: compare them with gold tests first. Operating the machine costs time too."
    if cost.price is not None:
        yield (
            f"For costkit: costkit.OwnGPU(usd_per_hour={cost.bill.usd_per_hour:g}, "
            f"tokens_per_second={float(cost.price.tokens_per_second):.4g}, "
            f"weight_in={float(cost.price.weight_in):.3g}, weight_cached={float(cost.price.weight_cached):.2g})"
        )


def _table(title: str, *heads: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for number, head in enumerate(heads):
        table.add_column(head, justify="right" if number else "left")
    return table


def draw(cost: OwnCost, path: Path) -> Path:
    """Draw dollars per 1,000 queries over utilisation into a picture file, the API beside it.

    Raises:
        ValueError: there is nothing to compare with.
        MissingExtra: matplotlib is not installed.
        ConfigError: no such ending, or the file cannot be written.
    """
    even = cost.even
    if even is None:
        raise ValueError("a break-even curve needs an API to compare with: --against MODEL")
    figure = figure_of(7, 4.2)
    axes = figure.subplots()
    shares = np.geomspace(0.02, 1, 200)
    own = np.array([1000 * even.own(float(one)) for one in shares])
    low, mean, high = (1000 * one for one in even.api)
    axes.plot(100 * shares, own, color=GOOD, linewidth=2)
    axes.axhline(mean, color=BAD, linewidth=2)
    axes.axhspan(low, high, color=BAD, alpha=0.15, linewidth=0)
    axes.annotate("own machine", (2.1, own[5]), (6, 4), textcoords="offset points", color=GOOD, va="bottom")
    axes.annotate(str(cost.against), (100, high), (-2, 4), textcoords="offset points", color=BAD, ha="right")
    left, _, right = even.utilisation
    if left < 1:
        axes.axvspan(100 * left, 100 * min(right, 1), color=GREY, alpha=0.2, linewidth=0)
        axes.annotate(
            f"equal from {left:.0%} to {min(right, 1):.0%}" if right - left > 0.005 else f"equal at {left:.0%}",
            (100 * left, own.max()), (-4, -4), textcoords="offset points", color=INK, ha="right", va="top",
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlim=(2, 100))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter(lambda value, _: "")
    axes.set_xticks([2, 5, 10, 20, 50, 100])
    source = "that one machine holds at its SLO" if even.given else "of the run"
    axes.set_xlabel(f"used of {even.sustained:.3g} queries/s, the rate {source} (%)", color=INK)
    axes.set_ylabel("USD per 1,000 queries", color=INK)
    axes.set_title(
        f"Own machine at {money(even.usd_per_hour)} an hour against {cost.against}",
        loc="left",
        color=INK,
        fontsize=11,
    )
    clear(axes)
    return saved(figure, path)
