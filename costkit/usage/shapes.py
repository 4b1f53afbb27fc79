"""Where each kind of response keeps its numbers: one row a kind.

Another provider is another row. What differs between providers is what a number counts: OpenAI's prompt
tokens include the cached ones, Anthropic's do not; OpenAI's completion tokens include the reasoning, Gemini's
do not. Where one format is written both ways, the total tells.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from costkit.usage import content
from costkit.usage.fields import Fields, fields_of

Path = tuple[str, ...]
Paths = tuple[Path, ...]  # several names for one number


@dataclass(frozen=True, slots=True)
class Reading:
    """What the two main numbers count."""

    gross: bool = True  # the prompt counts cached tokens too
    inside: bool = True  # the completion counts reasoning too


@dataclass(frozen=True, slots=True)
class Shape:
    """One kind of response. A path of () is a number this kind does not have."""

    tag: tuple[str, str] | None  # the field and value by which the response is known
    also: Paths  # fields that must be there too, or, without a tag, by which it is known
    prompt: Path
    completion: Path
    text: Callable[[Fields], str | None]
    finish: Callable[[Fields], str | None]
    tier: Callable[[Fields], content.Tier] = content.no_tier
    usage: Path = ("usage",)
    model: Path = ("model",)
    provider: str | None = None  # where only one writes this kind
    readings: tuple[Reading, ...] = (Reading(),)  # the first that the total bears out
    total: Path = ("total_tokens",)
    short_total: bool = False  # the total may be prompt and completion alone
    more_input: Path = ()  # input tokens outside the prompt
    cache_read: Paths = ()
    cache_write: Paths = ()
    cache_write_5m: Path = ()
    cache_write_1h: Path = ()
    cache_ttls: Path = ()  # a list of writes, each with its own lifetime
    reasoning: Path = ()
    completion_optional: bool = False
    omits_zeros: bool = False  # an absent completion is none at all where the total says so


_IN, _OUT = "prompt_tokens_details", "completion_tokens_details"

# Gateways write one number under several names: LiteLLM puts Anthropic's fields beside OpenAI's, DeepSeek and
# Moonshot had names of their own before OpenAI had one.
CHAT = Shape(
    tag=("object", "chat.completion"),
    also=(("choices",),),
    prompt=("prompt_tokens",),
    completion=("completion_tokens",),
    readings=(
        Reading(),
        Reading(inside=False),
        Reading(gross=False),
    ),  # the second is xAI's, the third a gateway's
    cache_read=(
        (_IN, "cached_tokens"),
        ("cache_read_input_tokens",),
        ("prompt_cache_hit_tokens",),
        ("cached_tokens",),
        ("num_cached_tokens",),
    ),
    cache_write=(
        (_IN, "cache_write_tokens"),
        (_IN, "cache_creation_tokens"),
        ("cache_creation_input_tokens",),
    ),
    cache_write_5m=(_IN, "cache_creation_token_details", "ephemeral_5m_input_tokens"),
    cache_write_1h=(_IN, "cache_creation_token_details", "ephemeral_1h_input_tokens"),
    reasoning=(_OUT, "reasoning_tokens"),
    text=content.chat_text,
    finish=content.chat_finish,
    tier=content.openai_tier,
)
RESEARCH = replace(  # Perplexity's searching models: thoughts and the pages read are in no other number
    CHAT,
    also=(*CHAT.also, ("usage", "citation_tokens")),
    readings=(Reading(inside=False),),
    short_total=True,
    more_input=("citation_tokens",),
    reasoning=("reasoning_tokens",),
)
COMPLETION = replace(CHAT, tag=("object", "text_completion"))
RESPONSE = Shape(
    tag=("object", "response"),
    also=(("output",),),
    prompt=("input_tokens",),
    completion=("output_tokens",),
    cache_read=(
        ("input_tokens_details", "cached_tokens"),
        ("input_tokens_details", "cache_read_input_tokens"),
    ),
    cache_write=(("input_tokens_details", "cache_write_tokens"),),
    reasoning=("output_tokens_details", "reasoning_tokens"),
    text=content.response_text,
    finish=content.response_finish,
    tier=content.openai_tier,
)
REALTIME = replace(
    RESPONSE,
    tag=("object", "realtime.response"),
    cache_read=(("input_token_details", "cached_tokens"),),
    cache_write=(),
    reasoning=("output_token_details", "reasoning_tokens"),
    text=content.realtime_text,
)
MESSAGE = Shape(
    tag=("type", "message"),
    also=(("stop_reason",),),
    prompt=("input_tokens",),
    completion=("output_tokens",),
    readings=(Reading(gross=False),),
    cache_read=(("cache_read_input_tokens",),),
    cache_write=(("cache_creation_input_tokens",),),
    cache_write_5m=("cache_creation", "ephemeral_5m_input_tokens"),
    cache_write_1h=("cache_creation", "ephemeral_1h_input_tokens"),
    reasoning=("output_tokens_details", "thinking_tokens"),
    text=content.message_text,
    finish=content.message_finish,
    tier=content.message_tier,
)
EMBEDDING = Shape(
    tag=("object", "list"),
    also=(("data",), ("model",)),  # OpenAI calls every list page "list"
    prompt=("prompt_tokens",),
    completion=("completion_tokens",),
    text=content.no_text,
    finish=content.whole,
    tier=content.openai_tier,
    completion_optional=True,
)
GEMINI = Shape(
    tag=None,
    also=(("candidates",), ("usageMetadata",)),
    usage=("usageMetadata",),
    model=("modelVersion",),
    provider="google",
    prompt=("promptTokenCount",),
    completion=("candidatesTokenCount",),
    readings=(Reading(inside=False), Reading()),
    total=("totalTokenCount",),
    more_input=("toolUsePromptTokenCount",),
    cache_read=(("cachedContentTokenCount",),),
    reasoning=("thoughtsTokenCount",),
    text=content.gemini_text,
    finish=content.gemini_finish,
    tier=content.gemini_tier,
    omits_zeros=True,
)
GEMINI_SDK = replace(
    GEMINI,
    also=(("candidates",), ("usage_metadata",)),
    usage=("usage_metadata",),
    model=("model_version",),
    prompt=("prompt_token_count",),
    completion=("candidates_token_count",),
    total=("total_token_count",),
    more_input=("tool_use_prompt_token_count",),
    cache_read=(("cached_content_token_count",),),
    reasoning=("thoughts_token_count",),
)
CONVERSE = Shape(
    tag=None,
    also=(("output",), ("stopReason",)),
    provider="aws",
    prompt=("inputTokens",),
    completion=("outputTokens",),
    readings=(Reading(gross=False),),
    total=("totalTokens",),
    short_total=True,
    cache_read=(("cacheReadInputTokens",),),
    cache_write=(("cacheWriteInputTokens",),),
    cache_ttls=("cacheDetails",),
    text=content.converse_text,
    finish=content.converse_finish,
    tier=content.converse_tier,
)
COHERE = Shape(
    tag=None,
    also=(("message",), ("finish_reason",), ("usage", "billed_units")),
    usage=("usage", "billed_units"),
    provider="cohere",
    prompt=("input_tokens",),
    completion=("output_tokens",),
    text=content.cohere_text,
    finish=content.cohere_finish,
)
SHAPES = (
    *(CHAT, MESSAGE, RESPONSE, COMPLETION, EMBEDDING, REALTIME),
    *(GEMINI, GEMINI_SDK, CONVERSE, COHERE),
    replace(GEMINI, also=(("promptFeedback",), ("usageMetadata",))),  # a blocked prompt has no candidates
    replace(GEMINI, also=(("candidates",), ("modelVersion",))),  # and a chunk may have no usage
)
_TAGGED = {shape.tag: shape for shape in SHAPES if shape.tag}
_UNTAGGED = tuple(shape for shape in SHAPES if shape.tag is None)


def shape_of(body: Fields) -> Shape | None:
    """The row a response belongs to, or None where it is no provider's response."""
    for name in ("object", "type"):
        if isinstance(value := body.get(name), str) and (shape := _TAGGED.get((name, value))):
            if not _has_all(body, shape.also) or (shape is EMBEDDING and not isinstance(body["model"], str)):
                continue
            return RESEARCH if shape is CHAT and _has_all(body, RESEARCH.also) else shape
    return next((shape for shape in _UNTAGGED if _has_all(body, shape.also)), None)


def _has_all(body: Fields, paths: Paths) -> bool:
    for path in paths:
        if path[0] not in body:
            return False
        if len(path) > 1 and at(body, path) is None:
            return False
    return True


def at(body: Fields | None, path: Path) -> object:
    """What lies at ``path``, or None."""
    value: object = body
    for name in path:
        found = value if type(value) is dict else fields_of(value)
        if not found:
            return None
        value = found.get(name)
    return value
