"""What the tests of refreshes share: a wall clock that moves on, and waiting for the background."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

Clock = Callable[[float], None]


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Sets the wall clock forward by so many seconds in all."""
    real = time.time

    def move(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: real() + seconds)

    return move


def until(true: Callable[[], bool]) -> None:
    """Wait for something that happens in the background."""
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)
