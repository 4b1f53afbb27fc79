"""The report as HTML: one section that stands by itself, drawn with inline SVG, light and dark; nothing is fetched.

The section fits into any page, such as the end of locust's own report: its styles are bound to one class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from loadtests.metrics import ordered, series
from loadtests.report import Report
from loadtests.sample import Sample
from loadtests.words import answer_lines, cost_lines, heading, notes, rows, seconds

__all__ = ["page", "section"]

Point = tuple[float, float]
_W, _H, _LEFT, _BOTTOM, _TOP = 760.0, 240.0, 48.0, 34.0, 10.0
_MOST_POINTS = 1500
_STYLE = """
.costkit-load{--ink:#24292f;--paper:#ffffff;--faint:#e2e2e2;--soft:#6b7280;--ttft:#2f7fb8;--e2e:#7a5195;--good:#3d8a60;
--bad:#c1553b;--lag:#b5761f;color:var(--ink);background:var(--paper);font:14px/1.5 system-ui,sans-serif;padding:1em;
max-width:800px;margin:0 auto}
@media (prefers-color-scheme:dark){.costkit-load{--ink:#e6edf3;--paper:#0d1117;--faint:#30363d;--soft:#9198a1;
--ttft:#58a6ff;--e2e:#bc8cff;--good:#3fb950;--bad:#ff7b72;--lag:#e3b341}}
.costkit-load h2{font-size:1.2em;margin:.2em 0}.costkit-load h3{font-size:1em;margin:1.2em 0 .2em}
.costkit-load table{border-collapse:collapse;width:100%}.costkit-load th,.costkit-load td{text-align:right;
padding:.2em .5em;border-bottom:1px solid var(--faint);color:var(--ink)}
.costkit-load th:first-child,.costkit-load td:first-child{text-align:left}
.costkit-load .invalid,.costkit-load .breach{color:var(--bad);font-weight:600}.costkit-load .pass{color:var(--good)}
.costkit-load .soft{color:var(--soft)}.costkit-load svg{width:100%;height:auto;display:block}
.costkit-load svg text{fill:var(--soft);font-size:11px}.costkit-load .grid{stroke:var(--faint);stroke-width:1}
""".strip()


def page(report: Report, samples: Sequence[Sample]) -> str:
    """A whole HTML page with the section."""
    title = escape(f"Load run {report.name}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">'
        f'</head><body style="margin:0">{section(report, samples)}</body></html>\n'
    )


def section(report: Report, samples: Sequence[Sample]) -> str:
    """The report as one HTML element; all that comes from outside is escaped."""
    requests = ordered(samples)
    valid = "" if report.verdict.valid else ' class="invalid"'
    parts = [
        f"<style>{_STYLE}</style>",
        f"<h2>{escape(report.name)}</h2><p{valid}>{escape(heading(report))}</p>",
        _list([_answered(line) for line in answer_lines(report)]),
        _table(report),
        _list([escape(line) for line in notes(report)]),
        "<h3>How latencies are spread</h3>",
        _spread(report, requests),
        "<h3>How they went</h3>",
        _course(requests),
        _flight(requests),
        "<h3>Cost</h3>",
        _list([escape(line) for line in cost_lines(report)]),
        "<h3>Next</h3>",
        _list([escape(line) for line in report.next_steps]),
    ]
    return f'<section class="costkit-load">{"".join(parts)}</section>'


def _answered(line: str) -> str:
    for answer in ("PASS", "BREACH", "INCONCLUSIVE"):
        head, found, rest = line.partition(f": {answer},")
        if found:
            return f'{escape(head)}: <span class="{answer.lower()}">{answer}</span>,{escape(rest)}'
    return escape(line)


def _list(lines: Iterable[str]) -> str:
    items = "".join(f"<li>{line}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def _table(report: Report) -> str:
    heads, *body = rows(report)
    head = "".join(f"<th>{escape(cell)}</th>" for cell in heads)
    lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in body)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"


def _spread(report: Report, requests: Sequence[Sample]) -> str:
    drawn: list[tuple[str, list[Point]]] = []
    for metric in ("ttft", "e2e"):
        values = np.sort(series(requests, metric))
        values = values[values > 0]
        places: Any = (
            np.unique(np.linspace(0, values.size - 1, min(values.size, 400)).astype(int))
            if values.size
            else []
        )
        drawn.append((metric, [(float(values[i]), (i + 1) / len(requests) * 100) for i in places]))
    every = [x for _, points in drawn for x, _ in points]
    if not every:
        return '<p class="soft">No request succeeded.</p>'
    limits = [one for one in report.checked if one.objective.metric in {"ttft", "e2e"}]
    every += [one.objective.limit for one in limits]
    low, high = min(every) * 0.9, max(every) * 1.1
    x, y = _log(low, high), _linear(0.0, 100.0, _H - _BOTTOM, _TOP)
    up = _Axis(y, (0.0, 50.0, 95.0), lambda share: f"{share:g}%")
    body = [_grid(_Axis(x, _decades(low, high), seconds), up)]
    body += [_line([(x(a), y(b)) for a, b in points], metric) for metric, points in drawn if points]
    for metric in ("ttft", "e2e"):
        shown = report.figures.get(metric)
        if shown is not None and shown.p95.interval is not None and shown.p95.trusted:
            ends = [(x(end), y(95.0)) for end in shown.p95.interval]
            body.append(_line(ends, metric, width=7, opacity=0.45))
    for one in limits:
        hue = {"pass": "good", "breach": "bad"}.get(one.answer, "soft")
        at = x(one.objective.limit)
        body.append(_line([(at, y(0.0)), (at, y(100.0))], hue, dash="5 4"))
        body.append(
            f'<text x="{at + 4:.1f}" y="{y(8.0):.1f}">{escape(str(one.objective))}: {one.answer}</text>'
        )
    return _svg(body) + _key(
        (("ttft", "first token"), ("e2e", "last token; thick: 95 % interval of the p95"))
    )


def _course(requests: Sequence[Sample]) -> str:
    shown = _thinned([one for one in requests if one.error is None and one.e2e])
    values = [v for one in shown for v in (one.ttft, one.e2e) if v]
    if not values:
        return ""
    low, high, until = min(values) * 0.9, max(values) * 1.1, max(one.intended for one in requests) or 1.0
    x, up = _linear(0.0, until, _LEFT, _W - 8), _log(low, high)
    # A log axis runs left to right; turned up here.
    span = (_H - _BOTTOM - _TOP) / (_W - 8 - _LEFT)

    def y(value: float) -> float:
        return _H - _BOTTOM - (up(value) - _LEFT) * span

    body = [_grid(_Axis(x, _even(until), _clock), _Axis(y, _decades(low, high), seconds))]
    for metric in ("ttft", "e2e"):
        dots = [(one.intended, getattr(one, metric)) for one in shown]
        marks = "".join(f"M{x(at):.1f} {y(v):.1f}h0" for at, v in dots if v)
        style = "stroke-width:3;stroke-linecap:round;opacity:.6"
        body.append(f'<path d="{marks}" style="stroke:var(--{metric});{style}"/>')
    failed = _thinned([one for one in requests if one.error is not None])
    ticks = "".join(f"M{x(one.intended):.1f} {_H - _BOTTOM:.1f}v-8" for one in failed)
    body.append(f'<path d="{ticks}" style="stroke:var(--bad);stroke-width:2"/>')
    return _svg(body) + _key((("ttft", "first token"), ("e2e", "last token"), ("bad", "failed")))


def _flight(requests: Sequence[Sample]) -> str:
    shown = _thinned(requests)
    if not shown:
        return ""
    until = max(one.intended for one in requests) or 1.0
    most, late = max(1, *(one.in_flight for one in shown)), max(0.001, *(one.lag for one in requests))
    x, y = _linear(0.0, until, _LEFT, _W - 8), _linear(0.0, float(most), 120 - _BOTTOM, _TOP)
    lag = _linear(0.0, late, 120 - _BOTTOM, _TOP)
    body = [_grid(_Axis(x, _even(until), _clock), _Axis(y, (0.0, float(most)), lambda n: f"{n:g}"), 120)]
    body.append(_line([(x(one.intended), lag(max(0.0, one.lag))) for one in shown], "lag"))
    body.append(_line([(x(one.intended), y(one.in_flight)) for one in shown], "ink"))
    named = f"schedule lag, at most {seconds(late)}"
    return _svg(body, height=120) + _key((("ink", "requests in flight"), ("lag", named)))


def _thinned(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Every n-th, so that a page of a long run stays small."""
    return samples[:: max(1, math.ceil(len(samples) / _MOST_POINTS))]


def _linear(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (end - start) * (value - low) / ((high - low) or 1.0)


def _log(low: float, high: float) -> Callable[[float], float]:
    inner = _linear(math.log(low), math.log(high), _LEFT, _W - 8)
    return lambda value: inner(math.log(value))


def _decades(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if math.log10(high / low) < 2.5 else (1,)
    return [step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high]


def _clock(at: float) -> str:
    return f"{at:g} s"


def _even(until: float) -> list[float]:
    raw = until / 6
    step = 10 ** math.floor(math.log10(raw))
    step *= next(times for times in (1, 2, 5, 10) if times * step >= raw)
    return [n * step for n in range(int(until / step) + 1)]


@dataclass(frozen=True, slots=True)
class _Axis:
    """Where a value is drawn, which values have a line, and how they are written."""

    at: Callable[[float], float]
    marked: Sequence[float]
    text: Callable[[float], str]


def _grid(x: _Axis, y: _Axis, height: float = _H) -> str:
    parts = []
    for value in x.marked:
        at = x.at(value)
        parts.append(f'<path class="grid" d="M{at:.1f} {_TOP}V{height - _BOTTOM}"/>')
        parts.append(
            f'<text x="{at:.1f}" y="{height - _BOTTOM + 15}" text-anchor="middle">{x.text(value)}</text>'
        )
    for value in y.marked:
        at = y.at(value)
        parts.append(f'<path class="grid" d="M{_LEFT} {at:.1f}H{_W - 8}"/>')
        parts.append(f'<text x="{_LEFT - 5}" y="{at + 4:.1f}" text-anchor="end">{y.text(value)}</text>')
    return "".join(parts)


def _line(
    points: Sequence[Point], hue: str, *, width: float = 1.6, opacity: float = 1.0, dash: str = ""
) -> str:
    path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
    dashed = f";stroke-dasharray:{dash}" if dash else ""
    style = f"fill:none;stroke:var(--{hue});stroke-width:{width:g};opacity:{opacity:g}{dashed}"
    return f'<path d="{path}" style="{style}"/>'


def _svg(body: Iterable[str], height: float = _H) -> str:
    return f'<svg viewBox="0 0 {_W:g} {height:g}" role="img">{"".join(body)}</svg>'


def _key(entries: Iterable[tuple[str, str]]) -> str:
    items = (f'<span style="color:var(--{hue})">&#9632;</span> {escape(name)}' for hue, name in entries)
    return f'<p class="soft">{" &nbsp; ".join(items)}</p>'
