"""A replay on a terminal, the settings to paste, and what to do next."""

from __future__ import annotations

from textwrap import indent
from typing import TYPE_CHECKING, Any

from ..bound import Bound
from ..report.read import clean, percent, seconds_text, usd, when
from ..report.table import grid
from .measure import AtBound, Figure, Replay

if TYPE_CHECKING:
    from rich.console import Group as Rich
    from rich.table import Table

__all__ = ["best", "next_steps", "settings", "to_table"]


def best(told: Replay) -> AtBound | None:
    """The bound with the most hits among those that were kept and saved anything for certain."""
    kept = [
        at
        for at in told.bounds
        if at.hits and (at.net.low or 0.0) > 0 and at.wrong_share.value <= at.bound.max_error
    ]
    return max(kept, key=lambda at: at.net.value, default=None)


def settings(told: Replay) -> str:
    """The decorator to paste, with all that was replayed.

    The scope is what the log says; a judge and an encoder of one's own stay to be named.
    """
    at, columns = best(told), told.log.columns
    judge = f"costkit.judges.{told.judge}" if told.judge in ("same_answer", "same_text") else "YOUR_JUDGE"
    tenant = columns.tenant
    scope = _scope(told) if tenant == "ledger.scope" else repr(_argument(tenant)) if tenant else "None"
    exact = "costkit.exact()" if told.ttl is None else f"costkit.exact(ttl={_duration(told.ttl)!r})"
    model = columns.model.rpartition(".")[2]
    also = f", model={model!r}" if model.isidentifier() and model != "model" else ""
    also += f", provider={columns.provider!r}" if columns.provider else ""
    same = ", ".join(clean(name.rpartition(".")[2], 40) for name in columns.same)
    head = f"# of one value for all who share an answer, as any other argument: {same}\n" if same else ""
    if at is None:
        return f"{head}@kit.call({exact}, scope={scope}{also})"
    encoder = "YOUR_ENCODER" if told.named is None else repr(told.named)
    semantic = repr(_argument(columns.question)).replace("'", '"') + (
        f", encoder={encoder}" if told.named != "" else ""
    )
    return (
        f"{head}@kit.call({exact}, costkit.semantic({semantic}), scope={scope}{also},\n"
        f'          max_error={at.bound.max_error:g}, per="{at.bound.per}", judge={judge})'
    )


def _duration(seconds: float) -> str | float:
    """As a person would say it."""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return seconds


def next_steps(told: Replay) -> list[str]:
    """What to do with it."""
    at = best(told)
    steps = []
    if at is not None:
        steps.append(
            "open the gate before the first call: costkit certify MODULE:FUNCTION LOG; without it, it starts in "
            f"shadow and opens by itself (here at row {at.opened:,})"
        )
    else:
        steps.append(_why_shut(told))
    if told.differ and told.repeats and told.differ / told.repeats > 0.01:
        steps.append(
            f"{percent(told.differ / told.repeats)} of identical calls have answers that {clean(told.judge, 40)} tells "
            "apart: no bound below that can be kept; give a judge that compares only what matters (--judge)"
        )
    if told.unpriced == told.rows:
        steps.append(
            "the log says no costs: --cost COLUMN, or --input-tokens, --output-tokens and --model, say the money"
        )
    if told.p95 is None:
        steps.append("the log says no latencies: --latency COLUMN (seconds) says the p95")
    if told.log.unpriced:
        steps.append(clean(told.log.unpriced, 200))
    return steps


def to_table(told: Replay) -> Rich:
    """The replay for a rich Console; everything from outside is shown as text."""
    from rich.console import Group as Rich
    from rich.text import Text

    lines: list[Any] = [
        Text(_head(told), style="bold"),
        Text(_read(told)),
        Text(_exact(told)),
        _bounds(told),
        Text(
            "A hit is an answer served by meaning and not audited; wrong: of hits or of all calls, as the bound is."
        ),
    ]
    if told.spent is not None or told.p95 is not None:
        lines.insert(4, _money(told))
    at = best(told)
    label = "Settings" if at is None else f"Settings for {_bound(at.bound)}"
    lines.append(Text(f"{label}:\n{indent(settings(told), '    ')}"))
    lines += [Text(f"Next: {step}", style="bold") for step in next_steps(told)]
    return Rich(*lines)


def _head(told: Replay) -> str:
    span = "" if told.span is None else f", {when(told.span[0])} to {when(told.span[1])}"
    name = f" ({clean(told.log.name, 60)})" if told.log.name else ""
    return f"{told.rows:,} calls of {clean(told.log.where, 80)}{name}{span}"


def _read(told: Replay) -> str:
    columns = ", ".join(f"{what} = {clean(name, 40)}" for what, name in told.log.columns.named().items())
    said = [f"Columns: {columns}"]
    if told.log.left_out:
        count = sum(told.log.left_out.values())
        why = ", ".join(f"{n:,} {reason}" for reason, n in sorted(told.log.left_out.items()))
        said.append(f"Left out: {count:,} rows ({why}); the first is {clean(told.log.first_bad or '', 80)}")
    sharing = f"within {told.scopes:,} scopes" if told.log.columns.tenant else "by everybody"
    said.append(
        f"Answers are shared {sharing}; judge {clean(told.judge, 40)}, encoder {clean(told.encoder, 60)}"
    )
    return "\n".join(said)


def _exact(told: Replay) -> str:
    noise = ""
    if told.repeats and told.differ is not None:
        noise = f"; {told.differ:,} of these {told.repeats:,} answers differ from the stored one"
    return f"Identical calls: {_percents(told.exact)} are hits of the exact cache{noise}"


def _bounds(told: Replay) -> Table:
    heads = (
        "bound",
        "hits by meaning",
        "95 % interval",
        "wrong",
        "share",
        "95 % interval",
        "opens at row",
        "audits",
    )
    table = grid(*heads, right=(1, 3, 4, 6, 7))
    for at in told.bounds:
        wrong = percent(at.wrong_share.value) if at.hits else ""
        table.add_row(
            _bound(at.bound), percent(at.net.value), _span(at.net, percent), f"{at.wrong:,}" if at.hits else "", wrong,
            _span(at.wrong_share, percent) if at.hits else "", _opened(at), f"{at.audits:,}",
        )  # fmt: skip
    return table


def _opened(at: AtBound) -> str:
    closed = f", closed {at.demotions} x" if at.demotions else ""
    if at.opened is not None:
        return f"{at.opened:,}{closed}"
    return "shut" if at.labels is None else f"after ~{at.labels:,} more labels"


def _money(told: Replay) -> Table:
    table = grid("with", "saved", "95 % interval", "of spend", "p95", "95 % interval", right=(1, 3, 4))
    spent = told.spent or 0

    def row(label: str, saved: Figure | None, p95: Figure | None) -> None:
        share = "" if saved is None or not spent else percent(saved.value / spent)
        money = ("" if label == "nothing" else "unknown") if saved is None else usd(saved.value)
        table.add_row(
            label, money, "" if saved is None else _span(saved, usd), share,
            "unknown" if p95 is None else seconds_text(p95.value), "" if p95 is None else _span(p95, seconds_text),
        )  # fmt: skip

    row("nothing", None, told.p95)
    row("exact alone", told.exact_saved, told.exact_p95)
    for at in told.bounds:
        row(f"and meaning, {_bound(at.bound)}", at.saved, at.p95)
    unknown = (
        f"; {told.unpriced:,} calls of unknown cost are left out"
        if told.unpriced and told.spent is not None
        else ""
    )
    table.caption = (
        f"spent: {usd(told.spent)}{unknown}; a lookup counts {seconds_text(told.lookup)}, measured here"
    )
    return table


def _why_shut(told: Replay) -> str:
    waits = [at.labels for at in told.bounds if at.labels is not None]
    if waits:
        return f"no gate would have opened on this log: it takes about {min(waits):,} more labelled calls"
    return (
        "no gate would have opened on this log: too few questions come again in other words, or their answers differ "
        "too often for the judge; look at the judge (--judge), or allow more (--max-error)"
    )


def _bound(bound: Bound) -> str:
    return (
        f"{bound.max_error:.3g} per {bound.per}"
        if bound.max_error < 0.0001
        else f"{bound.max_error * 100:g} % per {bound.per}"
    )


def _percents(figure: Figure) -> str:
    span = _span(figure, percent)
    return f"{percent(figure.value)} ({span})" if span else percent(figure.value)


def _span(figure: Figure, shown: Any) -> str:
    return (
        "too few"
        if figure.low is None or figure.high is None
        else f"{shown(figure.low)} to {shown(figure.high)}"
    )


def _argument(column: str) -> str:
    """A column as the name of an argument."""
    last = column.rpartition(".")[2]
    return last if last.isidentifier() else "question"


def _scope(told: Replay) -> str:
    import json

    tenants = {line.tenant for line in told.log.lines} - {None}
    try:
        names = list(json.loads(next(iter(tenants)) or "{}")) if tenants else []
    except (ValueError, TypeError):
        return "..."
    return "None" if not names else repr(names[0] if len(names) == 1 else names)
