"""The price of a call: the user's own rates first, then genai-prices' dated table.

No price is ever guessed: what neither lists raises UnknownPrice. Prices in tables are wrong now and then;
``Priced.price_id`` says which ones were used, so that a call can be repriced later.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase

from costkit.call import Usage
from costkit.errors import ConfigError, UnknownPrice
from costkit.prices.listed import Listed, lookup, names, warm
from costkit.prices.rates import OwnGPU, Rates
from costkit.prices.rows import Priced, Row, Source, reprice, row

__all__ = ["OwnGPU", "Priced", "Prices", "Rates", "reprice", "warm"]

_Context = tuple[tuple[str, str], ...]

_STANDARD = frozenset({"auto", "default", "standard"})  # names of the price that is no variant
_DATED = re.compile(r"[-@](\d{4}-\d{2}-\d{2}|\d{8})$")
_MOST_FOUND = 4096  # models remembered; names come from responses, so they are bounded


class Prices:
    """What calls cost. ``card`` holds the user's own rates and always goes first.

    Card keys are a model's name, ``"provider/model"`` or a glob like ``"qwen3-*"``, letter case ignored; a
    name beats a glob, a longer glob a shorter one, and a name without a date also stands for its dated
    versions. ``context`` picks a variant of genai-prices' prices for every call, such as
    ``{"processing": "batch"}``; a card's rates hold as they are. ``at`` is the moment whose prices are used
    where a call gives none (default: now). Raises ConfigError for a card that cannot be used.

    >>> prices = Prices({"qwen3-*": Rates("0.10", "0.40")})
    >>> prices.price(Usage(in_fresh=1000, out_text=500), model="qwen3-8b").cost
    300000
    """

    def __init__(
        self,
        card: Mapping[str, Rates | OwnGPU] | None = None,
        *,
        context: Mapping[str, str] | None = None,
        at: datetime | None = None,
    ) -> None:
        self._at = at
        self._context = dict(_pairs(context))
        self._standard = _pairs(self._context)
        self._card: dict[str, Row] = {}
        for key, rates in (card or {}).items():
            name = _card_key(key, rates)
            if name in self._card:
                raise ConfigError(f"prices: {key!r} is there twice (letter case is ignored)")
            self._card[name] = _card_row(name, rates)
        self._globs = sorted((name for name in self._card if re.search(r"[*?\[]", name)), key=_specific)
        self._found: dict[tuple[str, str | None, _Context], Row | Listed | str] = {}

    def check(self, model: str, provider: str | None = None) -> None:
        """Raises UnknownPrice, with near names and the mend, before money is spent on ``model``.

        >>> Prices().check("gpt-5-mimi", "openai")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        costkit.errors.UnknownPrice: no price is known for 'gpt-5-mimi' (openai). Near names: gpt-5-mini, ...
        """
        found = self._find(model, provider, self._standard)
        if isinstance(found, Listed):
            found.check(self._at)

    def price(
        self,
        usage: Usage,
        *,
        model: str | None,
        provider: str | None = None,
        when: datetime | None = None,
        context: Mapping[str, str] | None = None,
    ) -> Priced:
        """The price of one attempt at ``when`` (default: now; a naive time is UTC).

        ``context`` is the variant the response says it was served under, over the one of the constructor;
        ``"default"``, ``"standard"`` and ``"auto"`` take a variant back. Input length picks the tier for all
        tokens of the call. Searches and other fees per use are not included. Raises UnknownPrice where any
        token of the call has no known price.
        """
        merged = self._standard if context is None else _pairs({**self._context, **context})
        found = self._find(model, provider, merged)
        if isinstance(found, Row):
            return found.price(usage)
        return found.at(when or self._at).price(usage, found.model.id)

    def most(
        self,
        *,
        model: str | None,
        provider: str | None = None,
        tokens_in: int,
        tokens_out: int,
        hour: bool = False,
        context: Mapping[str, str] | None = None,
    ) -> int:
        """The most nano-dollars that a call with up to so many tokens can cost within the next hour.

        Every input token is taken as the dearest of fresh, read from the cache and written to it (for five minutes;
        with ``hour`` for an hour too), every output token as the dearer of text and reasoning, at the dearest price
        that a call of this length or less can meet in the hour from now. ``context`` as for :meth:`price`; a response
        served under a dearer variant than it is not covered. Raises UnknownPrice where such a call has no known
        price, ConfigError where a number of tokens is not one.

        >>> Prices({"qwen3-*": Rates("0.10", "0.40")}).most(model="qwen3-8b", tokens_in=1000, tokens_out=500)
        300000
        """
        for name, tokens in (("tokens_in", tokens_in), ("tokens_out", tokens_out)):
            if type(tokens) is not int or tokens < 0:
                raise ConfigError(f"{name} must be a whole number of tokens, not {tokens!r:.60}")
        merged = self._standard if context is None else _pairs({**self._context, **context})
        found = self._find(model, provider, merged)
        if isinstance(found, Row):
            return found.most(tokens_in, tokens_out, hour=hour)
        start = self._at or datetime.now(UTC)
        moments = [found.at(when) for when in found.turns(start)]
        return max(moment.most(tokens_in, tokens_out, hour=hour) for moment in moments)

    @property
    def card(self) -> tuple[str, ...]:
        """The keys of the user's own rates, in lower case."""
        return tuple(self._card)

    def announced(
        self, model: str, provider: str | None, start: datetime, reach: timedelta
    ) -> list[datetime]:
        """The moments after ``start``, at most ``reach`` later, from which the table lists another price."""
        found = self._find(model, provider, self._standard)
        return [] if isinstance(found, Row) else found.announced(start, reach)

    def _find(self, model: str | None, provider: str | None, context: _Context) -> Row | Listed:
        if not model:
            raise UnknownPrice("the response names no model, so it has no price")
        key = (model, provider, context)
        found = self._found.get(key)
        if found is None:
            if len(self._found) >= _MOST_FOUND:
                self._found.clear()
            found = self._on_card(model, provider) or lookup(model, provider, dict(context))
            found = self._found[key] = found or self._unknown(model, provider)
        if isinstance(found, str):
            raise UnknownPrice(found)
        return found

    def _on_card(self, model: str, provider: str | None) -> Row | None:
        if not self._card:
            return None
        name = model.lower()
        forms = [name, _DATED.sub("", name)]
        if provider:
            forms = [both for form in forms for both in (f"{provider.lower()}/{form}", form)]
        for form in forms:
            if form in self._card:
                return self._card[form]
        for glob in self._globs:
            if any(fnmatchcase(form, glob) for form in forms):
                return self._card[glob]
        return None

    def _unknown(self, model: str, provider: str | None) -> str:
        from difflib import get_close_matches

        near = get_close_matches(model[:200].lower(), [*self._card, *names()], n=3)
        return (
            f"no price is known for {model[:200]!r} ({provider or 'no provider named'}). "
            + (f"Near names: {', '.join(near)}. " if near else "")
            + f"Give your own: Kit(prices={{{model[:200]!r}: costkit.Rates(...)}}), "
            "or costkit.OwnGPU(...) for a model you serve"
        )


def _pairs(context: Mapping[str, str] | None) -> _Context:
    """A context without the names of the standard price, in a fixed order."""
    if context is None:
        return ()
    if not isinstance(context, Mapping) or not all(
        isinstance(name, str) and isinstance(value, str) for name, value in context.items()
    ):
        raise ConfigError(f"context must be like {{'processing': 'batch'}}, not {context!r:.80}")
    return tuple(sorted((name, value) for name, value in context.items() if value not in _STANDARD))


def _card_key(key: object, rates: object) -> str:
    if not isinstance(key, str) or not key.strip():
        raise ConfigError(f"prices: a key is a model, 'provider/model' or a glob, not {key!r:.80}")
    if not isinstance(rates, Rates | OwnGPU):
        kind = type(rates).__name__
        raise ConfigError(f"prices[{key!r}] must be costkit.Rates or costkit.OwnGPU, not {kind}")
    return key.strip().lower()


def _card_row(name: str, rates: Rates | OwnGPU) -> Row:
    classes, request = rates.nano()
    source: Source = "card" if isinstance(rates, Rates) else "own-gpu"
    return row(classes, request, source=source, version="", model=name)


def _specific(glob: str) -> tuple[int, str]:
    """Sorts the glob with the most literal characters first."""
    return -len(re.sub(r"\[.*?\]|[*?]", "", glob)), glob
