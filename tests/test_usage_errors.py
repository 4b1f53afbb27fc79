"""What users of other tools were billed wrongly by them, each report as a test, right to the nano-dollar.

Every test names its reports; prices are those of the report, as a rate card, or genai-prices' at the report's date.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from typing import Any, cast

import pytest

import costkit
from costkit import Kit, Rates
from costkit.usage import read_response, read_stream
from tests import bills
from tests.bills import QUESTION, chat, cost, message, rows, usd

kit = bills.kit


def chunks(usage: object = None, model: str = "m") -> list[dict[str, Any]]:
    body = {"id": "c", "object": "chat.completion.chunk", "model": model}
    told = [(" ".join(["five"] * 50), None), (" days.", "stop")]
    texts: list[dict[str, Any]] = [
        {**body, "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": end}]}
        for text, end in told
    ]
    return texts if usage is None else [*texts, {**body, "choices": [], "usage": usage}]


# --- cached tokens billed twice
def test_gemini_cache_reads_are_billed_once() -> None:
    """litellm#14849: 257,955 of 262,960 prompt tokens came from the cache; $0.7642 was shown for $0.1849."""
    usage = {
        "total_tokens": 264704,
        "prompt_tokens": 262960,
        "completion_tokens": 1744,
        "prompt_tokens_details": {"text_tokens": 262960, "cached_tokens": 257955},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    told = cost(read_response(chat(usage)), Rates("1.25", 10, "0.625"))
    assert told == 5005 * 1250 + 257955 * 625 + 1744 * 10_000 == 184_918_125
    assert round(usd(told), 4) == 0.1849
    native = {
        "promptTokenCount": 262960,
        "cachedContentTokenCount": 257955,
        "candidatesTokenCount": 1744,
        "totalTokenCount": 264704,
    }
    body = {"candidates": [], "usageMetadata": native, "modelVersion": "m"}
    assert cost(read_response(body), Rates("1.25", 10, "0.625")) == told


def test_a_prompt_read_wholly_from_the_cache() -> None:
    """Aider#5516: of 17,111 prompt tokens 17,102 were cached; the fallback charged them at both prices, 10.9 times."""
    usage = {
        "prompt_tokens": 17111,
        "completion_tokens": 4,
        "total_tokens": 17115,
        "prompt_tokens_details": {"cached_tokens": 17102, "cache_creation_tokens": 0},
        "cache_read_input_tokens": 17102,
        "cache_creation_input_tokens": 0,
    }
    seen = read_response(chat(usage))
    card = Rates(1, 5, "0.10", cache_write_5m="1.25")
    assert cost(seen, card) == 9 * 1000 + 17102 * 100 + 4 * 5000


def test_turns_of_an_agent_that_reread_their_prompt() -> None:
    """microsoft/conductor#427: three turns whose fresh input is two tokens each were billed up to eleven-fold."""
    card = Rates(2, 10, "0.20", cache_write_5m="2.50")
    turns = [(18973, 0, 18971), (19073, 18971, 100), (19173, 19071, 100)]
    total = 0
    for prompt, read, write in turns:
        details = {"cached_tokens": read, "cache_write_tokens": write}
        usage = {"prompt_tokens": prompt, "completion_tokens": 10, "prompt_tokens_details": details}
        seen = read_response(chat(usage))
        assert seen is not None and seen.usage is not None and seen.usage.in_fresh == 2
        total += cost(seen, card)
    assert total == 6 * 2000 + (18971 + 19071) * 200 + (18971 + 100 + 100) * 2500 + 30 * 10_000


def test_codex_cached_input_is_inside_the_input() -> None:
    """codex-observability-plugin#22, opencrabs#1636, langwatch#7021, pi#2148: 115,584 of 117,231 are cached."""
    usage = {
        "input_tokens": 117231,
        "input_tokens_details": {"cached_tokens": 115584},
        "output_tokens": 225,
        "total_tokens": 117456,
    }
    body = {"object": "response", "status": "completed", "model": "gpt-5-codex", "output": [], "usage": usage}
    assert cost(read_response(body)) == 1647 * 1250 + 115584 * 125 + 225 * 10_000


def test_fireworks_cache_reads_have_their_own_price() -> None:
    """litellm#31714 (and ls1intum#892): all but one of 27,147 prompt tokens cached; $0.00860376 is right."""
    usage = {
        "prompt_tokens": 27147,
        "completion_tokens": 351,
        "prompt_tokens_details": {"cached_tokens": 27146},
    }
    assert cost(read_response(chat(usage)), Rates("1.4", "4.4", "0.26")) == 8_603_760


# --- Anthropic's convention
def test_anthropic_cache_writes_match_the_invoice() -> None:
    """litellm#9812: 12,304 tokens written and 550 out; $0.091311 was shown, the invoice says 4.614 + 0.825 cents."""
    usage = {
        "input_tokens": 3,
        "cache_creation_input_tokens": 12304,
        "cache_read_input_tokens": 0,
        "output_tokens": 550,
    }
    told = cost(read_response(message(usage, "claude-3-7-sonnet-20250219")))
    assert told == 54_399_000 == 46_140_000 + 8_250_000 + 3 * 3000


def test_litellm_writes_anthropics_fields_beside_openais() -> None:
    """litellm#11364, #31282, #40006, PostHog#39901, Langfuse#12306, #10592, #5568: reads and writes counted once."""
    details = {"cached_tokens": 66360, "cache_creation_tokens": 32435, "text_tokens": None}
    usage = {
        "total_tokens": 103925,
        "prompt_tokens": 98805,
        "completion_tokens": 5120,
        "prompt_tokens_details": details,
        "cache_read_input_tokens": 66360,
        "cache_creation_input_tokens": 32435,
        "completion_tokens_details": {"reasoning_tokens": 1710},
    }
    seen = read_response(chat(usage, "claude-opus-4-5-20251101"))
    assert seen is not None and seen.usage is not None and seen.usage.in_fresh == 10
    assert cost(seen) == 10 * 5000 + 66360 * 500 + 32435 * 6250 + 5120 * 25_000 == 363_948_750


def test_a_gateway_that_leaves_the_cache_out_of_the_prompt() -> None:
    """litellm#11364: prompt_tokens 6 and 30,940 cached ones (their split is ours): the total says it is net."""
    usage = {
        "prompt_tokens": 6,
        "completion_tokens": 102,
        "total_tokens": 31048,
        "cache_creation_input_tokens": 1108,
        "cache_read_input_tokens": 29832,
    }
    card = Rates(3, 15, "0.30", cache_write_5m="3.75")
    told = cost(read_response(chat(usage)), card)
    assert told == 6 * 3000 + 1108 * 3750 + 29832 * 300 + 102 * 15_000 == 14_652_600


def test_the_streams_path_counts_as_the_other() -> None:
    """litellm#11789: in a stream 2,455 cached tokens were charged as fresh, $0.002059 for $0.000292."""
    start = {"input_tokens": 4, "cache_read_input_tokens": 2455, "output_tokens": 1}
    model = "claude-3-5-haiku-20241022"
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message(start, model, content=[], stop_reason=None)},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Five days."}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 23}},
        {"type": "message_stop"},
    ]
    streamed = read_stream(events)
    assert cost(streamed) == cost(read_response(message({**start, "output_tokens": 23}, model)))
    assert round(usd(cost(streamed)), 6) == 0.000292
    gateway = {  # what LiteLLM wrote of that stream: the detail says none, Anthropic's own field says all
        "total_tokens": 2482,
        "prompt_tokens": 2459,
        "completion_tokens": 23,
        "prompt_tokens_details": {"audio_tokens": None, "cached_tokens": 0},
        "cache_read_input_tokens": 2455,
        "cache_creation_input_tokens": 0,
    }
    assert cost(read_stream(chunks(gateway, model))) == cost(streamed) == 291_600


# --- tokens that got lost
@pytest.mark.parametrize(
    "body",
    [
        chat({"input": 1000, "output": 50}, "gpt-5-mini"),
        chat({"promptTokens": 1000, "completionTokens": 50}, "gpt-5-mini"),
        chat({"prompt_tokens": 1000, "output_tokens": 50}, "gpt-5-mini"),
        message({"prompt_tokens": 1000, "completion_tokens": 50}, "claude-sonnet-4-5"),
    ],
)
def test_an_unknown_usage_name_is_missing_and_not_free(kit: Kit, body: dict[str, Any]) -> None:
    """codex-observability-plugin#22: a usage under keys nobody prices was zero; here it is estimated from the text."""

    @kit.call(scope=None)
    def ask(question: str) -> dict[str, Any]:
        return body

    seen = read_response(body)
    assert seen is not None and seen.usage is None
    ask(QUESTION)
    (attempt,) = rows(kit, "attempts")
    assert attempt["usage_state"] == "estimated" and attempt["cost"] > 0


def test_cache_tokens_are_in_the_cost_of_the_outcome(kit: Kit) -> None:
    """cortex#1072: a cost header without the cache's tokens, 18 times under in 114 of 322 responses."""
    usage = {
        "input_tokens": 12,
        "cache_read_input_tokens": 40_000,
        "cache_creation_input_tokens": 900,
        "output_tokens": 60,
    }

    @kit.call(scope=None)
    def ask(question: str) -> dict[str, Any]:
        return message(usage)

    shown = 12 * 3000 + 60 * 15_000
    paid = shown + 40_000 * 300 + 900 * 3750
    assert ask.outcome(QUESTION).cost.provider == paid and paid > 17 * shown
    assert rows(kit, "query_costs")[0]["provider_cost"] == paid


def test_cache_reads_are_part_of_every_sum(kit: Kit) -> None:
    """multica#7122: a chart without cache reads hid 53 % of the bill; the ledger's classes give all the cost."""
    usage = {"input_tokens": 100, "cache_read_input_tokens": 30_000, "output_tokens": 500}

    @kit.call(scope=None)
    def ask(question: str) -> dict[str, Any]:
        return message(usage)

    ask(QUESTION)
    (attempt,) = rows(kit, "attempts")
    prices = {"in_fresh": 3000, "cache_read": 300, "out_text": 15_000}
    assert sum(attempt[name] * price for name, price in prices.items()) == attempt["cost"]
    assert attempt["cache_read"] * 300 * 2 > attempt["cost"]


# --- streams that were left, calls made again
def test_an_aborted_stream_is_not_free(kit: Kit) -> None:
    """openai-openapi#539, PostHog-js#4664, openclaw#120008, ferro-labs#281, tokenjam#628, sglang#3743: estimated."""

    @kit.call(scope=None)
    def ask(question: str) -> Generator[dict[str, Any], None, None]:
        yield from chunks({"prompt_tokens": 9, "completion_tokens": 52, "total_tokens": 61})

    with closing(cast("Generator[dict[str, Any], None, None]", ask(QUESTION))) as stream:
        next(stream)
    (attempt,) = rows(kit, "attempts")
    (query,) = rows(kit, "query_costs")
    assert attempt["usage_state"] == "estimated" and attempt["finish"] == "incomplete"
    assert attempt["in_fresh"] > 0 and attempt["out_text"] >= 50  # its fifty words were generated and billed
    assert (
        query["provider_cost"] == attempt["cost"] == attempt["in_fresh"] * 3000 + attempt["out_text"] * 15_000
    )


def test_every_retry_is_in_the_cost(kit: Kit) -> None:
    """caura#859, reyn#3047, AssemblyZero#2427, cc-plugin-eval#330: up to twelve requests for one recorded call."""
    usage = {"prompt_tokens": 1000, "completion_tokens": 10, "total_tokens": 1010}

    @kit.call(scope=None)
    def ask(question: str) -> str:
        for number in range(9):
            response = chat(usage, id=str(number))
            costkit.record(response)
        return "Five days."

    out = ask.outcome(QUESTION)
    assert len(rows(kit, "attempts")) == 9
    assert out.cost.provider == 9 * (1000 * 3000 + 10 * 15_000)
    assert rows(kit, "query_costs")[0]["provider_cost"] == out.cost.provider


# --- xAI, where the total tells
def test_reasoning_beside_the_completion() -> None:
    """sub2api#5771, inspect_ai#5528, vercel/ai#12425: xAI's reasoning is outside the completion; it was not billed."""
    usage = {
        "prompt_tokens": 10120,
        "completion_tokens": 1499,
        "total_tokens": 14428,
        "prompt_tokens_details": {"cached_tokens": 128},
        "completion_tokens_details": {"reasoning_tokens": 2809},
        "cost_in_usd_ticks": 232856000,
    }
    seen = read_response(chat(usage, "grok-4.20"))
    assert seen is not None and seen.usage is not None
    assert (seen.usage.out_text, seen.usage.out_reasoning) == (1499, 2809)
    card = Rates("1.25", "2.50", "0.20")
    assert cost(seen, card) == cost(seen) == seen.cost == 23_285_600  # as xAI itself billed
