"""Every provider's own response to the same disjoint classes, beside what genai-prices makes of it."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from genai_prices import extract_usage

from costkit import Kit, Prices, exact
from costkit.errors import UnknownPrice, UsageError
from costkit.usage import COMPLETE, read_response, read_stream
from tests.provider_answers import CONVERSE_USAGE, GEMINI_USAGE, PROVIDERS, Body, converse, gemini
from tests.usages import classes

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
