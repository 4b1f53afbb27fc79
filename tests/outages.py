"""A gate on invented traffic whose reference calls fail now and then: for simulations."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from costkit.bound import Bound, Gate, Passage

__all__ = ["Run", "traffic"]

SURE = (1.0, 9.0)


@dataclass(frozen=True, slots=True)
class Run:
    """What came of one run, from the change on: answers served, wrong ones among them, calls made, demotions."""

    gate: Gate
    served: int
    wrong: int
    called: int
    silent: int


def traffic(
    bound: Bound, wrong: Callable[[int], float], fails: Callable[[int, bool], float], *, requests: int, change: int,
    seed: int,
) -> Run:  # fmt: skip
    """So many requests to a gate that has opened, each with a candidate that would be served.

    Args:
        wrong: the share of stored answers that are wrong at a request.
        fails: the probability that the call of a request fails, by whether the stored answer is wrong.
        change: the request that counting starts from.
    """
    rand, gate = random.Random(seed), Gate(bound, [0.0, 1.0])
    for _ in range(600):
        gate.see(replace(gate.decide(SURE, coin=0.0), kind="declined", chance=1.0), False)
    assert gate.ladder.level
    served = bad = called = silent = 0
    for request in range(requests):
        passage = gate.decide(SURE, coin=rand.random())
        is_wrong = rand.random() < wrong(request)
        failed = passage.kind != "served" and rand.random() < fails(request, is_wrong)
        if request >= change:
            served += passage.kind == "served"
            bad += passage.kind == "served" and is_wrong
            called += passage.kind != "served"
            silent += gate.silent
        _see(gate, passage, is_wrong, failed)
    return Run(gate, served, bad, called, silent)


def _see(gate: Gate, passage: Passage, wrong: bool, failed: bool) -> None:
    if not failed:
        gate.see(passage, wrong if passage.labelled else None)
    elif passage.kind == "audit":
        gate.see(replace(passage, kind="unanswered"))
