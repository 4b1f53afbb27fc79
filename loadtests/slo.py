"""Service level objectives, and the gate: pass, breach, or inconclusive.

``ttft.p95<500ms`` says that at most 5% of the requests may take longer than half a second; a failed request takes
longer than any limit. The answer is *pass* when even the upper limit of that share (one-sided, 95%, for dependent
requests) lies below 5%, *breach* when even the lower one lies above, and else *inconclusive*: more requests, or a
limit further away, would tell. Simulated queues of eight servers, 1,000 requests, time to first token, a system whose
p95 is 10% over its objective (``make load-coverage``): a gate on the point estimate passes 40% of runs at 60%
utilisation and 48% at 80%; this one 3% and 2%. The price is inconclusive answers where requests queue.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from costkit.stats.blocks import block_mean
from costkit.stats.dependence import drift, needed, steady_share
from loadtests.arrivals import parse_seconds
from loadtests.metrics import DIGITS, METRICS, ordered, series
from loadtests.sample import Sample

__all__ = [
    "Answer",
    "Checked",
    "Objective",
    "answer_of",
    "check",
    "goodput",
    "meets",
    "overall",
    "parse_objectives",
]

Answer = Literal["pass", "breach", "inconclusive"]
_ALPHA = 0.05
_FEWEST = 30  # requests of a half
_RISING = 2.5758  # standard errors: 1% of steady runs, on either side
_QUANTILED = ("ttft", "ttfo", "tpot", "e2e", "normalised", "lag")


@dataclass(frozen=True, slots=True)
class Objective:
    """A limit for a quantile ``q`` of a metric; for the mean where ``q`` is None; for a share of ``errors``.

    Seconds, US dollars, or a share.
    """

    metric: str
    limit: float
    q: float | None = None

    def __str__(self) -> str:
        if self.metric == "errors":
            return f"errors<{self.limit * 100:g}%"
        if self.metric == "cost":
            return f"cost.mean<{self.limit:.12f}".rstrip("0").rstrip(".") + "USD"
        value = f"{self.limit * 1000:g}ms" if self.limit < 1 else f"{self.limit:g}s"
        return f"{self.metric}.p{(self.q or 0) * 100:g}<{value}"


@dataclass(frozen=True, slots=True)
class Checked:
    """What a run says about one objective.

    ``value`` is the share of misses (or the mean cost), ``low`` and ``high`` its one-sided limits, ``allowed`` what
    it may be. ``why`` says in one line what an inconclusive answer waits for.
    """

    objective: Objective
    answer: Answer
    value: float
    low: float
    high: float
    allowed: float
    n: int
    why: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        figures = {"value": self.value, "low_95": self.low, "high_95": self.high, "allowed": self.allowed}
        about = {"objective": str(self.objective), "answer": self.answer, "requests": self.n, "why": self.why}
        return {**about, **{name: value if math.isfinite(value) else None for name, value in figures.items()}}


def parse_objectives(text: str) -> tuple[Objective, ...]:
    """Objectives as one writes them: ``ttft.p95<500ms, e2e.p99<10s, errors<1%, cost.mean<0.002USD`` (``=`` does too).

    Raises:
        ValueError: one that is none; the message names it.

    >>> [str(one) for one in parse_objectives("ttft.p95<500ms, tpot.p90=0.05, errors<1%, cost.mean<0.002USD")]
    ['ttft.p95<500ms', 'tpot.p90<50ms', 'errors<1%', 'cost.mean<0.002USD']
    """
    return tuple(_parse(part.strip()) for part in text.split(",") if part.strip())


def _parse(text: str) -> Objective:
    form = "say it like ttft.p95<500ms, e2e.p99<10s, errors<1% or cost.mean<0.002USD"
    match = re.fullmatch(
        r"(\w+?)(?:[._:]?(p\d+(?:\.\d+)?|mean))?\s*(?:<=|<|=)\s*([\d.]+)\s*(%|USD|usd|ms|s|m|)", text
    )
    if not match:
        raise ValueError(f"objective {text!r}: {form}")
    name, statistic, number, unit = match[1], match[2], match[3], match[4]
    try:
        value = float(number)
    except ValueError:
        raise ValueError(f"objective {text!r}: {number!r} is no number; {form}") from None
    if name == "errors" and statistic is None and unit in {"%", ""}:
        share = value / 100 if unit else value
        if 0 < share < 1:
            return Objective("errors", share)
    elif name == "cost" and statistic in {"mean", None} and unit.upper() in {"USD", ""} and value > 0:
        return Objective("cost", value)
    elif name in _QUANTILED and statistic and statistic != "mean" and unit not in {"%", "USD", "usd"}:
        limit, q = parse_seconds(number + unit), round(float(statistic[1:]) / 100, 9)
        if limit > 0 and 0.5 <= q < 1:
            return Objective(name, limit, q)
    raise ValueError(f"objective {text!r}: {form}; quantiles from p50 to below p100, limits over 0")


def check(samples: Sequence[Sample], objectives: Sequence[Objective]) -> tuple[Checked, ...]:
    """What a run says about each objective; a breach of one of several is told at the same overall 5%."""
    rows = ordered(samples)
    share = _ALPHA / max(1, len(objectives))
    rising = drift([one.in_flight for one in rows]) > _RISING if rows else False
    found = []
    for one in objectives:
        if not rows:
            found.append(
                Checked(one, "inconclusive", math.nan, 0.0, math.inf, _allowed(one), 0, "no requests")
            )
        elif one.metric == "cost":
            found.append(_cost(one, rows, share))
        else:
            values, over = _marks(rows, one)
            answered = answer_of(one, values, over, breach_alpha=share)
            if answered.answer == "pass" and rising and one.metric != "errors":
                why = "requests in flight rise over the run: the server does not keep up"
                answered = replace(answered, answer="inconclusive", why=why)
            found.append(answered)
    return tuple(found)


def answer_of(
    objective: Objective, values: ArrayLike, over: ArrayLike, *, breach_alpha: float = _ALPHA
) -> Checked:
    """The answer from each request's value, infinite where it failed, and whether it missed; in order of time."""
    allowed = _allowed(objective)
    above = steady_share(values, over, 1 - _ALPHA, sides=1)
    low, high = above.interval or (0.0, 1.0)
    if breach_alpha != _ALPHA:
        low = above.limits(1 - breach_alpha, sides=1)[0]
    enough = above.n_eff >= needed(1 - allowed)
    answer: Answer = "inconclusive"
    why = ""
    if low > allowed or _hopeless(over, allowed):
        answer = "breach"
    elif high <= allowed and enough and not above.drifts:
        answer = "pass"
    elif above.n < needed(1 - allowed):
        why = f"too few requests: {above.n:,} of at least {needed(1 - allowed):,}"
    elif not enough:
        worth = f"{above.n:,} requests are worth {above.n_eff:,.0f} independent ones"
        why = f"near saturation, or too short: {worth}, {needed(1 - allowed):,} are needed"
    elif high <= allowed:
        why = f"not steady: it {'rises' if above.drift > 0 else 'falls'} over the run"
    else:
        why = _longer(above.value, allowed, above.n, above.n_eff)
    return Checked(objective, answer, above.value, low, high, allowed, above.n, why)


def meets(one: Sample, objectives: Sequence[Objective]) -> bool:
    """Did this request succeed, within the limit of every objective for a latency?"""
    if one.error is not None:
        return False
    for objective in objectives:
        value = _value(one, objective.metric) if objective.metric in _QUANTILED else None
        if value is not None and value > objective.limit:
            return False
    return True


def goodput(samples: Sequence[Sample], objectives: Sequence[Objective], seconds: float) -> float:
    """Requests a second that succeeded and met every latency limit (Zhong et al., DistServe, OSDI 2024).

    >>> fast = Sample(id=0, name="chat", intended=0.0, sent=0.0, ended=1.0, first=0.2, last=1.0)
    >>> slow = Sample(id=1, name="chat", intended=0.0, sent=0.0, ended=9.0, first=0.9, last=9.0)
    >>> goodput([fast, slow], parse_objectives("ttft.p95<500ms"), seconds=2.0)
    0.5
    """
    return sum(meets(one, objectives) for one in samples) / seconds if seconds > 0 else 0.0


def overall(checked: Sequence[Checked]) -> Answer | None:
    """Breach if one is breached, else inconclusive if one is, else pass; None without objectives."""
    answers = {one.answer for one in checked}
    order: tuple[Answer, ...] = ("breach", "inconclusive", "pass")
    return next((answer for answer in order if answer in answers), None)


def _marks(rows: Sequence[Sample], objective: Objective) -> tuple[np.ndarray, np.ndarray]:
    if objective.metric == "errors":
        failed = np.array([one.error is not None for one in rows], dtype=float)
        return failed, failed
    # What succeeded but has no such value (one token has no time per token) is neither a hit nor a miss.
    pairs = [math.inf if one.error is not None else _value(one, objective.metric) for one in rows]
    values = np.array([value for value in pairs if value is not None], dtype=float).round(DIGITS)
    if values.size == 0:
        values = np.array([math.inf])
    return values, values > objective.limit


def _value(one: Sample, metric: str) -> float | None:
    of = METRICS[metric].of
    return None if of is None else of(one)


def _cost(objective: Objective, rows: Sequence[Sample], share: float) -> Checked:
    values = series(rows, "cost")
    count, mean = values.size, float(values.mean()) if values.size else math.nan
    below, above = block_mean(values, confidence=1 - 2 * share), block_mean(values, confidence=1 - 2 * _ALPHA)
    if below is None or above is None:
        why = "no cost is known: name prices" if not count else f"too few requests: {count} of at least 30"
        return Checked(objective, "inconclusive", mean, 0.0, math.inf, objective.limit, count, why)
    answer: Answer = "inconclusive"
    if below[0] > objective.limit:
        answer = "breach"
    elif above[1] <= objective.limit:
        answer = "pass"
    why = "" if answer != "inconclusive" else "the mean's interval holds the limit: run longer"
    return Checked(objective, answer, mean, below[0], above[1], objective.limit, count, why)


def _allowed(objective: Objective) -> float:
    return objective.limit if objective.q is None else 1 - objective.q


def _hopeless(over: ArrayLike, allowed: float) -> bool:
    """Did nearly all requests of the second half miss, as where a queue grows without an end?

    Such a run has no steady state to speak of. If it had one that meets the objective, the expected share of misses
    would be ``allowed`` however dependent the requests are, and one 1 / alpha times as large has a probability of at
    most alpha (Markov's inequality): for a p95, every request of the half.
    """
    marks = np.asarray(over, dtype=float)
    half = marks[marks.size // 2 :]
    return half.size >= _FEWEST and float(half.mean()) >= min(1.0, allowed / _ALPHA) - 1e-9


def _longer(share: float, allowed: float, n: int, n_eff: float) -> str:
    """How many requests would tell, if the share stays what it is: a normal approximation, rounded up to two digits."""
    away = abs(share - allowed)
    if away < allowed / 20:
        return "the share of misses is at the limit: no run tells on which side, choose another limit"
    worth = (1.645 + 0.842) ** 2 * max(share, allowed) * (1 - min(share, allowed)) / away**2
    wanted = max(n * 1.2, worth * n / max(1.0, n_eff))
    digits = 10 ** max(0, math.floor(math.log10(wanted)) - 1)
    return f"about {math.ceil(wanted / digits) * digits:,} requests would tell (this run had {n:,})"
