"""One response to what it tells: model, disjoint token classes, finish and text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from costkit.call import Usage
from costkit.errors import UsageError
from costkit.usage.content import word
from costkit.usage.fields import Fields, as_json, each
from costkit.usage.makers import billed, maker_of
from costkit.usage.shapes import Path, Paths, Reading, Shape, at

_MOST_TOKENS = 10**12  # no call has more; past it the number is an error


@dataclass(frozen=True, slots=True)
class Seen:
    """What one response tells about itself.

    ``usage`` is None where the provider reported none, ``finish`` is the provider's own word and None for a
    stream that never finished; ``"refusal"`` where the model refused, ``"in_progress"`` for a response that is
    still being made. ``text`` is the joined text content, without reasoning and tool calls. ``provider`` is as
    given, else told by the response or its model's name, else None: OpenAI's format says little about who
    served it. ``tier`` is the price variant it was served under, as ``Prices.price(context=...)`` takes it.
    ``cost`` is what the provider itself says it billed, in nano-dollars; most do not say.
    """

    model: str | None
    provider: str | None
    usage: Usage | None
    finish: str | None
    text: str | None
    tier: Mapping[str, str] | None = None
    cost: int | None = None


@dataclass(frozen=True, slots=True)
class _Told:
    """The numbers of a usage as its provider counts them."""

    prompt: int
    completion: int
    more_input: int
    read: int
    short: int
    long: int
    reasoning: int
    total: int | None

    def fresh(self, reading: Reading) -> int:
        cached = self.read + self.short + self.long if reading.gross else 0
        return self.prompt + self.more_input - cached

    def out_text(self, reading: Reading) -> int:
        return self.completion - self.reasoning if reading.inside else self.completion

    def adds_up(self, reading: Reading, short_total: bool) -> bool:
        fresh, text = self.fresh(reading), self.out_text(reading)
        if fresh < 0 or text < 0:
            return False
        whole = fresh + self.read + self.short + self.long + text + self.reasoning
        known = (whole, whole - self.more_input, self.prompt + self.completion if short_total else whole)
        return self.total is None or self.total in known


def see(shape: Shape, body: Fields, usage: Fields | None, provider: str | None) -> Seen:
    """What ``body`` tells, read as ``shape``, with ``usage`` as the numbers that count."""
    usage = as_json(usage) if usage else None  # plain dicts all the way down, which are quick to read
    model = word(at(body, shape.model))
    maker = provider or shape.provider or maker_of(body, model, usage)
    if usage and maker == "openrouter":
        usage = {**usage, "upstream_provider": word(body.get("provider"))}
    tier = {name: told for name, value in shape.tier(body).items() if (told := word(value))}
    return Seen(
        model=model,
        provider=maker,
        usage=_usage(shape, usage) if usage else None,
        finish=shape.finish(body),
        text=shape.text(body),
        tier=tier or None,
        cost=billed(maker, usage),
    )


def _usage(shape: Shape, usage: Fields) -> Usage | None:
    """The disjoint classes, or None where a side is not reported at all: missing is not zero."""
    prompt, completion = _count(usage, shape.prompt), _count(usage, shape.completion)
    total = _count(usage, shape.total)
    if completion is None and (shape.completion_optional or (shape.omits_zeros and total is not None)):
        completion = 0
    read = _one_of(usage, shape.cache_read)
    short, long = _writes(shape, usage)
    more, reasoning = _count(usage, shape.more_input) or 0, _count(usage, shape.reasoning) or 0
    if prompt is None or completion is None:
        return None
    told = _Told(prompt, completion, more, read, short, long, reasoning, total)
    for reading in shape.readings if total is not None else shape.readings[:1]:
        if told.adds_up(reading, shape.short_total):
            return Usage(told.fresh(reading), read, short, long, told.out_text(reading), reasoning, raw=usage)
    _contradiction(shape, usage, told)


def _contradiction(shape: Shape, usage: Fields, told: _Told) -> NoReturn:
    first = shape.readings[0]
    if told.fresh(first) < 0:
        _refuse(usage, (*shape.cache_read, *shape.cache_write), "exceed", shape.prompt)
    if told.out_text(first) < 0:
        _refuse(usage, (shape.reasoning,), "exceed", shape.completion)
    _refuse(usage, (shape.prompt, shape.completion), "do not add up to", shape.total)


def _writes(shape: Shape, usage: Fields) -> tuple[int, int]:
    """Tokens written to the cache for five minutes and for an hour; unsplit ones count as five minutes."""
    written = _one_of(usage, shape.cache_write)
    if shape.cache_ttls:
        return _listed_writes(shape, usage, written)
    short, long = _count(usage, shape.cache_write_5m), _count(usage, shape.cache_write_1h)
    if short is None and long is None:
        return written, 0
    short, long = short or 0, long or 0
    if any(_count(usage, path) is not None for path in shape.cache_write) and written != short + long:
        _refuse(usage, (shape.cache_write_5m, shape.cache_write_1h), "do not add up to", shape.cache_write[0])
    return short, long


def _listed_writes(shape: Shape, usage: Fields, written: int) -> tuple[int, int]:
    """Bedrock lists the writes, each with its lifetime."""
    details = each(at(usage, shape.cache_ttls))
    tokens = [(detail.get("ttl"), _count(detail, ("inputTokens",)) or 0) for detail in details]
    if tokens and (listed := sum(count for _, count in tokens)) != written:
        name = ".".join(shape.cache_ttls)
        raise UsageError(f"{name} {listed} do not add up to {'.'.join(shape.cache_write[0])} {written}")
    long = sum(count for ttl, count in tokens if ttl == "1h")
    return written - long, long


def _one_of(usage: Fields, paths: Paths) -> int:
    """The number that stands under any of these names, 0 where under none. Two that differ are no number."""
    found = 0
    for path in paths:
        number = _count(usage, path)
        if number and number != found:
            if found:
                _refuse(usage, paths, "are one number and differ, as in", path)
            found = number
    return found


def _count(usage: Fields, path: Path) -> int | None:
    """The number at ``path``; None where absent or null. 3.0 is taken for 3: some gateways write floats."""
    value: Any = usage.get(path[0]) if len(path) == 1 else at(usage, path) if path else None
    if value is None:
        return None
    if type(value) is int and 0 <= value <= _MOST_TOKENS:
        return value
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if whole and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS:
        return int(value)
    told = (
        f"{value:g}"
        if isinstance(value, float)
        else as_json(value)
        if isinstance(value, int)
        else type(value)
    )
    raise UsageError(f"{'.'.join(path)} is {told!s:.60}, not a number of tokens")


def _refuse(usage: Fields, parts: Iterable[Path], verb: str, whole: Path) -> NoReturn:
    told = [f"{'.'.join(path)} {number}" for path in parts if (number := _count(usage, path)) is not None]
    raise UsageError(f"{' + '.join(told)} {verb} {'.'.join(whole)} {_count(usage, whole)}")
