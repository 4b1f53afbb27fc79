"""Every provider's own response, beside the token classes it stands for.

Responses follow the providers' public references: input 1,200 of which 1,024 were read from a cache, output 300
of which 256 were reasoning, where a provider tells that much.
"""

from __future__ import annotations

from typing import Any

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


BOTH = (176, 1024, 0, 0, 44, 256)
NET = (50, 1000, 150, 250, 44, 256)

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
