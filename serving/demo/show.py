"""The demo's table for the terminal and its picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from serving.demo.arm import Sample
from serving.demo.summary import Arm, Figure, Saved

__all__ = ["draw", "print_table"]

GREY, BLUE, INK, PAPER = "#8a8f98", "#1f6feb", "#24292f", "#ffffff"


def print_table(without: Arm, with_: Arm, changes: Mapping[str, Figure], saved: Sequence[Saved]) -> None:
    """The result, side by side, on stdout."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if Console().is_terminal else 118)
    table = Table(title="The same questions, without costkit and with it", title_justify="left")
    table.add_column("95 % intervals")
    for name in ("without", "with costkit", "change, paired"):
        table.add_column(name, justify="right", no_wrap=True)
    rows: list[tuple[str, str, Figure, Figure, str]] = [
        ("cost", "cost per 1,000 queries", without.cost, with_.cost, "${:.4f}"),
        ("p50", "latency p50", without.p50, with_.p50, "{:.2f} s"),
        ("p95", "latency p95", without.p95, with_.p95, "{:.2f} s"),
    ]
    for key, name, before, after, form in rows:
        table.add_row(name, _cell(before, form), _cell(after, form), _change(changes.get(key)))
    points = f"{100 * (with_.right.value - without.right.value):+.1f} points"
    table.add_row("gold questions right", _share(without), _share(with_), points)
    calls = str(with_.model_calls - without.model_calls)
    table.add_row("model calls", str(without.model_calls), str(with_.model_calls), calls)
    table.add_row("failed", str(without.errors), str(with_.errors), "")
    console.print(table)
    for item in saved:
        each = f"{item.queries} of {with_.queries} queries, ${item.nano / 1e9:.6f}"
        console.print(f"saved by [bold]{item.kind}[/bold]: {each}", highlight=False)
    if not saved:
        console.print("nothing was saved: no question came twice")


def _change(figure: Figure | None) -> str:
    if figure is None:
        return ""
    text = f"{100 * figure.value:+.0f} %"
    if figure.interval is None:
        return f"{text} (too few)"
    return f"{text} [{100 * figure.interval[0]:+.0f} – {100 * figure.interval[1]:+.0f}]"


def _cell(figure: Figure, form: str) -> str:
    text = form.format(figure.value)
    if figure.interval is None:
        return f"{text} (too few)"
    return f"{text} [{form.format(figure.interval[0])} – {form.format(figure.interval[1])}]"


def _share(arm: Arm) -> str:
    if arm.right.interval is None:
        return "none asked"
    low, high = arm.right.interval
    return f"{arm.right.value:.0%} of {arm.judged} [{low:.0%} – {high:.0%}]"


def draw(
    path: Path,
    without: Sequence[Sample],
    with_: Sequence[Sample],
    arms: tuple[Arm, Arm],
    labels: Mapping[str, str],
) -> None:
    """Spend over time, latency distribution and gold score of both arms, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = plt.subplots(
            1, 3, figsize=(12.5, 4.3), width_ratios=(1.25, 1.25, 0.8), facecolor=PAPER
        )
        _spend(axes[0], without, with_)
        _latency(axes[1], without, with_, arms)
        _gold(axes[2], arms)
        figure.suptitle(labels["title"], x=0.012, ha="left", fontsize=13, fontweight="bold", color=INK)
        figure.text(0.012, 0.012, labels["source"], fontsize=8, color=GREY)
        figure.tight_layout(rect=(0, 0.035, 1, 0.965))
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=140, metadata={"Software": None})
        plt.close(figure)


def _spend(axis: Any, without: Sequence[Sample], with_: Sequence[Sample]) -> None:
    lines = []
    for samples, colour, name in ((without, GREY, "without costkit"), (with_, BLUE, "with costkit")):
        at = [s.at / 60 for s in samples]
        lines.append(np.cumsum([(s.cost or 0) / 1e6 for s in samples]))
        axis.plot(at, lines[-1], color=colour, lw=2, label=name)
    at = [s.at / 60 for s in without]
    axis.fill_between(at, lines[1], lines[0], color=BLUE, alpha=0.10, lw=0)
    saved = 1 - lines[1][-1] / lines[0][-1] if lines[0][-1] else 0.0
    axis.legend(frameon=False, loc="upper left")
    axis.set(
        title=f"Spend: {saved:.0%} saved",
        xlabel="minutes",
        ylabel="spent so far (thousandths of a dollar)",
        ylim=(0, None),
    )


def _latency(axis: Any, without: Sequence[Sample], with_: Sequence[Sample], arms: tuple[Arm, Arm]) -> None:
    for samples, colour, arm in ((without, GREY, arms[0]), (with_, BLUE, arms[1])):
        ordered = np.sort([max(s.latency, 1e-3) for s in samples])
        axis.step(ordered, np.arange(1, ordered.size + 1) / ordered.size, color=colour, lw=2, where="post")
        axis.plot([arm.p50.value], [0.5], "o", color=colour, ms=5)
        axis.plot([arm.p95.value], [0.95], "o", color=colour, ms=5)
    axis.axhline(0.95, color=GREY, lw=0.6, ls=":")
    axis.axhline(0.5, color=GREY, lw=0.6, ls=":")
    axis.set_xscale("log")
    p95 = f"p95: {arms[0].p95.value:.1f} s to {arms[1].p95.value:.1f} s"
    p50 = f"p50: {arms[0].p50.value:.1f} s to {arms[1].p50.value:.2f} s"
    axis.set(
        title=f"Latency. {p50}, {p95}",
        xlabel="seconds a user waits (log)",
        ylabel="share of queries",
        ylim=(0, 1.02),
    )
    axis.title.set_fontsize(10)


def _gold(axis: Any, arms: tuple[Arm, Arm]) -> None:
    for x, (arm, colour, name) in enumerate(((arms[0], GREY, "without"), (arms[1], BLUE, "with costkit"))):
        value = 100 * arm.right.value
        low, high = arm.right.interval or (0.0, 1.0)
        axis.bar(x, value, width=0.55, color=colour, alpha=0.85)
        axis.errorbar(x, value, [[value - 100 * low], [100 * high - value]], color=INK, capsize=4, lw=1.2)
        axis.text(x, 100 * high + 1.5, f"{value:.0f} %", ha="center", color=INK)
        axis.text(
            x,
            -0.055,
            f"{name}\n{arm.judged} questions",
            ha="center",
            va="top",
            transform=axis.get_xaxis_transform(),
        )
    axis.set(title="Gold answers right", xticks=[], xlim=(-0.6, 1.6), ylim=(0, 108), ylabel="%")
