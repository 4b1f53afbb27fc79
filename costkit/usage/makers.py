"""Who served a response, as genai-prices names them, and what they say they billed, where it tells."""

from __future__ import annotations

import re
from decimal import Decimal, DecimalException

from costkit.call import NANO
from costkit.usage.fields import Fields, each, fields_of

_MAKERS = (  # by the names that only one of them uses: open models bear the names of their hosts' folders
    (re.compile(r"gpt-(?!oss)|chatgpt-|o\d(-|$)|text-embedding-(3-|ada)|ft:gpt"), "openai"),
    (re.compile(r"claude-"), "anthropic"),
    (re.compile(r"gemini-"), "google"),
    (re.compile(r"grok-"), "x-ai"),
    (re.compile(r"deepseek-(chat|reasoner)$"), "deepseek"),
    (
        re.compile(r"(mistral|ministral|magistral|codestral|devstral|pixtral|voxtral)-.*-(latest|2\d{3})$"),
        "mistral",
    ),
    (re.compile(r"(codestral|mistral-embed)(-latest|-2\d{3})?$"), "mistral"),
    (re.compile(r"sonar(-|$)"), "perplexity"),
    (re.compile(r"moonshot-v1-|kimi-(k\d|latest|thinking)"), "moonshotai"),
    (re.compile(r"accounts/fireworks/"), "fireworks"),
)
_MARKS = (  # fields that one of them adds to OpenAI's format
    ("x_groq", "groq"),
    ("time_info", "cerebras"),
    ("prompt_filter_results", "azure"),
)
_HOSTS = (("msg_bdrk_", "aws"), ("msg_vrtx_", "google"))  # ids of Anthropic's messages served by others
_LITELLM = {  # LiteLLM's names, where genai-prices knows them by another
    "azure_ai": "azure",
    "bedrock": "aws",
    "bedrock_converse": "aws",
    "cohere_chat": "cohere",
    "fireworks_ai": "fireworks",
    "gemini": "google",
    "moonshot": "moonshotai",
    "text-completion-openai": "openai",
    "together_ai": "together",
    "vertex_ai": "google",
    "xai": "x-ai",
}
_MOST = Decimal(10**6)  # dollars; no call costs more


def maker_of(body: Fields, model: str | None, usage: Fields | None) -> str | None:
    """The provider that the response itself tells: by its own fields first, then by the model's name."""
    if (hidden := fields_of(body.get("_hidden_params"))) and isinstance(
        named := hidden.get("custom_llm_provider"), str
    ):
        return _LITELLM.get(named, named)
    made = body.get("id")
    if isinstance(made, str):
        if made.startswith("gen-") and isinstance(body.get("provider"), str):
            return "openrouter"
        for start, host in _HOSTS:
            if made.startswith(start):
                return host
    for mark, maker in _MARKS:
        if mark in body:
            return maker
    if usage and "prompt_cache_hit_tokens" in usage:
        return "deepseek"
    if _filtered(body):
        return "azure"
    return next((maker for pattern, maker in _MAKERS if model and pattern.match(model)), None)


def _filtered(body: Fields) -> bool:
    """Azure says of each choice what its content filter found."""
    choices = body.get("choices")
    first = each(choices[:1]) if isinstance(choices, list) else []
    return bool(first) and "content_filter_results" in first[0]


def billed(provider: str | None, usage: Fields | None) -> int | None:
    """Nano-dollars that the provider says this call cost: OpenRouter, xAI and Perplexity do.

    None too where OpenRouter used the caller's own key: its number is then its fee alone.
    """
    if not usage:
        return None
    if provider == "openrouter":
        return None if usage.get("is_byok") else _nano(usage.get("cost"), NANO)
    if provider == "x-ai":
        return _nano(usage.get("cost_in_usd_ticks"), Decimal("0.1"))  # ten billion ticks are a dollar
    if provider == "perplexity":
        return _nano((fields_of(usage.get("cost")) or {}).get("total_cost"), NANO)
    return None


def _nano(amount: object, each_is: Decimal | int) -> int | None:
    if isinstance(amount, bool) or not isinstance(amount, int | float):
        return None
    try:
        nano = Decimal(str(amount)) * each_is  # as it prints: 0.1 is a tenth
        return round(nano) if 0 <= nano <= _MOST * NANO else None
    except (DecimalException, ValueError):  # no number, infinite, or too many digits to print
        return None
