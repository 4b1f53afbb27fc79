"""A price row in integers: what turns token counts into nano-dollars, exactly and fast."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import lcm
from typing import Any, Literal

from costkit.call import Usage
from costkit.errors import UnknownPrice

Source = Literal["card", "genai-prices", "own-gpu"]
CLASSES = ("in_fresh", "cache_read", "cache_write_5m", "cache_write_1h", "out_text", "out_reasoning")
_RATE_LETTERS = frozenset("0123456789./")


@dataclass(frozen=True, slots=True)
class Priced:
    """The price of one attempt.

    ``cost`` is in nano-dollars, rounded half up once, on the total. ``price_id`` names the very price rows
    (and the table's version) that were used: equal ids, equal prices. ``assumed`` names token classes with
    tokens in them for which no price was listed, charged as fresh input or as other output. ``snapshot`` holds
    what the id stands for: ``source``, ``version``, ``model`` (the table's id, or the card's key) and ``rates``,
    each class's US dollars per million tokens and ``per_request`` in US dollars, as text for :func:`reprice`.
    """

    cost: int
    price_id: str
    source: Source
    assumed: tuple[str, ...] = ()
    snapshot: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Row:
    """Prices of each token class over one denominator, so that a cost is integers only.

    ``assumed`` are the classes charged at another's price; ``unpriced`` those that cannot be charged at all.
    """

    weights: tuple[int, ...]  # in the order of CLASSES
    request: int
    denominator: int
    price_id: str
    source: Source
    assumed: tuple[str, ...] = ()
    unpriced: tuple[str, ...] = ()
    snapshot: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def cost(self, usage: Usage) -> int:
        """Nano-dollars, rounded half up."""
        fresh, read, short, long, text, reasoning = self.weights
        total = (
            usage.in_fresh * fresh
            + usage.cache_read * read
            + usage.cache_write_5m * short
            + usage.cache_write_1h * long
            + usage.out_text * text
            + usage.out_reasoning * reasoning
            + self.request
        )
        return (2 * total + self.denominator) // (2 * self.denominator)

    def most(self, tokens_in: int, tokens_out: int, *, hour: bool) -> int:
        """Nano-dollars of the dearest call with so many tokens: all of them in the dearest class they may be in.

        Raises UnknownPrice where such tokens have no price.
        """
        used = ["in_fresh"] * (tokens_in > 0) + ["out_text"] * (tokens_out > 0)
        used += ["cache_write_1h"] * (hour and tokens_in > 0)
        for name in used:
            if name in self.unpriced:
                raise UnknownPrice(f"{self.snapshot.get('model')}: no price is listed for {name} tokens")
        fresh, read, short, long, text, reasoning = self.weights
        into = max(fresh, read, short, long if hour else 0)
        total = tokens_in * into + tokens_out * max(text, reasoning) + self.request
        return (2 * total + self.denominator) // (2 * self.denominator)

    def price(self, usage: Usage) -> Priced:
        """The cost with where it comes from."""
        used = tuple(name for name in self.assumed if getattr(usage, name)) if self.assumed else ()
        return Priced(self.cost(usage), self.price_id, self.source, used, self.snapshot)


def row(
    classes: Mapping[str, Fraction],
    request: Fraction,
    *,
    source: Source,
    version: str,
    model: str,
    assumed: tuple[str, ...] = (),
    unpriced: tuple[str, ...] = (),
) -> Row:
    """A row from nano-dollars per token; its id is a digest of every price in it and of ``version``."""
    prices = [classes[name] for name in CLASSES]
    denominator = lcm(*(price.denominator for price in [*prices, request]))
    named = [source, version, [str(price) for price in prices], str(request), unpriced]
    rates = {name: _text(classes[name] / 1000) for name in CLASSES if name not in unpriced}
    rates["per_request"] = _text(request / 10**9)
    price_id = hashlib.sha256(json.dumps(named).encode()).hexdigest()[:16]
    return Row(
        weights=tuple(int(price * denominator) for price in prices),
        request=int(request * denominator),
        denominator=denominator,
        price_id=price_id,
        source=source,
        assumed=assumed,
        unpriced=unpriced,
        snapshot={"source": source, "version": version, "model": model, "rates": rates},
    )


def reprice(usage: Usage, rates: Mapping[str, object]) -> int:
    """Nano-dollars of ``usage`` at stored rates: the ``rates`` of a snapshot, or of a row of the ledger's ``prices``.

    Agrees with the cost at that time to the nano-dollar. Raises UnknownPrice where a class with tokens in it has no
    rate, or one that is no number.

    >>> reprice(Usage(in_fresh=1000, out_text=500), {"in_fresh": "0.25", "out_text": "2", "per_request": "0"})
    1250000
    """
    total = _rate(rates, "per_request") * 10**9 if "per_request" in rates else Fraction(0)
    for name in CLASSES:
        if tokens := getattr(usage, name):
            total += tokens * _rate(rates, name) * 1000
    return (2 * total.numerator + total.denominator) // (2 * total.denominator)


def _rate(rates: Mapping[str, object], name: str) -> Fraction:
    told = rates.get(name)
    # No exponents, and nothing longer than a rate of ours can be: stored text could ask for a number of any size.
    if isinstance(told, str) and len(told) <= 2000 and set(told) <= _RATE_LETTERS:
        try:
            return Fraction(told)
        except (ValueError, ZeroDivisionError):
            pass
    raise UnknownPrice(f"the stored rates have no price for {name}: {told!r:.80}")


def _text(amount: Fraction) -> str:
    """Exact: a decimal number where there is one, else a fraction.

    >>> _text(Fraction(1, 40)), _text(Fraction(3)), _text(Fraction(1, 3))
    ('0.025', '3', '1/3')
    """
    rest, places = amount.denominator, 0
    for prime in (2, 5):
        times = 0
        while rest % prime == 0:
            rest, times = rest // prime, times + 1
        places = max(places, times)
    if rest != 1:
        return str(amount)
    digits = str(amount.numerator * 10**places // amount.denominator).rjust(places + 1, "0")
    return f"{digits[:-places]}.{digits[-places:]}" if places else digits
