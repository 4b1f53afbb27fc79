"""What a user pays: prices per token of a provider, or the hourly cost of an own GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction

from costkit.errors import ConfigError

Number = Decimal | str | int | float
Classes = Mapping[str, Fraction]  # nano-dollars per token, by the names of Usage's token classes

_MOST = 10**9  # dollars; more is a slip of the unit
_FINEST = -30  # decimal places of a price


@dataclass(frozen=True, slots=True, init=False)
class Rates:
    """A model's prices in US dollars per million tokens, ``per_request`` in dollars per call.

    A cache class left out costs what fresh input costs, reasoning what other output costs. Floats are taken
    as they print (0.1 is one tenth). Raises ConfigError naming the field for anything that is not a price.

    >>> Rates("0.25", 2, cache_read=0.025).cache_read
    Decimal('0.025')
    """

    in_fresh: Decimal
    out_text: Decimal
    cache_read: Decimal | None
    cache_write_5m: Decimal | None
    cache_write_1h: Decimal | None
    out_reasoning: Decimal | None
    per_request: Decimal

    def __init__(
        self,
        in_fresh: Number,
        out_text: Number,
        cache_read: Number | None = None,
        *,
        cache_write_5m: Number | None = None,
        cache_write_1h: Number | None = None,
        out_reasoning: Number | None = None,
        per_request: Number = 0,
    ) -> None:
        given = {
            "in_fresh": in_fresh,
            "out_text": out_text,
            "cache_read": cache_read,
            "cache_write_5m": cache_write_5m,
            "cache_write_1h": cache_write_1h,
            "out_reasoning": out_reasoning,
            "per_request": per_request,
        }
        optional = {"cache_read", "cache_write_5m", "cache_write_1h", "out_reasoning"}
        for name, value in given.items():
            missing = value is None and name in optional
            object.__setattr__(self, name, None if missing else _amount(f"Rates.{name}", value))

    def nano(self) -> tuple[Classes, Fraction]:
        """Nano-dollars per token of each class, and per request."""
        prices = {
            "in_fresh": self.in_fresh,
            "cache_read": self.cache_read,
            "cache_write_5m": self.cache_write_5m,
            "cache_write_1h": self.cache_write_1h,
            "out_text": self.out_text,
            "out_reasoning": self.out_reasoning,
        }
        fallback = {name: self.out_text if name.startswith("out") else self.in_fresh for name in prices}
        classes = {name: price if price is not None else fallback[name] for name, price in prices.items()}
        per_token = {name: Fraction(price) * 1000 for name, price in classes.items()}
        return per_token, Fraction(self.per_request) * 10**9


@dataclass(frozen=True, slots=True, init=False)
class OwnGPU:
    """A model on own or rented GPUs, priced by the share of its hour that a call takes.

    ``usd_per_hour`` is one GPU's cost with power, ``gpus`` how many serve the model together,
    ``tokens_per_second`` what they sustain together in weighted tokens at the load you run, ``utilisation``
    the share of the hour they are busy (idle time is paid by the calls). The weights say what a fresh input
    token, an output token and a cached one cost beside each other. Cache writes count as fresh input.
    A million weighted tokens cost ``1e6 * gpus * usd_per_hour / (3600 * tokens_per_second * utilisation)``.
    Raises ConfigError naming the field.

    >>> gpu = OwnGPU(usd_per_hour=2.5, tokens_per_second=700)
    >>> round(gpu.usd_per_mtok, 2)
    0.99
    """

    usd_per_hour: Decimal
    tokens_per_second: Decimal
    utilisation: Decimal
    gpus: Decimal
    weight_in: Decimal
    weight_out: Decimal
    weight_cached: Decimal

    def __init__(
        self,
        usd_per_hour: Number,
        tokens_per_second: Number,
        utilisation: Number = 1,
        *,
        gpus: Number = 1,
        weight_in: Number = 1,
        weight_out: Number = 1,
        weight_cached: Number = 0,
    ) -> None:
        given = {
            "usd_per_hour": usd_per_hour,
            "tokens_per_second": tokens_per_second,
            "utilisation": utilisation,
            "gpus": gpus,
            "weight_in": weight_in,
            "weight_out": weight_out,
            "weight_cached": weight_cached,
        }
        positive = {"tokens_per_second", "utilisation", "gpus"}
        for name, value in given.items():
            amount = _amount(f"OwnGPU.{name}", value)
            if amount == 0 and name in positive:
                raise ConfigError(f"OwnGPU.{name} must be over 0")
            object.__setattr__(self, name, amount)
        if self.utilisation > 1:
            raise ConfigError(f"OwnGPU.utilisation is a share of the hour, at most 1, not {self.utilisation}")

    @property
    def usd_per_mtok(self) -> float:
        """Dollars per million weighted tokens, for display."""
        return float(self._nano_per_weight() / 1000)

    def _nano_per_weight(self) -> Fraction:
        busy = 3600 * Fraction(self.tokens_per_second) * Fraction(self.utilisation)
        return Fraction(self.gpus) * Fraction(self.usd_per_hour) * 10**9 / busy

    def nano(self) -> tuple[Classes, Fraction]:
        """Nano-dollars per token of each class, and per request (none)."""
        price = self._nano_per_weight()
        weights = {
            "in_fresh": self.weight_in,
            "cache_read": self.weight_cached,
            "cache_write_5m": self.weight_in,
            "cache_write_1h": self.weight_in,
            "out_text": self.weight_out,
            "out_reasoning": self.weight_out,
        }
        return {name: price * Fraction(weight) for name, weight in weights.items()}, Fraction(0)


def _amount(name: str, value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, Decimal | str | int | float):
        raise ConfigError(f"{name} must be a number, not {type(value).__name__}")
    try:
        amount = Decimal(str(value)) if isinstance(value, float) else Decimal(value)
    except (InvalidOperation, ValueError):
        raise ConfigError(f"{name} must be a number, not {value!r:.60}") from None
    if not amount.is_finite() or amount < 0:
        raise ConfigError(f"{name} must be finite and not negative, not {amount}")
    exponent = amount.as_tuple().exponent
    if amount > _MOST or (isinstance(exponent, int) and exponent < _FINEST):
        raise ConfigError(f"{name} is {amount:.3g}: over {_MOST} or finer than {-_FINEST} decimal places")
    return amount
