"""Upper limits, stored rates and loading: never under, exact again later, once in a process."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from genai_prices.data_snapshot import get_snapshot
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from costkit.call import Usage
from costkit.errors import ConfigError, UnknownPrice
from costkit.prices import OwnGPU, Priced, Prices, Rates, reprice, warm
from costkit.prices.rows import CLASSES

NOVEMBER = datetime(2026, 11, 20, 12, tzinfo=UTC)
MODELS = sorted(
    {(model.id, provider.id) for provider in get_snapshot().providers for model in provider.models}
)
COUNTS = st.integers(0, 2 * 10**6)
USAGES = st.builds(Usage, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)
MONEY = st.decimals(0, 1000, allow_nan=False, allow_infinity=False, places=6)
RATES = st.builds(
    lambda a, b, c, d, e, f, g: Rates(
        a, b, c, cache_write_5m=d, cache_write_1h=e, out_reasoning=f, per_request=g
    ),
    MONEY,
    MONEY,
    *[st.none() | MONEY] * 4,
    MONEY,
)
GPUS = st.builds(OwnGPU, MONEY, st.integers(1, 10**5), st.decimals("0.01", 1, places=2), weight_cached=MONEY)


def split(usage: Usage, shares: tuple[int, int]) -> Usage:
    """A usage no longer than the given one, with its tokens elsewhere."""
    into, out = usage.tokens_in * shares[0] // 100, usage.tokens_out * shares[1] // 100
    return Usage(in_fresh=into // 2, cache_write_5m=into - into // 2, out_reasoning=out)


# --- upper limits ----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=400)
@given(
    st.sampled_from(MODELS),
    USAGES,
    st.tuples(st.integers(0, 100), st.integers(0, 100)),
    st.tuples(st.datetimes(datetime(2025, 1, 1), datetime(2027, 2, 1)), st.integers(0, 3600)),
    st.booleans(),
)
def test_no_listed_call_costs_more(
    who: tuple[str, str], usage: Usage, shares: tuple[int, int], times: tuple[datetime, int], hour: bool
) -> None:
    """No call of the table's models, this long or shorter, now or within the hour, costs over its limit."""
    start, later = times
    model, provider = who
    prices = Prices(at=start)
    if not hour:
        usage = Usage(
            usage.in_fresh, usage.cache_read, usage.cache_write_5m, 0, usage.out_text, usage.out_reasoning
        )
    try:
        limit = prices.most(
            model=model, provider=provider, tokens_in=usage.tokens_in, tokens_out=usage.tokens_out, hour=hour
        )
    except UnknownPrice:
        assume(False)
        raise
    for used in (usage, split(usage, shares)):
        try:
            priced = prices.price(used, model=model, provider=provider, when=start + timedelta(seconds=later))
        except UnknownPrice:
            continue
        assert priced.cost <= limit


@settings(deadline=None)
@given(RATES | GPUS, USAGES, st.tuples(st.integers(0, 100), st.integers(0, 100)))
def test_no_call_on_the_card_costs_more(rates: Rates | OwnGPU, usage: Usage, shares: tuple[int, int]) -> None:
    """No call at a user's own rates, this long or shorter, costs over its limit."""
    prices = Prices({"m": rates})
    limit = prices.most(model="m", tokens_in=usage.tokens_in, tokens_out=usage.tokens_out, hour=True)
    assert prices.price(usage, model="m").cost <= limit
    assert prices.price(split(usage, shares), model="m").cost <= limit


@pytest.mark.parametrize(
    ("model", "tokens", "hour", "nano"),
    [
        # every class of gpt-5-mini is at most .25 in and 2 out
        ("gpt-5-mini", (1000, 500), False, 1000 * 250 + 500 * 2000),
        # a five-minute write is the dearest input at 3.75, an hour's at 6
        ("claude-sonnet-4-5", (1000, 100), False, 1000 * 3750 + 100 * 15_000),
        ("claude-sonnet-4-5", (1000, 100), True, 1000 * 6000 + 100 * 15_000),
        # over 200,000 tokens all of them cost the long price
        ("claude-sonnet-4-5", (200_000, 100), False, 200_000 * 3750 + 100 * 15_000),
        ("claude-sonnet-4-5", (200_001, 100), False, 200_001 * 7500 + 100 * 22_500),
        ("gpt-5-mini", (0, 0), False, 0),
    ],
)
def test_limits_by_hand(model: str, tokens: tuple[int, int], hour: bool, nano: int) -> None:
    """The dearest class, tier and cache write of a known price, right to the nano-dollar."""
    into, out = tokens
    assert Prices(at=NOVEMBER).most(model=model, tokens_in=into, tokens_out=out, hour=hour) == nano


def test_the_limit_sees_the_next_hour() -> None:
    """From an hour before the peak begins (00:30), and around a change of price, the dearer price counts."""
    night, peak = 135_000, 270_000

    def deepseek(hour: int, minute: int) -> int:
        at = datetime(2025, 6, 1, hour, minute, tzinfo=UTC)
        return Prices(at=at).most(model="deepseek-chat", provider="deepseek", tokens_in=1000, tokens_out=0)

    assert [deepseek(23, 0), deepseek(23, 29), deepseek(23, 30), deepseek(12, 0)] == [
        night,
        night,
        peak,
        peak,
    ]

    def dated(at: datetime) -> int:
        return Prices(at=at).most(model="gpt-5.6", tokens_in=0, tokens_out=1000)

    before, after = dated(datetime(2026, 8, 20, 12)), dated(datetime(2026, 8, 21, 12))
    assert after < before
    assert dated(datetime(2026, 8, 20, 23, 30)) == before  # the dearer of the two days


def test_the_limit_takes_the_dearer_shorter_call() -> None:
    """Where a shorter prompt can cost more than a longer one, the limit is the shorter one's."""
    from costkit.prices.listed import _Moment
    from costkit.prices.rows import row

    def rates(price: int) -> Mapping[str, Fraction]:
        return dict.fromkeys(CLASSES, Fraction(price))

    rows = tuple(
        row(rates(price), Fraction(0), source="genai-prices", version="", model="m") for price in (1000, 10)
    )
    moment = _Moment((100,), rows, ())
    assert moment.most(100, 0, hour=False) == 100_000
    assert moment.most(101, 0, hour=False) == 100_000
    assert moment.most(20_000, 0, hour=False) == 200_000


def test_limits_that_cannot_be_told() -> None:
    """An unknown model, an unpriced class and a count that is none raise before anything is spent."""
    prices = Prices(at=NOVEMBER)
    for model in ("my-model", None):
        with pytest.raises(UnknownPrice):
            prices.most(model=model, tokens_in=1, tokens_out=1)
    with pytest.raises(UnknownPrice, match="out_text"):
        prices.most(model="text-embedding-3-small", tokens_in=1000, tokens_out=1)
    assert prices.most(model="text-embedding-3-small", tokens_in=1000, tokens_out=0) == 20_000
    with pytest.raises(UnknownPrice, match="cache_write_1h"):
        prices.most(model="gpt-5.6", provider="openai", tokens_in=1, tokens_out=0, hour=True)
    broken: list[Any] = [-1, 1.5, True, None, "9"]
    for tokens in broken:
        with pytest.raises(ConfigError, match="tokens_in"):
            prices.most(model="gpt-5-mini", tokens_in=tokens, tokens_out=1)


def test_the_limit_of_a_variant() -> None:
    """A tier named for the call sets its limit; one that is not priced raises."""
    prices = Prices(at=NOVEMBER)
    standard = prices.most(model="gpt-5-mini", tokens_in=1000, tokens_out=500)
    flex = prices.most(model="gpt-5-mini", tokens_in=1000, tokens_out=500, context={"service_tier": "flex"})
    assert 2 * flex == standard
    with pytest.raises(UnknownPrice, match="variant not priced"):
        prices.most(model="gpt-5-mini", tokens_in=1, tokens_out=1, context={"service_tier": "scale"})


# --- stored rates ----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(MODELS), USAGES, st.datetimes(datetime(2025, 1, 1), datetime(2027, 2, 1)))
def test_a_listed_cost_comes_again(who: tuple[str, str], usage: Usage, when: datetime) -> None:
    """The stored rates of a listed price give the same nano-dollars."""
    try:
        priced = Prices().price(usage, model=who[0], provider=who[1], when=when)
    except UnknownPrice:
        assume(False)
        raise
    assert reprice(usage, priced.snapshot["rates"]) == priced.cost


@settings(deadline=None)
@given(RATES | GPUS, USAGES)
def test_a_cost_on_the_card_comes_again(rates: Rates | OwnGPU, usage: Usage) -> None:
    """The stored rates of a card or a GPU, no finite decimals among them, give the same nano-dollars."""
    priced = Prices({"m": rates}).price(usage, model="m")
    assert reprice(usage, priced.snapshot["rates"]) == priced.cost


def test_the_snapshot_by_hand() -> None:
    """A snapshot says where the rates are from and what each class costs, and is made once for a price."""
    prices = Prices(
        {"own": OwnGPU(2.5, 700), "m-*": Rates("0.25", 2, "0.025", per_request="0.001")}, at=NOVEMBER
    )

    def price(model: str) -> Priced:
        return prices.price(Usage(in_fresh=1), model=model)

    listed = price("gpt-5-mini-2025-08-07").snapshot
    assert (listed["source"], listed["model"]) == ("genai-prices", "gpt-5-mini")
    assert listed["version"].startswith("genai-prices 0.2.")
    assert (listed["rates"]["in_fresh"], listed["rates"]["cache_read"]) == ("0.25", "0.025")
    assert listed["rates"]["per_request"] == "0"
    card = price("m-1").snapshot
    assert (card["source"], card["model"], card["rates"]["per_request"]) == ("card", "m-*", "0.001")
    assert price("own").snapshot["rates"]["in_fresh"] == "125/126"
    assert price("gpt-5-mini").snapshot is price("gpt-5-mini").snapshot
    assert "out_text" not in price("text-embedding-3-small").snapshot["rates"]


def test_history_keeps_its_price() -> None:
    """A call of before a price change costs at its stored rates what it cost then, not what it would today."""
    usage = Usage(in_fresh=1000, out_text=100)
    prices = Prices()
    then = prices.price(usage, model="gpt-5.6", when=datetime(2026, 8, 20))
    today = prices.price(usage, model="gpt-5.6", when=NOVEMBER)
    assert (then.cost, today.cost) == (8_000_000, 6_000_000)
    assert then.price_id != today.price_id
    assert reprice(usage, then.snapshot["rates"]) == 8_000_000


@pytest.mark.parametrize(
    "rates",
    [{}, {"in_fresh": None}, {"in_fresh": 0.25}, {"in_fresh": "-1"}, {"in_fresh": "1/0"}, {"in_fresh": "1e9"}]
    + [{"in_fresh": text} for text in ("", "nan", "inf", "1_0", "9" * 10**6, "0.1", "1/3/4")],
)
def test_stored_rates_that_are_none(rates: Mapping[str, object]) -> None:
    """Damaged or hostile stored rates raise instead of giving a number, quickly; the sound one does not."""
    if rates.get("in_fresh") == "0.1":
        assert reprice(Usage(in_fresh=10), rates) == 1000
        return
    with pytest.raises(UnknownPrice, match="in_fresh"):
        reprice(Usage(in_fresh=10), rates)


# --- the installed table ---------------------------------------------------------------------------------


def test_the_table_is_pinned() -> None:
    """The table is taken as 0.2.3 or later and before 0.3, whose format is another."""
    told = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert '"genai-prices>=0.2.3,<0.3"' in told


def test_the_card_beats_an_alias() -> None:
    """Tables disagree most about "-latest" names: the user's own rate goes before the table's."""
    usage = Usage(in_fresh=1000)
    listed = Prices(at=NOVEMBER).price(usage, model="mistral-large-latest", provider="mistral")
    own = Prices({"mistral-large-latest": Rates(7, 7)}, at=NOVEMBER)
    assert own.price(usage, model="mistral-large-latest", provider="mistral").cost == 7_000_000 != listed.cost


def test_nothing_is_updated_unasked() -> None:
    """Loading the table starts no thread, opens no socket, and keeps the packaged table."""
    code = """
import sys, threading
events = []
sys.addaudithook(lambda event, args: events.append(event) if event.startswith("socket.") else None)
from costkit import prices, tokens
threads = [threading.Thread(target=load) for load in (prices.warm, tokens.warm) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
priced = prices.Prices().price(prices.rows.Usage(in_fresh=1), model="gpt-5-mini")
print([e for e in events if e != "socket.__new__"], threading.active_count(), "+updated" in priced.snapshot["version"])
print(tokens.count("hello world"))
"""
    root = str(Path(__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["[] 1 False", "2"], done.stderr


def test_loading_again_is_free() -> None:
    """A second load from any thread gives the same table."""
    warm()
    before, found = get_snapshot(), list[object]()

    def load() -> None:
        warm()
        found.append(get_snapshot())

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and all(snapshot is before for snapshot in found)
