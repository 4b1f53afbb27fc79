"""The highest rate that passes a three-valued gate: bracketing, then bisection, honest about what stays unresolved."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Literal

__all__ = ["Cut", "Found", "Limits", "Step", "search", "walk"]

StepAnswer = Literal["pass", "breach", "inconclusive", "invalid"]


@dataclass(frozen=True, slots=True)
class Step:
    """One run: requests a second, how many requests, the answer. ``retries`` runs before it were no use."""

    rate: float
    requests: int
    answer: StepAnswer
    why: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """How to search.

    ``start`` and ``most`` in requests a second; ``requests`` of a first run, ``most_requests`` of a run that was
    extended because its answer was inconclusive; ``precision``: how close, as a share, a passing and a breaching rate
    must come; ``runs``: at most so many.
    """

    start: float
    most: float = 10_000.0
    requests: int = 600
    most_requests: int = 2400
    precision: float = 0.1
    runs: int = 20

    def __post_init__(self) -> None:
        if not 0 < self.start <= self.most < math.inf:
            raise ValueError(f"start={self.start:g}, most={self.most:g}: needs 0 < start <= most")
        if not 72 <= self.requests <= self.most_requests:
            raise ValueError(
                f"requests={self.requests}, most_requests={self.most_requests}: needs 72 <= requests <= most_requests"
            )
        if not 0.01 <= self.precision <= 1:
            raise ValueError(f"precision={self.precision:g}: needs .01 to 1, such as .1")
        if self.runs < 2:
            raise ValueError(f"runs={self.runs}: needs at least 2")


@dataclass(frozen=True, slots=True)
class Found:
    """What the search found. Rates in requests a second; None: no such rate was met.

    ``passes`` is the highest rate that passed, twice; ``breaches`` the lowest above it that breached; ``unresolved``
    those between them that gave no answer; ``ceiling`` the lowest rate that the generator could not send.
    """

    passes: float | None
    breaches: float | None
    unresolved: tuple[float, ...]
    ceiling: float | None
    steps: tuple[Step, ...]
    stopped: str

    @property
    def resolved(self) -> bool:
        """Is the highest rate known to the precision asked for?"""
        return self.stopped == ""


class Cut(Exception):
    """No more runs can be made; the message says why."""


def search(measure: Callable[[float, int, int], Step], limits: Limits) -> Found:
    """Search with ``measure(rate, requests, seed)``; every run gets another seed.

    Where ``measure`` raises :class:`Cut`, what the runs before it tell is returned, with its message as ``stopped``.
    """
    walker = walk(limits)
    try:
        asked = next(walker)
        while True:
            try:
                step = measure(*asked)
            except Cut as cut:
                asked = walker.throw(cut)
            else:
                asked = walker.send(step)
    except StopIteration as stop:
        found: Found = stop.value
        return found


def walk(limits: Limits) -> Generator[tuple[float, int, int], Step, Found]:
    """The search as a generator: yields the next run (rate, requests, seed), is sent its step, returns what was found.

    A rate counts as passed when two runs of it with different seeds passed: the highest of many tried is also the
    luckiest.
    """
    state = _State(limits)
    try:
        yield from _walked(state)
    except Cut as cut:
        state.cut(str(cut))
    return state.found()


def _walked(state: _State) -> Generator[tuple[float, int, int], Step]:
    while (rate := state.next_rate()) is not None:
        step = yield from _answered(state, rate)
        state.take(step)
    # The best of what passed must pass again.
    while state.passed:
        rate = state.passed[-1]
        if state.out_of_runs():
            state.stopped = f"{state.limits.runs} runs were not enough: {rate:.4g}/s passed, but only once"
            break
        step = yield from _answered(state, rate)
        if step.answer == "pass":
            break
        state.passed.pop()
        state.take(step)
        state.stopped = f"{rate:.4g}/s passed once and not again"


def _answered(state: _State, rate: float) -> Generator[tuple[float, int, int], Step, Step]:
    """One rate, extended while it is inconclusive, tried again once where the generator failed."""
    requests, failed = state.limits.requests, 0
    while True:
        step = yield rate, requests, len(state.steps)
        state.steps.append(step)
        if state.out_of_runs():
            return step
        if step.answer == "invalid" and not failed:
            failed += 1
        elif step.answer == "inconclusive" and requests < state.limits.most_requests:
            requests = min(state.limits.most_requests, requests * 2)
        else:
            return step


class _State:
    """What is known of each rate so far."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.steps: list[Step] = []
        self.passed: list[float] = []
        self.breached: list[float] = []
        self.open: list[float] = []
        self.unsent: list[float] = []
        self.stopped = ""

    def out_of_runs(self) -> bool:
        return len(self.steps) >= self.limits.runs

    def take(self, step: Step) -> None:
        kind = {
            "pass": self.passed,
            "breach": self.breached,
            "inconclusive": self.open,
            "invalid": self.unsent,
        }
        if step.rate not in kind[step.answer]:
            kind[step.answer].append(step.rate)
            kind[step.answer].sort()

    def cut(self, why: str) -> None:
        """No more runs: the last one counts as it is, unless it says more about the generator than about the server."""
        if self.steps and self.steps[-1].answer != "invalid":
            self.take(self.steps[-1])
        twice = [one for one in self.steps if one.answer == "pass" and one.rate == self.low()]
        self.stopped = f"{why}; {self.low():.4g}/s passed, but only once" if len(twice) == 1 else why

    def next_rate(self) -> float | None:
        """The rate to try next; None where nothing is left to learn, ``stopped`` then says why if it matters."""
        if self.out_of_runs():
            self.stopped = f"{self.limits.runs} runs were not enough"
            return None
        low, high = self.low(), self.high()
        if low is None and high is None and not self.open:
            return self.limits.start
        between = [rate for rate in self.open if (low or 0) < rate < (high or math.inf)]
        if high is None:
            return self._upwards(max([*between, low or 0]))
        if low is None:
            lowest = min([*between, high])
            if lowest <= self.limits.start / 1000:
                self.stopped = "no rate passed"
                return None
            return lowest / 2
        return self._inside([low, *between, high])

    def _upwards(self, above: float) -> float | None:
        if above >= self.limits.most:
            self.stopped = f"the highest rate allowed, {self.limits.most:g}/s, was not breached"
            return None
        return min(self.limits.most, above * 2)

    def _inside(self, rates: list[float]) -> float | None:
        # Between two rates without an answer there is none to be had: only the outer gaps are narrowed.
        gaps = [(rates[0], rates[1]), (rates[-2], rates[-1])]
        low, high = max(gaps, key=lambda gap: gap[1] / gap[0])
        if high / low > 1 + self.limits.precision:
            return math.sqrt(low * high)
        if len(rates) > 2:
            self.stopped = f"unresolved between {rates[0]:.4g} and {rates[-1]:.4g}/s: longer runs would tell"
        return None

    def low(self) -> float | None:
        return self.passed[-1] if self.passed else None

    def high(self) -> float | None:
        """The lowest rate above what passed that did not: by the objective, or by the generator."""
        above = [rate for rate in (*self.breached, *self.unsent) if rate > (self.low() or 0)]
        return min(above, default=None)

    def found(self) -> Found:
        low = self.low()
        breaches = min((rate for rate in self.breached if rate > (low or 0)), default=None)
        top = min((rate for rate in (breaches, *self.unsent) if rate is not None), default=math.inf)
        between = tuple(rate for rate in self.open if (low or 0) < rate < top)
        ceiling = min(self.unsent, default=None)
        stopped = self.stopped
        if not stopped and ceiling is not None and (breaches is None or ceiling < breaches):
            stopped = f"the generator cannot send {ceiling:.4g}/s: use --processes, or another machine"
        if not stopped and low is None:
            stopped = "no rate passed"
        return Found(low, breaches, between, ceiling, tuple(self.steps), stopped)
