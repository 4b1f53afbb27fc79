"""The bill of a load run on one's own machine, and when the machine is cheaper than an API.

>>> even = BreakEven(1.0, 0.5, (0.0009, 0.001, 0.0011))
>>> round(even.own(1.0) * 1000, 3), [round(one, 2) for one in even.utilisation]
(0.556, [0.51, 0.56, 0.62])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

import costkit
from costkit.call import Usage
from costkit.errors import ConfigError
from costkit.stats.blocks import block_mean
from loadtests.sample import Sample
from serving.own_cost.fit import Run, Weights, columns, fit

NANO = 1e9
SHARES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)  # of the rate that the machine sustains, for the table


@dataclass(frozen=True, slots=True)
class Bill:
    """Where a run's machine hours went, in US dollars; the lines add up to ``total``.

    ``failed`` is machine time of requests whose tokens nobody reported. ``idle`` is the time in which no request was in
    flight: it is paid and serves nobody, and no query is charged with it.
    """

    seconds: float
    usd_per_hour: float
    queries: int
    prompts: float
    cached: float
    output: float
    failed: float
    idle: float
    busy_share: float

    @property
    def total(self) -> float:
        """The machine's price for the length of the run."""
        return self.usd_per_hour * self.seconds / 3600

    @property
    def per_query(self) -> float:
        """Dollars of busy time per query that succeeded, cached answers included."""
        return (self.total - self.idle) / self.queries


@dataclass(frozen=True, slots=True)
class BreakEven:
    """Own machine against an API.

    ``sustained`` is queries per second at the SLO when fully used; ``api`` is dollars per query there: low, mean, high.
    """

    usd_per_hour: float
    sustained: float
    api: tuple[float, float, float]
    given: bool = True
    """Whether the sustained rate was given; else it is the rate of the run."""

    def own(self, utilisation: float) -> float:
        """Dollars per query when ``utilisation`` (0 to 1) of the sustained rate is used on average, nights included."""
        return self.usd_per_hour / (3600 * self.sustained * utilisation)

    @property
    def utilisation(self) -> tuple[float, float, float]:
        """From which utilisation on the own machine is cheaper: low, mean, high; above 1 it never is."""
        full = self.own(1.0)
        low, mean, high = self.api
        return full / high, full / mean, full / low if low else float("inf")


@dataclass(frozen=True, slots=True)
class OwnCost:
    """What a load run says about the cost of one's own serving."""

    weights: Weights
    bill: Bill
    price: costkit.OwnGPU | None
    even: BreakEven | None
    against: str | None
    lost: float
    spared: int

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        even = self.even and {
            "model": self.against,
            "api_usd_per_query": list(self.even.api),
            "sustained_per_s": self.even.sustained,
            "sustained_given": self.even.given,
            "cheaper_from_utilisation": list(self.even.utilisation),
            "curve": [[u, self.even.own(u)] for u in SHARES],
        }
        bill = {**asdict(self.bill), "total": self.bill.total, "per_query": self.bill.per_query}
        price = self.price and {
            "tokens_per_second": float(self.price.tokens_per_second),
            "weight_in": float(self.price.weight_in),
            "weight_cached": float(self.price.weight_cached),
        }
        return {
            "weights": asdict(self.weights), "bill_usd": bill, "own_gpu": price, "break_even": even,
            "lost_share": self.lost, "answered_by_savings": self.spared,
        }  # fmt: skip


def own_cost(
    samples: Sequence[Sample],
    *,
    usd_per_hour: float,
    against: str | None = None,
    sustained: float | None = None,
    prices: costkit.Prices | None = None,
    seed: int = 0,
) -> OwnCost:
    """Work out what a run cost on a machine of ``usd_per_hour``, and how an API would compare.

    ``against`` is a model of ``prices`` (default: the public list). ``sustained`` is the queries per second that the
    machine holds at the SLO; left out, the run's own rate stands for it, which is too little unless the run was at the
    limit.

    Raises:
        ValueError: too few requests, prompts all alike, or a figure that cannot be.
        costkit.UnknownPrice: nobody knows a price for ``against``.
    """
    for name, value in (
        ("--hour-price", usd_per_hour),
        ("--sustained", 1.0 if sustained is None else sustained),
    ):
        if not 0 < value < 1e6:
            raise ConfigError(f"{name} {value:g}: give a number over 0")
    if against is not None:
        prices = prices or costkit.Prices()
        prices.check(against)
    run = columns(samples)
    weights = fit(run, seed=seed)
    bill = _bill(run, weights, usd_per_hour)
    even = None
    if against is not None and prices is not None:
        rate = sustained if sustained is not None else bill.queries / run.seconds
        even = BreakEven(usd_per_hour, rate, _api(samples, against, prices), sustained is not None)
    return OwnCost(weights, bill, _price(weights, usd_per_hour), even, against, run.lost, run.spared)


def _bill(run: Run, weights: Weights, usd_per_hour: float) -> Bill:
    second = usd_per_hour / 3600
    untold = run.busy - float(run.share.sum())
    return Bill(
        seconds=run.seconds,
        usd_per_hour=usd_per_hour,
        queries=len(run.fresh) + run.spared,
        prompts=second * weights.fresh * float(run.fresh.sum()),
        cached=second * weights.cached * float(run.cached.sum()),
        output=second * weights.output * float(run.output.sum()),
        failed=second * untold if untold > 1e-9 * run.busy else 0.0,
        idle=second * (run.seconds - run.busy),
        busy_share=run.busy / run.seconds,
    )


def _price(weights: Weights, usd_per_hour: float) -> costkit.OwnGPU | None:
    """The machine as costkit prices it, busy all the time; ``None`` where output tokens took no time to speak of."""
    if weights.output <= 0:
        return None
    return costkit.OwnGPU(
        usd_per_hour=usd_per_hour,
        tokens_per_second=Decimal(f"{1 / weights.output:.6g}"),
        weight_in=Decimal(f"{weights.fresh / weights.output:.6g}"),
        weight_cached=Decimal(f"{weights.cached / weights.output:.6g}"),
    )


def _api(samples: Sequence[Sample], model: str, prices: costkit.Prices) -> tuple[float, float, float]:
    """Dollars per query if the same tokens went to ``model``: low, mean and high; what a saving answered is free."""
    costs = []
    for one in sorted(samples, key=lambda one: (one.sent, one.id)):
        if one.error is not None:
            continue
        cached, reasoning = one.cached_tokens or 0, one.reasoning_tokens or 0
        usage = Usage(
            in_fresh=(one.prompt_tokens or 0) - cached,
            cache_read=cached,
            out_text=(one.output_tokens or 0) - reasoning,
            out_reasoning=reasoning,
        )
        costs.append(0.0 if one.saving else prices.price(usage, model=model).cost / NANO)
    mean = sum(costs) / len(costs)
    low, high = block_mean(costs) or (0.0, mean)
    return low, mean, high
