"""A seeded stream of questions as a help desk sees them.

What is asked: meanings ("intents") by a Zipf law, so that a few are asked all the time and most hardly ever; within a
meaning, any of its phrasings. When: Poisson arrivals with bursts, and during a burst, as after an outage or a
mailing, many questions are about one thing. None of it is fitted to make caching look good: the exponents are options,
and the report prints how many questions of the stream were repeats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from serving.assistant.documents import Question

__all__ = ["Arrival", "Traffic", "repeats", "stream"]


@dataclass(frozen=True, slots=True)
class Traffic:
    """How the stream is drawn. ``rate`` is questions per second between bursts."""

    count: int = 600
    rate: float = 1.0
    zipf_intents: float = 0.7
    zipf_phrasings: float = 0.0
    bursts: int = 3
    burst_seconds: float = 20.0
    burst_factor: float = 2.0
    burst_focus: float = 0.3
    seed: int = 7


@dataclass(frozen=True, slots=True)
class Arrival:
    """One question and when it is asked, in seconds from the start of the stream."""

    at: float
    question: Question


def stream(questions: Sequence[Question], traffic: Traffic) -> list[Arrival]:
    """Draw the stream; the same arguments give the same stream.

    Raises:
        ValueError: no questions, or a count or rate that is not positive.
    """
    if not questions or traffic.count <= 0 or traffic.rate <= 0:
        raise ValueError("stream(): needs questions, a positive count and a positive rate")
    rng = np.random.default_rng(traffic.seed)
    groups: dict[tuple[str, str], list[Question]] = {}
    for question in questions:
        groups.setdefault((question.tenant, question.intent), []).append(question)
    intents = list(groups.values())
    rng.shuffle(intents)
    popularity = _zipf(len(intents), traffic.zipf_intents)
    length = traffic.count / traffic.rate
    starts = np.sort(rng.uniform(0.1 * length, 0.9 * length, traffic.bursts))
    hot = rng.choice(len(intents), size=max(1, traffic.bursts), p=popularity)
    arrivals: list[Arrival] = []
    now = 0.0
    while len(arrivals) < traffic.count:
        burst = next((i for i, s in enumerate(starts) if s <= now < s + traffic.burst_seconds), None)
        now += rng.exponential(1 / (traffic.rate * (traffic.burst_factor if burst is not None else 1.0)))
        if burst is not None and rng.random() < traffic.burst_focus:
            group = intents[hot[burst]]
        else:
            group = intents[rng.choice(len(intents), p=popularity)]
        phrasing = rng.choice(len(group), p=_zipf(len(group), traffic.zipf_phrasings))
        arrivals.append(Arrival(now, group[phrasing]))
    return arrivals


def repeats(arrivals: Sequence[Arrival]) -> int:
    """How many arrivals ask, word for word and for the same tenant, what an earlier one asked."""
    return len(arrivals) - len({(a.question.tenant, a.question.question) for a in arrivals})


def _zipf(n: int, exponent: float) -> npt.NDArray[np.float64]:
    weights = np.arange(1, n + 1, dtype=np.float64) ** -exponent
    return np.asarray(weights / weights.sum(), dtype=np.float64)
