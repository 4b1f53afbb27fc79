"""One arm of the demo: the arrivals, open loop, through an assistant; every answer timed, priced and judged."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import costkit
from costkit.gold import GoldTest, judge
from costkit.usage import read_response
from serving.assistant.workflow import Answer, Assistant, Complete
from serving.demo.traffic import Arrival

__all__ = ["Ask", "Asked", "Sample", "plain", "run", "warm", "with_costkit"]

USERS = 64


@dataclass(frozen=True, slots=True)
class Asked:
    """What one question cost and who answered it; ``cost`` in nano-dollars, None where it is unknown."""

    answer: Answer
    cost: int | None
    saving: str | None


@dataclass(frozen=True, slots=True)
class Sample:
    """One question of the stream. ``latency`` runs from when it was due, in seconds of the replayed clock.

    ``asked`` is tenant and question, ``right`` None where no gold test knows the question.
    """

    at: float
    asked: str
    latency: float
    cost: int | None
    saving: str | None
    called: bool
    right: bool | None
    error: str | None = None


Ask = Callable[[str, str], Asked]


def plain(docs: Path, complete: Complete, model: str, prices: costkit.Prices) -> Ask:
    """The assistant as it is; its cost is read off the provider's responses."""
    spent: ContextVar[list[int | None]] = ContextVar("spent")

    def counted(*args: Any, **kwargs: Any) -> Any:
        response = complete(*args, **kwargs)
        seen = read_response(response)
        known = seen is not None and seen.usage is not None and seen.model is not None
        spent.get().append(prices.price(seen.usage, model=seen.model).cost if known else None)  # type: ignore[union-attr,arg-type]
        return response

    assistant = Assistant(docs, counted, model=model)

    def ask(question: str, tenant: str) -> Asked:
        costs: list[int | None] = []
        spent.set(costs)
        answer = assistant.ask(question, tenant=tenant)
        return Asked(answer, None if None in costs else sum(c for c in costs if c is not None), None)

    return ask


def with_costkit(docs: Path, complete: Complete, model: str, kit: costkit.Kit) -> Ask:
    """The same assistant with two decorators: one records each model call, one caches whole answers by tenant."""
    recorded = kit.call(scope=None, name="complete")(complete)
    assistant = Assistant(docs, recorded, model=model)

    @kit.call(costkit.exact(ttl="1d", epoch="docs"), scope="tenant", name="ask")
    def cached(question: str, *, tenant: str) -> Answer:
        answer = assistant.ask(question, tenant=tenant)
        if not answer.model_called:
            costkit.record(free=True)
        return answer

    def ask(question: str, tenant: str) -> Asked:
        outcome = cached.outcome(question, tenant=tenant)
        return Asked(outcome.value, None if outcome.cost.unknown else outcome.cost.provider, outcome.saving)

    return ask


def warm(ask: Ask, arrivals: Sequence[Arrival]) -> None:
    """Ask every question of the stream once; what fails here fails again, counted, in the run."""
    for text, tenant in dict.fromkeys((a.question.question, a.question.tenant) for a in arrivals):
        with contextlib.suppress(Exception):
            ask(text, tenant)


def run(
    ask: Ask,
    arrivals: Sequence[Arrival],
    gold: Mapping[tuple[str, str], GoldTest],
    *,
    speed: float,
    tick: Callable[[], None],
) -> list[Sample]:
    """Send every arrival when it is due, whether or not earlier ones have been answered."""
    samples: list[Sample | None] = [None] * len(arrivals)
    start = time.perf_counter()

    def one(i: int) -> None:
        arrival = arrivals[i]
        due = start + arrival.at / speed
        name = f"{arrival.question.tenant}: {arrival.question.question}"
        try:
            asked = ask(arrival.question.question, arrival.question.tenant)
        except Exception as exc:  # noqa: BLE001 - a failed question is a row of the report, not the end of the run
            latency = (time.perf_counter() - due) * speed
            known = (arrival.question.question, arrival.question.tenant) in gold
            error = f"{type(exc).__name__}: {exc}"
            samples[i] = Sample(arrival.at, name, latency, None, None, True, False if known else None, error)
        else:
            latency = (time.perf_counter() - due) * speed
            test = gold.get((arrival.question.question, arrival.question.tenant))
            right = None if test is None else judge(test, asked.answer).kind == "right"
            called = asked.answer.model_called and asked.saving is None
            samples[i] = Sample(arrival.at, name, latency, asked.cost, asked.saving, called, right)
        tick()

    pause = threading.Event()
    with ThreadPoolExecutor(USERS, thread_name_prefix="user") as users:
        for i, arrival in enumerate(arrivals):
            wait = start + arrival.at / speed - time.perf_counter()
            if wait > 0:
                pause.wait(wait)
            users.submit(one, i)
    return [s for s in samples if s is not None]
