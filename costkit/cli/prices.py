"""``costkit prices``: which prices are in force, how old they are, what changed and what is unknown."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .common import Commands, add_folder, add_json, check_json, load, show

if TYPE_CHECKING:
    from ..prices import Prices

__all__ = ["add_prices"]


def add_prices(commands: Commands) -> None:
    """The parser of ``prices``."""
    parser = commands.add_parser(
        "prices",
        help="the prices in force: age, jumps, models without one",
        description="Reviews the price list and your rate card against the models of the last 30 days. Reads only.",
    )
    parser.add_argument(
        "--card", metavar="MODULE:NAME", help="your rate card: what you pass as Kit(prices=...)"
    )
    add_folder(parser)
    add_json(parser)
    parser.set_defaults(run=_prices)


def _prices(args: argparse.Namespace) -> int:
    from ..prices.review import review
    from ..report.read import reading

    check_json(args)
    prices = _card(args.card)
    with reading(args.folder) as con:
        found = review(con, prices, now=time.time())
    show(args, found.to_dict, found.table)
    return 0


def _card(name: str | None) -> Prices:
    from ..prices import Prices

    if name is None:
        return Prices(None)
    card: Any = load(name)
    if isinstance(card, Prices):
        return card
    if not isinstance(card, Mapping):
        raise ConfigError(
            f"--card {name}: is {type(card).__name__}; name a costkit.Prices, or a mapping of rates"
        )
    return Prices(card)
