"""Budgets as people write them, the windows they count in, and caps in memory."""

from __future__ import annotations

import copy
import pickle
import threading
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costkit.budget import (
    Budget,
    Hold,
    Purse,
    Refusal,
    amount,
    exceeded,
    line,
    parse,
    usd,
)
from costkit.errors import BudgetExceeded, BudgetUnavailable, ConfigError, CostkitError

NOW = datetime(2026, 11, 22, 15, 30, tzinfo=UTC).timestamp()  # a Sunday


@pytest.mark.parametrize(
    ("text", "cap", "window"),
    [
        ("5 USD", 5_000_000_000, None),
        ("0.05 USD/day", 50_000_000, "day"),
        ("100USD / Month", 100_000_000_000, "month"),
        ("0.000000001 usd/hour", 1, "hour"),
        ("0.1000000000000 USD/week", 100_000_000, "week"),
        ("1000000000 USD/total", 10**18, "total"),
        ("0 USD", 0, None),
    ],
)
def test_budgets_are_read(text: str, cap: int, window: str | None) -> None:
    """Amounts become nano-dollars exactly, whatever the spacing and the case."""
    (found,) = parse(text, "budget")
    assert (found.cap, found.window) == (cap, window)
    assert parse([text], "budget") == (found,)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        5,
        5.0,
        Decimal(5),
        True,
        "$5",
        "5 EUR",
        "-1 USD",
        "1e3 USD",
        "nan USD",
        "inf USD",
        "1,5 USD",
        "5 USD/year",
        "5 USD/day/day",
        "5 USD per day",
        "0.0000000001 USD",
        "1000000001 USD",
        "9" * 100_000 + " USD",
        "٥ USD",
        "5 USD\n/day; DROP",
        [],
        {},
        b"5 USD",
        ["5 USD", None],
        ["5 USD/day", "4 USD/day"],
        [["5 USD"]],
    ],
    ids=lambda text: repr(text)[:30],
)
def test_what_is_no_budget_is_refused(text: Any) -> None:
    """Anything else is an error that names the argument and shows how to write it."""
    with pytest.raises(ConfigError, match=r"^kit\.call\(budget=\.\.\.\): ") as caught:
        parse(text, "kit.call(budget=...)")
    assert len(str(caught.value)) < 250


def test_amounts() -> None:
    """An amount is text without a window, or the number 0; None is no budget at all."""
    assert (amount("0.02 USD", "max_cost"), amount(0, "max_cost"), parse(None, "budget")) == (
        20_000_000,
        0,
        (),
    )
    for wrong in ("0.02 USD/day", 1, 0.0, False, None, "2"):
        with pytest.raises(ConfigError, match="max_cost"):
            amount(wrong, "max_cost")


@given(st.integers(0, 10**18))
def test_dollars_are_written_as_they_are_read(nano: int) -> None:
    """What `usd` writes is read back as the same amount."""
    assert parse(usd(nano), "budget")[0].cap == nano


@pytest.mark.parametrize(
    ("window", "starts", "ends"),
    [
        ("hour", "2026-11-22T15:00", "2026-11-22T16:00"),
        ("day", "2026-11-22T00:00", "2026-11-23T00:00"),
        ("week", "2026-11-16T00:00", "2026-11-23T00:00"),
        ("month", "2026-11-01T00:00", "2026-12-01T00:00"),
        ("total", "1970-01-01T00:00", None),
    ],
)
def test_windows(window: str, starts: str, ends: str | None) -> None:
    """Windows begin at UTC hours, midnights, Mondays and firsts of the month."""
    found = line(Budget(1, window, ""), "kit", "all", NOW)
    assert datetime.fromtimestamp(found.starts, UTC) == datetime.fromisoformat(starts + "+00:00")
    assert (found.ends is None) == (ends is None)
    if ends is not None and found.ends is not None:
        assert datetime.fromtimestamp(found.ends, UTC) == datetime.fromisoformat(ends + "+00:00")


@given(st.floats(0, 4e9), st.sampled_from(["hour", "day", "week", "month"]))
def test_every_moment_is_in_one_window(now: float, window: str) -> None:
    """A window contains its moment, its last moment has the same id, and the next window another."""
    budget = Budget(1, window, "")
    found = line(budget, "kit", "all", now)
    assert found.ends is not None and found.starts <= now < found.ends
    assert line(budget, "kit", "all", found.starts).id == found.id
    assert line(budget, "kit", "all", found.ends - 0.5).id == found.id
    assert line(budget, "kit", "all", found.ends).id != found.id


def test_what_makes_a_budget_another_one() -> None:
    """Owner, window and start do; the cap and the label do not. Without a window there is no line."""
    day = Budget(1, "day", "")
    ids = {
        line(day, "kit", "all", NOW).id,
        line(day, "kit\x00", "all", NOW).id,
        line(day, "\ud800", "all", NOW).id,
        line(Budget(1, "week", ""), "kit", "all", NOW).id,
        line(day, "kit", "all", NOW + 86400).id,
    }
    assert len(ids) == 5
    assert line(Budget(2, "day", "x"), "kit", "every call", NOW).id == line(day, "kit", "all", NOW).id
    with pytest.raises(ValueError, match="no window"):
        line(Budget(1, None, "1 USD"), "kit", "all", NOW)


def test_a_purse_of_many_threads() -> None:
    """Thirty-two threads that take and settle never have more than the cap, and leave nothing held."""
    purse = Purse(100, "block")
    over: list[int] = []

    def work() -> None:
        for _ in range(200):
            if purse.take(7):
                if purse.spent + purse.held > 100 + 7:  # two reads, so one settle may fall between them
                    over.append(1)
                purse.settle(7, 0)
        for _ in range(10):
            if purse.take(3):
                purse.settle(3, 3)

    threads = [threading.Thread(target=work) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not over and (purse.held, purse.spent) == (0, 99)
    assert purse.refusal() == Refusal("block", 100, 99, 0, None)


def test_a_purse_counts_what_was_spent() -> None:
    """Unknown is all that was held, more than held is more; then only what costs nothing still passes."""
    purse = Purse(10, "block")
    assert purse.take(4) and purse.take(6) and not purse.take(1)
    purse.settle(4, None)
    purse.settle(6, 9)
    assert (purse.spent, purse.held, purse.refusal().left) == (13, 0, 0)
    assert purse.take(0) and not purse.take(1)
    with pytest.raises(ValueError, match="nano-dollars"):
        purse.take(-1)
    with pytest.raises(ValueError, match="nano-dollars"):
        Hold("a", -1, ())


def test_the_error_says_it_all() -> None:
    """The message has need, rest, cap, what is under way, the reset and the mend; so have the attributes."""
    refusal = Refusal("tenant=acme", 5_000_000_000, 4_900_000_000, 97_500_000, NOW)
    error = exceeded("app.ask", 12_000_000, refusal)
    assert isinstance(error, BudgetExceeded) and isinstance(error, CostkitError)
    assert str(error) == (
        "app.ask: this call may cost up to 0.012 USD, and the budget 'tenant=acme' has 0.0025 USD of 5 USD left "
        "(4.9 USD spent, 0.0975 USD held by calls under way); it starts anew at 2026-11-22 15:30 UTC. Nothing was "
        "spent; wait for that, raise the budget, or lower the call's output limit"
    )
    assert (error.needed, error.left, error.cap) == (12_000_000, 2_500_000, 5_000_000_000)
    assert (error.resets, error.label) == (NOW, "tenant=acme")


def test_no_wait_helps_a_call_larger_than_the_budget() -> None:
    """Where the budget could never hold the call, or never starts anew, waiting is not advised."""
    for refusal in (Refusal("b", 5, 0, 0, NOW), Refusal("b", 50, 45, 0, None)):
        assert "wait" not in str(exceeded("f", 10, refusal))


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])  # noqa: S301
def test_the_error_travels(again: Any) -> None:
    """Copied or pickled, to another process say, it keeps its message and its attributes."""
    error = exceeded("app.ask", 12, Refusal("b", 10, 4, 1, NOW))
    other = again(error)
    assert type(other) is BudgetExceeded and str(other) == str(error) and vars(other) == vars(error)


def test_a_damaged_record_is_another_error() -> None:
    """It is no excess that can be waited out: the error names the command that accepts the loss."""
    error = exceeded("app.ask", 12, Refusal("b", 10, 0, 0, None, damaged=True))
    assert isinstance(error, BudgetUnavailable) and "--accept-loss" in str(error)


def test_a_hostile_label_stays_one_line() -> None:
    """Control characters of a label do not reach the message, and a long one is cut."""
    text = str(exceeded("f", 1, Refusal("\x1b[31m\n" + "x" * 10_000, 0, 0, 0, None)))
    assert "\x1b" not in text and "\n" not in text and len(text) < 500
