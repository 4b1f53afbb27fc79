"""Hard caps on money: what they say, what is left of them, and what one call holds of them.

A call holds the most it may cost before it runs and settles what it did cost afterwards. Caps with a window
("5 USD/day") are counted in the ledger, for all processes; those of a block or a call are a :class:`Purse`.
Money is integer nano-dollars, times are Unix seconds, windows begin at UTC.

>>> parse("0.05 USD/day", "kit.call(budget=...)")
(Budget(cap=50000000, window='day', text='0.05 USD/day'),)
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from .call import NANO
from .errors import BudgetExceeded, BudgetUnavailable, ConfigError

__all__ = [
    "Budget",
    "Hold",
    "Line",
    "Purse",
    "Refusal",
    "Settle",
    "amount",
    "exceeded",
    "line",
    "parse",
    "usd",
]

WINDOWS = ("hour", "day", "week", "month", "total")

# A billion dollars: sums of such amounts stay far inside SQLite's 64-bit integers.
MOST = 10**9 * NANO

_TEXT = re.compile(r"\s*([0-9]{1,12}(?:\.([0-9]{1,18}))?)\s*USD\s*(?:/\s*([a-z]+)\s*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Budget:
    """A cap as the user wrote it. ``window`` None: of one block, or of each call."""

    cap: int
    window: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """A budget with a window, at a moment: from ``starts`` until ``ends`` (None: never)."""

    id: str
    label: str
    cap: int
    starts: float
    ends: float | None


@dataclass(frozen=True, slots=True)
class Hold:
    """What one call holds in every line it comes under; ``id`` is the query's. Raises ValueError below zero."""

    id: str
    amount: int
    lines: tuple[Line, ...]

    def __post_init__(self) -> None:
        if self.amount < 0:
            raise ValueError(f"Hold: amount must be 0 or more nano-dollars, not {self.amount}")


@dataclass(frozen=True, slots=True)
class Settle:
    """What a call that held something has cost; ``actual`` None: unknown, so all that it held."""

    hold: Hold
    actual: int | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Which budget has too little left, and how it stands. ``damaged``: what was spent of it is not known."""

    label: str
    cap: int
    spent: int
    held: int
    ends: float | None
    damaged: bool = False

    @property
    def left(self) -> int:
        """What may still be held, never below zero."""
        return 0 if self.damaged else max(0, self.cap - self.spent - self.held)


def parse(budget: str | list[str] | tuple[str, ...] | None, where: str) -> tuple[Budget, ...]:
    """Read budgets: ``"5 USD"``, or with a window, ``"0.05 USD/day"``; several of them as a list.

    Only text is read, so that the currency is said. Windows are hour, day, week (from Monday), month and total.

    Raises:
        ConfigError: it is no such text, or two of them have the same window; names ``where``.

    >>> [b.window for b in parse(["0.02 USD", "1 USD/day"], "budget")]
    [None, 'day']
    """
    if budget is None:
        return ()
    texts = [budget] if isinstance(budget, str) else budget
    if not isinstance(texts, (list, tuple)) or not texts:
        raise ConfigError(
            f'{where}: write a budget as text like "5 USD" or "0.05 USD/day", not {budget!r:.80}'
        )
    found = tuple(_budget(text, where) for text in texts)
    windows = [b.window for b in found]
    if len(set(windows)) < len(windows):
        raise ConfigError(
            f"{where}: two budgets with the same window ({', '.join(b.text for b in found)}); keep one"
        )
    return found


def amount(text: object, where: str) -> int:
    """Nano-dollars of ``"0.02 USD"``; the number 0 stands for nothing.

    Raises:
        ConfigError: it is no such text; names ``where``.

    >>> amount("0.02 USD", "max_cost")
    20000000
    """
    if type(text) is int and text == 0:
        return 0
    found = _budget(text, where)
    if found.window is not None:
        raise ConfigError(f'{where}: an amount has no window; write "{usd(found.cap)}", not {text!r:.80}')
    return found.cap


def _budget(text: object, where: str) -> Budget:
    match = _TEXT.fullmatch(text) if isinstance(text, str) else None
    window = None if match is None or match[3] is None else match[3].lower()
    if match is None or not isinstance(text, str):
        raise ConfigError(f'{where}: write it as text like "5 USD" or "0.05 USD/day", not {text!r:.80}')
    if window is not None and window not in WINDOWS:
        raise ConfigError(
            f"{where}: {text!r:.80}: the window is one of {', '.join(WINDOWS)}, not {window!r:.40}"
        )
    if match[2] is not None and len(match[2].rstrip("0")) > 9:
        raise ConfigError(f"{where}: {text!r:.80}: money is counted in nano-dollars; at most nine decimals")
    cap = int(Decimal(match[1]) * NANO)
    if cap > MOST:
        raise ConfigError(f"{where}: {text!r:.80}: at most {MOST // NANO} USD")
    return Budget(cap, window, " ".join(text.split()))


def line(budget: Budget, owner: str, label: str, now: float) -> Line:
    """The budget in the window that ``now`` lies in. ``owner`` says whose it is, ``label`` says it to people.

    The cap is no part of the id: what was spent stays when the cap is raised.

    Raises:
        ValueError: the budget has no window.

    >>> line(parse("1 USD/day", "budget")[0], "kit", "all calls", 1_700_000_000.0).starts
    1699920000.0
    """
    if budget.window is None:
        raise ValueError(f"{budget.text}: has no window, so it is a Purse")
    starts, ends = _bounds(budget.window, now)
    text = json.dumps([owner, budget.window, starts])
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return Line(digest, label, budget.cap, starts, ends)


def _bounds(window: str, now: float) -> tuple[float, float | None]:
    if window == "total":
        return 0.0, None
    if window in ("hour", "day"):
        length = 3600.0 if window == "hour" else 86400.0
        return now // length * length, (now // length + 1) * length
    at = datetime.fromtimestamp(now, UTC)
    day = at.replace(hour=0, minute=0, second=0, microsecond=0)
    if window == "week":
        monday = day - timedelta(days=day.weekday())
        return monday.timestamp(), (monday + timedelta(days=7)).timestamp()
    first = day.replace(day=1)
    return first.timestamp(), (first + timedelta(days=32)).replace(day=1).timestamp()


class Purse:
    """A cap without a window, in memory: of a block, or of one call. For any number of threads.

    >>> purse = Purse(10, "this block")
    >>> purse.take(8), purse.take(3), purse.settle(8, 5), purse.take(3)
    (True, False, None, True)
    """

    def __init__(self, cap: int, label: str) -> None:
        self.cap, self.label = cap, label
        self.spent = self.held = 0
        self._lock = threading.Lock()

    def take(self, amount: int) -> bool:
        """Hold the amount, if so much is left."""
        if amount < 0:
            raise ValueError(f"Purse.take: 0 or more nano-dollars, not {amount}")
        with self._lock:
            if amount and self.spent + self.held + amount > self.cap:
                return False
            self.held += amount
            return True

    def settle(self, amount: int, actual: int | None) -> None:
        """What held ``amount`` has cost ``actual``; None: unknown, so all of it."""
        with self._lock:
            self.held -= amount
            self.spent += amount if actual is None else actual

    def refusal(self) -> Refusal:
        """How it stands."""
        with self._lock:
            return Refusal(self.label, self.cap, self.spent, self.held, None)

    def after_fork(self) -> None:
        """A thread that held the lock is not in the child."""
        self._lock = threading.Lock()


def exceeded(name: str, needed: int, refusal: Refusal) -> BudgetExceeded | BudgetUnavailable:
    """The error for a call of ``name`` that would need up to ``needed`` nano-dollars."""
    whose = f"the budget {refusal.label!r:.120}"
    if refusal.damaged:
        return BudgetUnavailable(
            f"{name}: the record of {whose} was damaged, so what was spent of it is not known; "
            "nothing was spent now. See `costkit doctor`; `costkit doctor --accept-loss` starts the budget anew"
        )
    under_way = f", {usd(refusal.held)} held by calls under way" if refusal.held else ""
    resets = "" if refusal.ends is None else f"; it starts anew at {_moment(refusal.ends)}"
    mend = "wait for that, raise" if refusal.ends is not None else "raise"
    if needed > refusal.cap:
        mend = "raise"
    return BudgetExceeded(
        f"{name}: this call may cost up to {usd(needed)}, and {whose} has {usd(refusal.left)} of "
        f"{usd(refusal.cap)} left ({usd(refusal.spent)} spent{under_way}){resets}. Nothing was spent; {mend} the "
        "budget, or lower the call's output limit",
        needed=needed,
        left=refusal.left,
        cap=refusal.cap,
        resets=refusal.ends,
        label=refusal.label,
    )


def usd(nano: int) -> str:
    """Dollars to the nano-dollar, as budgets are written.

    >>> usd(12_500_000), usd(5 * NANO)
    ('0.0125 USD', '5 USD')
    """
    text = f"{Decimal(nano) / NANO:f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} USD"


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
