"""The semantic tier among other calls: nested ones, concurrent ones, cancelled ones, readers that leave."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import costkit
from costkit import Kit
from costkit.bound.tended import LABEL
from costkit.index import Index
from costkit.semantic.pool import Pool
from tests.drives import in_threads
from tests.meanings import (
    AUDIT,
    SERVE,
    SURE,
    Model,
    bag,
    evidence,
    gate_of,
    kit,
    meaning,
    model,
    opened,
    told,
)
from tests.suspended import throw_at
from tests.wrapping import until

__all__ = ["kit", "model"]

ONE, OTHER = "how do I get a refund", "how do I get my refund"


def test_outer_semantic_inner_exact(kit: Kit, model: Model) -> None:
    """An outer hit saves the inner call too; an inner exact hit does not keep the outer answer from standing."""

    @kit.call(costkit.exact(), scope=None)
    def inner(question: str) -> str:
        return model(question)

    @kit.call(meaning(), **SURE, scope=None)
    def outer(question: str) -> str:
        return inner(question)

    inner(ONE)
    outer(ONE)
    opened(kit, outer)
    assert outer.outcome(OTHER).saving == "semantic" and model.asked == [ONE]


def test_an_inner_hit_is_not_admitted_outside(kit: Kit, model: Model) -> None:
    """What a lossy saving answered inside is no reference: the outer call neither stores it nor takes it as label."""

    @kit.call(meaning(), **SURE, scope=None)
    def inner(question: str) -> str:
        return model(question)

    @kit.call(meaning(), **SURE, scope=None)
    def outer(question: str) -> str:
        return inner(question)

    inner(ONE)
    opened(kit, inner)
    assert outer(OTHER) == "All about the refund." and model.asked == [ONE]
    assert outer.outcome(OTHER).saving is None, "an answer of a lossy saving was stored"
    rows = evidence(kit, gate_of(kit, outer).id)
    assert [(row["kind"], row["wrong"]) for row in rows] == [("none", None)] * 2


def test_a_partly_read_inner_hit_is_not_admitted_outside(kit: Kit) -> None:
    """An outer call that reads only the first chunk of a served stream was answered by a lossy saving all the same."""

    @kit.call(meaning(), **SURE, scope=None)
    def inner(question: str) -> Iterator[str]:
        yield from ("14", " days")

    @kit.call(costkit.exact(), scope=None)
    def outer(question: str) -> str:
        return next(iter(inner(question)))

    list(inner(ONE))
    opened(kit, inner)
    assert outer(OTHER) == "14"
    assert outer.outcome(OTHER).saving is None


def test_a_partly_read_inner_async_hit_is_not_admitted_outside(kit: Kit) -> None:
    """The same of an async stream."""

    @kit.call(meaning(), **SURE, scope=None)
    async def inner(question: str) -> AsyncIterator[str]:
        yield "14"
        yield " days"

    @kit.call(costkit.exact(), scope=None)
    async def outer(question: str) -> str:
        return await anext(aiter(inner(question)))

    async def main() -> None:
        async for _ in inner(ONE):
            pass
        opened(kit, inner)
        assert await outer(OTHER) == "14"
        assert (await outer.outcome(OTHER)).saving is None

    asyncio.run(main())


def test_a_coalesced_lossy_answer_is_not_admitted_outside(kit: Kit, model: Model) -> None:
    """A follower of a call that a lossy saving answered inside hands that on: its caller stores nothing either."""
    entered, go = threading.Event(), threading.Event()

    @kit.call(meaning(), **SURE, scope=None)
    def inner(question: str) -> str:
        return model(question)

    @kit.call(costkit.exact(), scope=None)
    def middle(question: str) -> str:
        found = inner(question)
        entered.set()
        assert go.wait(30)
        return found

    @kit.call(costkit.exact(), scope=None)
    def outer(question: str) -> str:
        return middle(question)

    inner(ONE)
    opened(kit, inner)
    leader = threading.Thread(target=middle, args=(OTHER,))
    leader.start()
    assert entered.wait(10)
    follower = threading.Thread(target=outer, args=(OTHER,))
    follower.start()
    until(lambda: any(flight._condition._waiters for flight in kit._ports.flights._flights.values()))  # type: ignore[attr-defined]
    go.set()
    leader.join(10)
    follower.join(10)
    assert outer.outcome(OTHER).saving is None, "stored by way of a follower"


def test_an_audit_measures_the_whole_path(kit: Kit, model: Model) -> None:
    """While an outer call is audited, lossy savings inside stand aside, so that the audit gets its label."""

    @kit.call(meaning(), **SURE, scope=None)
    def inner(question: str) -> str:
        return model(question)

    @kit.call(meaning(), **SURE, scope=None)
    def outer(question: str) -> str:
        return inner(question)

    outer(ONE)
    opened(kit, inner)
    tended = opened(kit, outer, coin=AUDIT)
    assert outer(OTHER) == "All about the refund." and model.asked == [ONE, OTHER]
    assert [row["kind"] for row in evidence(kit, tended.id)] == ["none", "audit"]
    assert evidence(kit, tended.id)[-1]["wrong"] == 0


def test_identical_calls_at_once(kit: Kit) -> None:
    """Of 50 identical calls at once one is made, and one leaves a label."""
    calls = []
    go = threading.Event()

    @kit.call(meaning(), **SURE, scope=None)
    def ask(question: str) -> str:
        calls.append(question)
        go.wait(0.2 if question == OTHER else 0)
        return "14 days"

    ask(ONE)
    assert in_threads(50, lambda: ask(OTHER)) == ["14 days"] * 50
    assert calls == [ONE, OTHER] and told(kit) == [("none", None), ("declined", 0)]


def test_similar_calls_at_once(kit: Kit) -> None:
    """Of 50 calls at once that mean the same each one made leaves one label, and none is lost."""
    numbers = iter(range(50))

    @kit.call(meaning(), **SURE, scope=None)
    def ask(question: str, part: int) -> str:
        return "14 days"

    @kit.call(meaning(), **SURE, scope=None)
    def say(question: str) -> str:
        return "14 days"

    say(ONE)
    words = iter(
        [f"how do I get {word} refund" for word in (chr(97 + n % 26) * (2 + n // 26) for n in numbers)]
    )
    asked = list(words)
    feed = iter(asked)
    in_threads(50, lambda: say(next(feed)))
    assert len(told(kit)) == 51 and {wrong for kind, wrong in told(kit) if kind == "declined"} == {0}
    assert len({row["query_id"] for row in evidence(kit)}) == 51


def test_audits_of_identical_calls_at_once(kit: Kit) -> None:
    """Each of many audited calls at once is labelled, though one call answers them all: none drops out of the count."""
    calls = []

    @kit.call(meaning(), **SURE, scope=None)
    def ask(question: str) -> str:
        calls.append(question)
        threading.Event().wait(0.2 if question == OTHER else 0)
        return "14 days"

    ask(ONE)
    opened(kit, ask, coin=AUDIT)
    in_threads(8, lambda: ask(OTHER))
    assert calls == [ONE, OTHER] and told(kit)[1:] == [("audit", 0)] * 8


def slowly(texts: list[str]) -> list[list[float]]:
    """An encoder that is never done before it is waited for."""
    time.sleep(0.003)
    return bag(texts)


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit])
@pytest.mark.parametrize("coin", [SERVE, AUDIT], ids=["served", "audited"])
def test_stopped_at_every_suspension(kit: Kit, error: type[BaseException], coin: Any) -> None:
    """Cancelled or closed wherever it waits, a call leaves no flight and no claim; an audit its label, or says so."""

    @kit.call(meaning(encoder=slowly), **SURE, scope=None)
    async def ask(question: str) -> str:
        await asyncio.sleep(0)
        return "14 days"

    async def main() -> None:
        await ask(ONE)
        opened(kit, ask, coin=coin)
        for limit in range(1, 60):
            question = f"how do I get refund {'x' * limit}"
            if await throw_at(limit, ask(question), error) < limit:
                return
            assert len(kit._ports.flights) == 0
        raise AssertionError("it never came to its end")

    asyncio.run(main())
    kit._ports.pool().shutdown(wait=True)
    kit._ledger.flush()
    rows = evidence(kit)
    late = {row["query_id"] for row in rows if row["kind"] == "label"}
    for row in rows:
        bare = row["kind"] in ("none", "served", "unanswered") or row["query_id"] in late
        assert row["wrong"] == (None if bare and row["kind"] != "label" else 0), row
    assert ("unanswered" in {row["kind"] for row in rows}) == (coin is AUDIT)
    assert gate_of(kit, ask).follow() and gate_of(kit, ask)._waiting == {}


def test_closed_while_it_is_judged(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that closes a call waits for no judge; its word is written down when it comes."""
    began, go = threading.Event(), threading.Event()

    def slowly_wrong(self: Pool, *of: Any) -> bool:
        began.set()
        return go.wait(10)

    monkeypatch.setattr(Pool, "_wrong", slowly_wrong)

    @kit.call(meaning(), **SURE, scope=None)
    async def ask(question: str) -> str:
        return "14 days"

    async def main() -> float:
        await ask(ONE)
        opened(kit, ask, coin=AUDIT)
        call = ask(OTHER)
        pending = call.send(None)
        while True:
            pending._asyncio_future_blocking = False
            await asyncio.wait([pending], timeout=0.01)
            if began.is_set():
                break
            if pending.done():
                pending = call.send(None)
        since = time.monotonic()
        call.close()
        return time.monotonic() - since

    try:
        assert asyncio.run(main()) < 0.5
    finally:
        go.set()
    kit._ports.pool().shutdown(wait=True)
    kit._ledger.flush()
    assert told(kit) == [("none", None), ("audit", None), (LABEL, 1)]


def test_streams_cancelled_at_every_suspension(kit: Kit) -> None:
    """An audited stream that is cancelled wherever it waits says that it was not answered, or is judged."""

    @kit.call(meaning(), **SURE, scope=None)
    async def ask(question: str) -> AsyncIterator[str]:
        for word in ("14", " days"):
            await asyncio.sleep(0)
            yield word

    async def read(question: str) -> None:
        stream = ask(question)
        try:
            async for _ in stream:
                pass
        finally:
            await stream.aclose()  # type: ignore[attr-defined]

    async def main() -> None:
        await read(ONE)
        opened(kit, ask, coin=AUDIT)
        for limit in range(1, 60):
            if (
                await throw_at(limit, read(f"how do I get refund {'x' * limit}"), asyncio.CancelledError)
                < limit
            ):
                return
        raise AssertionError("it never came to its end")

    asyncio.run(main())
    kit._ledger.flush()
    found = {(row["kind"], row["wrong"]) for row in evidence(kit) if row["kind"] != "none"}
    assert found == {("unanswered", None), ("audit", 0)}


def test_a_reader_that_leaves(kit: Kit) -> None:
    """A stream left half way is no reference: no label, no entry for its meaning."""

    @kit.call(meaning(), **SURE, scope=None)
    def ask(question: str) -> Iterator[str]:
        yield from ("14", " days")

    stream = ask(ONE)
    next(iter(stream))
    stream.close()  # type: ignore[attr-defined]
    assert told(kit) == []
    opened(kit, ask)
    assert list(ask(OTHER)) == ["14", " days"] and told(kit) == [("none", None)]


def test_the_event_loop_is_not_held_up(kit: Kit) -> None:
    """A slow encoder and a slow index are waited for in a thread, not in the loop."""
    beats = []

    def slow(texts: list[str]) -> list[list[float]]:
        threading.Event().wait(0.2)
        return [[1.0, 0.0] for _ in texts]

    encoder = costkit.embed.encoder_of(slow, name="slow/1")

    @kit.call(meaning(encoder=encoder), **SURE, scope=None)
    async def ask(question: str) -> str:
        return "14 days"

    async def beat() -> None:
        loop = asyncio.get_running_loop()
        while True:
            beats.append(loop.time())
            await asyncio.sleep(0.005)

    async def main() -> None:
        ticking = asyncio.ensure_future(beat())
        await ask(ONE)
        beats.clear()
        await ask(OTHER)
        ticking.cancel()

    asyncio.run(main())
    assert max(b - a for a, b in itertools.pairwise(beats)) < 0.15


def test_a_candidate_that_cannot_be_read(kit: Kit, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the stored answer turns out unreadable the call is made, admitted, and counts as one without candidate."""

    @kit.call(meaning(), **SURE, scope=None)
    def ask(question: str) -> str:
        return model(question)

    ask(ONE)
    opened(kit, ask)
    from costkit import codec
    from costkit.store import Entry

    def unreadable(self: Entry) -> Any:
        raise codec.Unreadable("gone")

    with monkeypatch.context() as patched:
        patched.setattr(Entry, "value", unreadable)
        assert ask.outcome(OTHER).saving is None
    assert told(kit)[-1] == ("none", None)
    scope = next(iter(kit._pools._pools.values()))
    assert isinstance(scope._index, Index) and ask.outcome("how do I get the refund").saving == "semantic"
