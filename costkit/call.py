"""What a call, its usage, its cost and its outcome are.

Money is integer nano-dollars everywhere (1 USD = 1_000_000_000 nano-dollars), time is seconds.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Generic, Literal, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

NANO = 1_000_000_000

UsageState = Literal["reported", "estimated", "missing"]
PriceState = Literal["priced", "unpriced"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one attempt in disjoint classes: no token is counted in two of them.

    A call whose usage is unknown has ``None`` in place of a Usage, never zeros.

    >>> Usage(in_fresh=900, cache_read=100, out_text=40, out_reasoning=10).tokens_in
    1000
    """

    in_fresh: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    out_text: int = 0
    out_reasoning: int = 0
    state: Literal["reported", "estimated"] = "reported"
    raw: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)

    @property
    def tokens_in(self) -> int:
        """All input tokens, cached or not."""
        return self.in_fresh + self.cache_read + self.cache_write_5m + self.cache_write_1h

    @property
    def tokens_out(self) -> int:
        """All output tokens, reasoning included."""
        return self.out_text + self.out_reasoning


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call to a model, as it goes into the ledger.

    ``cost`` is in nano-dollars and None where usage is missing or no price is known. ``snapshot`` holds the
    price rows behind ``price_id``: source, version and rates.
    """

    role: str
    model: str | None
    provider: str | None
    usage: Usage | None
    cost: int | None
    price_id: str | None = None
    finish: str | None = None
    latency: float | None = None
    ttft: float | None = None
    error: str | None = None
    at: float = field(default_factory=time.time)
    snapshot: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)

    @property
    def usage_state(self) -> UsageState:
        """``reported`` by the provider, ``estimated`` by counting text, or ``missing``."""
        return "missing" if self.usage is None else self.usage.state


@dataclass(frozen=True, slots=True)
class Cost:
    """Money of one query in nano-dollars, nested calls included.

    ``provider`` is what was paid, ``counterfactual`` what the same query would have cost without the
    savings, ``unknown`` how many attempts have no known cost (missing usage or no price).

    >>> Cost(provider=0, counterfactual=2_500_000).saving_usd
    0.0025
    """

    provider: int = 0
    counterfactual: int = 0
    overhead: int = 0
    unknown: int = 0
    estimated: bool = False

    @property
    def saving(self) -> int:
        """Counterfactual minus what was paid minus what costkit itself spent (audits, judges)."""
        return self.counterfactual - self.provider - self.overhead

    @property
    def usd(self) -> float:
        """What was paid, in dollars, for display."""
        return self.provider / NANO

    @property
    def saving_usd(self) -> float:
        """The saving in dollars, for display."""
        return self.saving / NANO


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T_co]):
    """What ``.outcome(...)`` returns: the function's value with its cost, latency and origin.

    ``saving`` is the name of the saving that answered (``"exact"``, ``"stale"`` for an answer past its ttl
    that is being renewed, or ``"coalesced"`` for a call that shared another's answer while it was being made)
    or None when the function itself ran. ``latency`` is in seconds, as the caller waited; for a stream it
    runs to the last chunk and ``ttft`` to the first.
    """

    value: T_co
    cost: Cost
    latency: float
    saving: str | None
    query_id: str
    ttft: float | None = None


def new_id() -> str:
    """A query id: 48 bits of milliseconds then 80 random bits, in hex, so ids sort by time.

    >>> len(new_id())
    32
    """
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"


def class_name(cls: type) -> str:
    """``module:qualified.name`` of a class.

    >>> class_name(dict)
    'builtins:dict'
    """
    return f"{cls.__module__}:{cls.__qualname__}"


def more_state(value: Any) -> dict[str, Any]:
    """What a dataclass instance carries beyond its fields, but for what it has only computed and kept."""
    cls, names = type(value), {f.name for f in fields(value)}
    return {
        name: held
        for name, held in getattr(value, "__dict__", {}).items()
        if name not in names and not isinstance(getattr(cls, name, None), functools.cached_property)
    }
