"""A report on a terminal: in colour there, plain in a pipe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .groups import Group, Spender
from .read import clean, percent, seconds_text, usd, when
from .summary import Latency, Money, Report

if TYPE_CHECKING:
    from rich.console import Group as Rich
    from rich.table import Table
    from rich.text import Text

__all__ = ["cell", "grid", "label_text", "to_table"]

_SHOWN = 20
_HEADS = {"name": "function", "scope": "scope", "model": "model", "day": "day (UTC)"}


def to_table(report: Report) -> Rich:
    """The report for a rich Console; everything from outside is shown as text, never as markup or control codes."""
    from rich.console import Group as Rich
    from rich.text import Text

    parts: list[Any] = [Text(_head(report), style="bold")]
    if report.counts.queries or report.money.attempts:
        parts += [_answers(report), _money(report), _latency(report.latency)]
        parts += [_savings(report)] if report.savings else [Text("No saving has answered a call yet.")]
        parts += [_gates(report)] if report.gates else []
        if report.groups:
            parts += _groups(report)
        parts.append(_spenders(report))
    if report.budgets:
        parts.append(_budgets(report))
    for step in report.next_steps:
        parts.append(Text(f"Next: {step}", style="bold"))
    return Rich(*(part for part in parts if part is not None))


def grid(*heads: str, title: str | None = None, right: Sequence[int] = ()) -> Table:
    """An empty table; the columns ``right`` are aligned to the right."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="")
    for at, head in enumerate(heads):
        table.add_column(head, justify="right" if at in right else "left", overflow="fold")
    return table


def cell(text: object, most: int = 0, style: str = "") -> Text:
    """Text from outside for a table: no markup, no control codes."""
    from rich.text import Text

    return Text(clean(text, most), style=style)


def label_text(label: str | None, none: str = "none") -> str:
    """A scope's JSON label as ``name=value`` words; any other label as it is.

    >>> label_text('{"tenant": "acme", "user": 7}'), label_text(None)
    ('tenant=acme user=7', 'none')
    """
    if label is None:
        return none
    if isinstance(label, str) and label.startswith("{"):
        try:
            told = json.loads(label)
        except (ValueError, RecursionError):
            return label
        return " ".join(f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in told.items())
    return label


def _head(report: Report) -> str:
    counts, since = report.counts, when(report.since)
    period = f"since {since}" if since else "all that is recorded"
    rate = "" if counts.hit_rate is None else f", {percent(counts.hit_rate)} answered without asking a model"
    return f"{counts.queries:,} quer{'y' if counts.queries == 1 else 'ies'} ({period}){rate}"


def _answers(report: Report) -> Text:
    from rich.text import Text

    c, t = report.counts, report.tokens
    said = [f"{c.good:,} good"]
    for count, what in (
        (c.failed, "failed"),
        (c.incomplete, "left or cancelled"),
        (c.refused, "refused by a budget"),
    ):
        said += [f"{count:,} {what}"] if count else []
    line = f"Queries: {', '.join(said)}"
    if c.helped:
        line += f"; {c.helped:,} more saved in part (a nested call)"
    if t.hit_rate is not None and report.savings:
        least = f", at least: {t.unknown_hits:,} saved calls of unknown size" if t.unknown_hits else ""
        line += f"\nTokens: {percent(t.hit_rate)} of {t.saved + t.asked:,} were not sent to a model{least}"
    if t.cache_share is not None:
        line += f"\nInput tokens: {percent(t.cache_share)} of {t.input:,} read from the provider's cache"
    return Text(line)


def _money(report: Report) -> Table:
    m = report.money
    table = grid("money", "", "", right=(1,))
    table.add_row("spent", usd(m.total), _split(m))
    if m.reference or m.refresh:
        table.add_row("  by queries", usd(m.queries), "")
        table.add_row("  reference calls", usd(m.reference), "inside costkit.reference()")
        table.add_row("  refreshing stale answers", usd(m.refresh), "off the callers' path")
    table.add_row("a query, mean", usd(m.mean), _mean_note(report))
    if m.per_success is not None:
        wasted = report.counts.queries - report.counts.good
        note = f"all queries' spend over the {report.counts.good:,} good ones" if wasted else ""
        table.add_row("a good query", usd(m.per_success), note)
    share = f" ({percent(m.saved / m.without)})" if m.without else ""
    note = f"saved {usd(m.saved)}{share}"
    table.add_row("without savings", usd(m.without), f"{note}, refreshes paid for" if m.refresh else note)
    return table


def _split(m: Money) -> str:
    parts = []
    if m.reported or m.estimated:
        parts.append(
            f"{usd(m.reported)} reported, {usd(m.estimated)} ({percent(m.estimated_share)}) estimated"
        )
    if m.missing or m.unpriced:
        parts.append(f"not counted: {m.missing:,} calls without usage, {m.unpriced:,} without a price")
    return "; ".join(parts)


def _mean_note(report: Report) -> str:
    interval = report.money.interval
    note = "" if interval is None else f"95 % interval {usd(interval[0])} to {usd(interval[1])}"
    if report.counts.unknown:
        note += f"{'; ' if note else ''}{report.counts.unknown:,} of unknown cost left out"
    return note


def _latency(parts: Sequence[Latency]) -> Table | None:
    if not parts:
        return None
    table = grid("latency", "queries", "p50", "95 % interval", "p95", "95 % interval", right=(1, 2, 4))
    for part in parts:
        table.add_row(
            part.label,
            f"{part.queries:,}",
            seconds_text(part.p50),
            _span(part.p50_interval),
            seconds_text(part.p95),
            _span(part.p95_interval),
        )
    return table


def _span(interval: tuple[float, float] | None) -> str:
    return "too few" if interval is None else " to ".join(map(seconds_text, interval))


def _savings(report: Report) -> Table:
    heads = ("saving", "calls", "would have cost", "saved", "share of all", "of unknown cost")
    table = grid(*heads, right=(1, 2, 3, 4, 5))
    for s in report.savings:
        unknown = f"{s.unknown:,}" if s.unknown else ""
        money = (usd(s.counterfactual), usd(s.saved), percent(s.share))
        table.add_row(cell(s.kind, 20), f"{s.calls:,}", *money, unknown)
    return table


def _gates(report: Report) -> Table:
    """The bound beside the money: what was promised, what is proved of it, and what proof costs."""
    heads = (
        "gate",
        "state",
        "wrong at most",
        "certified",
        "running average",
        "saved",
        "audits cost",
        "but for audits",
    )
    table = grid(*heads, right=range(2, len(heads)))
    for gate in report.gates[:_SHOWN]:
        of = "calls" if gate.per == "request" else "hits"
        name = gate.name if gate.model is None else f"{gate.name}, {gate.model}"
        running = "" if gate.running is None else " to ".join(map(percent, gate.running))
        every = None if gate.audited is None else gate.saved + gate.audited
        certified = percent(gate.certified) or ("none" if gate.state else "?")
        table.add_row(
            cell(f"{gate.saving} {name}", 60), gate.state or "?", f"{percent(gate.asked)} of {of}", certified,
            running, usd(gate.saved), usd(gate.audited), usd(every),
        )  # fmt: skip
    if not all(gate.state for gate in report.gates):
        table.caption = "?: too much evidence to read for a report; `costkit gate` reads all of it"
    return table


def _groups(report: Report) -> list[Any]:
    from rich.text import Text

    by, every = report.by or "name", report.groups
    model = by == "model"
    what = ("model calls",) if model else ("queries", "hits", "saved")
    head = [_HEADS[by], what[0], "spent", "mean", *what[1:], "p50", "p95", "unknown cost"]
    table = grid(*head, right=range(1, len(head)))
    shown = every[-_SHOWN:] if by == "day" else every[:_SHOWN]
    for group in shown:
        table.add_row(*_group_cells(group, model))
    more = len(every) - len(shown)
    return [table, Text(f"... and {more:,} more; --json FILE holds them")] if more else [table]


def _group_cells(group: Group, model: bool) -> list[Any]:
    known = group.calls - group.unknown
    mean = usd(group.spend / known) if known else usd(None)
    saved = [] if model else [percent((group.hits or 0) / group.calls), usd(group.saved)]
    label = label_text(group.label, "not named" if model else "none")
    return [
        cell(label, 60),
        f"{group.calls:,}",
        usd(group.spend),
        mean,
        *saved,
        seconds_text(group.p50),
        seconds_text(group.p95),
        f"{group.unknown:,}" if group.unknown else "",
    ]


def _spenders(report: Report) -> Table | None:
    rows: list[tuple[str, Spender]] = [
        (what, s) for what in ("name", "scope", "model") for s in report.top.get(what, ())
    ]
    if not rows:
        return None
    table = grid("spends most", "", "calls", "spent", "share", right=(2, 3, 4))
    before = ""
    for what, s in rows:
        if before and what != before:
            table.add_section()
        label = cell(label_text(s.label, "no scope" if what == "scope" else "not named"), 60)
        table.add_row(
            _HEADS[what] if what != before else "", label, f"{s.calls:,}", usd(s.spend), percent(s.share)
        )
        before = what
    return table


def _budgets(report: Report) -> Table:
    table = grid("budget", "cap", "spent", "held", "lapsed", "left", "starts anew", right=(1, 2, 3, 4, 5))
    for b in report.budgets[:_SHOWN]:
        left = b.cap - b.spent - b.held
        ends = "never" if b.ends is None else f"in {seconds_text(max(0.0, b.ends - report.until))}"
        style = "red" if left <= 0 else ""
        money = [usd(value) for value in (b.cap, b.spent, b.held, b.lapsed)]
        table.add_row(cell(b.label, 60), *money, cell(usd(left), style=style), ends)
    if len(report.budgets) > _SHOWN:
        table.caption = f"... and {len(report.budgets) - _SHOWN:,} more; --json FILE holds them"
    return table
