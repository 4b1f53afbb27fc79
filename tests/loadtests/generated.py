"""Load runs made up for tests: a plan, a server with a known answer time, and the faults of a generator."""

from __future__ import annotations

from itertools import takewhile

import numpy as np

from loadtests.arrivals import Plan, arrivals
from loadtests.sample import Sample


def sample(
    number: int, intended: float, lag: float = 0.001, ttft: float = 0.05, e2e: float = 0.5, **more: object
) -> Sample:
    """One request to a server that answers in ``e2e`` seconds after the real send."""
    sent = intended + lag
    times = {"first": sent + ttft, "first_output": sent + ttft, "last": sent + e2e, "ended": sent + e2e}
    made = {
        "id": number,
        "name": "chat",
        "intended": intended,
        "sent": sent,
        "finish": "stop",
        **times,
        **more,
    }
    return Sample(**made)  # type: ignore[arg-type]


def failed(number: int, intended: float, error: str = "status_503") -> Sample:
    """One request that the server refused at once."""
    return Sample(number, "chat", intended, intended, intended + 0.001, error=error)


def clean(plan: Plan, seconds: float, *, jitter: float = 0.001, seed: int = 0) -> list[Sample]:
    """A run as it was asked for, each request up to a few milliseconds late."""
    due = list(takewhile(lambda one: one[1] < seconds, arrivals(plan)))
    lags = np.random.default_rng(seed).exponential(jitter, len(due)).tolist()
    return [sample(number, at, lag) for (number, at), lag in zip(due, lags, strict=True)]


def slept(run: list[Sample], begin: float, seconds: float) -> list[Sample]:
    """The same run by a generator that slept for a while: what was due then goes out when it wakes."""
    wakes = begin + seconds
    return [
        sample(one.id, one.intended, max(one.lag, wakes - one.intended))
        if begin <= one.intended < wakes
        else one
        for one in run
    ]


def dropped(run: list[Sample], share: float, seed: int = 0) -> list[Sample]:
    """The same run by a generator that never sent some of it."""
    kept = np.random.default_rng(seed).random(len(run)) >= share
    return [one for one, keep in zip(run, kept.tolist(), strict=True) if keep]
