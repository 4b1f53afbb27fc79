"""Figures as text: seconds, dollars, shares and intervals, the same in tables, pictures and pages."""

from __future__ import annotations

import math

from costkit.stats.dependence import Steady
from loadtests.metrics import METRICS, Figure, trouble
from loadtests.report import Report
from loadtests.slo import Checked

__all__ = ["answer_lines", "cost_lines", "heading", "money", "notes", "rows", "seconds", "shown", "value"]


def seconds(amount: float) -> str:
    """Three digits, in the unit that suits.

    >>> seconds(0.0512), seconds(0.00002), seconds(12.34)
    ('51.2 ms', '0.02 ms', '12.3 s')
    """
    # What rounds to a thousand milliseconds is a second.
    return f"{amount:.3g} s" if abs(amount) >= 0.9995 else f"{amount * 1000:.3g} ms"


def money(usd: float) -> str:
    """Three digits, never in powers of ten.

    >>> money(0.0000315), money(12.5)
    ('$0.0000315', '$12.5')
    """
    if usd == 0 or not math.isfinite(usd):
        return f"${usd:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(usd))))
    text = f"{usd:,.{digits}f}"
    return f"${text.rstrip('0').rstrip('.') if '.' in text else text}"


def value(amount: float, unit: str) -> str:
    """An amount in the unit of a metric."""
    return money(amount) if unit == "USD" else seconds(amount)


def rows(report: Report) -> list[tuple[str, str, str, str, str, str]]:
    """One row a metric: title, requests, mean, p50, p95 with its interval, p99; the heads are the first row."""
    heads = ("", "count", "mean", "p50", "p95 [95 % interval]", "p99")
    return [heads, *(_row(one) for one in shown(report))]


def shown(report: Report) -> list[Figure]:
    """The figures worth a row: the first output apart from the first token only where a model reasons."""
    first, output = report.figures.get("ttft"), report.figures.get("ttfo")
    same = first is not None and output is not None and first.mean == output.mean
    return [one for name, one in report.figures.items() if not (name == "ttfo" and same)]


def _row(one: Figure) -> tuple[str, str, str, str, str, str]:
    metric = METRICS[one.metric]
    mean, unit = value(one.mean, metric.unit), metric.unit
    few = one.p99.n < one.p99.needed
    p99 = "too few" if few else value(one.p99.value, unit)
    return (metric.title, f"{one.count:,}", mean, value(one.p50.value, unit), _p95(one.p95, unit), p99)


def _p95(one: Steady, unit: str) -> str:
    if one.n < one.needed:
        return "too few"
    shown = value(one.value, unit)
    return f"{shown} {_interval(one.interval, unit)}" if one.interval and one.trusted else f"{shown} *"


def _interval(ends: tuple[float, float], unit: str) -> str:
    low, high = (value(end, unit) for end in ends)
    if low.split(" ")[1:] == high.split(" ")[1:]:
        low = low.split(" ", maxsplit=1)[0]
    return f"[{low} - {high}]"


def notes(report: Report) -> list[str]:
    """What the stars in the table stand for."""
    found = [(one, trouble(one.p95)) for one in shown(report) if one.p95.n >= one.p95.needed]
    return [f"* {METRICS[one.metric].title}: {why}" for one, why in found if why]


def heading(report: Report) -> str:
    """One line: how much was asked for and sent, and whether it counts."""
    verdict = report.verdict
    rates = f"asked {verdict.rate_asked:.4g}/s, sent {verdict.rate:.4g}/s"
    lag = f"lag p99 {seconds(verdict.lag_p99)} (limit {seconds(verdict.lag_limit)})"
    word = "valid" if verdict.valid else f"INVALID: {verdict.reason}"
    return f"{report.requests:,} requests in {report.seconds:g} s, {rates}, {lag}: {word}"


def answer_lines(report: Report) -> list[str]:
    """One line an objective, failed requests, goodput."""
    lines = [_answer(one) for one in report.checked]
    share = report.failed / report.requests if report.requests else 0.0
    codes = ", ".join(f"{count:,} {code}" for code, count in report.errors.items())
    lines.append(f"failed: {report.failed:,} ({share:.2%})" + (f": {codes}" if codes else ""))
    good = "that succeeded within every latency limit" if report.checked else "that succeeded"
    lines.append(f"goodput: {report.goodput:.4g} requests a second {good}")
    return lines


def _answer(one: Checked) -> str:
    if one.objective.metric == "cost":
        told = f"mean {money(one.value)} [{money(one.low)} - {money(one.high)}]"
    else:
        told = f"{one.value:.2%} [{one.low:.2%} - {one.high:.2%}] miss it, {one.allowed:.2%} allowed"
    why = f"; {one.why}" if one.why else ""
    return f"{one.objective}: {one.answer.upper()}, {told}{why}"


def cost_lines(report: Report) -> list[str]:
    """What a query costs, 1,000 good ones, and what each saving answered."""
    cost = report.cost
    if cost.mean is None:
        return ["cost: unknown"]
    interval = f" {_interval(cost.interval, 'USD')}" if cost.interval else ""
    lines = [f"cost per query: {money(cost.mean)}{interval}, by {cost.source}"]
    if cost.per_1000_good is not None:
        lines.append(f"1,000 good requests: {money(cost.per_1000_good)}")
    for kind, (count, mean) in cost.savings.items():
        share = count / max(1, report.requests - report.failed)
        lines.append(f"saved by {kind}: {count:,} queries ({share:.1%}), {money(mean)} each")
    return lines
