"""What ``costkit prices`` shows: which prices are in force for the models in use, and what about them needs a look."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from costkit.call import Usage
from costkit.errors import UnknownPrice
from costkit.prices import Priced, Prices, reprice
from costkit.prices.listed import installed, newest
from costkit.prices.rows import CLASSES

if TYPE_CHECKING:
    from rich.console import Group

DAYS = 30
RECORDED = "as last recorded"
_MOST_MODELS = 1000

_SUMS = ", ".join(f"COALESCE(SUM({name}), 0)" for name in CLASSES)
_MODELS = f"""
SELECT model, provider, COUNT(*), COALESCE(SUM(cost), 0), SUM(cost IS NULL), {_SUMS}
FROM attempts WHERE at >= ? AND typeof(model) = 'text' AND typeof(provider) <> 'blob'
GROUP BY model, provider ORDER BY COUNT(*) DESC, model LIMIT ?"""
_USED = """
SELECT a.model, a.provider, a.price_id, MIN(a.at), MAX(a.at), p.rates, p.source
FROM attempts a LEFT JOIN prices p ON p.price_id = a.price_id
WHERE typeof(a.model) = 'text' AND typeof(a.at) = 'real' AND a.price_id IS NOT NULL GROUP BY 1, 2, 3 ORDER BY 1, 2, 4"""
_STATES = """
SELECT usage_state, COUNT(*), COALESCE(SUM(cost), 0) FROM attempts WHERE at >= ? GROUP BY usage_state"""


@dataclass(frozen=True, slots=True)
class InForce:
    """A model in use. ``rates`` (USD per million tokens, as text) are today's for a short call, None where unknown.

    ``entry`` is the table's id or the card's key, or says that a card's rates are shown as last recorded, because no
    card was given. ``cost`` is what its calls cost in nano-dollars, those of unknown cost left out (``unknown``
    counts them).
    ``assumed`` and ``unpriced`` name token classes its calls have used for which no price is listed: charged as
    another, or not charged at all.
    """

    model: str
    provider: str | None
    calls: int
    cost: int
    unknown: int
    source: str | None
    entry: str | None
    rates: Mapping[str, str] | None
    problem: str | None = None
    assumed: tuple[str, ...] = ()
    unpriced: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """Another price for a model from ``at`` on (Unix seconds): seen in its calls, or announced in the table.

    ``ratio`` is what the model's tokens of the last 30 days cost after it over what they cost before, None where it
    cannot be told. ``back`` says that the price before was used again later: a longer prompt, another hour or tier
    rather than a new price.
    """

    model: str
    provider: str | None
    at: float
    before: Mapping[str, str] | None
    after: Mapping[str, str] | None
    ratio: float | None
    back: bool = False


@dataclass(frozen=True, slots=True)
class PricesReview:
    """The price list and the rate card against the models of the last 30 days.

    ``newest`` is the last day on which a price of the installed table begins: the table carries no date of its own,
    and its data is at most as old as that. Shares are of calls (``missing``, ``estimated``) and of money
    (``estimated_cost``), None where there were none.
    """

    version: str
    newest: date | None
    age_days: int | None
    calls: int
    missing: float | None
    estimated: float | None
    estimated_cost: float | None
    models: tuple[InForce, ...] = ()
    jumps: tuple[Change, ...] = ()
    announced: tuple[Change, ...] = ()
    unused: tuple[str, ...] = field(default=())

    @property
    def next_steps(self) -> tuple[str, ...]:
        """What to do about it, the dearest first."""
        steps: list[str] = []
        if lacking := [found for found in self.models if found.rates is None]:
            name = lacking[0].model[:200]
            steps.append(
                f"{len(lacking)} model(s) have no price. Give it: Kit(prices={{{name!r}: costkit.Rates(IN, OUT)}}) "
                "in USD per million tokens, or costkit.OwnGPU(...) for one you serve."
            )
        if any(found.entry == RECORDED for found in self.models):
            steps.append(
                "Your own rates are shown as last recorded: name the card, --card MODULE:NAME, to review it."
            )
        if classes := sorted({name for found in self.models for name in (*found.unpriced, *found.assumed)}):
            steps.append(
                f"No price is listed for {', '.join(classes)} of some models: put yours on the rate card."
            )
        if any(not jump.back and jump.ratio != 1 for jump in self.jumps):
            steps.append(
                "A price has changed: compare with the invoice, and put your own on the rate card if it differs."
            )
        if self.announced:
            steps.append("A price will change: reckon with it, and look again after that day.")
        if self.missing:
            steps.append(
                "Calls report no usage: pass the response to costkit.record(), or ask streams to include it."
            )
        if self.unused:
            steps.append(f"Nothing used these rates, look at their spelling: {', '.join(self.unused[:5])}.")
        if self.age_days is None or self.age_days > 90:
            steps.append("The newest price is months old: pip install -U 'genai-prices<0.3'.")
        return tuple(steps) or ("Nothing to do.",)

    def to_dict(self) -> dict[str, Any]:
        """The same as data for JSON: money in nano-dollars, times in Unix seconds, rates as text."""
        told = asdict(self)
        told["newest"] = None if self.newest is None else self.newest.isoformat()
        return told | {"next_steps": list(self.next_steps)}

    def table(self) -> Group:
        """The same for a rich Console; everything from outside is text, never markup or control codes."""
        from costkit.prices.review_table import to_table

        return to_table(self)


def review(con: sqlite3.Connection | None, prices: Prices, *, now: float) -> PricesReview:
    """Review ``prices`` against the calls in a ledger (None: there is none yet) at ``now`` in Unix seconds.

    Reads only. Raises sqlite3.Error where the ledger cannot be read.

    >>> found = review(None, Prices(), now=1795392000.0)
    >>> found.calls, found.models, found.version.startswith("genai-prices ")
    (0, (), True)
    """
    moment, since = datetime.fromtimestamp(now, UTC), now - DAYS * 86_400
    states: dict[str, tuple[int, int]] = {}
    models: list[InForce] = []
    tokens: dict[tuple[str, str | None], Usage] = {}
    used: list[Any] = []
    own: dict[tuple[str, str | None], tuple[str, str, Mapping[str, str]]] = {}
    if con is not None:
        used = con.execute(_USED).fetchall()
        own = {} if prices.card else _own(used)
        states = {state: (calls, cost) for state, calls, cost in con.execute(_STATES, (since,))}
        for model, provider, calls, cost, unknown, *sums in con.execute(_MODELS, (since, _MOST_MODELS)):
            tokens[model, provider] = usage = _usage(sums)
            counts = (calls, cost, unknown)
            if (model, provider) in own:
                models.append(InForce(model, provider, *counts, *own[model, provider]))
            else:
                models.append(_in_force(prices, (model, provider), counts, usage, moment))
    on_card = {found.entry for found in models if found.source != "genai-prices"}
    first = newest(moment)
    calls = sum(count for count, _ in states.values())
    money = sum(cost for _, cost in states.values())
    guessed = states.get("estimated", (0, 0))
    return PricesReview(
        version=installed(),
        newest=first,
        age_days=None if first is None else (moment.date() - first).days,
        calls=calls,
        missing=states.get("missing", (0, 0))[0] / calls if calls else None,
        estimated=guessed[0] / calls if calls else None,
        estimated_cost=guessed[1] / money if money else None,
        models=tuple(models),
        jumps=_jumps(used, tokens, since),
        announced=_announced(prices, {k: v for k, v in tokens.items() if k not in own}, moment),
        unused=tuple(key for key in prices.card if key not in on_card),
    )


def _own(used: Sequence[Any]) -> dict[tuple[str, str | None], tuple[str, str, Mapping[str, str]]]:
    """Models that the user's own rates priced last: what holds for them is on a card that is not here."""
    last: dict[tuple[str, str | None], tuple[float, Any, Any]] = {}
    for model, provider, _, _, at, rates, source in used:
        if at >= last.get((model, provider), (at,))[0]:
            last[model, provider] = (at, rates, source)
    return {
        key: (source, RECORDED, stored)
        for key, (_, rates, source) in last.items()
        if source in ("card", "own-gpu") and (stored := _stored(rates)) is not None
    }


def _in_force(
    prices: Prices, who: tuple[str, str | None], counts: tuple[int, int, int], usage: Usage, moment: datetime
) -> InForce:
    model, provider = who
    priced, problem = None, None
    assumed: list[str] = []
    unpriced: list[str] = []
    try:
        prices.check(model, provider)
        priced = _price(prices, model, provider, Usage(), moment)
        for name in CLASSES:
            if getattr(usage, name):
                try:
                    single = _usage([name == used for used in CLASSES])
                    assumed += _price(prices, model, provider, single, moment).assumed
                except UnknownPrice:
                    unpriced.append(name)
    except UnknownPrice as exc:
        problem = str(exc)
    told: Mapping[str, Any] = {} if priced is None else priced.snapshot
    return InForce(
        model, provider, *counts, told.get("source"), told.get("model"), told.get("rates"),
        problem, tuple(assumed), tuple(unpriced),
    )  # fmt: skip


def _usage(counts: Sequence[Any]) -> Usage:
    fresh, read, short, long, text, reasoning = (int(count) for count in counts)
    return Usage(fresh, read, short, long, text, reasoning)


def _price(prices: Prices, model: str, provider: str | None, usage: Usage, when: datetime) -> Priced:
    return prices.price(usage, model=model, provider=provider, when=when)


def _jumps(
    used: Sequence[Any], tokens: Mapping[tuple[str, str | None], Usage], since: float
) -> tuple[Change, ...]:
    found: list[Change] = []
    before: tuple[Any, ...] | None = None
    for row in used:
        model, provider, _, at, _, rates, _ = row
        if before is not None and tuple(before[:2]) == (model, provider) and at >= since:
            old, new = _stored(before[5]), _stored(rates)
            if old is None or old != new:  # the same rates in another version of the table are no change
                usage = tokens.get((model, provider))
                back = before[4] >= at
                found.append(Change(model, provider, at, old, new, _ratio(usage, old, new), back))
        before = row
    return tuple(sorted(found, key=lambda change: -change.at)[:_MOST_MODELS])


def _announced(
    prices: Prices, tokens: Mapping[tuple[str, str | None], Usage], moment: datetime
) -> tuple[Change, ...]:
    found: list[Change] = []
    for (model, provider), usage in tokens.items():
        try:
            for at in prices.announced(model, provider, moment, timedelta(days=DAYS)):
                eve = at - timedelta(microseconds=1)
                old = _price(prices, model, provider, Usage(), eve).snapshot["rates"]
                new = _price(prices, model, provider, Usage(), at).snapshot["rates"]
                if old != new:
                    found.append(Change(model, provider, at.timestamp(), old, new, _ratio(usage, old, new)))
        except UnknownPrice:
            continue
    return tuple(sorted(found, key=lambda change: change.at))


def _stored(rates: object) -> Mapping[str, str] | None:
    try:
        told = json.loads(rates) if isinstance(rates, str) else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or not all(isinstance(value, str) for value in told.values()):
        return None
    return told


def _ratio(
    usage: Usage | None, before: Mapping[str, str] | None, after: Mapping[str, str] | None
) -> float | None:
    if usage is None or before is None or after is None:
        return None
    try:
        old = reprice(usage, before)
        return reprice(usage, after) / old if old else None
    except UnknownPrice:
        return None
