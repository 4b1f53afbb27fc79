"""A price row in integers: what turns token counts into nano-dollars, exactly and fast."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import Literal

from costkit.call import Usage

Source = Literal["card", "genai-prices", "own-gpu"]
CLASSES = ("in_fresh", "cache_read", "cache_write_5m", "cache_write_1h", "out_text", "out_reasoning")


@dataclass(frozen=True, slots=True)
class Priced:
    """The price of one attempt.

    ``cost`` is in nano-dollars, rounded half up once, on the total. ``price_id`` names the very price rows
    (and the table's version) that were used: equal ids, equal prices. ``assumed`` names token classes with
    tokens in them for which no price was listed, charged as fresh input or as other output.
    """

    cost: int
    price_id: str
    source: Source
    assumed: tuple[str, ...] = ()


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

    def price(self, usage: Usage) -> Priced:
        """The cost with where it comes from."""
        used = tuple(name for name in self.assumed if getattr(usage, name)) if self.assumed else ()
        return Priced(self.cost(usage), self.price_id, self.source, used)


def row(
    classes: Mapping[str, Fraction],
    request: Fraction,
    *,
    source: Source,
    version: str,
    assumed: tuple[str, ...] = (),
    unpriced: tuple[str, ...] = (),
) -> Row:
    """A row from nano-dollars per token; its id is a digest of every price in it and of ``version``."""
    prices = [classes[name] for name in CLASSES]
    denominator = lcm(*(price.denominator for price in [*prices, request]))
    named = [source, version, [str(price) for price in prices], str(request), unpriced]
    price_id = hashlib.sha256(json.dumps(named).encode()).hexdigest()[:16]
    return Row(
        weights=tuple(int(price * denominator) for price in prices),
        request=int(request * denominator),
        denominator=denominator,
        price_id=price_id,
        source=source,
        assumed=assumed,
        unpriced=unpriced,
    )
