"""One response to what it tells: model, disjoint token classes, finish and text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from costkit.call import Usage
from costkit.errors import UsageError
from costkit.usage.fields import Fields, as_json, fields_of
from costkit.usage.shapes import Path, Shape

_MOST_TOKENS = 10**12  # no call has more; past it the number is an error
_MAKERS = (
    (re.compile(r"gpt-(?!oss)|chatgpt-|o\d(-|$)|text-embedding-(3-|ada)|ft:gpt"), "openai"),
    (re.compile(r"claude-"), "anthropic"),
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What one response tells about itself.

    ``usage`` is None where the provider reported none, ``finish`` is the provider's own word and None for a
    stream that never finished. ``text`` is the joined text content, without reasoning and tool calls.
    ``provider`` is as given, else told by the model's name, else None: OpenAI's format says little about who
    served it. ``tier`` is the price variant it was served under, as ``Prices.price(context=...)`` takes it.
    """

    model: str | None
    provider: str | None
    usage: Usage | None
    finish: str | None
    text: str | None
    tier: Mapping[str, str] | None = None


def see(shape: Shape, body: Fields, usage: Fields | None, provider: str | None) -> Seen:
    """What ``body`` tells, read as ``shape``, with ``usage`` as the numbers that count."""
    model = body.get("model")
    model = model if isinstance(model, str) and model else None
    tier = {name: value for name, value in shape.tier(body).items() if isinstance(value, str)}
    return Seen(
        model=model,
        provider=provider or _maker(model),
        usage=_usage(shape, usage) if usage else None,
        finish=shape.finish(body),
        text=shape.text(body),
        tier=tier or None,
    )


def _maker(model: str | None) -> str | None:
    for pattern, maker in _MAKERS:
        if model and pattern.match(model):
            return maker
    return None


def _usage(shape: Shape, usage: Fields) -> Usage | None:
    """The disjoint classes, or None where a side is not reported at all: missing is not zero."""
    prompt, completion = _count(usage, shape.prompt), _count(usage, shape.completion)
    if completion is None and shape.completion_optional:
        completion = 0
    read, reasoning = _count(usage, shape.cache_read) or 0, _count(usage, shape.reasoning) or 0
    short, long = _writes(shape, usage)
    total = _count(usage, shape.total)
    if prompt is None or completion is None:
        return None
    fresh = prompt - read - short - long if shape.gross else prompt
    if fresh < 0:
        _refuse(usage, (shape.cache_read, shape.cache_write), "exceed", shape.prompt)
    if reasoning > completion:
        _refuse(usage, (shape.reasoning,), "exceed", shape.completion)
    if total is not None and total != fresh + read + short + long + completion:
        _refuse(usage, (shape.prompt, shape.completion), "do not add up to", shape.total)
    raw: Mapping[str, Any] = as_json(usage)
    return Usage(fresh, read, short, long, completion - reasoning, reasoning, raw=raw)


def _writes(shape: Shape, usage: Fields) -> tuple[int, int]:
    """Tokens written to the cache for five minutes and for an hour; unsplit ones count as five minutes."""
    written = _count(usage, shape.cache_write)
    short, long = _count(usage, shape.cache_write_5m), _count(usage, shape.cache_write_1h)
    if short is None and long is None:
        return written or 0, 0
    short, long = short or 0, long or 0
    if written is not None and written != short + long:
        _refuse(usage, (shape.cache_write_5m, shape.cache_write_1h), "do not add up to", shape.cache_write)
    return short, long


def _count(usage: Fields, path: Path) -> int | None:
    """The number at ``path``; None where absent or null. 3.0 is taken for 3: some gateways write floats."""
    value: Any = usage if path else None
    for name in path:
        value = (fields_of(value) or {}).get(name)
    if value is None:
        return None
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if whole and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS:
        return int(value)
    told = f"{value:g}" if isinstance(value, float) else str(value) if isinstance(value, int) else type(value)
    raise UsageError(f"{'.'.join(path)} is {told!s:.60}, not a number of tokens")


def _refuse(usage: Fields, parts: Iterable[Path], verb: str, whole: Path) -> NoReturn:
    told = [f"{'.'.join(path)} {number}" for path in parts if (number := _count(usage, path)) is not None]
    raise UsageError(f"{' + '.join(told)} {verb} {'.'.join(whole)} {_count(usage, whole)}")
