"""Who leads and who follows when a leader is overdue: one successor, however late each of its followers wakes."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from costkit import flight
from costkit.effects import Land, Lead
from costkit.flight import Flight, Flights


@dataclass
class Caller:
    """A call as the flights know it."""

    flight: Flight | None = None
    waited: Flight | None = None

    def inside(self, key: str) -> bool:
        return False


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(flight, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def join(flights: Flights, caller: Caller) -> Flight | None:
    """The flight to wait for; None for a leader."""
    joined = flights.join("k", "", caller, caller, patience=1.0)
    assert isinstance(joined, (Flight, Lead))
    return joined if isinstance(joined, Flight) else None


def test_nobody_leads_beside_the_successor_of_an_overdue_successor(clock: list[float]) -> None:
    """The follower that wakes last joins the flight under way, though the one after its own is overdue."""
    flights, first, second, third, late = Flights(), Caller(), Caller(), Caller(), Caller()
    assert join(flights, first) is None
    assert join(flights, second) is first.flight and join(flights, late) is first.flight
    failed = first.flight
    flights.land(Land("k", None, ValueError()), "", first)
    assert join(flights, second) is None and join(flights, third) is second.flight
    clock[0] = 2.0
    assert join(flights, third) is None
    assert late.waited is failed and join(flights, late) is third.flight


def test_a_stream_that_goes_on_is_not_its_own_successor(clock: list[float]) -> None:
    """A follower that gave a stalled stream up and joined it again, for it went on, moves on from it once it ends."""
    flights, leader, follower = Flights(), Caller(), Caller()
    assert join(flights, leader) is None and join(flights, follower) is leader.flight
    stream = leader.flight
    clock[0] = 2.0
    assert stream is not None and stream.overdue()
    stream.emit("chunk")
    assert join(flights, follower) is stream and stream.successor is None
    flights.land(Land("k", None, None, gone=True), "", leader)
    assert join(flights, follower) is None
