"""Settings of the exact tier."""

from __future__ import annotations

from typing import Any

import pytest

from costkit.errors import ConfigError
from costkit.exact import exact, seconds


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (5, 5.0),
        (0.5, 0.5),
        ("90s", 90.0),
        ("15m", 900.0),
        ("12h", 43200.0),
        (" 1.5 d ", 129600.0),
        ("2w", 1209600.0),
    ],
)
def test_durations(given: float | str, expected: float) -> None:
    """Numbers are seconds, text has a unit."""
    assert seconds(given, "ttl") == expected == exact(ttl=given).ttl


@pytest.mark.parametrize(
    "wrong", [0, -1, "", "5", "1y", "d", "-1d", "1d2h", float("inf"), float("nan"), True]
)
def test_what_is_no_duration_is_refused(wrong: float | str) -> None:
    """The message names the argument, the value and what to write."""
    with pytest.raises(
        ConfigError, match=r"exact\(ttl=\.\.\.\): .* is not a duration; say seconds, or text such as"
    ):
        exact(ttl=wrong)


@pytest.mark.parametrize(
    ("value", "finish", "admitted"),
    [
        ("a", None, True),
        ("", "stop", True),
        ([], "end_turn", True),
        (None, "stop", False),
        ("a", "length", False),
        ("a", "LENGTH", False),
        ("a", "max_tokens", False),
        ("a", "content_filter", False),
        ("a", "refusal", False),
        ("a", "incomplete", False),
        ("a", "tool_calls", True),
    ],
)
def test_only_whole_answers_are_admitted(value: Any, finish: str | None, admitted: bool) -> None:
    """None, and what its provider cut off, filtered or refused, is not stored by default."""
    assert exact().admits(value, finish) is admitted


def test_the_users_admit_decides() -> None:
    """With admit=, it alone decides."""
    short = exact(admit=lambda value: len(value) < 3)
    assert short.admits("ab", "length") and not short.admits("abc", "stop")


def test_epochs_are_a_tuple() -> None:
    """One name or several are told apart from a name's letters."""
    assert exact(epoch="kb").epochs == ("kb",) and exact(epoch=("a", "b")).epochs == ("a", "b")
    assert exact().epochs == () and exact().ttl is None
