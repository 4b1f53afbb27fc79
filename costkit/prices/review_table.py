"""The review of prices on a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from costkit.prices.review import DAYS, Change, PricesReview

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

_SHOWN = 20
_STEERING = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # characters that steer a terminal or reorder what is shown


def to_table(review: PricesReview) -> Group:
    """The review for a rich Console, ending with what to do next."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = [_cell(line) for line in _head(review)]
    if review.models:
        parts.append(_models(review))
    for title, changes in (("Changes seen", review.jumps), ("Changes announced", review.announced)):
        if changes:
            parts.append(_changes(title, changes))
    parts += [
        _cell(f"{found.model}: {found.problem}")
        for found in review.models[:_SHOWN]
        if found.problem is not None
    ]
    parts += [Text(f"Next: {_clean(step)}", style="bold") for step in review.next_steps]
    return Group(*parts)


def _head(review: PricesReview) -> list[str]:
    age = "it carries no dated price"
    if review.newest is not None:
        age = f"its newest price is of {review.newest}, {review.age_days} days ago"
    lines = [f"Price list: {review.version}; {age}."]
    if not review.calls:
        return [*lines, f"No call to a model was recorded in the last {DAYS} days."]
    lines.append(
        f"{review.calls:,} calls to models in {DAYS} days: usage missing in {review.missing:.1%}, estimated in "
        f"{review.estimated:.1%}"
        + ("" if review.estimated_cost is None else f" ({review.estimated_cost:.1%} of spend)")
    )
    return lines


def _models(review: PricesReview) -> Table:
    table = _grid("model", "provider", "calls", "price from", "in", "cached", "out", "not listed")
    table.title = "Prices in force, USD per million tokens"
    for found in review.models[:_SHOWN]:
        rates: Mapping[str, str] = found.rates or {}
        listed = [rates.get(name, "-") for name in ("in_fresh", "cache_read", "out_text")]
        gaps = [
            *(f"{name} (no price)" for name in found.unpriced),
            *(f"{name} (assumed)" for name in found.assumed),
        ]
        source = "none" if found.source is None else f"{found.source}: {found.entry}"
        cells = [found.model, found.provider or "", f"{found.calls:,}", source, *listed, ", ".join(gaps)]
        table.add_row(*(_cell(text) for text in cells))
    if len(review.models) > _SHOWN:
        table.caption = f"and {len(review.models) - _SHOWN} more"
    return table


def _changes(title: str, changes: tuple[Change, ...]) -> Table:
    table = _grid("model", "from (UTC)", "in before", "in after", "out before", "out after", "cost", "")
    table.title = title
    for change in changes[:_SHOWN]:
        pairs = [
            (side or {}).get(name, "?")
            for name in ("in_fresh", "out_text")
            for side in (change.before, change.after)
        ]
        ratio = "unknown" if change.ratio is None else f"x {change.ratio:.3g}"
        note = "the old price is still used: a tier, an hour or a length" if change.back else ""
        table.add_row(*(_cell(text) for text in (change.model, _when(change.at), *pairs, ratio, note)))
    if len(changes) > _SHOWN:
        table.caption = f"and {len(changes) - _SHOWN} more"
    return table


def _grid(*heads: str) -> Table:
    from rich.table import Table

    table = Table(title_justify="left", title_style="", caption_justify="left")
    for head in heads:
        table.add_column(head, overflow="fold")
    return table


def _when(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return "?"


def _cell(text: object) -> Text:
    from rich.text import Text

    return Text(_clean(text))


def _clean(text: object) -> str:
    cut = str(text)[:400]
    if cut.isascii() and cut.isprintable():
        return cut
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in _STEERING else char
        for char in cut
    )
