"""Did the generator send what it was asked to send? If not, the run says nothing about the server.

The plan's times are known before the run (:mod:`loadtests.arrivals`), so every request that was not sent is found by
its number, and every one that was sent late by its lag. The law of the arrivals (their rate, how they cluster, how
long their gaps are) is tested beside it, in expected requests, so that stages and ramps are tested as one process.
A run that was generated as asked is called invalid in at most 2% of cases (tests/loadtests/test_verdict.py).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costkit.stats import quantile
from loadtests.arrivals import Plan, arrivals, expected
from loadtests.metrics import series
from loadtests.process import dispersion, gamma_cdf, kolmogorov, law_of_dispersion
from loadtests.sample import Sample
from loadtests.slo import Objective

__all__ = ["Verdict", "judge", "lag_limit"]

Floats = NDArray[np.float64]
_GRACE_S = 0.25  # before the end: what is due then may be cut off by it
_MISSING = 0.01
_RATE = 0.05
_LAG = 0.05  # of the tightest latency objective, at the 99th percentile
_LAG_FLOOR_S = 0.01  # below it the operating system's scheduler decides
_STALL = 4  # times the limit, for any one request
_STALL_FLOOR_S = 0.1
_SHIFT_S = 0.005
_P = 0.001  # each of the tests of the law
_Z = 4.5  # the index of dispersion has a long upper tail
_WINDOW = 10.0  # expected requests
_FEWEST = 20  # requests for a test of their law
_ROUNDED = 1e-6  # gaps in expected requests below which the digits of a time decide


@dataclass(frozen=True, slots=True)
class Verdict:
    """Valid or not, and why not in one line. Times in seconds, rates in requests a second.

    ``moved`` is how far the generator's own lateness moved the p95 of the time to first token. ``gaps_p`` and
    ``dispersion`` are None where there are too few requests, or where the times came from a trace.
    """

    valid: bool
    reason: str
    planned: int
    sent: int
    missing: int
    rate_asked: float
    rate: float
    lag_p50: float
    lag_p99: float
    lag_max: float
    lag_limit: float
    moved: float
    gaps_p: float | None = None
    dispersion: float | None = None
    dispersion_asked: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def judge(
    samples: Sequence[Sample],
    *,
    seconds: float,
    plan: Plan | None = None,
    times: Sequence[float] | None = None,
    objectives: Sequence[Objective] = (),
    overloaded: str | None = None,
) -> Verdict:
    """Compare what was sent with what was to be sent.

    Args:
        samples: every request of the run; numbers are those of the plan. Numbers that the plan does not have, such as
            the later turns of a conversation, count for their lag alone.
        seconds: how long requests were sent, from the start of the run.
        plan: what arrivals were asked for.
        times: of a trace instead, in seconds from the start of the run.
        objectives: latency limits; the tightest says how late the generator may be.
        overloaded: what the generator said of itself, such as that its CPU was full.

    Raises:
        ValueError: neither or both of ``plan`` and ``times``.
    """
    if (plan is None) == (times is None):
        raise ValueError("judge(plan, times): needs one of the two")
    due = _due(plan, times, seconds)
    found = Counter(one.id for one in samples)
    inside = sum(1 for one in samples if 0 <= one.id < len(due) and one.sent < seconds + _GRACE_S)
    lags = np.array([one.lag for one in samples]) if samples else np.zeros(1)
    law = _Law.of(plan, samples, seconds) if plan is not None else None
    told = Verdict(
        valid=True,
        reason="",
        planned=len(due),
        sent=len(samples),
        missing=sum(1 for number, at in enumerate(due) if not found[number] and at < seconds - _GRACE_S),
        rate_asked=len(due) / seconds if seconds > 0 else 0.0,
        rate=inside / seconds if seconds > 0 else 0.0,
        lag_p50=quantile(lags, 0.5),
        lag_p99=quantile(lags, 0.99),
        lag_max=float(lags.max()),
        lag_limit=lag_limit(samples, objectives),
        moved=_moved(samples),
        gaps_p=law.gaps_p if law else None,
        dispersion=law.index[0] if law and law.index else None,
        dispersion_asked=law.asked[0] if law and law.index else None,
    )
    twice = [number for number, count in found.items() if count > 1]
    reason = overloaded or _wrong(told, twice, _other_times(samples, due)) or (law.wrong() if law else "")
    return replace(told, valid=not reason, reason=reason)


def lag_limit(samples: Sequence[Sample], objectives: Sequence[Objective] = ()) -> float:
    """How late 99 of 100 requests may be: 5% of the tightest latency objective, at least 10 ms.

    Without one, 5% of the measured p95 from end to end.
    """
    limits = [one.limit for one in objectives if one.metric in {"ttft", "ttfo", "e2e"}]
    measured = series(samples, "e2e")
    reference = min(limits) if limits else quantile(measured, 0.95) if measured.size else 0.0
    return max(_LAG_FLOOR_S, _LAG * reference)


def _due(plan: Plan | None, times: Sequence[float] | None, seconds: float) -> list[float]:
    if plan is None:
        return [at for at in times or () if at < seconds]
    return [at for _, at in takewhile(lambda one: one[1] < seconds, arrivals(plan))]


def _other_times(samples: Sequence[Sample], due: Sequence[float]) -> int:
    """How many requests were meant for another moment than the plan's."""
    return sum(1 for one in samples if 0 <= one.id < len(due) and abs(one.intended - due[one.id]) > _GRACE_S)


def _moved(samples: Sequence[Sample]) -> float:
    pairs = [(one.ttft, one.lag) for one in samples if one.error is None and one.ttft is not None]
    if not pairs:
        return 0.0
    return quantile([ttft for ttft, _ in pairs], 0.95) - quantile([ttft - lag for ttft, lag in pairs], 0.95)


def _wrong(told: Verdict, twice: Sequence[int], other: int) -> str:
    """The first thing about the requests themselves that makes the run worthless."""
    if not told.planned:
        return "no request was due: run longer, or at a higher rate"
    if not told.sent:
        return f"none of {told.planned:,} requests was sent"
    if twice:
        return f"{len(twice):,} requests were sent more than once (such as number {min(twice)})"
    if other > _MISSING * told.planned:
        return f"{other:,} of {told.planned:,} requests were meant for other moments than the plan's"
    if told.missing > max(1.0, _MISSING * told.planned):
        return f"{told.missing:,} of {told.planned:,} requests were never sent: the generator fell behind or lost them"
    if told.lag_p99 > told.lag_limit:
        return _late(told, f"1 in 100 requests went out {_ms(told.lag_p99)} late or more")
    if told.lag_max > max(_STALL_FLOOR_S, _STALL * told.lag_limit):
        return _late(told, f"the generator stalled: a request went out {_ms(told.lag_max)} late")
    if told.moved > max(_SHIFT_S, told.lag_limit / 2):
        return _late(told, f"the generator's own lateness moved the TTFT p95 by {_ms(told.moved)}")
    if abs(told.rate / told.rate_asked - 1) > _RATE:
        return f"asked for {told.rate_asked:.4g} requests a second, sent {told.rate:.4g}"
    return ""


def _late(told: Verdict, what: str) -> str:
    return f"{what} (limit {_ms(told.lag_limit)} for 99 of 100): use more workers or a lower rate"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms"


@dataclass(frozen=True, slots=True)
class _Law:
    """The arrivals in expected requests, beside what their process makes likely."""

    plan: Plan
    meant: Floats
    total: float
    gaps_p: float | None
    index: tuple[float, int] | None
    asked: tuple[float, float]

    @classmethod
    def of(cls, plan: Plan, samples: Sequence[Sample], seconds: float) -> _Law:
        rows = [one for one in samples if one.intended < seconds and one.id >= 0]
        meant = np.sort(expected(plan, [one.intended for one in rows]))
        total = float(expected(plan, seconds))
        if plan.kind == "constant" or meant.size < _FEWEST:
            return cls(plan, meant, total, None, None, (0.0, 0.0))
        least = float(gamma_cdf(_ROUNDED, plan.burstiness))
        gaps_p = kolmogorov(gamma_cdf(np.diff(meant), plan.burstiness), least)
        index = dispersion(np.sort(expected(plan, [one.sent for one in rows])), total, _WINDOW)
        return cls(plan, meant, total, gaps_p, index, law_of_dispersion(plan.burstiness, _WINDOW))

    def wrong(self) -> str:
        """Are the rate, the gaps or their clusters not those of the process that was asked for?"""
        count, plan = self.meant.size, self.plan
        if abs(count - self.total) > 3.5 * max(1.0, plan.variation * math.sqrt(self.total)) + 1:
            return (
                f"{count:,} requests where {self.total:,.0f} were expected: not the rate that was asked for"
            )
        if plan.kind == "constant" and count > 2 and float(np.median(np.abs(np.diff(self.meant) - 1))) > 0.01:
            return "constant arrivals that are not evenly spaced"
        if self.gaps_p is not None and self.gaps_p < _P:
            return (
                f"the gaps are not those of {plan.kind} arrivals (Kolmogorov-Smirnov p = {self.gaps_p:.1g})"
            )
        if self.index is not None:
            (index, windows), (mean, spread) = self.index, self.asked
            if abs(index - mean) > _Z * spread / math.sqrt(windows):
                how = "more clustered" if index > mean else "more even"
                return f"sends are {how} than was asked for: index of dispersion {index:.2f}, not {mean:.2f}"
        return ""
