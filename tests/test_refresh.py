"""Stale answers served at once while one call in the background replaces them, and failures remembered briefly."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from costkit import Kit, exact
from costkit.errors import ConfigError, RecentFailure
from tests import refreshing
from tests.refreshing import Clock, until

later = refreshing.later


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    with Kit(tmp_path / "kit") as kit:
        yield kit


def kinds(kit: Kit) -> list[tuple[str | None, str]]:
    with kit.ledger() as con:
        return [tuple(row) for row in con.execute("SELECT saved_by, role FROM queries ORDER BY id")]


def test_one_refresh_while_many_are_served_stale(kit: Kit, later: Clock) -> None:
    """Past its ttl the old answer is served to everybody at once, one refresh runs, then the new one is served."""
    go, calls = threading.Event(), []

    @kit.call(exact(ttl="1m", stale="1h"), scope=None)
    def ask(q: str) -> str:
        calls.append(q)
        if len(calls) > 1:
            assert go.wait(10)
        return f"answer {len(calls)}"

    assert ask("q") == "answer 1"
    later(90)
    assert [ask.outcome("q").saving for _ in range(20)] == ["stale"] * 20
    assert ask("q") == "answer 1"
    until(lambda: len(calls) == 2)
    go.set()
    until(lambda: ask("q") == "answer 2")
    assert ask.outcome("q").saving == "exact" and calls == ["q", "q"]
    assert kinds(kit).count((None, "refresh")) == 1


def test_a_refresh_that_fails_costs_no_answer(kit: Kit, later: Clock) -> None:
    """A failing refresh leaves the stale answer where it is, and is not tried again at once."""
    calls = []

    @kit.call(exact(ttl="1m", stale="1h", negative="1m"), scope=None)
    def ask(q: str) -> str:
        calls.append(q)
        if len(calls) > 1:
            raise ValueError("upstream is down")
        return "good"

    ask("q")
    later(90)
    assert [ask("q") for _ in range(3)] == ["good"] * 3
    until(lambda: len(calls) == 2 and kinds(kit).count((None, "refresh")) == 1)
    time.sleep(0.05)
    assert [ask("q") for _ in range(20)] == ["good"] * 20 and len(calls) == 2


def test_async_and_streams_refresh_too(tmp_path: Path, later: Clock) -> None:
    """Coroutines refresh in a task of their loop, streams are read to their end in the background."""
    with Kit(tmp_path / "kit") as kit:
        calls: list[str] = []
        settings = exact(ttl="1m", stale="1h")

        @kit.call(settings, scope=None)
        async def ask(q: str) -> str:
            calls.append("ask")
            return f"a{len(calls)}"

        @kit.call(settings, scope=None)
        async def words(q: str) -> AsyncIterator[str]:
            calls.append("words")
            yield "w"
            yield str(len(calls))

        @kit.call(settings, scope=None)
        def plain(q: str) -> Iterator[str]:
            calls.append("plain")
            yield "p"
            yield str(len(calls))

        async def both() -> tuple[str, list[str], list[str]]:
            result = await ask("q"), [w async for w in words("q")], list(plain("q"))
            for _ in range(200):
                await asyncio.sleep(0.005)
                if not kit._ports.refreshes._under:
                    break
            return result

        first = asyncio.run(both())
        later(90)
        assert asyncio.run(both()) == first and calls[3:].count("ask") == 1 and len(calls) == 6
        assert asyncio.run(both()) != first and len(calls) == 6


def test_arguments_changed_after_the_call_are_not_stored_under_its_key(kit: Kit, later: Clock) -> None:
    """A caller who appends to his list of messages does not have the answer to it stored for the shorter list."""
    sent = []

    @kit.call(exact(ttl="1m", stale="1h"), scope=None)
    def ask(messages: list[str]) -> str:
        sent.append(list(messages))
        while len(sent) == 2 and len(messages) == 1:
            time.sleep(0.001)
        return f"answer to {len(messages)}"

    messages = ["one"]
    ask(messages)
    later(90)
    ask(messages)
    messages.append("two")
    until(lambda: kinds(kit).count((None, "refresh")) == 1)
    assert ask(["one"]) == "answer to 1"


def test_a_refresh_is_in_nobodys_query(kit: Kit, later: Clock) -> None:
    """The money of a refresh is its own row's, not the caller's and not that of a call around it."""

    @kit.call(exact(ttl="1m", stale="1h"), scope=None)
    def inner(q: str) -> str:
        return q

    @kit.call(scope=None)
    def outer(q: str) -> str:
        return inner(q)

    outer("q")
    later(90)
    outer("q")
    until(lambda: kinds(kit).count((None, "refresh")) == 1)
    with kit.ledger() as con:
        row = con.execute("SELECT id, parent_id, root_id FROM queries WHERE role = 'refresh'").fetchone()
    assert row["parent_id"] is None and row["root_id"] == row["id"]


def test_negative_entries_are_short(kit: Kit, later: Clock) -> None:
    """A failed call is not made again for as long as ``negative`` says, then it is; nothing of its text is kept."""
    calls = []

    @kit.call(exact(ttl="1d", negative="10s"), scope=None)
    def ask(q: str) -> str:
        calls.append(q)
        raise ValueError("sk-secret")

    with pytest.raises(ValueError, match="sk-secret"):
        ask("q")
    with pytest.raises(RecentFailure, match="ValueError") as caught:
        ask("q")
    assert "secret" not in str(caught.value) and calls == ["q"]
    with pytest.raises(ValueError):
        ask("other")
    later(11)
    with pytest.raises(ValueError):
        ask("q")
    assert calls == ["q", "other", "q"]


def test_waiting_has_an_end(kit: Kit) -> None:
    """A call does not wait for another's answer longer than ``wait``: it makes its own, and both end well."""
    started, go, calls = threading.Event(), threading.Event(), []

    @kit.call(exact(wait=0.2), scope=None)
    def ask(q: str) -> str:
        calls.append(q)
        if len(calls) == 1:
            started.set()
            assert go.wait(10)
        return f"answer {len(calls)}"

    leader = threading.Thread(target=ask, args=("q",))
    leader.start()
    assert started.wait(10)
    begun = time.monotonic()
    assert ask("q") == "answer 2"
    assert 0.15 < time.monotonic() - begun < 5
    go.set()
    leader.join(10)
    assert calls == ["q", "q"]


def test_two_calls_that_wait_for_each_other_end(kit: Kit) -> None:
    """Two threads that each lead what the other follows get their answers when ``wait`` is over."""
    both = threading.Barrier(2)

    @kit.call(exact(wait=0.3), scope=None, key=lambda q, other: q)
    def ask(q: str, other: str | None) -> str:
        if other is None:
            return q
        both.wait(10)
        return q + ask(other, None)

    got: list[str] = []
    threads = [
        threading.Thread(target=lambda a=a, b=b: got.append(ask(a, b))) for a, b in (("x", "y"), ("y", "x"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(got) == 2


@pytest.mark.parametrize(
    "settings", [{"stale": "1h"}, {"ttl": 1, "stale": -1}, {"negative": "soon"}, {"wait": 0}]
)
def test_settings_that_are_none(settings: dict[str, object]) -> None:
    """Durations are checked where they are written, by name."""
    with pytest.raises(ConfigError, match=list(settings)[-1]):
        exact(**settings)  # type: ignore[arg-type]
