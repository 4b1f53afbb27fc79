"""What one answer cost: the endpoint's own word, else its usage at the prices that were named, else costkit's table.

>>> price = Pricing((0.10, 0.40, 0.01))
>>> price({"prompt_tokens": 1000, "completion_tokens": 500, "prompt_tokens_details": {"cached_tokens": 400}}, "any")
Money(cost_nano=264000, saving=None)
>>> price({"prompt_tokens": 1000, "completion_tokens": 500, "costkit": {"cost_nano_usd": 0, "saving": "exact"}}, "any")
Money(cost_nano=0, saving='exact')
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from costkit.call import Usage
from costkit.errors import ConfigError, UnknownPrice
from costkit.prices import Prices, Rates

__all__ = ["Money", "Pricing", "count", "detail"]


@dataclass(frozen=True, slots=True)
class Money:
    """Nano-dollars, None where no price is known; what saved, where the endpoint says so."""

    cost_nano: int | None
    saving: str | None = None


class Pricing:
    """Prices answers. ``rates`` are US dollars per million tokens: input, output, cached input.

    Raises ConfigError for rates that are none.
    """

    def __init__(self, rates: tuple[float, float, float] | None = None) -> None:
        card = None if rates is None else {"*": Rates(*rates)}
        self._prices = Prices(card)

    def known(self, model: str) -> bool:
        """Is there a price for this model?"""
        try:
            self._prices.check(model)
        except (UnknownPrice, ConfigError):
            return False
        return True

    def __call__(self, usage: Mapping[str, Any] | None, model: str | None) -> Money:
        """The money of one answer from its usage chunk."""
        own = (usage or {}).get("costkit")
        if isinstance(own, dict):
            saving = own.get("saving")
            return Money(count(own.get("cost_nano_usd")), saving[:40] if isinstance(saving, str) else None)
        tokens = _tokens(usage or {})
        if tokens is None or not model:
            return Money(None)
        try:
            return Money(self._prices.price(tokens, model=model).cost)
        except (UnknownPrice, ConfigError):
            return Money(None)


def _tokens(usage: Mapping[str, Any]) -> Usage | None:
    given, made = count(usage.get("prompt_tokens")), count(usage.get("completion_tokens"))
    if given is None or made is None:
        return None
    cached = min(given, detail(usage, "prompt_tokens_details", "cached_tokens") or 0)
    thought = min(made, detail(usage, "completion_tokens_details", "reasoning_tokens") or 0)
    return Usage(in_fresh=given - cached, cache_read=cached, out_text=made - thought, out_reasoning=thought)


def detail(usage: Mapping[str, Any], group: str, name: str) -> int | None:
    """A count inside a group of a usage chunk."""
    inner = usage.get(group)
    return count(inner.get(name)) if isinstance(inner, dict) else None


def count(value: object) -> int | None:
    """A number of tokens or nano-dollars, None for what is none."""
    return value if type(value) is int and 0 <= value < 10**15 else None
