"""What to do next, from signs in the record and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from shlex import quote

from .groups import Spender
from .read import clean, percent, usd

__all__ = ["Signs", "advise"]

_MANY = 0.05  # a share below which a sign is not worth a line
_MOST = 3


@dataclass(frozen=True, slots=True)
class Signs:
    """What the rules below look at; money in nano-dollars. ``repeats``: function, calls made, of them identical to an
    earlier one, whether a saving is set on it, and what the repeated ones cost.
    """

    queries: int = 0
    attempts: int = 0
    spend: int = 0
    refused: int = 0
    failed: int = 0
    missing: int = 0
    unpriced: tuple[tuple[str, int], ...] = ()
    estimated_share: float = 0.0
    estimated_streams: int = 0
    cut: int = 0
    hits: int = 0
    repeats: tuple[tuple[str, int, int, bool, int], ...] = ()
    unsaved: tuple[tuple[str, int], ...] = ()
    top: tuple[Spender, ...] = ()


def advise(signs: Signs) -> tuple[str, ...]:
    """At most three steps, the most telling first; always at least one.

    >>> advise(Signs())[0].partition(":")[0]
    'Nothing is recorded here yet'
    """
    if not signs.queries and not signs.attempts:
        return (
            "Nothing is recorded here yet: wrap the function that calls a model, "
            '@kit.call(costkit.exact(ttl="1d"), scope=None), and call it.',
        )
    found = [*_unknown(signs), *_money(signs), *_answers(signs), *_savings(signs)]
    return tuple(found[:_MOST]) or (_nothing(signs),)


def _unknown(signs: Signs) -> list[str]:
    found = []
    if signs.unpriced and signs.unpriced[0][0]:
        model, count = signs.unpriced[0]
        found.append(
            f"No price is known for {clean(model, 60)} ({_calls(count)}), so the cost is unknown: add it to your kit, "
            f"Kit(prices={{{clean(repr(model), 60)}: costkit.Rates(IN, OUT)}}) in USD per million tokens."
        )
    elif signs.unpriced:
        found.append(
            f"No model is named in {_calls(signs.unpriced[0][1])}, so they have no price: say which, "
            "costkit.record(response, model=...)."
        )
    if signs.missing > _MANY * signs.attempts:
        found.append(
            f"{signs.missing:,} of {_calls(signs.attempts)} show no usage, so their cost is unknown: return the "
            "provider's response from the wrapped function, or tell it with costkit.record(response)."
        )
    return found


def _money(signs: Signs) -> list[str]:
    found = []
    if signs.refused:
        found.append(
            f"A budget refused {_queries(signs.refused)}: the budgets above say which is spent; raise its cap, or "
            "cut what spends most."
        )
    if signs.estimated_streams and signs.estimated_share > _MANY:
        found.append(
            f"{percent(signs.estimated_share)} of the spend is estimated, {_calls(signs.estimated_streams)} of it "
            'streams: ask for their usage, stream_options={"include_usage": True}, and read streams to their end.'
        )
    elif signs.estimated_share > _MANY:
        found.append(
            f"{percent(signs.estimated_share)} of the spend is estimated from text: return the provider's response, or "
            "give it to costkit.record(response)."
        )
    return found


def _answers(signs: Signs) -> list[str]:
    found = []
    if signs.cut > _MANY * signs.attempts:
        found.append(
            f"{signs.cut:,} of {signs.attempts:,} answers were cut at their output limit and are not kept: raise "
            "max_tokens, or ask for shorter answers."
        )
    if signs.failed > _MANY * signs.queries:
        found.append(
            f"{signs.failed:,} of {_queries(signs.queries)} raised an error: `costkit why last` shows the newest query."
        )
    return found


def _savings(signs: Signs) -> list[str]:
    found = []
    for name, made, again, saving_set, paid in signs.repeats[:1]:
        if again > _MANY * made:
            mend = (
                "a longer ttl, or fewer epoch bumps, would have answered them: `costkit why last` tells which"
                if saving_set
                else 'put @kit.call(costkit.exact(ttl="1d"), ...) on it'
            )
            found.append(
                f"{again:,} of {_calls(made)} of {clean(name, 60)} repeat one ({usd(paid)}): {mend}."
            )
    if not found and signs.unsaved and not signs.hits:
        name, count = signs.unsaved[0]
        found.append(
            f"No saving is set on {clean(name, 60)} ({_calls(count)}), so repeated calls cannot be seen: put "
            'costkit.exact(ttl="1d") on it.'
        )
    return found


def _nothing(signs: Signs) -> str:
    if signs.top:
        first = signs.top[0]
        return (
            f"{clean(first.label, 60)} spends most ({percent(first.share)}): `costkit report --name "
            f"{clean(quote(first.label or ''))} --by day` shows since when."
        )
    return "Nothing stands out. `costkit doctor` checks the folder."


def _calls(count: int) -> str:
    return f"{count:,} model call{'s' if count != 1 else ''}"


def _queries(count: int) -> str:
    return f"{count:,} quer{'ies' if count != 1 else 'y'}"
