"""The gates for a person: a table on a terminal, plain in a pipe; what to do next comes last."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from costkit.bound import PER_REQUEST
from costkit.bound.gate import MOST_GROUPS
from costkit.bound.ladder import rungs_of
from costkit.report.gates import GateTold, Grouped, lonely
from costkit.report.read import clean, percent, usd, when
from costkit.report.table import cell, grid, label_text

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

__all__ = ["NEVER_REPEATS", "bound_text", "next_of", "to_text"]

_COLOURS = {"open": "green", "shadow": "yellow", "closed": "bold red"}
_WORST = 3
_LOST = 3  # audits without an answer that are worth a word

NEVER_REPEATS = (
    "another argument changes with every call, or nothing may be stored: name passages with sources=, leave out what "
    "the answer does not depend on with ignore=, put semantic on the outer function where a conversation's earlier "
    "turns differ, and look whether admit= lets answers in and whether scopes are smaller than they need be"
)
"""What to look at where a call finds nothing stored, for only the claimed text may differ."""

Line = tuple[str, str]


def to_text(told: list[GateTold]) -> Group:
    """The gates, one after the other, and what to do next."""
    from rich.console import Group
    from rich.text import Text

    if not told:
        first = "Next: put costkit.semantic('question') with max_error= and judge= on a function (README)."
        return Group(Text("No lossy saving has worked in this folder yet."), Text(first, style="bold"))
    blocks: list[Text | Table] = [_overview(told)] if len(told) > 1 else []
    for gate in told:
        blocks += [Text(_title(gate), style="bold"), _details(gate)]
        blocks += [Text("  Next: " + next_of(gate), style="bold")]
    return Group(*blocks)


def bound_text(gate: GateTold) -> str:
    """The bound as the user said it."""
    of = "calls that no identical one answered" if gate.bound.per == PER_REQUEST else "served answers"
    return f"at most {percent(gate.asked)} of {of} wrong"


def _overview(told: list[GateTold]) -> Table:
    heads = (
        "gate",
        "state",
        "bound",
        "certified",
        "running average",
        "serves",
        "audits wrong",
        "saved",
        "audits",
    )
    table = grid(*heads, right=range(2, len(heads)))
    for gate in told:
        s = gate.standing
        table.add_row(
            cell(_name(gate), 40), cell(gate.state, style=_COLOURS[gate.state]), percent(gate.asked),
            percent(s.certified) or "none", _span(s.running) if s.audits else "", percent(s.share),
            f"{s.wrong_audits:,} of {s.audits:,}", usd(gate.saved), usd(gate.audited),
        )  # fmt: skip
    return table


def _name(gate: GateTold) -> str:
    return gate.name if gate.model is None else f"{gate.name}, {gate.model}"


def _title(gate: GateTold) -> str:
    return f"{clean(_name(gate), 120)}: {clean(gate.saving, 20)}, {bound_text(gate)}"


def _details(gate: GateTold) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 0, 0, 2), pad_edge=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    lines = [*_state(gate), *_evidence(gate), *_promise(gate), *_worst(gate), *_money(gate), *_judge(gate)]
    for label, said in lines:
        table.add_row(Text(label), Text(said, style=_COLOURS[gate.state] if label == "state" else ""))
    return table


def _state(gate: GateTold) -> list[Line]:
    s, since = gate.standing, when(gate.since)
    if gate.state == "open":
        said = f"open since {since}; it serves {percent(s.share)} of calls that no identical one answered"
        if s.silent:
            said = (
                f"open since {since}, but it serves nothing now: the calls of the last audits gave no answer"
            )
    elif gate.state == "closed":
        said = f"closed by its alarm {since}; in shadow again, nothing is served"
    else:
        fell = f"in shadow again since {since}: its labels no longer bear the bound out"
        said = fell if s.hits else f"in shadow since {since}; every call is made, nothing is served"
    lines = [("state", said)]
    if s.demotions and gate.state == "open":
        lines.append(
            ("", f"closed by its alarm before, {_times(s.demotions)}, last {when(gate.demoted_at[-1])}")
        )
    return lines


def _evidence(gate: GateTold) -> list[Line]:
    s = gate.standing
    said = (
        f"{s.requests:,}: {s.hits:,} served, {s.audits:,} audited instead, {s.would_be_hits:,} would-be hits not "
        f"served, {gate.alone:,} with nothing stored"
    )
    before = f", {s.rehearsed:,} rows rehearsed before the first call" if s.rehearsed else ""
    lines = [("calls", said)]
    if s.unlabelled:
        lines.append(
            ("", f"{s.unlabelled:,} whose answer a lossy saving inside had a part in: they label nothing")
        )
    if s.unanswered or s.lost_audits:
        lost, out = (
            f"{s.lost_audits:,} audits got no answer and count as wrong",
            f"{s.unanswered:,} are left out",
        )
        lines.append(("", f"{lost}; {out}, as the provider was down" if s.unanswered else lost))
    lines.append(("labels", f"{s.labels:,}{before}"))
    if s.worsened:
        worse = f"candidates that look alike got worse, {_times(s.worsened)}"
        lines.append(("", f"{worse}: what older labels prove may hold no longer, the audits watch over it"))
    return lines


def _promise(gate: GateTold) -> list[Line]:
    """What is proved, by what, and what it would take to prove more or to lose it."""
    s, lines = gate.standing, list[Line]()
    sure = f"{gate.bound.confidence:.3g}"
    if s.certified is not None:
        lines.append(("certified", f"at most {percent(s.certified)} wrong now, confidence {sure}"))
    if gate.audit_interval is not None:
        lines.append(("audits", f"{s.wrong_audits:,} of {s.audits:,} wrong [{_span(gate.audit_interval)}]"))
        of = "of calls that reached it" if gate.bound.per == PER_REQUEST else "of all it let pass"
        around = f"{percent(s.average)} wrong, confidence sequence {_span(s.running)}"
        lines.append(("running", f"{of} so far {around}"))
    if s.next_labels is not None and s.next_share is not None:
        more = f"about {s.next_labels:,} more labels, then it may serve {percent(s.next_share)} of calls"
        lines.append(("waits for", more))
    elif s.state != "open" and s.labels < gate.bound.least_labels:
        lines.append(("waits for", f"at least {gate.bound.least_labels:,} labels without one wrong answer"))
    elif s.level < len(rungs_of(gate.bound)):
        lines.append(
            ("waits for", "nothing: at the error rates it has seen, no labels would let it serve more")
        )
    if s.state == "open":
        finite = math.isfinite(s.before_demotion)
        count = (
            f"about {s.before_demotion:,.0f} wrong answers served"
            if finite
            else "very many wrong answers served"
        )
        lines.append(("alarm", f"{count} before it closes, should half of what it serves turn wrong at once"))
    return lines


def _worst(gate: GateTold) -> list[Line]:
    shown = [one for one in gate.groups if one.wrong or one.closed][:_WORST]
    lines = [("worst" if not number else "", _group(one)) for number, one in enumerate(shown)]
    if len(gate.groups) >= MOST_GROUPS:
        lines.append(
            ("alarms", f"{MOST_GROUPS:,} scopes and tags have one of their own; later ones only the gate's")
        )
    rest = len(gate.groups) - len(shown)
    more = f"{rest:,} more scope{'s' if rest != 1 else ''} or tags with audits; --json holds them"
    return [*lines, ("", more)] if lines and rest else lines


def _group(one: Grouped) -> str:
    shut = "; closed for it alone, by its own alarm" if one.closed else ""
    label = clean(label_text(one.label, "everybody"), 60)
    return f"{label}: {one.wrong:,} of {one.audits:,} audits wrong [{_span(one.interval)}]{shut}"


def _money(gate: GateTold) -> list[Line]:
    if gate.audited is None:
        return [("saved", f"{usd(gate.saved)}; what audits cost is unknown: calls without usage or price")]
    worth = usd(gate.saved + gate.audited)
    lines = [("saved", f"{usd(gate.saved)}; {worth} but for the audits, on which {usd(gate.audited)} went")]
    return lines if gate.standing.hits or gate.standing.audits else []


def _judge(gate: GateTold) -> list[Line]:
    name, tested = clean(gate.judge, 60), percent(gate.bound.max_error)
    if gate.sensitivity < 1:
        vouched = (
            f"measured to flag at least {percent(gate.sensitivity)} of wrong answers, so {tested} is the test"
        )
    else:
        vouched = "its word is what right means"
    lines = [("judge", f"{name}: {vouched}")]
    if gate.fresh and not gate.unfit:
        told = f"{gate.told_apart:,} of {gate.fresh:,} pairs of fresh answers to one question told apart"
        lines.append(("", told))
    if gate.unfit:
        lines.append(("", clean(gate.unfit)))
    if gate.waiting:
        lines.append(("", f"{gate.waiting:,} answers wait for it"))
    if gate.lost:
        lines.append(("", f"{gate.lost:,} answers were never judged: they count as wrong"))
    if gate.skipped:
        lines.append(("", f"judge too slow: {gate.skipped:,} answers were left out, which delays the gate"))
    return [*lines, ("encoder", clean(gate.encoder, 80))]


def next_of(gate: GateTold) -> str:
    """What to do about this gate."""
    s = gate.standing
    if gate.unfit and gate.state != "open":
        return "take the advice on the judge: with this one the gate stays closed"
    if lonely(s.requests, gate.alone):
        return f"{gate.alone:,} of {s.requests:,} calls found nothing stored: {NEVER_REPEATS}"
    if s.silent:
        return "see why calls fail; it serves again by itself once they are answered"
    if s.unlabelled > 0.5 * s.requests:
        return "keep one of the two: the semantic tier inside leaves this one without labels"
    if gate.lost > 0.05 * s.labels:
        return "see to the judge: answers that it never judges count as wrong (`costkit doctor`)"
    if s.lost_audits >= _LOST and 2 * s.lost_audits > s.wrong_audits:
        return (
            "most audits that count as wrong got no answer: see why calls fail, and where callers leave early let the "
            "call go on to its end without them (`asyncio.shield`, a stream read out in the background)"
        )
    if gate.state == "open":
        return "nothing; audits go on, and `costkit report` shows the money"
    if gate.state == "closed" or s.hits:
        return (
            "find what changed (model, prompt, documents; `kit.bump` drops answers of old documents); it gathers "
            "evidence by itself and serves again once that bears the bound out"
        )
    if s.next_labels is None and s.labels >= gate.bound.least_labels:
        return (
            "nothing it has seen can be certified: questions that look alike have other answers too often; try a "
            "larger max_error, or `costkit replay` on your log to see which bound would save what"
        )
    return "wait, calls in shadow are labelled as they come; or `costkit certify MODULE:FUNCTION LOG.jsonl`"


def _span(interval: tuple[float, float]) -> str:
    return f"{percent(interval[0])} to {percent(interval[1])}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"
