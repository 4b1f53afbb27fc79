"""Every provider's own response to the same disjoint classes, beside what genai-prices makes of it.

The fixtures follow the providers' public references: input 1,200 of which 1,024 were read from a cache, output 300
of which 256 were reasoning, where a provider tells that much.
"""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from genai_prices import extract_usage
from pydantic import BaseModel, ConfigDict, PrivateAttr

from costkit import Kit, Prices, exact
from costkit.errors import UnknownPrice, UsageError
from costkit.usage import COMPLETE, Seen, read_response, read_stream

Body = dict[str, Any]


def chat(usage: object, model: str, **changes: Any) -> Body:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Five days."}}
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": model, "choices": [choice]}
    return {**body, "usage": usage, **changes}


def counts(cached: object = None, reasoning: object = None, **more: object) -> Body:
    usage: Body = {"prompt_tokens": 1200, "completion_tokens": 300, "total_tokens": 1500, **more}
    if cached is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": cached}
    if reasoning is not None:
        usage["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return usage


def response(model: str, inside: Body, **changes: Any) -> Body:
    text = {"type": "output_text", "text": "Five days.", "annotations": []}
    item = {"id": "o", "type": "message", "role": "assistant", "status": "completed", "content": [text]}
    usage = {
        "input_tokens": 1200,
        "input_tokens_details": inside,
        "output_tokens": 300,
        "output_tokens_details": {"reasoning_tokens": 256},
        "total_tokens": 1500,
    }
    body = {"id": "r", "object": "response", "model": model, "status": "completed", "output": [item]}
    return {**body, "usage": usage, **changes}


def message(**changes: Any) -> Body:
    usage = {
        "input_tokens": 50,
        "output_tokens": 300,
        "cache_read_input_tokens": 1000,
        "cache_creation_input_tokens": 400,
        "cache_creation": {"ephemeral_5m_input_tokens": 150, "ephemeral_1h_input_tokens": 250},
        "output_tokens_details": {"thinking_tokens": 256},
    }
    content = [{"type": "text", "text": "Five days."}]
    body = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5-20250929"}
    return {**body, "stop_reason": "end_turn", "content": content, "usage": usage, **changes}


GEMINI_USAGE: Body = {
    "promptTokenCount": 1200,
    "cachedContentTokenCount": 1024,
    "candidatesTokenCount": 44,
    "thoughtsTokenCount": 256,
    "toolUsePromptTokenCount": 10,
    "totalTokenCount": 1510,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 1200}],
    "trafficType": "ON_DEMAND",
}
CONVERSE_USAGE: Body = {
    "inputTokens": 50,
    "outputTokens": 300,
    "totalTokens": 1750,
    "cacheReadInputTokens": 1000,
    "cacheWriteInputTokens": 400,
    "cacheDetails": [{"ttl": "1h", "inputTokens": 250}, {"ttl": "5m", "inputTokens": 150}],
}


def gemini(usage: object = GEMINI_USAGE, **changes: Any) -> Body:
    parts = [
        {"text": "hm", "thought": True},
        {"text": "Five "},
        {"text": "days."},
        {"functionCall": {"name": "look", "args": {}}},
    ]
    candidate = {"content": {"role": "model", "parts": parts}, "finishReason": "STOP", "index": 0}
    body = {"candidates": [candidate], "modelVersion": "gemini-2.5-flash", "responseId": "x"}
    return {**body, "usageMetadata": usage, **changes}


def converse(usage: object = CONVERSE_USAGE, **changes: Any) -> Body:
    parts = [
        {"reasoningContent": {"reasoningText": {"text": "hm"}}},
        {"text": "Five days."},
        {"toolUse": {"toolUseId": "t", "name": "look", "input": {}}},
    ]
    body = {"output": {"message": {"role": "assistant", "content": parts}}, "stopReason": "tool_use"}
    return {**body, "usage": usage, "metrics": {"latencyMs": 5}, **changes}


def cohere(**changes: Any) -> Body:
    billed, all_of = (
        {"input_tokens": 1200.0, "output_tokens": 300.0},
        {"input_tokens": 1270.0, "output_tokens": 305.0},
    )
    content = [{"type": "text", "text": "Five days."}]
    body = {"id": "c", "finish_reason": "COMPLETE", "message": {"role": "assistant", "content": content}}
    return {**body, "usage": {"billed_units": billed, "tokens": all_of, "cached_tokens": 1024}, **changes}


def classes(seen: Seen | None) -> tuple[int, ...]:
    assert seen is not None and seen.usage is not None
    u = seen.usage
    return u.in_fresh, u.cache_read, u.cache_write_5m, u.cache_write_1h, u.out_text, u.out_reasoning


BOTH = (176, 1024, 0, 0, 44, 256)
NET = (50, 1000, 150, 250, 44, 256)
FILTERED = {"hate": {"filtered": False, "severity": "safe"}}

# provider, genai-prices' extractor, response, our classes, and where genai-prices' own numbers differ
PROVIDERS = [
    ("openai", "chat", chat(counts(1024, 256), "gpt-5-mini"), BOTH, {}),
    ("openai", "responses", response("gpt-5-mini", {"cached_tokens": 1024}), BOTH, {}),
    (
        "azure",
        "chat",
        chat(counts(1024, 256), "gpt-5-mini", prompt_filter_results=[{"prompt_index": 0}]),
        BOTH,
        {},
    ),
    ("anthropic", "default", message(), NET, {}),
    (
        "aws",
        "anthropic",
        message(id="msg_bdrk_1"),
        NET,
        {"reasoning": "its Bedrock row reads no thinking tokens"},
    ),
    (
        "google",
        "anthropic",
        message(id="msg_vrtx_1"),
        NET,
        {"reasoning": "its Vertex row reads no thinking tokens"},
    ),
    ("google", "default", gemini(), (186, 1024, 0, 0, 44, 256), {}),
    ("google", "chat", chat(counts(1024, 256), "gemini-2.5-flash"), BOTH, {}),
    ("aws", "default", converse(), (50, 1000, 150, 250, 300, 0), {}),
    (
        "deepseek",
        "chat",
        chat(
            counts(None, 256, prompt_cache_hit_tokens=1024, prompt_cache_miss_tokens=176), "deepseek-reasoner"
        ),
        BOTH,
        {"read": "it does not know DeepSeek's own name for cached tokens, which older responses have alone"},
    ),
    (
        "deepseek",
        "chat",
        chat(counts(1024, 256, prompt_cache_hit_tokens=1024, prompt_cache_miss_tokens=176), "deepseek-chat"),
        BOTH,
        {},
    ),
    ("mistral", "default", chat(counts(1024, 256), "mistral-large-latest"), BOTH, {}),
    (
        "openrouter",
        "chat",
        chat(counts(1024, 256, cost=0.00095), "openai/gpt-5-mini", id="gen-1", provider="OpenAI"),
        BOTH,
        {},
    ),
    (
        "x-ai",
        "chat",
        chat({**counts(1024, 256), "completion_tokens": 44}, "grok-4-0709"),
        BOTH,
        {},
    ),
    (
        "x-ai",
        "chat",
        chat(counts(1024, 256), "grok-4-0709"),
        BOTH,
        {"out": "the total of 1,500 says that this one is written OpenAI's way, reasoning inside"},
    ),
    ("x-ai", "responses", response("grok-4-0709", {"cached_tokens": 1024}), BOTH, {}),
    ("groq", "default", chat(counts(1024, 256), "openai/gpt-oss-120b", x_groq={"id": "q"}), BOTH, {}),
    (
        "moonshotai",
        "chat",
        chat(counts(None, None, cached_tokens=1024), "kimi-k2-thinking"),
        (176, 1024, 0, 0, 300, 0),
        {"read": "it does not know Moonshot's own name for cached tokens"},
    ),
    (
        "fireworks",
        "chat",
        chat(counts(1024), "accounts/fireworks/models/deepseek-v3p1"),
        (176, 1024, 0, 0, 300, 0),
        {},
    ),
    (
        "cerebras",
        "chat",
        chat(counts(None, 256), "gpt-oss-120b", time_info={"queue_time": 0.1}),
        (1200, 0, 0, 0, 44, 256),
        {},
    ),
    ("cohere", "default", cohere(), (1200, 0, 0, 0, 300, 0), {}),
    (
        "perplexity",
        "default",
        chat(counts(reasoning_tokens=900, citation_tokens=70, num_search_queries=3), "sonar-deep-research"),
        (1270, 0, 0, 0, 300, 900),
        {"in": "citations are pages read, which Perplexity charges as input", "out": "so they are no output"},
    ),
    (
        "perplexity",
        "responses",
        response("openai/gpt-5-mini", {"cache_read_input_tokens": 1024}),
        BOTH,
        {},
    ),
]


STANDS_IN = {  # it reads no usage of a model that it does not list, or of a response that names none
    ("aws", "default"): "anthropic.claude-sonnet-4-5-20250929-v1:0",
    ("cohere", "default"): "command-a-03-2025",
    ("fireworks", "chat"): "accounts/fireworks/models/deepseek-r1-0528",
    ("perplexity", "responses"): "sonar",
}


@pytest.mark.parametrize(("provider", "flavor", "body", "expected", "differs"), PROVIDERS)
def test_beside_genai_prices(
    provider: str, flavor: str, body: Body, expected: tuple[int, ...], differs: dict[str, str]
) -> None:
    """Our classes are right, and genai-prices' extractor agrees but where the row says why it does not."""
    seen = read_response(body, provider=None if flavor != "responses" else provider)
    assert classes(seen) == expected
    assert seen is not None and seen.usage is not None
    assert seen.provider == provider and seen.text == "Five days."
    assert seen.finish is not None and seen.finish.lower() in COMPLETE
    shown = {**body, "model": STANDS_IN.get((provider, flavor)) or body.get("model")}
    theirs = extract_usage(shown, provider_id=provider, api_flavor=flavor).usage
    ours = {
        "in": seen.usage.tokens_in,
        "out": seen.usage.tokens_out,
        "read": seen.usage.cache_read,
        "reasoning": seen.usage.out_reasoning,
    }
    of_theirs = {
        "in": theirs.input_tokens or 0,
        "out": theirs.output_tokens or 0,
        "read": theirs.cache_read_tokens or 0,
        "reasoning": theirs.output_reasoning_tokens or 0,
    }
    assert {name for name in ours if ours[name] != of_theirs[name]} == set(differs)


def attributes(value: Any) -> Any:
    """The same response as objects with attributes, as SDKs hand it out."""
    if isinstance(value, dict):
        return SimpleNamespace(**{name: attributes(item) for name, item in value.items()})
    return [attributes(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "body", [row[2] for row in PROVIDERS], ids=[f"{row[0]}-{row[1]}" for row in PROVIDERS]
)
def test_objects_read_as_dicts_do(body: Body) -> None:
    """Every response reads the same as a dict and as an object, and its raw usage is plain JSON."""
    seen, made = read_response(body), read_response(attributes(body))
    assert seen is not None and seen == made and seen.usage is not None
    json.dumps(seen.usage.raw, allow_nan=False)


class Reason(str, Enum):  # noqa: UP042 - as the SDK declares it
    """As google-genai holds its finish reasons."""

    STOP = "STOP"
    SAFETY = "SAFETY"


def snake(value: Any) -> Any:
    if isinstance(value, dict):
        named = {
            "".join("_" + c.lower() if c.isupper() else c for c in name): snake(v)
            for name, v in value.items()
        }
        return SimpleNamespace(**named)
    return [snake(item) for item in value] if isinstance(value, list) else value


def test_gemini_sdk_objects() -> None:
    """google-genai's objects, in snake case with enums and nulls, tell what the REST response tells."""
    made = snake(gemini())
    made.candidates[0].finish_reason = Reason.STOP
    made.prompt_feedback = None
    seen = read_response(made)
    assert classes(seen) == (186, 1024, 0, 0, 44, 256)
    assert seen is not None and (seen.finish, type(seen.finish)) == ("STOP", str)
    assert (seen.model, seen.provider, seen.text) == ("gemini-2.5-flash", "google", "Five days.")


def test_gemini_leaves_zeros_out() -> None:
    """An answer of thoughts alone has no candidatesTokenCount: none, where the total says so, else missing."""
    usage = {"promptTokenCount": 12, "thoughtsTokenCount": 30, "totalTokenCount": 42}
    assert classes(read_response(gemini(usage))) == (12, 0, 0, 0, 0, 30)
    del usage["totalTokenCount"]
    seen = read_response(gemini(usage))
    assert seen is not None and seen.usage is None
    with pytest.raises(UsageError, match="promptTokenCount 12 do not add up to totalTokenCount 90"):
        read_response(gemini({**usage, "totalTokenCount": 90}))


def test_gemini_thoughts_inside_the_candidates() -> None:
    """Where the total shows the thoughts inside the candidates they are not counted again."""
    usage = {
        "promptTokenCount": 12,
        "candidatesTokenCount": 50,
        "thoughtsTokenCount": 30,
        "totalTokenCount": 62,
    }
    assert classes(read_response(gemini(usage))) == (12, 0, 0, 0, 20, 30)


def test_converse_totals_and_lifetimes() -> None:
    """Bedrock's total may leave the cache out; writes that the list does not explain contradict it."""
    assert classes(read_response(converse({**CONVERSE_USAGE, "totalTokens": 350}))) == (
        50,
        1000,
        150,
        250,
        300,
        0,
    )
    bare = {name: CONVERSE_USAGE[name] for name in ("inputTokens", "outputTokens", "cacheWriteInputTokens")}
    assert classes(read_response(converse(bare))) == (50, 0, 400, 0, 300, 0)
    with pytest.raises(UsageError, match="cacheDetails 250 do not add up to cacheWriteInputTokens 400"):
        read_response(converse({**CONVERSE_USAGE, "cacheDetails": [{"ttl": "1h", "inputTokens": 250}]}))
    with pytest.raises(UsageError, match="do not add up to totalTokens 5"):
        read_response(converse({**CONVERSE_USAGE, "totalTokens": 5}))


def test_realtime() -> None:
    """A realtime response.done reads as a response; its audio is refused a price of text."""
    usage = {
        "total_tokens": 1500,
        "input_tokens": 1200,
        "output_tokens": 300,
        "input_token_details": {"text_tokens": 1200, "audio_tokens": 0, "cached_tokens": 1024},
        "output_token_details": {"text_tokens": 44, "audio_tokens": 256},
    }
    part = {"type": "audio", "transcript": "Five days."}
    item = {"type": "message", "role": "assistant", "content": [part]}
    body = {"object": "realtime.response", "id": "r", "status": "completed", "output": [item], "usage": usage}
    event = {"type": "response.done", "event_id": "e", "response": body}
    seen = read_response(event)
    assert seen == read_response(body) and classes(seen) == (176, 1024, 0, 0, 300, 0)
    assert (
        read_stream([{"type": "response.created", "response": {**body, "status": "in_progress"}}, event])
        == seen
    )
    assert (
        seen is not None
        and seen.usage is not None
        and (seen.finish, seen.text) == ("completed", "Five days.")
    )
    with pytest.raises(UnknownPrice, match="256 audio_tokens in output_token_details are priced apart"):
        Prices().price(seen.usage, model="gpt-realtime", provider="openai")


def test_gemini_audio_is_not_priced_as_text() -> None:
    """Gemini counts audio inside the prompt and charges it apart: no price is guessed for it."""
    details = [{"modality": "TEXT", "tokenCount": 200}, {"modality": "AUDIO", "tokenCount": 1000}]
    for made in (gemini({**GEMINI_USAGE, "promptTokensDetails": details}),):
        for seen in (read_response(made), read_response(snake(made))):
            assert seen is not None and seen.usage is not None
            with pytest.raises(
                UnknownPrice, match=r"1000 AUDIO in prompt_?[tT]okens_?[dD]etails are priced apart"
            ):
                Prices().price(seen.usage, model="gemini-2.5-flash", provider="google")


def test_through_the_kit(tmp_path: Path) -> None:
    """Bedrock's and Gemini's answers are priced, stored and served again; Bedrock's model is the argument's."""
    model = "anthropic.claude-sonnet-4-5-20250929-v1:0"
    with Kit(tmp_path / "kit") as kit:

        @kit.call(exact(), scope=None, model="model_id", provider="aws")
        def bedrock(question: str, *, model_id: str) -> Body:
            return converse()

        @kit.call(exact(), scope=None)
        def google(question: str) -> Body:
            return gemini()

        for paid, again, name, maker in (
            (bedrock.outcome("?", model_id=model), bedrock.outcome("?", model_id=model), model, "aws"),
            (google.outcome("?"), google.outcome("?"), "gemini-2.5-flash", "google"),
        ):
            seen = read_response(paid.value)
            assert seen is not None and seen.usage is not None
            assert paid.cost.provider == Prices().price(seen.usage, model=name, provider=maker).cost > 0
            assert (again.saving, again.cost.provider, again.value) == ("exact", 0, paid.value)


# --- gateways


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


# --- how it ended


def ended(body: Body) -> str | None:
    seen = read_response(body)
    assert seen is not None
    return seen.finish


def choice(finish: object, **said: Any) -> Body:
    return chat(counts(), "m", choices=[{"index": 0, "finish_reason": finish, "message": said}])


TOOLS = [{"id": "t", "type": "function", "function": {"name": "look", "arguments": "{}"}}]
WHOLE = [
    choice("stop", content="a"),
    choice("tool_calls", content=None, tool_calls=TOOLS),
    choice("function_call", content=None),
    choice("stop", content="a", refusal=None),
    choice("stop", content="a", refusal=""),
    choice("eos", content="a"),
    message(),
    message(stop_reason="stop_sequence"),
    message(stop_reason="tool_use", content=[{"type": "tool_use", "id": "t", "name": "look", "input": {}}]),
    gemini(),
    converse(stopReason="end_turn"),
    converse(stopReason="stop_sequence"),
    cohere(),
    cohere(finish_reason="TOOL_CALL"),
    cohere(finish_reason="STOP_SEQUENCE"),
    response("m", {}),
    response("m", {}, output=[{"type": "function_call", "name": "look", "arguments": "{}"}]),
]
REFUSED = [{"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}]
NOT_WHOLE = [
    (choice("stop", content=None, refusal="No."), "refusal"),
    (choice("length", content="a"), "length"),
    (choice("content_filter", content="a"), "content_filter"),
    (choice("model_length", content="a"), "model_length"),
    (choice("insufficient_system_resource", content="a"), "insufficient_system_resource"),
    (choice("abort", content="a"), "abort"),
    (choice("error", content="a"), "error"),
    (message(stop_reason="refusal"), "refusal"),
    (message(stop_reason="max_tokens"), "max_tokens"),
    (message(stop_reason="pause_turn"), "pause_turn"),
    (response("m", {}, output=REFUSED), "refusal"),
    (response("m", {}, status="queued", usage=None), "in_progress"),
    (response("m", {}, status="in_progress", usage=None), "in_progress"),
    (response("m", {}, status="failed"), "failed"),
    (response("m", {}, status="incomplete", incomplete_details=None), "incomplete"),
    (
        response("m", {}, status="incomplete", incomplete_details={"reason": "content_filter"}),
        "content_filter",
    ),
    (gemini(candidates=[{"finishReason": "SAFETY"}]), "SAFETY"),
    (gemini(candidates=[{"finishReason": "MAX_TOKENS"}]), "MAX_TOKENS"),
    (gemini(candidates=[], promptFeedback={"blockReason": "PROHIBITED_CONTENT"}), "PROHIBITED_CONTENT"),
    (converse(stopReason="max_tokens"), "max_tokens"),
    (converse(stopReason="guardrail_intervened"), "guardrail_intervened"),
    (converse(stopReason="content_filtered"), "content_filtered"),
    (cohere(finish_reason="MAX_TOKENS"), "MAX_TOKENS"),
    (cohere(finish_reason="ERROR"), "ERROR"),
]


@pytest.mark.parametrize("body", WHOLE)
def test_whole_answers(body: Body) -> None:
    """What every provider calls a finished answer is whole, tool calls without text among it."""
    finish = ended(body)
    assert finish is not None and finish.lower() in COMPLETE


@pytest.mark.parametrize(("body", "finish"), NOT_WHOLE)
def test_answers_that_are_not_whole(body: Body, finish: str) -> None:
    """Cut, blocked, refused and unfinished ones are never whole, and keep the provider's own word."""
    assert ended(body) == finish and finish.lower() not in COMPLETE


def test_a_blocked_prompt_has_no_candidates() -> None:
    """Gemini leaves the candidates out where it blocked the prompt; its input is counted still."""
    body = gemini({"promptTokenCount": 12, "totalTokenCount": 12}, promptFeedback={"blockReason": "SAFETY"})
    del body["candidates"]
    seen = read_response(body)
    assert classes(seen) == (12, 0, 0, 0, 0, 0)
    assert seen is not None and (seen.finish, seen.text) == ("SAFETY", None)


# --- what is odd

ALL = [row[2] for row in PROVIDERS]
USAGES = {"usage", "usageMetadata"}


@pytest.mark.parametrize("usage", [None, {}, "none", [], 5, {"other": 1}, {"prompt_tokens": None}])
@pytest.mark.parametrize("body", ALL, ids=[f"{row[0]}-{row[1]}" for row in PROVIDERS])
def test_without_usage(body: Body, usage: object) -> None:
    """A response whose usage is missing or is no usage has None for it, and is a response still, or none at all."""
    name = next(iter(USAGES & body.keys()))
    seen = read_response({**body, name: usage})
    assert seen is None or seen.usage is None
    if body.get("object") or body.get("type") or name != "usage":
        assert seen is not None and seen.text == "Five days."


@pytest.mark.parametrize(
    "number", [-1, True, 2.5, float("nan"), float("-inf"), "12", [1], {"a": 1}, 10**13, 10**400]
)
@pytest.mark.parametrize("body", [gemini(), converse(), cohere()], ids=["gemini", "converse", "cohere"])
def test_impossible_numbers(body: Body, number: object) -> None:
    """What is no count raises a short UsageError that names the field, for every number of every provider."""
    name = next(iter(USAGES & body.keys()))
    usage = body[name]["billed_units"] if "billed_units" in body[name] else body[name]
    for field, told in usage.items():
        if type(told) in (int, float):
            broken = {**usage, field: number}
            broken = {**body[name], "billed_units": broken} if "billed_units" in body[name] else broken
            with pytest.raises(UsageError, match=field) as caught:
                read_response({**body, name: broken})
            assert len(str(caught.value)) < 150


def test_very_many_choices() -> None:
    """A hundred thousand choices are read, in time that grows with their number only."""
    made = chat(
        counts(), "m", choices=[{"index": 0, "finish_reason": "stop", "message": {"content": "a"}}] * 100_000
    )
    seen = read_response(made)
    assert seen is not None and seen.text is not None and len(seen.text) == 199_999
    chunk = {
        "object": "chat.completion.chunk",
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": "a"}}],
    }
    streamed = read_stream([chunk] * 100_000)
    assert streamed is not None and streamed.text == "a" * 100_000


@pytest.mark.parametrize(
    "thing",
    [
        {"candidates": ["ann", "bob"]},
        {"candidates": [], "model": "vote"},
        {"output": "x", "usage": {"cpu": 1}},
        {"message": "hello", "finish_reason": "done", "usage": {"input_tokens": 1}},
        {"message": "hello", "finish_reason": "done", "usage": None},
        {"data": {"candidates": 3}},
        {"messageStart": "now"},
        {"type": "response.done"},
        {"type": "response.done", "response": "yes"},
    ],
)
def test_users_own_dicts(thing: Body) -> None:
    """A user's own dict that has a name or two of a provider's is no response."""
    assert read_response(thing) is None
    seen = read_stream([thing])
    assert seen is None or (seen.usage, seen.finish) == (None, None)
