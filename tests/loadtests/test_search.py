"""The search for the highest rate: right on servers whose answer is known, honest where there is none."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from loadtests.search import Cut, Found, Limits, Step, StepAnswer, search
from loadtests.slo import Objective, answer_of
from tests.loadtests.queues import SERVERS, runs, truth

LIMITS = Limits(start=1.0, precision=0.1)


def answering(answer: Callable[[float, int], StepAnswer]) -> tuple[Found, list[Step]]:
    """The search against a server whose answer depends on rate and number of requests."""
    made: list[Step] = []

    def measure(rate: float, requests: int, seed: int) -> Step:
        assert seed == len(made)
        made.append(Step(rate, requests, answer(rate, requests)))
        return made[-1]

    return search(measure, LIMITS), made


@pytest.mark.parametrize("edge", [0.07, 0.9, 1.0, 3.3, 40.0, 777.0])
def test_a_sharp_edge_is_found(edge: float) -> None:
    """The highest passing rate lies within 10% of a sharp edge, above or below the start, and passed twice."""
    found, made = answering(lambda rate, _: "pass" if rate <= edge else "breach")
    assert found.resolved and found.passes is not None and found.breaches is not None
    assert found.passes <= edge < found.breaches <= found.passes * 1.1
    assert [one.answer for one in made if one.rate == found.passes] == ["pass", "pass"]


def test_inconclusive_runs_are_extended() -> None:
    """A rate without an answer is tried with more requests; where those tell, the edge is found all the same."""
    found, made = answering(
        lambda rate, requests: (
            "inconclusive" if requests < 2400 and 4 < rate < 6 else "pass" if rate <= 5 else "breach"
        )
    )
    assert found.resolved and found.passes is not None and found.passes <= 5
    assert {one.requests for one in made if 4 < one.rate < 6} == {600, 1200, 2400}


def test_what_stays_unresolved_is_said() -> None:
    """Where no run tells, the bounds on both sides are found as closely as asked, and the gap between them is named."""
    found, made = answering(
        lambda rate, _: "pass" if rate <= 8 else "breach" if rate > 12 else "inconclusive"
    )
    assert not found.resolved and len(made) <= LIMITS.runs
    assert found.passes is not None and 7 < found.passes <= 8
    if "unresolved" in found.stopped:
        assert found.breaches is not None and 12 < found.breaches <= 13.5
    assert found.unresolved and all(8 < rate <= 12 for rate in found.unresolved)


@pytest.mark.parametrize(
    ("answer", "stopped"),
    [
        ("breach", "no rate passed"),
        ("pass", "not breached"),
        ("inconclusive", "runs were not enough"),
        ("invalid", "no rate passed"),
    ],
)
def test_a_server_without_an_edge(answer: StepAnswer, stopped: str) -> None:
    """Always breached, always passed, never an answer, never generated: the search ends within its runs and says so."""
    found, made = answering(lambda rate, _: answer)
    assert len(made) <= LIMITS.runs and not found.resolved
    assert stopped in found.stopped or "runs were not enough" in found.stopped
    assert (found.passes is not None) == (answer == "pass")


def test_the_generator_may_be_the_limit() -> None:
    """Where the generator, and not the server, gives up, its rate is the ceiling and no breach is claimed."""
    found, _ = answering(lambda rate, _: "pass" if rate <= 20 else "invalid")
    assert found.breaches is None and found.ceiling is not None and 20 < found.ceiling <= 22.5
    assert found.passes is not None and "generator cannot send" in found.stopped and not found.resolved


def test_a_single_hiccup_of_the_generator_is_forgiven() -> None:
    """A run that the generator spoiled is made again with another seed."""
    turns = itertools.count()
    found, made = answering(
        lambda rate, _: "invalid" if next(turns) == 2 else "pass" if rate <= 5 else "breach"
    )
    assert found.resolved and [one.answer for one in made].count("invalid") == 1


def test_luck_is_not_believed() -> None:
    """A rate that passed once and then breached is not the answer."""
    seen: list[float] = []

    def lucky(rate: float, _: int) -> StepAnswer:
        seen.append(rate)
        return "pass" if rate <= 5 or (rate <= 8 and seen.count(rate) == 1) else "breach"

    found, _ = answering(lucky)
    assert found.passes is not None and found.passes <= 5 and "once and not again" in found.stopped


@pytest.mark.slow
def test_a_queue_with_a_known_edge() -> None:
    """Searched against simulated queues, at most one rate of 20 found has a true p95 over the objective."""
    limit = 1.3 * truth(0.6, "e2e")
    misses = finds = 0
    for repeat in range(20):

        def measure(rate: float, requests: int, seed: int, repeat: int = repeat) -> Step:
            # A queue beyond its capacity has no steady state: simulated just below it.
            row = runs(min(rate / SERVERS, 0.97), requests, 1, seed=1000 * repeat + seed).e2e[0]
            return Step(rate, requests, answer_of(Objective("e2e", limit, 0.95), row, row > limit).answer)

        found = search(measure, Limits(start=1.0, requests=600, most_requests=1200, precision=0.2))
        if found.passes is not None and truth(round(min(found.passes / SERVERS, 0.97), 2), "e2e") > limit:
            misses += 1
        finds += found.passes is not None
    assert misses <= 1 and finds >= 18


@pytest.mark.parametrize(
    ("change", "named"),
    [({"start": 0.0}, "start"), ({"start": 9e9}, "start"), ({"requests": 10}, "requests"),
     ({"most_requests": 100}, "requests"), ({"precision": 0.0}, "precision"), ({"runs": 1}, "runs"),
     ({"start": np.nan}, "start")],
)  # fmt: skip
def test_impossible_searches_are_refused(change: dict[str, float], named: str) -> None:
    """Limits that no search can hold are refused by name."""
    with pytest.raises(ValueError, match=named):
        Limits(**{"start": 1.0, **change})  # type: ignore[arg-type]


@pytest.mark.parametrize("after", range(12))
def test_a_search_cut_short_tells_what_it_knows(after: int) -> None:
    """However early no more runs can be made, what the runs before tell is returned and no rate is called found."""
    made: list[Step] = []

    def measure(rate: float, requests: int, seed: int) -> Step:
        if len(made) == after:
            raise Cut("the server is gone")
        made.append(Step(rate, requests, "invalid" if rate > 60 else "pass" if rate <= 40 else "breach"))
        return made[-1]

    found = search(measure, LIMITS)
    assert found.stopped.startswith("the server is gone") == (len(made) == after) != found.resolved
    assert found.steps == tuple(made)
    passed = [one.rate for one in made if one.answer == "pass"]
    assert found.passes == max(passed, default=None)
    assert found.breaches == min((one.rate for one in made if one.answer == "breach"), default=None)
    assert ("only once" in found.stopped) == (passed.count(max(passed, default=0)) == 1)
