"""The semantic tiers of a kit: one for each wrapped function, which share gates and threads as they should."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import struct
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import costkit
from costkit import Kit
from costkit.embed import encoder_of
from costkit.semantic.features import Profiler
from tests.meanings import SERVE, SURE, Model, bag, gate_of, kit, meaning, model, opened, pool_of

__all__ = ["kit", "model"]

ONE, OTHER = "how do I get a refund", "how do I get my refund"


def wrapped(kit: Kit, function: Any) -> Any:
    """A function wrapped once more, as a program does that wraps it in each request."""
    return kit.call(meaning(), **SURE, scope=None, name="ask", version="1")(function)


def test_a_function_wrapped_twice_has_one_gate(kit: Kit, model: Model) -> None:
    """Two wrappings of a function called in turn keep their tiers and share the gate, and what one stored the other
    serves; the evidence is read once."""
    one, two = wrapped(kit, model.__call__), wrapped(kit, model.__call__)
    pools = pool_of(kit, one), pool_of(kit, two)
    one(ONE)
    opened(kit, one)
    for _ in range(3):
        assert (one.outcome(OTHER).saving, two.outcome(OTHER).saving) == ("semantic", "semantic")
    assert (pool_of(kit, one), pool_of(kit, two)) == pools
    assert gate_of(kit, one) is gate_of(kit, two) and model.asked == [ONE]


def test_wrappings_without_end_are_let_go(kit: Kit, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that is wrapped a thousand times over keeps a few tiers and one gate; the first wrapping works on."""
    monkeypatch.setattr("costkit.savings._MOST_POOLS", 8)
    first = wrapped(kit, model.__call__)
    first(ONE)
    opened(kit, first)
    for _ in range(50):
        assert wrapped(kit, model.__call__).outcome(OTHER).saving == "semantic"
    assert len(kit._pools._pools) == 8 and len(kit._pools._tended) == 1
    assert first.outcome(OTHER).saving == "semantic"


def test_words_cannot_be_looked_up_in_the_index(tmp_path: Path) -> None:
    """Without a secret too, the digests of a question's words are no function of the words alone: two folders have
    others, and whoever has the index's file but not the folder's key cannot tell them."""
    held = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        with Kit(folder) as kit:
            wrapped(kit, lambda question: "yes")("my oncologist prescribed tamoxifen")
        with closing(sqlite3.connect(folder / "index" / "vectors-1.db")) as con:
            ((body,),) = con.execute("SELECT body FROM entries").fetchall()
        key = (folder / "index.key").read_bytes()
        assert _has(body, hashlib.sha256(b"costkit words" + key).digest(), "tamoxifen")
        assert not _has(body, hashlib.sha256(b"costkit words").digest(), "tamoxifen")
        held.append(key)
    assert held[0] != held[1]
    with Kit(tmp_path / "three", secret=b"sixteen bytes or more") as kit:
        wrapped(kit, lambda question: "yes")(ONE)
    assert not (tmp_path / "three" / "index.key").exists()


def _has(body: bytes, key: bytes, word: str) -> bool:
    return struct.pack("<I", Profiler(key)._digest(word)) in body


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("harm", ["gone", "short"])
def test_a_lost_key_is_a_miss(tmp_path: Path, harm: str) -> None:
    """Rows whose words were digested with a key that is lost are not found, and those stored afterwards are."""
    with Kit(tmp_path / "kit") as kit:
        ask = wrapped(kit, lambda question: "yes")
        ask(ONE)
        opened(kit, ask)
    key = tmp_path / "kit" / "index.key"
    key.unlink() if harm == "gone" else key.write_bytes(b"few")
    with Kit(tmp_path / "kit") as kit:
        ask = wrapped(kit, lambda question: "yes")
        gate_of(kit, ask)._random = SERVE  # type: ignore[assignment]
        assert ask.outcome(OTHER).saving is None
        assert ask.outcome("how do I get the refund").saving == "semantic"


def test_a_slow_encoder_keeps_nobody_else_waiting(kit: Kit) -> None:
    """Beside forty calls whose encoder takes a tenth of a second, an async function without a semantic tier is
    answered as if it were alone."""

    def slow(texts: list[str]) -> list[list[float]]:
        time.sleep(0.1)
        return bag(texts)

    @kit.call(meaning(encoder=encoder_of(slow, name="slow/1")), **SURE, scope=None)
    async def ask(question: str) -> str:
        return question

    @kit.call(costkit.exact(), scope=None)
    async def plain(question: str) -> str:
        return question

    async def run() -> float:
        await plain("warm")
        asked = [asyncio.create_task(ask(f"question {number}")) for number in range(40)]
        await asyncio.sleep(0.05)
        began = time.monotonic()
        await plain("now")
        took = time.monotonic() - began
        assert not all(task.done() for task in asked)
        await asyncio.gather(*asked)
        return took

    assert asyncio.run(run()) < 0.5
