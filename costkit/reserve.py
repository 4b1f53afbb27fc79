"""The most a call may cost, and the money held for it in every budget it comes under."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from . import tokens
from .budget import Budget, Hold, Line, Purse, Refusal, amount, line
from .errors import ConfigError
from .plan import Plan
from .prices import Prices
from .tokens import Ratio

__all__ = ["Allowance", "Reservation", "most"]

LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
_MOST_OUTPUT = 10**9
_TIERS = (
    "flex",
    "priority",
    "scale",
)  # priced apart; the other names of a tier leave the choice to the provider
# Tokens that a chat template may add whatever is said (a default system prompt, role markers); a factor on a prompt of
# a few words does not cover them.
_TEMPLATE = 128


def most(
    plan: Plan, arguments: Mapping[str, Any], *, model: str | None, prices: Prices, ratio: Ratio | None
) -> tuple[int, int | None]:
    """The most nano-dollars this call may cost, and how many tokens of its input we counted (None: not counted).

    Input is what the arguments' text counts to, times the factor that reported usage has taught (``ratio``); output is
    the call's own limit; both at the dearest price that may apply.

    Raises:
        ConfigError: it cannot be told; the message says what to add.
        UnknownPrice: the model has no price.
    """
    if isinstance(plan.max_cost, int):
        return plan.max_cost, None
    if plan.max_cost is not None:
        return amount(plan.called(plan.max_cost, arguments), f"{plan.name}: max_cost"), None
    if model is None:
        raise ConfigError(
            f"{plan.name}(): a budget is in force, and no argument names the model, so what this call may cost cannot "
            'be told; say max_cost="0.01 USD", or max_cost=0 if it spends only through wrapped calls inside it'
        )
    out = _limit(plan, arguments) if plan.outputs else 0
    counted = tokens.count_arguments(arguments, model=model)
    template = 0 if tokens.is_openai(model) else _TEMPLATE
    tokens_in = math.ceil(counted * (ratio or Ratio()).bound(model)) + template
    tier = arguments.get("service_tier")
    context = {"service_tier": tier} if tier in _TIERS else None
    cost = prices.most(
        model=model, provider=plan.provider, tokens_in=tokens_in, tokens_out=out,
        hour=tokens.asks_hour(arguments), context=context,
    )  # fmt: skip
    return cost, counted


def _limit(plan: Plan, arguments: Mapping[str, Any]) -> int:
    limits: list[int] = [arguments[name] for name in LIMITS if type(arguments.get(name)) is int]
    if not limits or min(limits) < 0 or max(limits) > _MOST_OUTPUT:
        raise ConfigError(
            f"{plan.name}(): a budget is in force, and no argument limits the output ({', '.join(LIMITS)}), so what "
            'this call may cost cannot be told; pass max_tokens=..., or say max_cost="0.01 USD" where it is wrapped'
        )
    times = arguments.get("n")
    if isinstance(times, int):
        return max(limits) * max(1, times)
    # 3.0, or an array library's 3, is three as well.
    many = math.ceil(float(times)) if isinstance(times, Real) and math.isfinite(times) else 1
    return max(limits) * max(1, many)


@dataclass(frozen=True, slots=True)
class Allowance:
    """The budgets that calls made here come under: purses, and windowed ones with whose they are and their label."""

    purses: tuple[Purse, ...] = ()
    windowed: tuple[tuple[Budget, str, str], ...] = ()

    def under(self, budgets: tuple[Budget, ...], owner: str, label: str) -> Allowance:
        """These budgets too: one without a window is a new purse."""
        purses = [
            Purse(budget.cap, f"{budget.text} for {label}") for budget in budgets if budget.window is None
        ]
        windowed = [(budget, owner, label) for budget in budgets if budget.window is not None]
        return Allowance((*self.purses, *purses), (*self.windowed, *windowed))

    def __bool__(self) -> bool:
        return bool(self.purses or self.windowed)

    def inside(self, outer: Allowance, *, same_kit: bool) -> Allowance:
        """These, and those of the call around: its windowed budgets too, where they are in the same ledger."""
        windowed = (*outer.windowed, *self.windowed) if same_kit else self.windowed
        return Allowance(tuple(dict.fromkeys((*outer.purses, *self.purses))), tuple(dict.fromkeys(windowed)))

    def renewed(self, budgets: tuple[Budget, ...], label: str) -> Allowance:
        """For the same call in the background: windowed budgets hold on, and its own cap of each call, anew."""
        each = tuple(budget for budget in budgets if budget.window is None)
        return Allowance((), self.windowed).under(each, "", label)

    def lines(self, now: float) -> tuple[Line, ...]:
        """The windowed budgets, at the moment ``now`` (Unix seconds)."""
        return tuple(
            line(budget, owner, f"{budget.text} for {label}", now) for budget, owner, label in self.windowed
        )


_NONE = Allowance()


class Reservation:
    """What one call holds: in purses (this process) and in windowed budgets (the ledger), as of ``now``, Unix seconds.

    Calls inside this one come under all of its ``allowance`` too.
    """

    def __init__(self, id: str, allowance: Allowance = _NONE, now: float = 0.0) -> None:
        self.id, self.allowance, self.purses = id, allowance, allowance.purses
        self.lines = allowance.lines(now) if allowance.windowed else ()
        self.amount: int | None = None
        self.counted: int | None = None

    def __bool__(self) -> bool:
        return bool(self.purses or self.lines)

    def take(self, needed: int) -> Refusal | None:
        """Hold the amount in every purse, or in none and say which one has too little."""
        for number, purse in enumerate(self.purses):
            if not purse.take(needed):
                for taken in self.purses[:number]:
                    taken.settle(needed, 0)
                return purse.refusal()
        self.amount = needed
        return None

    def hold(self) -> Hold | None:
        """What the ledger is to hold; None where no windowed budget is in force."""
        if not self.lines or self.amount is None:
            return None
        return Hold(self.id, self.amount, self.lines)

    def settle(self, actual: int | None) -> int | None:
        """Give back what was not spent; returns what to settle the ledger's hold at, None where nothing is held."""
        held, self.amount = self.amount, None
        if held is None:
            return None
        spent = held if actual is None else actual
        for purse in self.purses:
            purse.settle(held, spent)
        return spent
