"""What the tests of leases share: keys, a virtual clock, and a claim that was granted."""

from __future__ import annotations

import pytest

from costkit.lease import Lease, Taken

KEY = "0123456789abcdef" * 4
OTHER = "f" * 64


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def held(got: Lease | Taken) -> Lease:
    assert isinstance(got, Lease) and got.held, got
    return got
