"""What the tests of the flow share: a virtual clock, the parts of a call, and a flow stepped by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from costkit import codec
from costkit.call import Attempt, Cost, Usage
from costkit.effects import Done, Effect, Request, Returned, Write
from costkit.exact import exact
from costkit.flow import Flow, flow
from costkit.store import Entry, Moment

WALL = 1_700_000_000.0
REQUEST = Request(
    id="q1",
    parent_id=None,
    root_id="q1",
    name="app.ask",
    version="1",
    scope=None,
    key="k",
    exact=exact(ttl="1h"),
    epoch="",
    stream=False,
    started=100.0,
    now=Moment(WALL),
)


@dataclass
class Clock:
    """Time that passes only when told to."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def spent(cost: int | None = 40, finish: str | None = "stop") -> tuple[Attempt, ...]:
    return (Attempt("reference", "m", "openai", Usage(in_fresh=10, out_text=2), cost, finish=finish),)


def returned(
    value: Any = "answer", own: tuple[Attempt, ...] | None = None, nested: Cost | None = None
) -> Returned:
    return Returned(value, spent() if own is None else own, nested or Cost(), 0.5)


def entry(value: Any = "answer", **changes: Any) -> Entry:
    return replace(Entry(codec.encode(value), WALL - 10, 3600.0, 3600.0, 40, 0.5), **changes)


class Stepper:
    """Sends replies into a flow and keeps what it asked for."""

    def __init__(self, request: Request = REQUEST, clock: Callable[[], float] | None = None) -> None:
        self.flow: Flow = flow(request, clock or Clock())
        self.done: Done | None = None
        self.effects: list[Effect] = []
        self.send(None)

    def send(self, reply: Any) -> Effect | None:
        assert self.done is None
        try:
            self.effects.append(self.flow.send(reply))
            return self.effects[-1]
        except StopIteration as stop:
            self.done = stop.value
            return None

    @property
    def names(self) -> str:
        return " ".join(type(e).__name__ for e in self.effects)


def run(*replies: Any, request: Request = REQUEST, clock: Callable[[], float] | None = None) -> Stepper:
    step = Stepper(request, clock)
    for reply in replies:
        step.send(reply)
    return step


def written(step: Stepper) -> Write:
    (found,) = (e for e in step.effects if isinstance(e, Write))
    return found


def ended(step: Stepper) -> Done:
    assert step.done is not None, step.names
    return step.done


def spent_of(step: Stepper) -> tuple[Attempt, ...]:
    return written(step).attempts
