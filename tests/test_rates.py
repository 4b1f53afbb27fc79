"""A user's own rates and GPUs: exact, validated, the most specific first."""

from __future__ import annotations

import decimal
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costkit.call import Usage
from costkit.errors import ConfigError
from costkit.prices import OwnGPU, Prices, Rates


def test_rate_card_by_hand() -> None:
    """The user's rates go first, and hold for the dated names that responses carry."""
    card = {"gpt-5-mini": Rates("0.20", "1.5", cache_read="0.02", out_reasoning=1, per_request="0.001")}
    prices = Prices(card)
    usage = Usage(
        in_fresh=100, cache_read=1000, cache_write_5m=10, cache_write_1h=1, out_text=50, out_reasoning=20
    )
    nano = 100 * 200 + 1000 * 20 + 11 * 200 + 50 * 1500 + 20 * 1000 + 1_000_000
    for model in ("gpt-5-mini", "gpt-5-mini-2025-08-07", "GPT-5-MINI"):
        priced = prices.price(usage, model=model, provider="openai")
        assert (priced.cost, priced.source, priced.assumed) == (nano, "card", ())


def test_the_most_specific_rate_wins() -> None:
    """Provider and name beat the name, the name a glob, a longer glob a shorter one."""
    prices = Prices(
        {
            "*": Rates(1, 0),
            "qwen3-*": Rates(2, 0),
            "qwen3-8b*": Rates(3, 0),
            "qwen3-8b-fp8": Rates(4, 0),
            "own/qwen3-8b-fp8": Rates(5, 0),
            "own/*": Rates(6, 0),
        }
    )

    def price(model: str, provider: str | None = None) -> int:
        return prices.price(Usage(in_fresh=1), model=model, provider=provider).cost // 1000

    assert [price(name) for name in ("phi-4", "qwen3-32b", "qwen3-8b-x", "qwen3-8b-fp8")] == [1, 2, 3, 4]
    assert [price("qwen3-8b-fp8", "own"), price("phi-4", "own"), price("qwen3-8b-fp8", "other")] == [5, 6, 4]


def test_rates_are_exact() -> None:
    """Floats are taken as they print, and the total is rounded half up once, not each part."""
    rates = Rates(0.1, 0.3)
    assert (rates.in_fresh, rates.out_text) == (Decimal("0.1"), Decimal("0.3"))
    half = Prices({"m": Rates("0.0005", "0.0005")})
    assert half.price(Usage(in_fresh=1), model="m").cost == 1
    assert half.price(Usage(in_fresh=1, out_text=1), model="m").cost == 1
    assert Prices({"m": Rates("0.0004", 0)}).price(Usage(in_fresh=1), model="m").cost == 0
    with decimal.localcontext() as context:
        context.prec = 2
        assert (
            Prices({"m": Rates("1.23456", 0)}).price(Usage(in_fresh=10**9), model="m").cost
            == 1_234_560_000_000
        )


@pytest.mark.parametrize(
    "value", [-1, "-0.1", float("nan"), float("inf"), "NaN", "abc", "", True, [], 10**10, "1e-40"]
)
def test_rates_that_are_no_prices(value: Any) -> None:
    """A rate that is no price is refused with the field's name."""
    for name in ("in_fresh", "out_text", "cache_read", "cache_write_1h", "out_reasoning", "per_request"):
        given = {"in_fresh": 1, "out_text": 1, name: value}
        with pytest.raises(ConfigError, match=rf"Rates\.{name}"):
            Rates(**given)
    with pytest.raises(ConfigError, match=r"OwnGPU\.usd_per_hour"):
        OwnGPU(value, 700)


def test_a_missing_price_is_refused() -> None:
    """None is a price only where a class may be left out."""
    with pytest.raises(ConfigError, match=r"Rates\.in_fresh"):
        Rates(None, 1)  # type: ignore[arg-type]
    assert Rates(1, 1).cache_read is None


@pytest.mark.parametrize(
    ("card", "told"),
    [
        ({"m": 3}, "Rates or costkit.OwnGPU, not int"),
        ({"": Rates(1, 1)}, "a key is a model"),
        ({1: Rates(1, 1)}, "a key is a model"),
        ({"M": Rates(1, 1), "m": Rates(1, 1)}, "twice"),
    ],
)
def test_a_card_that_cannot_be_used(card: Any, told: str) -> None:
    """A broken card is refused when it is given."""
    with pytest.raises(ConfigError, match=told):
        Prices(card)


@pytest.mark.parametrize("context", [{"processing": 1}, ["batch"], {1: "x"}])
def test_a_context_that_cannot_be_used(context: Any) -> None:
    """A context of other than names and values is refused when it is given."""
    with pytest.raises(ConfigError, match="context"):
        Prices(context=context)


def test_own_gpu_by_hand() -> None:
    """2.50 dollars an hour at 700 tokens a second is 0.99 dollars a million, 9.9 at a tenth busy."""
    assert round(OwnGPU(2.5, 700).usd_per_mtok, 2) == 0.99
    assert round(OwnGPU(2.5, 700, utilisation=0.1).usd_per_mtok, 1) == 9.9
    gpu = OwnGPU(3.6, 1000, utilisation=0.5, gpus=2, weight_in=1, weight_out=4, weight_cached="0.1")
    prices = Prices({"own": gpu})  # 2 * 3.6 / (3600 * 1000 * .5) dollars = 4000 nano-dollars a weight
    usage = Usage(in_fresh=100, cache_read=1000, cache_write_5m=10, out_text=20, out_reasoning=5)
    priced = prices.price(usage, model="own")
    assert priced.cost == 4000 * (100 + 100 + 10 + 25 * 4)
    assert priced.source == "own-gpu"
    # 2.5 / (3600 * 700) is no finite decimal: 10**6 tokens are 992063.49... micro-dollars, rounded once.
    assert Prices({"own": OwnGPU(2.5, 700)}).price(Usage(in_fresh=10**6), model="own").cost == 992_063_492


@pytest.mark.parametrize(
    ("field", "value"),
    [("tokens_per_second", 0), ("utilisation", 0), ("utilisation", 1.1), ("gpus", 0), ("weight_out", -1)],
)
def test_own_gpus_that_cannot_be(field: str, value: float) -> None:
    """A GPU that makes no tokens or is busy more than always is refused with the field's name."""
    with pytest.raises(ConfigError, match=rf"OwnGPU\.{field}"):
        OwnGPU(**{"usd_per_hour": 1, "tokens_per_second": 700, field: value})


COUNTS = st.integers(0, 10**7)
USAGES = st.builds(Usage, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)
MONEY = st.decimals(0, 1000, allow_nan=False, allow_infinity=False, places=6)
RATES = st.builds(
    lambda a, b, c, d, e, f: Rates(a, b, c, cache_write_5m=d, cache_write_1h=e, out_reasoning=f),
    MONEY,
    MONEY,
    st.none() | MONEY,
    st.none() | MONEY,
    st.none() | MONEY,
    st.none() | MONEY,
)
GPUS = st.builds(
    OwnGPU,
    MONEY,
    st.integers(1, 10**5),
    st.decimals("0.01", 1, places=2),
)


def add(one: Usage, two: Usage) -> Usage:
    return Usage(
        one.in_fresh + two.in_fresh,
        one.cache_read + two.cache_read,
        one.cache_write_5m + two.cache_write_5m,
        one.cache_write_1h + two.cache_write_1h,
        one.out_text + two.out_text,
        one.out_reasoning + two.out_reasoning,
    )


@settings(deadline=None)
@given(RATES | GPUS, USAGES, USAGES)
def test_costs_add_up_and_grow(rates: Rates | OwnGPU, one: Usage, two: Usage) -> None:
    """Two calls cost what their tokens cost together, to one nano-dollar, and more is never less."""
    prices = Prices({"m": rates})
    first, second, both = (prices.price(usage, model="m").cost for usage in (one, two, add(one, two)))
    assert abs(both - first - second) <= 1
    assert both >= max(first, second) >= 0


@settings(deadline=None)
@given(RATES, USAGES)
def test_the_cost_is_the_sum_of_its_classes(rates: Rates, usage: Usage) -> None:
    """The cost is tokens times price summed over the classes, computed apart in decimals."""
    with decimal.localcontext() as context:
        context.prec = 60
        fresh, text = rates.in_fresh, rates.out_text
        total = (
            usage.in_fresh * fresh
            + usage.cache_read * (fresh if rates.cache_read is None else rates.cache_read)
            + usage.cache_write_5m * (fresh if rates.cache_write_5m is None else rates.cache_write_5m)
            + usage.cache_write_1h * (fresh if rates.cache_write_1h is None else rates.cache_write_1h)
            + usage.out_text * text
            + usage.out_reasoning * (text if rates.out_reasoning is None else rates.out_reasoning)
        )
        expected = int((total * 1000).to_integral_value(ROUND_HALF_UP))
    assert Prices({"m": rates}).price(usage, model="m").cost == expected
