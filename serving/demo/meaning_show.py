"""Part two of the demo, for the terminal and as a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from serving.demo.meaning import Story
from serving.demo.show import BLUE, GREY, INK, PAPER

__all__ = ["draw", "print_story"]

RED = "#c93c37"
_WINDOW = 60  # requests that a share in the picture is taken over


def print_story(story: Story) -> None:
    """The parts of the stream side by side, then what it means, on stdout."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if Console().is_terminal else 118)
    table = Table(
        title=f"The semantic tier, max_error={story.max_error:g} of the answers it serves",
        title_justify="left",
    )
    table.add_column("requests")
    spans = _spans(story)
    for name, _, _ in spans:
        table.add_column(name, justify="right", no_wrap=True)
    rows: tuple[tuple[str, Callable[[int], bool]], ...] = (
        ("in all", lambda _: True),
        ("answered by a call", lambda at: story.savings[at] is None),
        ("  of these, audits of a hit", lambda at: story.audited[at]),
        ("repeated word for word (exact)", lambda at: story.savings[at] == "exact"),
        ("  of these, answer out of date", lambda at: story.savings[at] == "exact" and story.wrong[at]),
        ("served by meaning (semantic)", lambda at: story.savings[at] == "semantic"),
        ("  of these, truly wrong", lambda at: story.savings[at] == "semantic" and story.wrong[at]),
    )
    for label, count in rows:
        table.add_row(label, *(str(sum(count(at) for at in range(low, high))) for _, low, high in spans))
    console.print(table)
    for line in _lines(story):
        console.print(line, highlight=False, soft_wrap=True)


def _spans(story: Story) -> list[tuple[str, int, int]]:
    """Shadow, open before the change, from the change until it closed, after that; what there is of them."""
    end, changed = len(story.savings), story.changed
    opened = changed if story.opened is None else min(story.opened, changed)
    closed = end if story.closed is None else story.closed
    named = [
        ("in shadow", 0, opened), ("open", opened, changed),
        ("answers changed", changed, closed), ("closed", closed, end),
    ]  # fmt: skip
    return [span for span in named if span[1] < span[2]]


def _lines(story: Story) -> list[str]:
    kinds, changed = story.savings, story.changed
    if story.opened is None:
        return [
            f"the gate stayed in shadow: {len(kinds)} requests were too few to certify {story.max_error:.0%}"
        ]
    wrong = sum(kinds[at] == "semantic" and story.wrong[at] for at in range(changed))
    hits = kinds[:changed].count("semantic")
    certified = [m.certified for m in story.marks if m.certified is not None and m.at <= changed]
    lines = [
        f"opened after {story.opened} requests; truly wrong before the change: {wrong} of {hits} answers "
        f"served by meaning "
        f"({wrong / max(1, hits):.2%}); the bound is {story.max_error:.0%}"
        + (f", certified before the change: {certified[-1]:.2%} with 95 % confidence" if certified else "")
    ]
    if story.closed is None:
        lines.append(
            "the gate did not close because of the change: it was shut when it came, or never closed after it"
        )
    else:
        span = range(changed, story.closed)
        audits, late = (
            sum(story.audited[at] for at in span),
            sum(kinds[at] == "semantic" and story.wrong[at] for at in span),
        )
        lines.append(
            f"after the change it closed by itself within {story.closed - changed} requests: audited hits: {audits}, "
            f"wrong answers served by meaning until then: {late}"
        )
    lines.append(
        "exact repeats are not gated: when answers change, bump(epoch) or a ttl ends them; here nobody did, on purpose"
    )
    lines.append(
        f"money: ${story.spent:.6f} spent, ${story.saved:.6f} saved by exact and semantic hits, each call charged as "
        "one of the recording's mean size"
    )
    lines.append(
        f"this traffic is invented (serving/demo/people.py); the encoder, the gate, the judge and the ledger are real. "
        f"{story.seconds:.0f} s"
    )
    return lines


def draw(path: Path, story: Story) -> None:
    """What answered over time, and the risk certified beside the true one, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = plt.subplots(2, 1, figsize=(10, 6.2), sharex=True, facecolor=PAPER)
        _shares(axes[0], story)
        _risks(axes[1], story)
        for axis in axes:
            _marks(axis, story, named=axis is axes[0])
        title = "The semantic tier: in shadow, open, and closed by itself when the answers change"
        figure.suptitle(title, x=0.012, ha="left", fontsize=13, fontweight="bold", color=INK)
        source = f"{len(story.savings)} requests; invented traffic on the sample help desk. make demo"
        figure.text(0.012, 0.012, source, fontsize=8, color=GREY)
        figure.tight_layout(rect=(0, 0.03, 1, 0.97))
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=140, metadata={"Software": None})
        plt.close(figure)


def _shares(axis: Any, story: Story) -> None:
    at = np.arange(1, len(story.savings) + 1)
    served = 100 * _rolling([kind == "semantic" for kind in story.savings])
    exact = 100 * _rolling([kind == "exact" for kind in story.savings])
    axis.plot(at, served, color=BLUE, lw=2, label="served by meaning")
    axis.fill_between(at, served, color=BLUE, alpha=0.10, lw=0)
    axis.plot(at, exact, color=GREY, lw=1.4, label="exact repeats")
    axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 0.86))
    axis.set(ylabel=f"% of the last {_WINDOW} requests", ylim=(0, 100), xlim=(0, at[-1]))


def _risks(axis: Any, story: Story) -> None:
    at = np.arange(1, len(story.savings) + 1)
    hit = np.array([kind == "semantic" for kind in story.savings])
    wrong = np.cumsum(hit & np.array(story.wrong)) / np.maximum(1, np.cumsum(hit))
    wrong[~np.logical_or.accumulate(hit)] = np.nan
    certified = [np.nan if m.certified is None else 100 * m.certified for m in story.marks]
    axis.plot(at, 100 * wrong, color=RED, lw=2, label="truly wrong, of all served so far")
    axis.plot([m.at for m in story.marks], certified, color=BLUE, lw=2, label="certified at most, 95 %")
    axis.axhline(100 * story.max_error, color=INK, lw=1, ls="--", label=f"max_error = {story.max_error:.0%}")
    axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 0.95))
    axis.set(xlabel="requests", ylabel="% of answers served by meaning", ylim=(0, 200 * story.max_error))


def _marks(axis: Any, story: Story, *, named: bool) -> None:
    for at, name, side in (
        (story.opened, "opens", "left"), (story.changed, "answers change ", "right"), (story.closed, " closes", "left")
    ):  # fmt: skip
        if at is not None:
            axis.axvline(at, color=INK, lw=0.8, ls=":")
            if named:
                axis.text(at, 97, f" {name}" if side == "left" else name, ha=side, va="top", color=INK)


def _rolling(flags: Sequence[bool]) -> Any:
    """The share among the last ``_WINDOW`` (fewer at the start), at each request."""
    total = np.concatenate([[0], np.cumsum(flags)])
    ends = np.arange(1, len(flags) + 1)
    starts = np.maximum(0, ends - _WINDOW)
    return (total[ends] - total[starts]) / (ends - starts)
