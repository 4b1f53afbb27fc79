"""Prices: hand-computed to the nano-dollar, and nothing charged that is not listed."""

from __future__ import annotations

import subprocess
import sys
import timeit
from datetime import UTC, datetime, timedelta, timezone
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import genai_prices
import pytest
from genai_prices.data_snapshot import get_snapshot

from costkit.call import Usage
from costkit.errors import UnknownPrice
from costkit.prices import Priced, Prices, Rates

NOVEMBER = datetime(2026, 11, 20, 12, tzinfo=UTC)
PRICES = Prices(at=NOVEMBER)


def cost(model: str, provider: str | None = None, when: datetime | None = None, **tokens: Any) -> int:
    return PRICES.price(Usage(**tokens), model=model, provider=provider, when=when).cost


@pytest.mark.parametrize(
    ("model", "provider", "tokens", "nano"),
    [
        # 1000 * .25 + 500 * 2 = 1250 dollars a million = .00125 dollars
        ("gpt-5-mini", "openai", {"in_fresh": 1000, "out_text": 500}, 1_250_000),
        # 176 * .25 + 1024 * .025 + (44 + 256) * 2 = 669.6
        (
            "gpt-5-mini-2025-08-07",
            None,
            {"in_fresh": 176, "cache_read": 1024, "out_text": 44, "out_reasoning": 256},
            669_600,
        ),
        # one token: .025 dollars a million = 25 nano-dollars
        ("gpt-5-mini", None, {"cache_read": 1}, 25),
        # 1000 * 2.5 + 9000 * 1.25 + 500 * 10 = 18750
        ("gpt-4o", "openai", {"in_fresh": 1000, "cache_read": 9000, "out_text": 500}, 18_750_000),
        # 50 * 3 + 1000 * .3 + 150 * 3.75 + 250 * 6 + 300 * 15 = 7012.5
        (
            "claude-sonnet-4-5-20250929",
            "anthropic",
            {
                "in_fresh": 50,
                "cache_read": 1000,
                "cache_write_5m": 150,
                "cache_write_1h": 250,
                "out_text": 300,
            },
            7_012_500,
        ),
        # 1000 * 2 + 8000 * .2 + 100 * 2.5 + 100 * 4 + 1000 * 10 = 14250
        (
            "claude-sonnet-5",
            None,
            {
                "in_fresh": 1000,
                "cache_read": 8000,
                "cache_write_5m": 100,
                "cache_write_1h": 100,
                "out_text": 600,
                "out_reasoning": 400,
            },
            14_250_000,
        ),
        ("gpt-5-mini", "openai", {}, 0),
    ],
)
def test_listed_prices_by_hand(model: str, provider: str | None, tokens: dict[str, Any], nano: int) -> None:
    """The cost of known usages at November 2026's prices is right to the nano-dollar."""
    assert cost(model, provider, **tokens) == nano


def test_cached_tokens_are_not_billed_twice() -> None:
    """10,000 input tokens of which 8,000 were cached cost 2,000 fresh ones and 8,000 reads, nothing more."""
    split = cost("gpt-5-mini", in_fresh=2000, cache_read=8000, out_text=1000)
    assert split == 2000 * 250 + 8000 * 25 + 1000 * 2000 == 2_700_000
    assert split < cost("gpt-5-mini", in_fresh=10_000, out_text=1000) == 4_500_000


def test_tier_by_context_length() -> None:
    """Above the threshold every token of the call costs the higher price, at it none does."""
    long: dict[str, Any] = {"out_text": 100}
    at = cost("claude-sonnet-4-5", in_fresh=150_000, cache_read=50_000, **long)
    assert at == 150_000 * 3000 + 50_000 * 300 + 100 * 15_000
    above = cost("claude-sonnet-4-5", in_fresh=150_001, cache_read=50_000, **long)
    assert above == 150_001 * 6000 + 50_000 * 600 + 100 * 22_500


def test_price_by_date() -> None:
    """A call is priced as of its own day, whatever price holds today; days are UTC."""
    usage: dict[str, Any] = {"in_fresh": 1000, "out_text": 100}
    assert cost("gpt-5.6", when=datetime(2026, 8, 20, 23, 59, tzinfo=UTC), **usage) == 8_000_000
    assert cost("gpt-5.6", when=datetime(2026, 8, 21, tzinfo=UTC), **usage) == 6_000_000
    west = timezone(timedelta(hours=-7))
    assert cost("gpt-5.6", when=datetime(2026, 8, 20, 18, tzinfo=west), **usage) == 6_000_000
    assert cost("gpt-5.6", when=datetime(2026, 8, 20, 23, 59), **usage) == 8_000_000


def test_price_by_time_of_day() -> None:
    """DeepSeek's off-peak hours cost half, again and again on the same Prices object."""
    for _ in range(2):
        peak = cost("deepseek-chat", "deepseek", datetime(2025, 6, 1, 8, tzinfo=UTC), in_fresh=1000)
        night = cost("deepseek-chat", "deepseek", datetime(2025, 6, 1, 20, tzinfo=UTC), in_fresh=1000)
        assert (peak, night) == (270_000, 135_000)


def test_agrees_with_genai_prices() -> None:
    """On every model of the big makers the cost is genai-prices' own, rounded half up once."""
    usage = Usage(in_fresh=1234, cache_read=567, out_text=89, out_reasoning=10)
    theirs = genai_prices.Usage(
        input_tokens=1801, cache_read_tokens=567, output_tokens=99, output_reasoning_tokens=10
    )
    compared = 0
    for provider in get_snapshot().providers:
        if provider.id not in ("openai", "anthropic", "google", "deepseek", "mistral", "perplexity"):
            continue
        for model in provider.models:
            try:
                ours = PRICES.price(usage, model=model.id, provider=provider.id).cost
            except UnknownPrice:
                continue
            total = genai_prices.calc_price(
                theirs, model.id, provider_id=provider.id, genai_request_timestamp=NOVEMBER
            ).total_price
            assert ours == int((total * 10**9).to_integral_value(ROUND_HALF_UP)), model.id
            compared += 1
    assert compared > 150


# --- what genai-prices would do in silence ---------------------------------------------------------------


def test_a_variant_that_is_not_listed_raises() -> None:
    """genai-prices charges its standard price for a variant it does not know; here that is refused."""
    wrong = Prices(context={"service_tier": "batch"}, at=NOVEMBER)
    with pytest.raises(UnknownPrice, match=r"variant not priced: gpt-5-mini .*listed: .*processing=batch"):
        wrong.check("gpt-5-mini", "openai")
    right = Prices(context={"processing": "batch"}, at=NOVEMBER)
    right.check("gpt-5-mini")
    assert right.price(Usage(in_fresh=1000, out_text=500), model="gpt-5-mini").cost == 625_000
    with pytest.raises(UnknownPrice, match="variant not priced"):
        right.check("claude-sonnet-4-20250514")


def test_a_variant_before_its_first_day_raises() -> None:
    """A variant listed only from some day on has no price before it."""
    batch = Prices(context={"processing": "batch"})
    with pytest.raises(UnknownPrice, match="on 2026-10-13"):
        batch.price(Usage(in_fresh=1), model="gpt-5-mini", when=datetime(2026, 10, 13, tzinfo=UTC))
    assert batch.price(Usage(in_fresh=8), model="gpt-5-mini", when=NOVEMBER).cost == 1000


def test_a_lent_model_has_no_variants() -> None:
    """Azure's models borrow OpenAI's prices but not its variants, which genai-prices then ignores."""
    Prices(at=NOVEMBER).check("gpt-5-mini", "azure")
    usage = Usage(in_fresh=1000)
    borrowed = [
        model.id
        for provider in get_snapshot().providers
        if provider.id == "openai"
        for model in provider.models
        if model.price_variants and not _own("azure", model.id) and _found("azure", model.id)
    ]
    assert borrowed
    for model in borrowed[:5]:
        with pytest.raises(UnknownPrice, match="variant not priced"):
            PRICES.price(usage, model=model, provider="azure", context={"processing": "batch"})


def _found(provider: str, model: str) -> bool:
    try:
        get_snapshot().find_provider_model(model, None, provider, None)
    except LookupError:
        return False
    return True


def _own(provider: str, model: str) -> bool:
    if not _found(provider, model):
        return False
    maker, info = get_snapshot().find_provider_model(model, None, provider, None)
    return any(info is own for own in maker.models)


def test_two_variants_at_once_raise() -> None:
    """Variants listed apart have no known price together."""
    with pytest.raises(UnknownPrice, match="apart, not together"):
        Prices(context={"processing": "batch", "service_tier": "flex"}, at=NOVEMBER).check("gpt-5-mini")


def test_the_served_tier_counts() -> None:
    """A call asked for at flex and served at default pays the default price, and the other way round."""
    usage = Usage(in_fresh=1000, out_text=500)
    flex = Prices(context={"service_tier": "flex"}, at=NOVEMBER)
    assert flex.price(usage, model="gpt-5-mini").cost == 625_000
    assert flex.price(usage, model="gpt-5-mini", context={"service_tier": "default"}).cost == 1_250_000
    assert PRICES.price(usage, model="gpt-5-mini", context={"service_tier": "flex"}).cost == 625_000
    assert PRICES.price(usage, model="gpt-5-mini", context={"processing": "standard"}).cost == 1_250_000
    with pytest.raises(UnknownPrice, match="service_tier=scale"):
        PRICES.price(usage, model="gpt-5-mini", context={"service_tier": "scale"})


def test_a_cache_price_that_is_not_listed_is_told() -> None:
    """Without a cached price listed, reads cost fresh input as genai-prices charges, and Priced says so."""
    model = next(
        model.id
        for provider in get_snapshot().providers
        if provider.id == "openai"
        for model in provider.models
        if not isinstance(model.prices, list)
        and model.prices.input_mtok == Decimal("30")
        and model.prices.cache_read_mtok is None
    )
    priced = PRICES.price(Usage(in_fresh=100, cache_read=900), model=model, provider="openai")
    assert priced.cost == 1000 * 30_000
    assert priced.assumed == ("cache_read",)
    assert PRICES.price(Usage(in_fresh=1000), model=model, provider="openai").assumed == ()


def test_an_hour_of_cache_is_not_guessed() -> None:
    """Where only the five-minute write is listed, an hour's write raises: genai-prices would undercharge."""
    usage = Usage(in_fresh=1, cache_write_1h=10)
    with pytest.raises(UnknownPrice, match="10 cache_write_1h tokens"):
        PRICES.price(usage, model="gpt-5.6", provider="openai")


def test_a_model_without_token_prices_raises() -> None:
    """A model listed without an input price is unknown before the call, not free."""
    empty = next(
        model.id
        for provider in get_snapshot().providers
        if provider.id == "openrouter"
        for model in provider.models
        if not isinstance(model.prices, list) and model.prices.input_mtok is None
    )
    with pytest.raises(UnknownPrice, match="without a price per input token"):
        PRICES.check(empty, "openrouter")
    with pytest.raises(UnknownPrice, match="5 in_fresh tokens"):
        PRICES.price(Usage(in_fresh=5), model=empty, provider="openrouter")


def test_embeddings() -> None:
    """An embedding costs its input and is found without a provider; output from it would be unknown."""
    PRICES.check("text-embedding-3-small")
    assert cost("text-embedding-3-small", in_fresh=1000) == 20_000
    with pytest.raises(UnknownPrice, match="1 out_text"):
        cost("text-embedding-3-small", out_text=1)


def test_audio_is_not_priced_as_text() -> None:
    """Audio tokens of a model that prices them apart raise instead of going by the text price."""
    model = next(
        model.id
        for provider in get_snapshot().providers
        if provider.id == "openai"
        for model in provider.models
        if not isinstance(model.prices, list) and model.prices.input_audio_mtok and model.prices.input_mtok
    )
    text = {"prompt_tokens_details": {"audio_tokens": 0}}
    audio = {"prompt_tokens_details": {"audio_tokens": 7}}
    assert PRICES.price(Usage(in_fresh=10, raw=text), model=model, provider="openai").cost > 0
    with pytest.raises(UnknownPrice, match="7 audio_tokens"):
        PRICES.price(Usage(in_fresh=10, raw=audio), model=model, provider="openai")


@pytest.mark.parametrize(
    "model", ["gpt-5-mimi", "my-model", "Qwen/Qwen3-8B", "openai/gpt-4o", "x" * 10**5, "\ud800"]
)
def test_unknown_models_raise(model: str) -> None:
    """A model in no table raises before money is spent, with its name and the mend, twice the same."""
    for _ in range(2):
        with pytest.raises(UnknownPrice, match=r"Kit\(prices=") as caught:
            PRICES.check(model)
        assert len(str(caught.value)) < 1500
    with pytest.raises(UnknownPrice, match="no price is known"):
        PRICES.price(Usage(), model=model)


def test_unknown_models_name_near_ones() -> None:
    """A slip in a model's name is answered with the name that was meant, from the card too."""
    with pytest.raises(UnknownPrice, match=r"'gpt-5-mimi'.*Near names: .*gpt-5-mini"):
        PRICES.check("gpt-5-mimi")
    with pytest.raises(UnknownPrice, match="Near names: qwen3-house"):
        Prices({"qwen3-house": Rates(1, 1)}).check("qwen3-hose")


@pytest.mark.parametrize("model", [None, ""])
def test_a_response_without_a_model(model: str | None) -> None:
    """A response that names no model has no price."""
    with pytest.raises(UnknownPrice, match="names no model"):
        PRICES.price(Usage(), model=model)


def test_an_unknown_provider_raises() -> None:
    """A provider the table does not know is not replaced by one whose names match."""
    with pytest.raises(UnknownPrice, match="vllm"):
        PRICES.check("gpt-5-mini", "vllm")


# --- ids, speed, network ---------------------------------------------------------------------------------


def test_price_ids() -> None:
    """Equal prices have equal ids, also in another process; another price, tier or variant another id."""
    usage = Usage(in_fresh=1)
    first = Prices({"a": Rates(1, 2), "b": Rates("1.0", 2), "c": Rates(1, 3)})
    a, b, c = (first.price(usage, model=name).price_id for name in "abc")
    assert a == b != c
    ids = {
        PRICES.price(Usage(in_fresh=tokens), model="claude-sonnet-4-5").price_id
        for tokens in (1, 2, 200_001, 300_000)
    }
    ids.add(PRICES.price(usage, model="claude-sonnet-4-5", context={"processing": "batch"}).price_id)
    assert len(ids) == 3
    code = (
        "from costkit.prices import *; from costkit.call import Usage;"
        "print(Prices({'a': Rates(1, 2)}).price(Usage(), model='a').price_id)"
    )
    root = str(Path(__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == a and len(a) == 16, done.stderr


def test_pricing_is_quick() -> None:
    """A second price of a known model takes microseconds (bound with room for a busy machine)."""
    usage = Usage(in_fresh=176, cache_read=1024, out_text=44, out_reasoning=256)

    def price() -> Priced:
        return PRICES.price(usage, model="gpt-5.6", provider="openai")

    price()
    assert min(timeit.repeat(price, number=500, repeat=5)) / 500 < 60e-6


def test_names_from_responses_are_not_kept_forever() -> None:
    """Endless new model names do not grow the memory without bound."""
    prices = Prices({"m-*": Rates(1, 1)})
    for number in range(5000):
        prices.price(Usage(), model=f"m-{number}")
    assert len(prices._found) <= 4096


def test_no_network_and_light_import() -> None:
    """Importing costs nothing heavy, and pricing starts no thread and touches no socket."""
    code = """
import sys, threading
events = []
sys.addaudithook(lambda event, args: events.append(event) if event.startswith("socket.") else None)
import costkit.usage, costkit.tokens, costkit.prices
heavy = {"genai_prices", "pydantic", "tiktoken", "bpe_openai", "openai", "anthropic", "requests"}
print(sorted(heavy & set(sys.modules)))
costkit.prices.Prices().check("gpt-5-mini")
print([event for event in events if event != "socket.__new__"], threading.active_count())
"""
    root = str(Path(__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["[]", "[] 1"], done.stderr
