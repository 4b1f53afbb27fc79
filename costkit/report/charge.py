"""What one model call's cost is made of, from the price rows kept with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

__all__ = ["Charge", "charges"]


@dataclass(frozen=True, slots=True)
class Charge:
    """Tokens of one class at their rate (text, USD per million tokens; ``per_request``: USD a call), in nano-dollars,
    not rounded.
    """

    name: str
    tokens: int
    rate: str
    nano: float


def charges(tokens: Mapping[str, int], rates: str) -> tuple[Charge, ...]:
    """The lines of a cost; empty where the stored rates are not readable.

    >>> [(c.name, c.nano) for c in charges({"in_fresh": 1000, "out_text": 10}, '{"in_fresh": "0.25", "out_text": "2"}')]
    [('in_fresh', 250000.0), ('out_text', 20000.0)]
    """
    try:
        told = json.loads(rates)
        found = [
            Charge(name, count, str(told[name]), float(count * Fraction(str(told[name])) * 1000))
            for name, count in tokens.items()
            if name in told
        ]
        fee = Fraction(str(told.get("per_request") or 0))
        if fee:
            found.append(Charge("per_request", 1, str(told["per_request"]), float(fee * 10**9)))
    except (ValueError, TypeError, AttributeError, ZeroDivisionError, OverflowError, RecursionError):
        return ()
    return tuple(found)
