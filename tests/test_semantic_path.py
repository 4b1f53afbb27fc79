"""The semantic tier through the decorator: in shadow, open, audited; every kind of function."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import costkit
from costkit import Kit
from tests.kits import rows
from tests.meanings import (
    AUDIT,
    SERVE,
    SURE,
    Model,
    evidence,
    gate_of,
    kit,
    meaning,
    model,
    opened,
    pool_of,
    told,
)
from tests.refreshing import Clock, later, until

__all__ = ["kit", "later", "model"]

ONE, OTHER = "how do I get a refund", "how do I get my refund"


def test_in_shadow_every_call_is_made_and_every_candidate_labelled(kit: Kit, model: Model) -> None:
    """A gate without evidence serves nothing: both calls are made, the second leaves a labelled candidate."""

    @kit.call(costkit.exact(), meaning(), **SURE, scope=None)
    def ask(question: str) -> str:
        return model(question)

    assert ask(ONE) == ask(OTHER) == "All about the refund."
    assert ask.outcome(ONE).saving == "exact"
    assert model.asked == [ONE, OTHER]
    assert told(kit) == [("none", None), ("declined", 0)]


def test_an_open_gate_serves_what_means_the_same(kit: Kit, model: Model) -> None:
    """Another wording of a stored question is answered without a call, as a free row that says what it saved."""

    @kit.call(meaning(), **SURE, scope=None)
    def ask(question: str) -> str:
        costkit.record(usage=costkit.Usage(in_fresh=1000, out_text=500), model="m")
        return model(question)

    ask(ONE)
    opened(kit, ask)
    out = ask.outcome(OTHER)
    assert (out.value, out.saving, out.cost.provider) == ("All about the refund.", "semantic", 0)
    assert out.cost.counterfactual == 2_000_000 and model.asked == [ONE]
    last = rows(kit)[-1]
    assert (last["saved_by"], last["provider_cost"], last["counterfactual_cost"]) == (
        "semantic",
        0,
        2_000_000,
    )
    assert evidence(kit)[-1]["query_id"] == last["id"] and told(kit)[-1] == ("served", None)


def test_a_tag_is_counted_apart_and_shares_answers(kit: Kit, model: Model) -> None:
    """kit.scope(tag=...) names the traffic in the evidence; an answer stored under one tag is served under another."""

    @kit.call(meaning(), **SURE, scope=None)
    def ask(question: str) -> str:
        return model(question)

    with kit.scope(tag="shop"):
        ask(ONE)
    opened(kit, ask)
    with kit.scope(tag="help"):
        assert ask.outcome(OTHER).saving == "semantic"
    kit._ledger.flush()
    tags = [row["tag"] for row in evidence(kit) if row["kind"] in ("none", "served")]
    assert tags[0] == '{"tag": "shop"}' and tags[-1] == '{"tag": "help"}'


def test_a_semantic_hit_is_not_stored(kit: Kit, model: Model) -> None:
    """What was served for its meaning is no answer to that question: asked again it passes the gate again."""

    @kit.call(meaning(), **SURE, scope=None)
    def ask(question: str) -> str:
        return model(question)

    ask(ONE)
    tended = opened(kit, ask)
    assert [ask.outcome(OTHER).saving for _ in range(2)] == ["semantic", "semantic"]
    tended._random = AUDIT  # type: ignore[assignment]
    assert ask.outcome(OTHER).saving is None
    tended._random = SERVE  # type: ignore[assignment]
    assert ask.outcome(OTHER).saving == "exact"


def test_an_audit_makes_the_call_and_stores_its_answer(kit: Kit, model: Model) -> None:
    """An audited hit returns the reference's answer, and is labelled by it before the call returns."""
    answers = {ONE: "30 days", OTHER: "14 days"}

    @kit.call(meaning(), **SURE, scope=None)
    def ask(question: str) -> str:
        return answers[question]

    ask(ONE)
    opened(kit, ask, coin=AUDIT)
    out = ask.outcome(OTHER)
    assert (out.value, out.saving) == ("14 days", None)
    assert told(kit)[-1] == ("audit", 1) and evidence(kit)[-1]["chance"] == pytest.approx(0.05)
    assert ask.outcome(OTHER).saving == "exact"


def test_async(kit: Kit, model: Model) -> None:
    """A coroutine function is served, audited and labelled alike."""

    @kit.call(meaning(), **SURE, scope=None)
    async def ask(question: str) -> str:
        await asyncio.sleep(0)
        return model(question)

    async def main() -> None:
        await ask(ONE)
        tended = opened(kit, ask)
        assert (await ask.outcome(OTHER)).saving == "semantic"
        tended._random = AUDIT  # type: ignore[assignment]
        assert (await ask.outcome(OTHER)).saving is None

    asyncio.run(main())
    assert told(kit) == [("none", None), ("served", None), ("audit", 0)]


def test_streams(kit: Kit, model: Model) -> None:
    """A stored stream is replayed for another wording, chunk by chunk; answers are compared joined."""
    size = [3]

    @kit.call(meaning(), **SURE, scope=None)
    def ask(question: str) -> Iterator[str]:
        answer = model(question)
        yield from (answer[at : at + size[0]] for at in range(0, len(answer), size[0]))

    first = list(ask(ONE))
    tended = opened(kit, ask)
    out = ask.outcome(OTHER)
    assert list(out) == first and out.outcome is not None and out.outcome.saving == "semantic"
    tended._random, size[0] = AUDIT, 5  # type: ignore[assignment]
    assert "".join(ask(OTHER)) == "".join(first)
    assert told(kit) == [("none", None), ("served", None), ("audit", 0)] and len(model.asked) == 2


def test_async_streams(kit: Kit, model: Model) -> None:
    """An async generator's chunks are replayed alike."""

    @kit.call(meaning(), **SURE, scope=None)
    async def ask(question: str) -> AsyncIterator[str]:
        for word in model(question).split():
            yield word

    async def main() -> None:
        first = [chunk async for chunk in ask(ONE)]
        opened(kit, ask)
        out = ask.outcome(OTHER)
        assert [chunk async for chunk in out] == first
        assert out.outcome is not None and out.outcome.saving == "semantic"

    asyncio.run(main())
    assert told(kit) == [("none", None), ("served", None)]


def test_methods(kit: Kit) -> None:
    """A method's own object belongs to what must be identical: another shop's answers are never served."""

    class Shop:
        def __init__(self, name: str) -> None:
            self.name = name

        @kit.call(meaning(), key={"self": lambda self: self.name}, **SURE, scope=None)
        def ask(self, question: str) -> str:
            return f"{self.name} says yes"

    one, other = Shop("one"), Shop("other")
    one.ask(ONE)
    opened(kit, Shop.ask)
    assert one.ask.outcome(OTHER).saving == "semantic"
    assert other.ask.outcome(OTHER).value == "other says yes" and told(kit)[-1] == ("none", None)


def test_each_served_answer_is_a_fresh_object(kit: Kit) -> None:
    """What one caller does to his answer, no other caller sees."""

    @kit.call(meaning(), **SURE, scope=None)
    def ask(question: str) -> dict[str, list[int]]:
        return {"days": [14]}

    ask(ONE)["days"].append(99)
    opened(kit, ask)
    served = ask(OTHER)
    served["days"].append(1)
    assert ask(OTHER) == {"days": [14]} and ask.outcome(OTHER).saving == "semantic"


def test_reference_switches_it_off(kit: Kit, model: Model) -> None:
    """Inside costkit.reference() calls are made, and leave neither evidence nor an entry."""

    @kit.call(meaning(), **SURE, scope=None)
    def ask(question: str) -> str:
        return model(question)

    ask(ONE)
    opened(kit, ask)
    with costkit.reference():
        assert ask.outcome(OTHER).saving is None
    assert told(kit) == [("none", None)] and rows(kit)[-1]["role"] == "reference"
    assert ask.outcome(OTHER).saving == "semantic"


def test_a_refreshed_answer_stands_again(kit: Kit, later: Clock) -> None:
    """The answer that a refresh brought in place of a stale one is served to other questions; it leaves no evidence."""

    @kit.call(costkit.exact(ttl=100, stale=1000), meaning(), **SURE, scope=None)
    def ask(question: str) -> str:
        calls.append(question)
        return "14 days"

    calls = list[str]()
    ask(ONE)
    opened(kit, ask)
    later(150)
    assert ask.outcome(ONE).saving == "stale"
    until(lambda: len(calls) == 2)
    kit._ports.refreshes.close()
    assert told(kit) == [("none", None)]
    assert ask.outcome(OTHER).saving == "semantic" and calls == [ONE, ONE]


def test_a_function_that_raises_labels_nothing(kit: Kit) -> None:
    """Without a reference answer there is no label, and no row that would wait for one; an audit says so."""

    @kit.call(meaning(), **SURE, scope=None)
    def ask(question: str) -> str:
        if question != ONE:
            raise ValueError("down")
        return "yes"

    ask(ONE)
    for coin in (SERVE, AUDIT):
        opened(kit, ask, coin=coin)
        if coin is AUDIT:
            with pytest.raises(ValueError, match="down"):
                ask(OTHER)
        else:
            assert ask(OTHER) == "yes"
    assert told(kit) == [("none", None), ("served", None), ("unanswered", None)]


def test_while_calls_fail_nothing_is_served(kit: Kit) -> None:
    """After three audits in a row without an answer an open gate makes every call, until twenty were answered."""

    @kit.call(meaning(), **SURE, scope=None)
    def ask(question: str) -> str:
        if down:
            raise ValueError("down")
        return "yes"

    down = False
    ask(ONE)
    tended = opened(kit, ask, coin=AUDIT)
    down = True
    for number in range(3):
        with pytest.raises(ValueError, match="down"):
            ask(f"how do I get refund {'x' * number}")
    tended._random = SERVE  # type: ignore[assignment]
    with pytest.raises(ValueError, match="down"):
        ask(OTHER)
    down = False
    for number in range(20):
        assert ask.outcome(f"how do I get a refund {'y' * number}").saving is None
    assert ask.outcome("how do I get the refund").saving == "semantic"
    assert not tended.follow().generation and tended.gate.wrong_audits == 0


@pytest.mark.parametrize("admit", [None, lambda answer: True])
def test_incomplete_answers_are_neither_admitted_nor_labelled(kit: Kit, admit: Any) -> None:
    """An answer that was cut off stands for no other call and judges none, whatever exact(admit=) says."""
    finish = ["length"]

    @kit.call(costkit.exact(admit=admit), meaning(), **SURE, scope=None)
    def ask(question: str) -> dict[str, Any]:
        return {
            "object": "chat.completion", "model": "m",
            "choices": [{"index": 0, "finish_reason": finish[0], "message": {"role": "assistant", "content": "yes"}}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        }  # fmt: skip

    ask(ONE)
    assert told(kit) == []
    opened(kit, ask)
    assert ask.outcome(OTHER).saving is None, "half an answer was served"
    finish[0] = "stop"
    ask("may I have a refund")
    gate_of(kit, ask)._random = AUDIT  # type: ignore[assignment]
    finish[0] = "length"
    ask("may I get a refund")
    assert told(kit) == [("none", None), ("unanswered", None)]


@pytest.mark.parametrize("answer", ["I'm sorry, I can't help with that.", "I do not know.", None])
def test_refusals_stand_for_nothing(kit: Kit, answer: str | None) -> None:
    """An answer that says that it is none is never served to another question."""

    @kit.call(costkit.exact(admit=lambda given: True), meaning(), **SURE, scope=None)
    def ask(question: str) -> str | None:
        return answer if question == ONE else "14 days"

    ask(ONE)
    opened(kit, ask)
    assert ask(OTHER) == "14 days"


def lose(kit: Kit) -> None:
    """Every stored answer is gone, as when the folder grew too large; the index is a file of its own."""
    kit._ports.store._cache.clear()
    kit._ports.store.front.clear()


def test_what_replaced_an_answer_does_not_stand_in_its_place(kit: Kit) -> None:
    """An answer that was let in, then lost and asked anew, is not replaced by the refusal that came instead."""
    said = ["14 days", "I'm sorry, I can't help with that."]

    @kit.call(costkit.exact(admit=lambda given: True), meaning(), **SURE, scope=None)
    def ask(question: str) -> str:
        return said.pop(0) if question == ONE and said else "30 days"

    ask(ONE)
    opened(kit, ask)
    lose(kit)
    assert "sorry" in ask(ONE) and ask.outcome(ONE).saving == "exact"
    assert [ask(OTHER), ask.outcome(OTHER).saving] == ["30 days", "exact"]


def test_a_lost_answer_hides_no_other(kit: Kit, model: Model) -> None:
    """Where the nearest question's answer is gone from the store, the next one's is found, and the row is dropped."""

    @kit.call(meaning(), **SURE, scope=None)
    def ask(question: str) -> str:
        return model(question)

    ask("how do I get a refund please now")
    lose(kit)
    ask("how can I get a refund")
    opened(kit, ask)
    assert ask.outcome("how do I get a refund please").saving == "semantic"


def test_a_judge_that_cannot_be_asked_costs_no_answer(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong around the judge, the paid answer is returned and the candidate counts as wrong."""

    @kit.call(meaning(), **SURE, scope=None)
    def ask(question: str) -> str:
        return "14 days"

    ask(ONE)

    def gone(*_: Any, **__: Any) -> bool:
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    monkeypatch.setattr(pool_of(kit, ask), "judge", gone)
    with pytest.warns(RuntimeWarning, match="could not be judged"):
        assert ask(OTHER) == "14 days"
    assert told(kit)[-1] == ("declined", 1)


def test_admit_of_its_own(kit: Kit, model: Model) -> None:
    """semantic(admit=) keeps an answer from standing for others; the exact tier keeps it all the same."""

    @kit.call(meaning(admit=lambda answer: "refund" not in answer), **SURE, scope=None)
    def ask(question: str) -> str:
        return model(question)

    ask(ONE)
    opened(kit, ask)
    assert ask.outcome(ONE).saving == "exact" and ask.outcome(OTHER).saving is None


def test_admit_that_raises(kit: Kit, model: Model) -> None:
    """The user's admit may fail: the answer is returned, not admitted, and a warning says so without its text."""

    def admit(answer: str) -> bool:
        raise KeyError(answer)

    @kit.call(meaning(admit=admit), **SURE, scope=None)
    def ask(question: str) -> str:
        return model(question)

    with pytest.warns(RuntimeWarning, match=r"not admitted \(KeyError\)"):
        assert ask(ONE) == "All about the refund."
    opened(kit, ask)
    assert ask.outcome(OTHER).saving is None


def test_numbers_and_dates_are_vetoed(kit: Kit) -> None:
    """Questions that differ in a number are never served to each other, however near they lie."""

    @kit.call(meaning(), **SURE, scope=None)
    def ask(question: str) -> str:
        return "yes"

    ask("please send a refund for 2 parcels today")
    opened(kit, ask)
    assert ask.outcome("please send a refund for 3 parcels today").saving is None
    assert ask.outcome("please send the refund for 2 parcels today").saving == "semantic"
