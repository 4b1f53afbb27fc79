"""The flow under its settings, stepped by hand: stale answers, remembered failures, budgets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from costkit.call import Attempt, Cost
from costkit.effects import Claimed, Held, Join, Keep, Land, Lead, Left, Lost, Raised, Refused, Taken
from costkit.errors import BudgetUnavailable, RecentFailure
from costkit.exact import exact
from costkit.store import Moment
from tests.flows import REQUEST, WALL, ended, entry, returned, run, spent, written

# --- stale-while-revalidate
STALE = replace(REQUEST, exact=exact(ttl="1m", stale="1h"))


def test_a_stale_answer_is_served_at_once_and_refreshed() -> None:
    """Past its ttl and within stale, an answer is served as stale, and one refresh is asked for."""
    step = run(entry(at=WALL - 61), None, None, request=STALE)
    assert step.names == "Lookup Refresh Write" and ended(step).saving == "stale"
    assert written(step).query.saved_by == "stale" and written(step).query.counterfactual_cost == 40
    fresh = run(entry(at=WALL - 59), None, request=STALE)
    assert fresh.names == "Lookup Write" and ended(fresh).saving == "exact"
    gone = run(entry(at=WALL - 3660, life=9999.0), request=STALE)
    assert gone.names == "Lookup Join"


def test_a_refresh_makes_the_call_alone() -> None:
    """A refresh leads without waiting, sees that the entry is stale yet, and makes the call."""
    old = entry(at=WALL - 61)
    step = run(Lead(), Claimed(), old, returned(), None, None, None, request=replace(STALE, role="refresh"))
    assert step.names == "Join Claim Lookup Call Keep Land Write"
    join = step.effects[0]
    assert isinstance(join, Join) and not join.wait and written(step).query.role == "refresh"


@pytest.mark.parametrize(
    ("replies", "names"),
    [
        ((Lost(alone=True),), "Join"),
        ((Lead(), Taken(160.0), entry(at=WALL - 61), None), "Join Claim Lookup Land"),
        ((Lead(), Claimed(), entry(at=WALL - 1), None), "Join Claim Lookup Land"),
    ],
    ids=["in this process", "in another", "made meanwhile"],
)
def test_a_refresh_under_way_is_not_made_twice(replies: tuple[Any, ...], names: str) -> None:
    """A refresh that somebody makes, or has made, is not made again, and leaves no row."""
    step = run(*replies, request=replace(STALE, role="refresh"))
    assert step.names == names and ended(step).error is None


# --- negative entries
NEGATIVE = replace(REQUEST, exact=exact(negative="10s"))


def test_a_failure_is_remembered() -> None:
    """With ``negative`` a failure is stored by its class alone, from when it came, and lands for the waiters."""
    step = run(None, Lead(), Claimed(), None, Raised(ValueError("secret"), spent(), Cost(), 0.5), None, None, None,
               None, request=NEGATIVE)  # fmt: skip
    assert step.names == "Lookup Join Claim Lookup Call Lookup Keep Land Write"
    keep = step.effects[6]
    assert isinstance(keep, Keep) and keep.entry.failed == "ValueError" and keep.entry.payload == b""
    assert (keep.entry.at, keep.entry.life) == (WALL + 0.5, 10.0) and "secret" not in str(keep.entry)
    again = run(keep.entry, None, request=replace(NEGATIVE, now=Moment(WALL + 5)))
    assert again.names == "Lookup Write" and written(again).query.error == "RecentFailure"
    assert isinstance(ended(again).error, RecentFailure) and "4.5 s ago (ValueError)" in str(
        ended(again).error
    )
    late = run(keep.entry, request=replace(NEGATIVE, now=Moment(WALL + 11)))
    assert late.names == "Lookup Join"
    unasked = run(keep.entry, request=replace(REQUEST, now=Moment(WALL + 5)))
    assert unasked.names == "Lookup Join", "a call that does not remember failures makes the call"


def test_waiters_of_a_remembered_failure_get_it() -> None:
    """With ``negative`` the followers of a failed leader get its very exception, without a second call."""
    error = ValueError("x")
    step = run(None, Lost(error), None, request=NEGATIVE)
    assert step.names == "Lookup Join Write" and ended(step).error is error


# --- money is held before it is spent
BUDGETED = replace(REQUEST, reserves=True)


def test_money_is_held_before_the_call_and_settled_with_its_row() -> None:
    """What is held is asked for after the claim and before the call, and settled in the row's own effect."""
    step = run(None, Lead(), Claimed(), None, Held(100), returned(), None, None, None, request=BUDGETED)
    assert step.names == "Lookup Join Claim Lookup Reserve Call Keep Land Write"
    write = written(step)
    assert write.settles and write.actual == 40 and write.durable and write.query.reserved == 100
    hit = run(entry(), None, request=BUDGETED)
    assert hit.names == "Lookup Write" and not written(hit).settles and written(hit).query.reserved is None


@pytest.mark.parametrize(("own", "actual"), [((), 0), (spent(None), 100), ((*spent(130), *spent(None)), 130)])
def test_what_is_settled(own: tuple[Attempt, ...], actual: int | None) -> None:
    """A call that spent nothing settles at 0; one whose cost is not known settles at all that was held, or
    at what is known of it where that is more."""
    step = run(
        None, Lead(), Claimed(), None, Held(100), returned(own=own), None, None, None, request=BUDGETED
    )
    assert written(step).settles and written(step).actual == actual and written(step).durable


@pytest.mark.parametrize("reply", [Refused(BudgetUnavailable("x")), Left(KeyboardInterrupt())])
def test_refused_before_anything_is_spent(reply: Refused | Left) -> None:
    """A refused call is not made; its flight goes to a follower, who may have a budget of his own."""
    step = run(None, Lead(), Claimed(), None, reply, None, None, request=BUDGETED)
    assert step.names == "Lookup Join Claim Lookup Reserve Land Write" and ended(step).error is reply.error
    land = step.effects[5]
    assert isinstance(land, Land) and land.gone and land.error is None and not written(step).settles
    assert written(step).query.provider_cost == 0 and written(step).query.error == type(reply.error).__name__
