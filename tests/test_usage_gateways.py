"""What gateways between us and a provider add to its responses, and what they say they billed."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, PrivateAttr

from costkit import Prices
from costkit.errors import UsageError
from costkit.usage import read_response
from tests.provider_answers import BOTH, NET, Body, chat, counts
from tests.usages import classes


class LiteLLMUsage(BaseModel):
    """As LiteLLM holds it: OpenAI's gross numbers, Anthropic's fields beside them."""

    model_config = ConfigDict(extra="allow")
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class LiteLLMResponse(BaseModel):
    """LiteLLM's ModelResponse: the usage an extra field, whom it asked in a private one."""

    model_config = ConfigDict(extra="allow")
    id: str
    model: str
    object: str = "chat.completion"
    choices: list[dict[str, Any]]
    _hidden_params: dict[str, Any] = PrivateAttr(default_factory=dict)


@pytest.mark.parametrize(
    ("asked", "provider"),
    [("anthropic", "anthropic"), ("bedrock", "aws"), ("vertex_ai", "google"), ("xai", "x-ai")],
)
def test_litellm_objects(asked: str, provider: str) -> None:
    """LiteLLM's objects count the cache once, keep the writes' lifetimes, and tell whom they asked."""
    details = {
        "cached_tokens": 1000,
        "cache_write_tokens": 400,
        "cache_creation_tokens": 400,
        "cache_creation_token_details": {"ephemeral_5m_input_tokens": 150, "ephemeral_1h_input_tokens": 250},
    }
    usage = LiteLLMUsage.model_validate(
        {
            **{"prompt_tokens": 1450, "completion_tokens": 300, "total_tokens": 1750},
            **{"prompt_tokens_details": details, "completion_tokens_details": {"reasoning_tokens": 256}},
            **{"cache_creation_input_tokens": 400, "cache_read_input_tokens": 1000},
        }
    )
    made = LiteLLMResponse.model_validate({**chat(None, "claude-sonnet-4-5"), "usage": usage})
    made._hidden_params = {"custom_llm_provider": asked, "response_cost": 1.0}
    seen = read_response(made)
    assert classes(seen) == NET
    assert seen is not None and (seen.provider, seen.cost) == (provider, None)


def test_two_names_that_disagree() -> None:
    """One number under two names that differ is no number; a zero beside it is a gateway that did not know."""
    with pytest.raises(UsageError, match=r"cached_tokens 1000 .* are one number and differ"):
        read_response(chat(counts(1000, cache_read_input_tokens=900), "claude-sonnet-4-5"))
    assert classes(read_response(chat(counts(0, cache_read_input_tokens=900), "m"))) == (
        300,
        900,
        0,
        0,
        300,
        0,
    )


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        ({"cost": 0.00095}, 950_000),
        ({"cost": 0}, 0),
        ({"cost": 1e-9}, 1),
        ({"cost": 0.05, "is_byok": True, "cost_details": {"upstream_inference_cost": 1}}, None),
        *(
            ({"cost": bad}, None)
            for bad in (None, "0.1", -1, float("nan"), float("inf"), True, 10**400, 1e300, [1])
        ),
    ],
)
def test_what_openrouter_billed(usage: Body, cost: int | None) -> None:
    """OpenRouter's own charge comes in nano-dollars, unless the caller's key paid the most of it; the host is kept."""
    body = chat(
        counts(1024, 256, **usage), "anthropic/claude-sonnet-4.5", id="gen-1", provider="Amazon Bedrock"
    )
    seen = read_response(body)
    assert classes(seen) == BOTH
    assert seen is not None and seen.usage is not None and seen.usage.raw is not None
    assert (seen.provider, seen.cost) == ("openrouter", cost)
    assert seen.usage.raw["upstream_provider"] == "Amazon Bedrock"


def test_groqs_ordinary_tier_is_the_ordinary_price() -> None:
    """Groq calls its ordinary tier on_demand, which no table lists as a variant."""
    seen = read_response(chat(counts(), "openai/gpt-oss-120b", x_groq={"id": "q"}, service_tier="on_demand"))
    assert seen is not None and seen.usage is not None and seen.tier is None
    assert Prices().price(seen.usage, model=seen.model, provider=seen.provider, context=seen.tier).cost > 0


def test_what_perplexity_billed() -> None:
    """Perplexity's total cost includes its fee for the search, which no token tells."""
    body = chat(counts(cost={"request_cost": 0.005, "total_cost": 0.0065}), "sonar-pro")
    seen = read_response(body)
    assert seen is not None and (seen.provider, seen.cost) == ("perplexity", 6_500_000)


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("mistral-small-2506", "mistral"),
        ("mistral-small3.2", None),
        ("mistralai/Mistral-Small-24B", None),
        ("deepseek-ai/DeepSeek-V3.1", None),
        ("gpt-oss-120b", None),
        ("grok-4-fast", "x-ai"),
        ("gemini-2.5-pro", "google"),
        ("Qwen/Qwen3-8B", None),
        ("kimi-k2-0905-preview", "moonshotai"),
    ],
)
def test_open_models_name_no_provider(model: str, provider: str | None) -> None:
    """A model anyone may serve says nothing of who did; one that only its maker serves does."""
    seen = read_response(chat(counts(), model))
    assert seen is not None and seen.provider == provider
