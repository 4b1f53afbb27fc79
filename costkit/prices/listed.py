"""genai-prices' table, asked so that nothing it does not list is charged in silence.

The table is used as installed: no update is started, no network is touched.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from costkit.call import Usage
from costkit.errors import UnknownPrice
from costkit.prices.rows import Priced, Row, row

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider

_HOMES = (("text-embedding-", "openai"),)  # names the table finds only with their provider
_OTHER = (  # tokens that Usage has no class for, where the table prices them apart from text
    ("input_audio_mtok", "prompt_tokens_details", "audio_tokens"),
    ("input_image_mtok", "prompt_tokens_details", "image_tokens"),
    ("output_audio_mtok", "completion_tokens_details", "audio_tokens"),
    ("input_audio_mtok", "input_token_details", "audio_tokens"),
    ("output_audio_mtok", "output_token_details", "audio_tokens"),
    ("input_audio_mtok", "promptTokensDetails", "AUDIO"),
    ("input_audio_mtok", "prompt_tokens_details", "AUDIO"),
    ("output_audio_mtok", "candidatesTokensDetails", "AUDIO"),
    ("output_audio_mtok", "candidates_tokens_details", "AUDIO"),
    ("output_image_mtok", "candidatesTokensDetails", "IMAGE"),
    ("output_image_mtok", "candidates_tokens_details", "IMAGE"),
)


@dataclass(frozen=True, slots=True)
class _Moment:
    """The rows valid at one time of day and date: one for each context length the price depends on."""

    starts: tuple[int, ...]  # a row holds above its start, for all tokens of the call
    rows: tuple[Row, ...]  # one more than starts
    other: tuple[tuple[str, str], ...]  # where the raw usage counts tokens priced apart

    def price(self, usage: Usage, model: str) -> Priced:
        found = self.rows[bisect_left(self.starts, usage.tokens_in)] if self.starts else self.rows[0]
        for name in found.unpriced:
            if tokens := getattr(usage, name):
                raise UnknownPrice(f"{model}: {tokens} {name} tokens, and no price is listed for them")
        for details, name in self.other:
            if usage.raw and (tokens := _of_kind(usage.raw.get(details), name)):
                raise UnknownPrice(f"{model}: {tokens} {name} in {details} are priced apart from text")
        return found.price(usage)

    def most(self, tokens_in: int, tokens_out: int, *, hour: bool) -> int:
        """Nano-dollars of the dearest call with up to so many tokens: a shorter one may be in a dearer row."""
        reached = bisect_left(self.starts, tokens_in)
        lengths = [*self.starts[:reached], tokens_in]  # a row holds up to the start of the next
        return max(
            row.most(up_to, tokens_out, hour=hour) for row, up_to in zip(self.rows, lengths, strict=False)
        )


@dataclass(slots=True)
class Listed:
    """One model of the table under one context, with the rows it has needed so far."""

    provider: Provider
    model: ModelInfo
    context: Mapping[str, str]
    version: str
    moments: dict[tuple[bool, ...], _Moment] = field(default_factory=dict)
    constraints: tuple[Any, ...] = field(init=False)

    def __post_init__(self) -> None:
        dated = self.model.prices if isinstance(self.model.prices, list) else []
        variants = (self.model.price_variants or []) if self.context else []
        every = [*(item.constraint for item in dated), *(item.constraint for item in variants)]
        self.constraints = tuple(constraint for constraint in every if constraint is not None)

    def at(self, when: datetime | None) -> _Moment:
        """The rows valid at ``when``, default now; a naive time is UTC, as the table takes it."""
        moment = when or (datetime.now(UTC) if self.constraints else _ANY_TIME)
        flags = tuple(constraint.active(moment) for constraint in self.constraints)
        found = self.moments.get(flags)
        if found is None:
            found = self.moments[flags] = _moment(self._prices(moment), self.version, self.model.id)
        return found

    def turns(self, start: datetime, reach: timedelta = timedelta(hours=1)) -> list[datetime]:
        """``start``, and the moments up to ``reach`` after it at which another price may begin to hold."""
        if not self.constraints:
            return [start]
        start = start.replace(tzinfo=UTC) if start.tzinfo is None else start.astimezone(UTC)
        days = [start.date() + timedelta(days=number) for number in range(-1, reach.days + 3)]
        turns = {datetime(day.year, day.month, day.day, tzinfo=UTC) for day in days}
        for constraint in self.constraints:
            for end in ("start_time", "end_time"):
                if (told := getattr(constraint, end, None)) is not None:
                    turns |= {datetime.combine(day, told, told.tzinfo or UTC) for day in days}
        return [start, *sorted(turn for turn in turns if start < turn <= start + reach)]

    def announced(self, start: datetime, reach: timedelta) -> list[datetime]:
        """The days in that time, as their first moment, from which another price is dated."""
        told = {getattr(constraint, "start_date", None) for constraint in self.constraints}
        days = sorted(day for day in told if day is not None)
        firsts = [datetime(day.year, day.month, day.day, tzinfo=UTC) for day in days]
        return [first for first in firsts if start < first <= start + reach]

    @property
    def _name(self) -> str:
        return f"{self.model.id} ({self.provider.id})"

    def check(self, when: datetime | None) -> None:
        """Raises UnknownPrice where the table knows the model but lists no input price for it."""
        if "in_fresh" in self.at(when).rows[0].unpriced:
            raise UnknownPrice(f"{self._name} is listed without a price per input token")

    def _prices(self, moment: datetime) -> ModelPrice:
        if self.context:
            self._check_context(moment)
        return self.model.get_prices(moment, self.context)

    def _check_context(self, moment: datetime) -> None:
        """The table charges its standard price where a variant is not listed; here that is refused."""
        own = any(model is self.model for model in self.provider.models)
        listed = (self.model.price_variants or []) if own else []  # the table ignores a lent model's variants
        active = [item for item in listed if not item.constraint or item.constraint.active(moment)]
        met = [item for item in active if item.when.items() <= self.context.items()]
        day = f" on {moment.date()}" if self.constraints else ""
        for name, value in self.context.items():
            if not any(item.when.get(name) == value for item in met):
                known = sorted({f"{key}={told}" for item in active for key, told in item.when.items()})
                raise UnknownPrice(
                    f"variant not priced: {self._name} lists no price for {name}={value}{day}; "
                    f"listed: {', '.join(known) or 'none'}. "
                    f"Give your own: Kit(prices={{{self.model.id!r}: costkit.Rates(...)}})"
                )
        priced = [item for item in met if item.prices.__dict__]
        if len(priced) > 1 and not any(item.when == self.context for item in priced):
            raise UnknownPrice(
                f"variant not priced: {self._name} lists {dict(self.context)} apart, not together"
            )


def _of_kind(details: object, name: str) -> object:
    """Tokens of one kind: a field of the details, or, as Gemini writes them, an item of their list."""
    if isinstance(details, Mapping):
        return details.get(name)
    items = [item for item in details if isinstance(item, Mapping)] if isinstance(details, list) else []
    kinds = [item for item in items if item.get("modality") == name]
    return next((item.get("tokenCount") or item.get("token_count") for item in kinds), None)


_ANY_TIME = datetime(2000, 1, 1, tzinfo=UTC)  # for models whose price has no date


_loading = threading.Lock()


def warm() -> None:
    """Loads the price table: takes half a second once in a process, later nothing. Any thread may call it."""
    from genai_prices.data_snapshot import get_snapshot

    with _loading:
        get_snapshot()


def _forked() -> None:
    """A thread of the parent that held the lock does not live in the child."""
    global _loading
    _loading = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def lookup(model: str, provider: str | None, context: Mapping[str, str]) -> Listed | None:
    """The table's entry for a model, or None. Without a provider the model's name must tell it."""
    from genai_prices.data_snapshot import get_snapshot

    snapshot = get_snapshot()
    home = next((maker for start, maker in _HOMES if model.lower().startswith(start)), None)
    try:
        maker, info = snapshot.find_provider_model(model, None, provider or home, None)
    except LookupError:
        return None
    return Listed(maker, info, context, installed())


def installed() -> str:
    """The table in use, as snapshots name it in ``version``."""
    import genai_prices
    from genai_prices.data_snapshot import get_snapshot

    return f"genai-prices {genai_prices.__version__}{'+updated' if get_snapshot().from_auto_update else ''}"


def newest(now: datetime) -> date | None:
    """The last day up to ``now`` on which a price of the table begins: the table itself carries no date."""
    from genai_prices.data_snapshot import get_snapshot

    models = [model for provider in get_snapshot().providers for model in provider.models]
    dated = [item.constraint for model in models if isinstance(model.prices, list) for item in model.prices]
    dated += [item.constraint for model in models for item in model.price_variants or ()]
    days = [getattr(constraint, "start_date", None) for constraint in dated]
    return max((day for day in days if day is not None and day <= now.date()), default=None)


def names() -> list[str]:
    """Every model id in the table."""
    from genai_prices.data_snapshot import get_snapshot

    return sorted({model.id for provider in get_snapshot().providers for model in provider.models})


def _moment(prices: ModelPrice, version: str, model: str) -> _Moment:
    tiers = [tier for price in prices.__dict__.values() for tier in getattr(price, "tiers", ())]
    starts = sorted({tier.start for tier in tiers})
    # A row's prices are those of any length above its start and up to the next.
    rows = tuple(
        _row(prices, tokens_in, version, model) for tokens_in in (0, *(start + 1 for start in starts))
    )
    other = tuple((details, name) for key, details, name in _OTHER if prices.__dict__.get(key) is not None)
    return _Moment(tuple(starts), rows, other)


def _row(prices: ModelPrice, tokens_in: int, version: str, model: str) -> Row:
    def nano(key: str) -> Fraction | None:
        listed = prices.__dict__.get(key)
        price = getattr(listed, "base", listed)
        for tier in getattr(listed, "tiers", ()):
            price = tier.price if tokens_in > tier.start else price
        return None if price is None else Fraction(price) * 1000

    fresh, text, reasoning = nano("input_mtok"), nano("output_mtok"), nano("output_reasoning_mtok")
    read, short, long = nano("cache_read_mtok"), nano("cache_write_mtok"), nano("cache_write_1h_mtok")
    listed = {
        "in_fresh": fresh,
        "cache_read": fresh if read is None else read,
        "cache_write_5m": fresh if short is None else short,
        # Where five minutes have a price of their own an hour has another: dearer, and not to be guessed.
        "cache_write_1h": fresh if long is None and short is None else long,
        "out_text": text,
        "out_reasoning": text if reasoning is None else reasoning,
    }
    cached = {"cache_read": read, "cache_write_5m": short, "cache_write_1h": long}
    return row(
        {name: price or Fraction(0) for name, price in listed.items()},
        Fraction(prices.__dict__.get("requests_kcount") or 0) * 10**6,
        source="genai-prices",
        version=version,
        model=model,
        assumed=tuple(name for name, price in cached.items() if price is None and listed[name] is not None),
        unpriced=tuple(name for name, price in listed.items() if price is None),
    )
