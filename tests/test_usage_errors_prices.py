"""What users of other tools were billed wrongly by the price taken: its date, its tier, its card, hits.

Every test names its reports; prices are those of the report, as a rate card, or genai-prices' at the report's date.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import costkit
from costkit import Kit, Prices, Rates, exact
from costkit.prices import reprice
from costkit.usage import read_response
from tests import bills
from tests.bills import QUESTION, chat, cost, message, rows

kit = bills.kit


def test_history_keeps_its_price(tmp_path: Path) -> None:
    """ccusage#1636, agentsview#1540, CodexBar#2671, any-llm#995, langfuse#12184: a price cut leaves old rows alone."""
    usage = {
        "input_tokens": 1_000_000,
        "input_tokens_details": {"cached_tokens": 900_000},
        "output_tokens": 9000,
    }
    body = {"object": "response", "status": "completed", "model": "m", "output": [], "usage": usage}
    before, after = Rates(5, 30, "0.50"), Rates(4, 20, "0.40")
    attempts: list[dict[str, Any]] = []
    prices: list[dict[str, Any]] = []
    for number, card in enumerate((before, after)):
        with Kit(tmp_path / "kit", prices={"m": card}) as kit:

            @kit.call(scope=None, name="ask")
            def ask(question: str, number: int) -> dict[str, Any]:
                return body

            ask(QUESTION, number)
            attempts, prices = rows(kit, "attempts"), rows(kit, "prices")
    old, new = (attempt["cost"] for attempt in attempts)
    assert (old, new) == (500_000_000 + 450_000_000 + 270_000_000, 400_000_000 + 360_000_000 + 180_000_000)
    seen = read_response(body)
    assert seen is not None and seen.usage is not None
    stored = {price["price_id"]: json.loads(price["rates"]) for price in prices}
    assert [reprice(seen.usage, stored[attempt["price_id"]]) for attempt in attempts] == [old, new]


def test_a_price_holds_at_its_date() -> None:
    """ccusage#764 and CodexBar#2671: o3 cost 10 and 40 dollars until its cut in June 2025, then 2 and 8."""
    usage = costkit.Usage(in_fresh=1000, out_text=1000)
    days = [datetime(2025, 6, day, tzinfo=UTC) for day in (1, 12)]
    assert [Prices(at=day).price(usage, model="o3").cost for day in days] == [50_000_000, 10_000_000]
    assert [Prices().price(usage, model="o3", when=day).cost for day in days] == [50_000_000, 10_000_000]


def test_an_announced_price_that_never_came() -> None:
    """llmgateway#3612, claude-carbon#30: Sonnet 5 was to go from 2 and 10 dollars to 3 and 15 and did not."""
    usage = {"input_tokens": 1_000_000, "output_tokens": 100_000}
    seen = read_response(message(usage, "claude-sonnet-5"))
    days = [datetime(2026, month, 15, tzinfo=UTC) for month in (8, 10)]
    assert [cost(seen, when=day) for day in days] == [3_000_000_000, 3_000_000_000]


@pytest.mark.parametrize(("served", "share"), [("default", 1), ("flex", 0.5), ("priority", 2)])
def test_the_served_tier_is_the_price(served: str, share: float) -> None:
    """PostHog#94200, genai-prices#115 and #390: the tier that served is priced, whatever was asked for."""
    usage = {"prompt_tokens": 1000, "completion_tokens": 1000, "total_tokens": 2000}
    seen = read_response(chat(usage, "gpt-5", service_tier=served))
    assert cost(seen) == 11_250_000 * share


def test_geminis_tier_is_the_price() -> None:
    """genai-prices#390: Gemini says in its usage that a call was served as flex, which costs half."""
    usage = {"promptTokenCount": 1000, "candidatesTokenCount": 1000, "totalTokenCount": 2000}
    body = {"candidates": [], "modelVersion": "gemini-3.8-flash-lite-tts"}
    costs = {
        kind: cost(read_response({**body, "usageMetadata": {**usage, "trafficType": kind}}))
        for kind in ("ON_DEMAND", "ON_DEMAND_FLEX", "ON_DEMAND_PRIORITY")
    }
    assert costs["ON_DEMAND_FLEX"] * 2 == costs["ON_DEMAND"] < costs["ON_DEMAND_PRIORITY"]


def test_a_cache_hit_is_no_spend(kit: Kit) -> None:
    """llmgateway#2518, litellm#21152, #39960, langfuse#2112: a hit costs nothing and says what it saved."""
    usage = {"prompt_tokens": 1000, "completion_tokens": 10, "total_tokens": 1010}
    paid = 1000 * 3000 + 10 * 15_000

    @kit.call(exact(), scope=None)
    def ask(question: str) -> dict[str, Any]:
        return chat(usage)

    first, hit = ask.outcome(QUESTION), ask.outcome(QUESTION)
    assert (first.cost.provider, hit.cost.provider, hit.cost.saving) == (paid, 0, paid)
    assert sum(row["provider_cost"] for row in rows(kit, "query_costs")) == paid
    assert len(rows(kit, "attempts")) == 1


def test_a_hit_inside_a_guarded_call_still_pays_the_guardrail(kit: Kit) -> None:
    """litellm#39057: the answer came from the cache and the guardrail's own call was lost; here it is paid."""
    usage = {"prompt_tokens": 1000, "completion_tokens": 10, "total_tokens": 1010}
    paid = 1000 * 3000 + 10 * 15_000

    @kit.call(exact(), scope=None)
    def ask(question: str) -> dict[str, Any]:
        return chat(usage)

    @kit.call(scope=None)
    def guarded(question: str) -> str:
        costkit.record(chat(usage, id="guardrail"))
        return str(ask(question)["choices"][0]["message"]["content"])

    first, second = guarded.outcome(QUESTION), guarded.outcome(QUESTION)
    assert (first.cost.provider, second.cost.provider, second.cost.saving) == (2 * paid, paid, paid)


def test_the_own_rate_card_goes_first() -> None:
    """context-guru#83: $1.52 at the user's own rates was shown as $3.00 at list prices."""
    seen = read_response(message({"input_tokens": 1_000_000, "output_tokens": 0}, "claude-sonnet-4-5"))
    assert (cost(seen, Rates("1.52", "7.60")), cost(seen)) == (
        1_520_000_000,
        6_000_000_000,
    )  # over 200,000: list 6
    short = read_response(message({"input_tokens": 100_000, "output_tokens": 0}, "claude-sonnet-4-5"))
    assert (cost(short, Rates("1.52", "7.60")), cost(short)) == (152_000_000, 300_000_000)


def test_prices_are_stored_once(kit: Kit) -> None:
    """litellm#41499: the price table copied into each of 5.9 million rows took 26.3 GB; here a row names its price."""

    @kit.call(scope=None)
    def ask(number: int) -> dict[str, Any]:
        return chat({"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11}, id=str(number))

    for number in range(40):
        ask(number)
    (price,) = rows(kit, "prices")
    attempts = rows(kit, "attempts")
    assert len(attempts) == 40 and {attempt["price_id"] for attempt in attempts} == {price["price_id"]}
    assert all("rates" not in attempt and len(attempt["price_id"]) == 16 for attempt in attempts)
