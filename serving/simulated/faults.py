"""Faults on purpose: which share of requests fails, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

KINDS = ("error500", "error503", "rate429", "html", "stall", "truncate", "drop")


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault and the share of requests it strikes; `seconds` is the length of a stall.

    `error500`, `error503`, `rate429` and `html` (status 502 and a page, as of a proxy in front) answer at once, without
    a slot. `stall` stops before one token, `truncate` ends the stream in good form but without `finish_reason` (a plain
    answer: without the end of its body), `drop` closes the connection in mid-answer (a plain answer: before its first
    byte).
    """

    kind: str
    probability: float
    seconds: float = 0.0


def parse_fault(text: str) -> Fault:
    """Read `KIND:PROBABILITY`, or `stall:SECONDS:PROBABILITY`.

    Raises:
        ValueError: unknown kind, or a number that is missing or out of range.

    >>> parse_fault("stall:2.5:0.1")
    Fault(kind='stall', probability=0.1, seconds=2.5)
    >>> parse_fault("explode:0.1")
    Traceback (most recent call last):
    ValueError: fault 'explode:0.1': expected KIND:PROBABILITY with KIND one of error500, error503, \
rate429, html, stall:SECONDS, truncate, drop
    """
    kind, *numbers = text.split(":")
    try:
        values = [float(number) for number in numbers]
    except ValueError:
        values = []
    if kind not in KINDS or len(values) != (2 if kind == "stall" else 1):
        kinds = ", ".join("stall:SECONDS" if kind == "stall" else kind for kind in KINDS)
        raise ValueError(f"fault {text!r}: expected KIND:PROBABILITY with KIND one of {kinds}")
    seconds, probability = (values[0], values[1]) if kind == "stall" else (0.0, values[0])
    if not 0.0 <= probability <= 1.0 or not 0.0 <= seconds < float("inf"):
        raise ValueError(f"fault {text!r}: needs a probability from 0 to 1 and seconds of 0 or more")
    return Fault(kind, probability, seconds)


def parse_freeze(text: str) -> tuple[float, float]:
    """Read `SECONDS@AT`: freeze the whole server for so long, once, `AT` seconds after its first request.

    Raises:
        ValueError: not two numbers, or one that is negative.

    >>> parse_freeze("2@5")
    (2.0, 5.0)
    """
    try:
        seconds, at = (float(number) for number in text.split("@"))
    except ValueError:
        seconds = at = -1.0
    if not (0.0 < seconds < float("inf") and 0.0 <= at < float("inf")):
        raise ValueError(f"freeze {text!r}: expected SECONDS@AT, such as 2@5")
    return seconds, at


def check_faults(faults: Sequence[Fault]) -> tuple[Fault, ...]:
    """Return the faults as a tuple, or raise ValueError where their probabilities add up to more than 1."""
    if sum(fault.probability for fault in faults) > 1.0 + 1e-9:
        raise ValueError("the probabilities of all faults add up to more than 1")
    return tuple(faults)


def draw_fault(faults: Sequence[Fault], rng: Random) -> Fault | None:
    """Draw at most one fault, with exactly one number from `rng`: adding a fault moves no other draw."""
    point = rng.random()
    for fault in faults:
        point -= fault.probability
        if point < 0.0:
            return fault
    return None
