"""A real kit in a real folder: what is served, for how long, and what is not stored."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import costkit
from costkit import Kit, exact
from tests import kits
from tests.kits import COST, RESPONSE, answer, rows, spend

kit = kits.kit


def test_a_function(kit: Kit) -> None:
    """The first call runs and is paid; the second is served, free, and tells what it saved."""
    calls = []

    @kit.call(exact(ttl="1d"), scope=None)
    def ask(question: str, n: int = 1) -> str:
        calls.append(question)
        spend()
        return question.upper() * n

    assert ask("hi") == "HI"
    first, second = ask.outcome("hi", 2), ask.outcome(question="hi", n=2)
    assert calls == ["hi", "hi"]
    assert (first.value, first.saving, first.cost.provider, first.cost.saving) == ("HIHI", None, COST, 0)
    assert (second.value, second.saving, second.cost.provider, second.cost.saving) == (
        "HIHI",
        "exact",
        0,
        COST,
    )
    assert second.latency >= 0 and second.query_id == rows(kit)[-1]["id"]


def test_reference_switches_savings_off(kit: Kit) -> None:
    """Inside reference() every call runs, is marked as reference, and leaves the store as it was."""
    calls = []

    @kit.call(exact(), scope=None)
    def ask(q: str) -> int:
        calls.append(q)
        return len(calls)

    assert ask("q") == 1
    with costkit.reference():
        assert ask("q") == 2 and ask("q") == 3 and ask("new") == 4
    assert ask("q") == 1 and ask("new") == 5
    assert [r["role"] for r in rows(kit)] == ["call", "reference", "reference", "reference", "call", "call"]


def test_ttl_is_absolute(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer is served until its time has passed since it was made, however often it was read."""
    ask = kit.call(exact(ttl="1h"), scope=None)(answer)
    real, shift = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + shift[0])
    seen = []
    for shift[0] in (0, 1800, 3500, 3700, 3700 + 3500, -1000):
        seen.append(ask.outcome("q").saving)
    assert seen == [None, "exact", "exact", None, "exact", None]


def test_epoch_bump_is_a_miss_and_is_seen_by_another_kit(tmp_path: Path) -> None:
    """Bumping an epoch turns what was stored under it, and nothing else, into misses, in every open kit."""
    with Kit(tmp_path / "kit") as one, Kit(tmp_path / "kit") as two:
        first = one.call(exact(epoch="kb"), scope=None, name="a")(answer)
        second = two.call(exact(epoch="kb"), scope=None, name="a")(answer)
        other = two.call(exact(epoch="prices"), scope=None, name="b")(answer)
        first("q")
        other("q")
        assert second.outcome("q").saving == "exact"
        assert one.bump("kb") == 1
        assert second.outcome("q").saving is None and first.outcome("q").saving == "exact"
        assert other.outcome("q").saving == "exact"


def test_a_bump_is_not_outrun_by_a_call_under_way(kit: Kit) -> None:
    """A call that began before a bump does not answer one that began after it."""
    inside, go = threading.Event(), threading.Event()
    calls = []

    @kit.call(exact(epoch="kb"), scope=None)
    def ask() -> int:
        calls.append(1)
        number = len(calls)
        if number == 1:
            inside.set()
            assert go.wait(20)
        return number

    old = threading.Thread(target=ask)
    old.start()
    assert inside.wait(20)
    kit.bump("kb")
    assert ask() == 2
    go.set()
    old.join(20)
    assert ask() in (2, 3)  # the late answer of the old epoch is never served
    assert ask.outcome().saving == "exact"


def test_a_hit_is_never_an_alias(kit: Kit) -> None:
    """Neither the first caller's object nor a hit's is shared: changing one changes no other answer."""
    calls = []

    @kit.call(exact(), scope=None)
    def ask() -> dict[str, list[int]]:
        calls.append(1)
        return {"a": [1]}

    for _ in range(3):
        got = ask()
        assert got == {"a": [1]}
        got["a"].append(2)
    assert len(calls) == 1


def test_an_answer_made_of_a_cut_one_is_not_stored(kit: Kit) -> None:
    """A nested call that was cut off, or failed, keeps the outer answer out of the store; a good retry lets it in."""
    ends = ["length", "stop", "length", "stop"]

    @kit.call(scope=None, name="complete")
    def complete(q: str) -> dict[str, Any]:
        if q == "broken":
            raise ValueError(q)
        return {**RESPONSE, "choices": [{**RESPONSE["choices"][0], "finish_reason": ends.pop(0)}]}

    @kit.call(exact(), scope=None, name="ask")
    def ask(q: str, tries: int = 1) -> str:
        try:
            for _ in range(tries):
                complete(q)
        except ValueError:
            return "sorry"
        return "text"

    assert [ask.outcome("q").saving for _ in range(3)] == [None, None, "exact"]
    assert [ask.outcome("retry", tries=2).saving for _ in range(2)] == [None, "exact"]
    assert [ask.outcome("broken").saving for _ in range(2)] == [None, None]


def test_a_reader_that_changes_chunks_changes_its_own(kit: Kit) -> None:
    """What a stream's reader does to a chunk is neither stored nor seen by a follower."""

    @kit.call(exact(), scope=None)
    def ask(q: str) -> Iterator[dict[str, int]]:
        for i in range(3):
            yield {"n": i}

    for chunk in ask("q"):
        chunk["n"] = 99
    assert list(ask("q")) == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_a_shorter_ttl_holds_for_answers_made_under_a_longer_one(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ttl is what the running program says, not what the one that stored the answer said."""
    wrapped = [kit.call(exact(ttl=ttl), scope=None, name="ask", version="1")(answer) for ttl in ("1d", "1h")]
    now = time.time()
    wrapped[0]("q")
    monkeypatch.setattr(time, "time", lambda: now + 7200)
    assert [w.outcome("q").saving for w in wrapped] == ["exact", None]


def test_an_answer_that_cannot_be_stored_is_said(kit: Kit) -> None:
    """A value that would not come back as what it is passes through, with one warning that says why."""
    ask = kit.call(exact(), scope=None, name="ask")(lambda q: iter([q]))
    with pytest.warns(RuntimeWarning, match="ask: its answers cannot be stored .*list_iterator"):
        assert list(ask("q")) == ["q"]
    assert list(ask("q")) == ["q"]
