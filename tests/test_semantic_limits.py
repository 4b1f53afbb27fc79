"""What is never served: another namespace, scope, epoch, version or model; what is old or damaged; what is no text."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import costkit
from costkit import Kit
from costkit.semantic.claimed import claimed
from tests.meanings import (
    AUDIT,
    SERVE,
    SURE,
    bag,
    gate_of,
    kit,
    meaning,
    opened,
    poisoned,
    told,
)

__all__ = ["kit"]

ONE, OTHER = "how do I get a refund", "how do I get my refund"
SYSTEM = {"role": "system", "content": "Be brief"}


def said(content: Any, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": content}


def chat(kit: Kit) -> Any:
    @kit.call(meaning("messages"), **SURE, scope=None)
    def ask(messages: Any, *, model: str = "m", temperature: float = 0.0, tools: Any = None) -> str:
        return "14 days"

    return ask


@pytest.mark.parametrize(
    ("messages", "more"),
    [
        ([said("Be rude", "system"), said(OTHER)], {}),
        ([SYSTEM, said("Hi"), said("Hello", "assistant"), said(OTHER)], {}),
        ([said(OTHER)], {}),
        ([SYSTEM, said(OTHER)], {"temperature": 1.0}),
        ([SYSTEM, said(OTHER)], {"tools": [{"name": "pay"}]}),
        ([SYSTEM, said([{"type": "text", "text": OTHER}])], {}),
        ([SYSTEM, {**said(OTHER), "name": "root"}], {}),
        (
            [
                SYSTEM,
                said([{"type": "text", "text": OTHER}, {"type": "image_url", "image_url": {"url": "x"}}]),
            ],
            {},
        ),
        (OTHER, {}),
    ],
)
def test_all_but_the_last_text_must_be_identical(kit: Kit, messages: Any, more: dict[str, Any]) -> None:
    """Another system prompt, earlier turn, tool, temperature, image or form of message never shares an answer."""
    ask = chat(kit)
    ask([SYSTEM, said(ONE)])
    opened(kit, ask, model="m")
    assert ask.outcome(messages, **more).saving is None and told(kit)[-1] == ("none", None)
    assert ask.outcome([SYSTEM, said("how do I get the refund")]).saving == "semantic"


def test_another_model_is_another_gate(kit: Kit) -> None:
    """A model's answers and its evidence stand for no other model."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(type(kit.prices), "check", lambda *args, **kwargs: None)
        ask = chat(kit)
        ask([SYSTEM, said(ONE)], model="m")
        opened(kit, ask, model="m")
        assert ask.outcome([SYSTEM, said(OTHER)], model="m2").saving is None
        assert gate_of(kit, ask, "m2").id != gate_of(kit, ask, "m").id


@pytest.mark.parametrize(
    "messages",
    [
        [], [SYSTEM], [said(ONE, "assistant")], [said(ONE, "tool")], [said("")], [said(" \n")], [said(None)],
        [said([{"type": "image_url", "image_url": {"url": "x"}}])], [said(5)], None, "", "  ",
    ],
    ids=str,
)  # fmt: skip
def test_no_text_to_go_by(kit: Kit, messages: Any) -> None:
    """Where the last message is no user's text, the call takes the exact path alone."""
    ask = chat(kit)
    assert ask(messages) == "14 days" and ask.outcome(messages).saving == "exact"
    assert told(kit) == []


@pytest.mark.parametrize("given", [["plain"], 7, {"question": ONE}], ids=str)
def test_an_argument_that_is_no_text_is_told_once(kit: Kit, given: Any) -> None:
    """Where the claimed argument can never be asked in other words, a warning says so, once."""
    ask = chat(kit)
    with pytest.warns(RuntimeWarning, match="'messages' is neither text nor a list of messages") as caught:
        assert [ask(given), ask(given)] == ["14 days"] * 2
    assert len(caught) == 1 and told(kit) == []


def test_claimed_text_of_parts() -> None:
    """Of several text parts the text is taken and their places stay: no two forms of a message are one."""
    first = claimed([said([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])])
    second = claimed([said([{"type": "text", "text": "a\nb"}])])
    assert first is not None and second is not None
    assert first[0] == second[0] == "a\nb" and first[1] != second[1]
    assert claimed([said([{"type": "input_text", "text": "a"}])]) == (
        "a", [said([{"type": "input_text", "text": None}])],
    )  # fmt: skip


def test_scopes_are_apart(kit: Kit) -> None:
    """A tenant is never served what another tenant's call was answered, though they share a gate."""

    @kit.call(meaning(), **SURE, scope="tenant")
    def ask(question: str, tenant: str) -> str:
        return f"{tenant}'s answer"

    ask(ONE, tenant="acme")
    opened(kit, ask)
    assert ask.outcome(OTHER, tenant="acme").saving == "semantic"
    out = ask.outcome(OTHER, tenant="globex")
    assert (out.value, out.saving) == ("globex's answer", None)


def test_versions_are_apart(tmp_path: Path) -> None:
    """After an edit of the function its old answers and its old evidence are nobody's."""

    def wrapped(kit: Kit, version: str) -> Any:
        @kit.call(meaning(), **SURE, name="ask", version=version, scope=None)
        def ask(question: str) -> str:
            return version

        return ask

    with Kit(tmp_path / "kit") as kit:
        one = wrapped(kit, "1")
        one(ONE)
        opened(kit, one)
        assert one.outcome(OTHER).saving == "semantic"
    with Kit(tmp_path / "kit") as kit:
        out = wrapped(kit, "2").outcome(OTHER)
        assert (out.value, out.saving) == ("2", None)


def test_one_decorator_on_two_versions(kit: Kit) -> None:
    """A decorator that is used again for a changed function of the same name does not bring the old answers along."""
    call = kit.call(meaning(), **SURE, scope=None)

    def one(question: str) -> str:
        return "one"

    def two(question: str) -> str:
        return "two"

    one.__qualname__ = two.__qualname__ = "ask"
    made = [call(function) for function in (one, two)]  # as a notebook runs a cell again
    made[0](ONE)
    opened(kit, made[0])
    assert made[0].outcome(OTHER).saving == "semantic"
    assert made[1].outcome(OTHER).value == "two"


def test_ttl_is_absolute(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past its ttl an answer stands for no other call, however often it was served, stale ones included."""
    now = [time.time(), time.monotonic()]
    monkeypatch.setattr(time, "time", lambda: now[0])
    monkeypatch.setattr(time, "monotonic", lambda: now[1])

    @kit.call(costkit.exact(ttl=100, stale=1000), meaning(), **SURE, scope=None)
    def ask(question: str) -> str:
        return "14 days"

    ask(ONE)
    opened(kit, ask)
    for passed in (50, 40):
        now[0], now[1] = now[0] + passed, now[1] + passed
        assert ask.outcome(OTHER).saving == "semantic"
    now[0], now[1] = now[0] + 20, now[1] + 20
    assert ask.outcome(OTHER).saving is None


def test_a_clock_set_back_makes_nothing_young(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the clock that says more, an answer past its ttl stands for no other call."""
    now = [time.time(), time.monotonic()]
    monkeypatch.setattr(time, "time", lambda: now[0])
    monkeypatch.setattr(time, "monotonic", lambda: now[1])
    if not kit._boot:
        pytest.skip("this machine tells no boot from another")

    @kit.call(costkit.exact(ttl=100, stale=1000), meaning(), **SURE, scope=None)
    def ask(question: str) -> str:
        return "14 days"

    ask(ONE)
    opened(kit, ask)
    now[0], now[1] = now[0] - 50, now[1] + 150
    assert ask.outcome(OTHER).saving is None


def test_a_shorter_ttl_holds_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer made under a longer ttl is served only for as long as the one that now holds."""
    now = [time.time(), time.monotonic()]
    monkeypatch.setattr(time, "time", lambda: now[0])
    monkeypatch.setattr(time, "monotonic", lambda: now[1])

    def wrapped(kit: Kit, ttl: str) -> Any:
        @kit.call(costkit.exact(ttl=ttl), meaning(), **SURE, name="ask", version="1", scope=None)
        def ask(question: str) -> str:
            return "14 days"

        return ask

    with Kit(tmp_path / "kit") as kit:
        wrapped(kit, "1d")(ONE)
    now[0], now[1] = now[0] + 7200, now[1] + 7200
    with Kit(tmp_path / "kit") as kit:
        long = wrapped(kit, "1d")
        opened(kit, long)
        assert long.outcome(OTHER).saving == "semantic"
    with Kit(tmp_path / "kit") as kit:
        assert wrapped(kit, "1h").outcome(OTHER).saving is None


def test_epochs(kit: Kit) -> None:
    """After a bump no older answer stands for another call; newer ones do."""
    answers = iter(["old", "new", "newer"])

    @kit.call(costkit.exact(epoch="handbook"), meaning(), **SURE, scope=None)
    def ask(question: str) -> str:
        return next(answers)

    ask(ONE)
    opened(kit, ask)
    assert ask(OTHER) == "old"
    kit.bump("handbook")
    assert ask(OTHER) == "new"
    assert (ask.outcome(ONE).value, ask.outcome(ONE).saving) == ("new", "semantic")


def test_forget(kit: Kit) -> None:
    """What a tenant asked is off the disk and answers nobody; other tenants keep theirs."""

    @kit.call(meaning(), **SURE, scope="tenant")
    def ask(question: str, tenant: str) -> str:
        return "14 days"

    for tenant in ("acme", "globex"):
        ask(ONE, tenant=tenant)
    opened(kit, ask)
    assert kit.forget(tenant="acme") == 1
    assert ask.outcome(OTHER, tenant="acme").saving is None
    assert ask.outcome(OTHER, tenant="globex").saving == "semantic"


def test_forget_makes_no_index(tmp_path: Path) -> None:
    """Where nothing has a meaning there is no index to open, and forgetting makes none."""
    with Kit(tmp_path / "kit") as kit:
        kit.forget(tenant="acme")
        assert not (tmp_path / "kit" / "index").exists()


def test_forget_finds_an_index_of_another_process(tmp_path: Path) -> None:
    """A kit that never used the semantic tier forgets what others stored in it."""
    with Kit(tmp_path / "kit") as kit:

        @kit.call(meaning(), **SURE, scope=None, name="ask", version="1")
        def ask(question: str) -> str:
            return "14 days"

        ask(ONE)
    with Kit(tmp_path / "kit") as kit:
        kit.forget()
        assert kit._pools._opened().forget("nobody") == 0
        con = kit._pools._opened()._reader.open()
        assert con.execute("SELECT count(*) FROM entries").fetchone() == (0,)


def test_sightings(kit: Kit) -> None:
    """With sightings=3 an answer serves other questions after two other calls confirmed it, and not before."""

    @kit.call(meaning(sightings=3), **SURE, scope=None)
    def ask(question: str) -> str:
        return "14 days" if "wrong" not in question else "no"

    ask(ONE)
    opened(kit, ask)
    asked = [f"how do I get {word} refund" for word in ("my", "wrong", "the", "one")]
    assert [ask.outcome(question).saving for question in asked] == [None, None, None, "semantic"]
    assert told(kit) == [("none", None), ("declined", 0), ("declined", 1), ("declined", 0), ("served", None)]


def test_sources_are_left_out(kit: Kit) -> None:
    """Retrieved passages that vary with the phrasing keep no answer apart; without sources= they do."""

    def wrapped(name: str, sources: str | None) -> Any:
        @kit.call(meaning(sources=sources), **SURE, name=name, scope=None)
        def ask(question: str, passages: list[str]) -> str:
            return "14 days"

        ask(ONE, ["a"])
        opened(kit, ask)
        return ask

    assert wrapped("with", "passages").outcome(OTHER, ["b"]).saving == "semantic"
    assert wrapped("without", None).outcome(OTHER, ["b"]).saving is None


@pytest.mark.parametrize(
    "text", ["\ud800 refund", "refund " * 14_000, "\x00", "😀" * 50, "٣ أيام", "a\u202eb"], ids=len
)
def test_odd_texts(kit: Kit, text: str) -> None:
    """Lone surrogates, 98,000 characters, control characters and other scripts go the same way as any text."""

    @kit.call(meaning(), **SURE, scope=None)
    def ask(question: str) -> str:
        return "14 days"

    assert ask(text) == "14 days" and ask.outcome(text).saving == "exact"
    opened(kit, ask)
    assert ask(text + " please") == "14 days" and len(told(kit)) == 2


def test_texts_too_long_to_compare(kit: Kit) -> None:
    """Past 200,000 characters a call has no semantic tier, and one warning says so for all of them."""

    @kit.call(meaning(), **SURE, scope=None)
    def ask(question: str) -> str:
        return "14 days"

    with pytest.warns(RuntimeWarning) as caught:
        assert [ask("a" * n) for n in (200_001, 200_002)] == ["14 days"] * 2
    assert len(caught) == 1 and "200000 characters" in str(caught[0].message) and told(kit) == []


def _raises(texts: list[str]) -> Any:
    raise RuntimeError("no model of mine: " + texts[0])


def _shrinks(texts: list[str]) -> Any:
    return [row[: 256 - 8 * ("my" in text)] for row, text in zip(bag(texts), texts, strict=True)]


def _zeros(texts: list[str]) -> Any:
    return [[0.0, 0.0] for _ in texts]


@pytest.mark.parametrize("encoder", [_raises, poisoned, _shrinks, _zeros])
def test_bad_encoders(kit: Kit, encoder: Callable[[list[str]], Any]) -> None:
    """An encoder that raises, or gives NaN, zeros or another dimension, costs a saving: one warning, no text in it."""

    @kit.call(meaning(encoder=encoder), **SURE, scope=None)
    def ask(question: str) -> str:
        return "14 days"

    with pytest.warns(RuntimeWarning, match="without the semantic tier") as caught:
        assert [ask(question) for question in (ONE, OTHER, OTHER + " now my")] == ["14 days"] * 3
    assert len(caught) == 1 and "refund" not in str(caught[0].message)
    assert ask.outcome(OTHER).saving == "exact"


def test_a_damaged_index(tmp_path: Path) -> None:
    """An index full of rubbish is set aside: calls are made, and what they answer is found again."""
    with Kit(tmp_path / "kit") as kit:

        @kit.call(meaning(), **SURE, scope=None, name="ask", version="1")
        def ask(question: str) -> str:
            return "14 days"

        ask(ONE)
        opened(kit, ask)
    for file in (tmp_path / "kit" / "index").iterdir():
        file.write_bytes(b"rubbish" * 5000)
    with Kit(tmp_path / "kit") as kit:
        wrapped = kit.call(meaning(), **SURE, scope=None, name="ask", version="1")(lambda question: "14 days")
        gate_of(kit, wrapped)._random = SERVE  # type: ignore[assignment]
        assert wrapped.outcome(OTHER).saving is None and kit.health()["damaged"] == 1
        assert wrapped.outcome("how do I get the refund").saving == "semantic"


def test_an_index_row_of_another_entry(kit: Kit) -> None:
    """An index that names an entry of another scope, as a forger may write it, leads to a miss."""

    @kit.call(meaning(), **SURE, scope="tenant")
    def ask(question: str, tenant: str) -> str:
        return f"{tenant}'s answer"

    ask(ONE, tenant="acme")
    ask(ONE, tenant="globex")
    opened(kit, ask)
    index = kit._pools._opened()
    con = index._writer.open()
    rows = dict(con.execute("SELECT scope, key FROM entries").fetchall())
    acme, globex = list(rows)
    con.execute("UPDATE OR REPLACE entries SET key = ? WHERE scope = ?", (rows[acme], globex))
    assert ask.outcome(OTHER, tenant="globex").value == "globex's answer"


def test_trouble_inside_is_a_miss(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong in the tier itself, the call is made; a warning names the trouble and no text."""

    @kit.call(meaning(), **SURE, scope=None)
    def ask(question: str) -> str:
        return "14 days"

    ask(ONE)
    tended = opened(kit, ask, coin=AUDIT)

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(OTHER)

    monkeypatch.setattr(tended, "decide", broken)
    with pytest.warns(RuntimeWarning, match=r"could not be asked \(RuntimeError\)$"):
        assert ask(OTHER) == "14 days"
