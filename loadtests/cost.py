"""What the queries of a load run cost: as their samples say, or as the machine's hours are priced.

Money is integer nano-dollars per request in the samples, US dollars here. Requests that failed and were billed count:
the price of 1,000 good requests is all that was spent, over those that were good.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from costkit.stats.blocks import block_mean
from loadtests.metrics import ordered
from loadtests.sample import Sample
from loadtests.slo import Objective, meets

__all__ = ["Cost", "cost_of", "per_1000_good"]


@dataclass(frozen=True, slots=True)
class Cost:
    """Money of a run. ``mean`` is per query that succeeded and has a cost, ``interval`` its 95% interval.

    ``savings`` says per kind of saving how many queries it answered, and what they cost on average. ``source`` is
    ``endpoint or tokens``, ``machine hours`` or ``unknown``.
    """

    source: str
    priced: int
    unpriced: int
    mean: float | None
    interval: tuple[float, float] | None
    total: float | None
    per_1000_good: float | None
    savings: dict[str, tuple[int, float]]

    def as_json(self) -> dict[str, Any]:
        """Plain values, US dollars."""
        return asdict(self)


def per_1000_good(usd_per_hour: float, good_per_second: float) -> float:
    """US dollars for 1,000 good requests on machines with this price an hour; infinite where none is good.

    >>> round(per_1000_good(2.50, 4.0), 3)
    0.174
    """
    return usd_per_hour / (3.6 * good_per_second) if good_per_second > 0 else math.inf


def cost_of(
    samples: Sequence[Sample],
    *,
    seconds: float,
    objectives: Sequence[Objective] = (),
    usd_per_hour: float | None = None,
) -> Cost:
    """What a run cost.

    Args:
        samples: every request.
        seconds: how long the run took; what a machine's price is paid for, busy or idle.
        objectives: what makes a request good.
        usd_per_hour: of all machines that served the run; the cost is then theirs, not that of tokens.
    """
    rows = ordered(samples)
    succeeded = [one for one in rows if one.error is None]
    good = sum(meets(one, objectives) for one in rows)
    if usd_per_hour is not None:
        total = usd_per_hour * seconds / 3600
        each = total / len(succeeded) if succeeded else None
        thousand = per_1000_good(usd_per_hour, good / seconds) if good and seconds > 0 else None
        return Cost("machine hours", len(succeeded), 0, each, None, total, thousand, _savings(succeeded))
    known = [one.cost_nano / 1e9 for one in succeeded if one.cost_nano is not None]
    unpriced = len(succeeded) - len(known)
    if not known:
        return Cost("unknown", 0, unpriced, None, None, None, None, {})
    spent = sum(one.cost_nano or 0 for one in rows) / 1e9
    # Where some requests have no known cost, what all of them cost is not known either.
    whole = spent if not unpriced else None
    thousand = 1000 * spent / good if good and not unpriced else None
    mean = sum(known) / len(known)
    interval = block_mean(known)
    return Cost(
        "endpoint or tokens", len(known), unpriced, mean, interval, whole, thousand, _savings(succeeded)
    )


def _savings(rows: Sequence[Sample]) -> dict[str, tuple[int, float]]:
    kinds = sorted({one.saving for one in rows if one.saving})
    found = {kind: [(one.cost_nano or 0) / 1e9 for one in rows if one.saving == kind] for kind in kinds}
    return {kind: (len(costs), sum(costs) / len(costs)) for kind, costs in found.items()}
