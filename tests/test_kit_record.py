"""What a kit records and what it bills: one row a call, its attempts, nested money, text only when asked."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import costkit
from costkit import Kit, exact
from costkit.errors import UnknownPrice
from tests import kits
from tests.kits import COST, RATES, RESPONSE, answer, rows, spend

kit = kits.kit


def test_the_ledger_has_every_call(kit: Kit) -> None:
    """One row a call, its attempt below it, money and model as reported."""

    @kit.call(exact(), scope=None, version="7")
    def ask(question: str, model: str = "m") -> str:
        spend()
        return "a"

    ask("q")
    ask("q")
    paid, saved = rows(kit)
    assert paid["name"].endswith("ask") and paid["version"] == "7" and paid["key"] == saved["key"]
    assert (paid["provider_cost"], paid["saved_by"], paid["error"], paid["request"]) == (
        COST,
        None,
        None,
        None,
    )
    assert (saved["provider_cost"], saved["counterfactual_cost"], saved["saved_by"]) == (0, COST, "exact")
    (attempt,) = rows(kit, "attempts")
    assert (attempt["query_id"], attempt["model"], attempt["in_fresh"], attempt["cost"]) == (
        paid["id"],
        "m",
        1000,
        COST,
    )
    assert attempt["price_id"] and attempt["usage_state"] == "reported"


def test_text_is_kept_only_when_asked(tmp_path: Path) -> None:
    """store_text=True keeps requests and responses; the default keeps none anywhere in the record."""
    for asked in (False, True):
        with Kit(tmp_path / str(asked), store_text=asked) as kit:

            @kit.call(exact(), scope=None, name="ask")
            def ask(question: str) -> str:
                return "the secret answer"

            ask("the secret question")
            (row,) = rows(kit)
            assert (row["response"] == "the secret answer") is asked
            assert ("the secret question" in str(row["request"])) is asked
        kept = b"".join(p.read_bytes() for p in (tmp_path / str(asked)).glob("ledger*"))
        assert (b"secret" in kept) is asked


def test_nesting_money_and_parents(kit: Kit) -> None:
    """An outer call's cost is its own plus its inner calls'; rows know their parent and root; views add up
    once."""

    @kit.call(exact(), scope=None, name="inner")
    def inner(q: str) -> str:
        spend()
        return q

    @kit.call(exact(), scope=None, name="outer")
    def outer(q: str) -> str:
        spend()
        return inner(q) + inner(q) + inner(q + "!")

    first = outer.outcome("a")
    assert (first.cost.provider, first.cost.counterfactual) == (3 * COST, 4 * COST)
    outer("a")
    found = {r["id"]: r for r in rows(kit)}
    top, again = [r for r in found.values() if r["name"] == "outer"]
    inners = [r for r in found.values() if r["name"] == "inner"]
    assert len(inners) == 3
    assert (
        {r["parent_id"] for r in inners} == {top["id"]} == {r["root_id"] for r in inners} == {first.query_id}
    )
    assert (top["parent_id"], top["provider_cost"], again["counterfactual_cost"]) == (None, COST, 4 * COST)
    costs = rows(kit, "query_costs")
    assert [(c["provider_cost"], c["counterfactual_cost"], c["saving"]) for c in costs] == [
        (3 * COST, 4 * COST, COST),
        (0, 4 * COST, 4 * COST),
    ]


def test_record(kit: Kit) -> None:
    """record() outside a call does nothing; inside, each attempt counts; a wrong thing is an error."""
    costkit.record({"nothing": 1})

    @kit.call(scope=None)
    def ask(fail: bool = False) -> str:
        spend()
        spend()
        if fail:
            costkit.record(object())
        return "x"

    out = ask.outcome()
    assert out.cost.provider == 2 * COST and len(rows(kit, "attempts")) == 2
    with pytest.raises(TypeError, match=r"costkit\.record\(response\)"):
        ask(True)


def test_a_response_is_read_without_being_asked(kit: Kit) -> None:
    """A provider's response that is the function's own value is billed once, and comes back from the
    store."""
    body = {
        "object": "chat.completion",
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500},
    }

    @kit.call(exact(), scope=None)
    def ask(q: str, cut: bool = False) -> dict[str, Any]:
        return body if not cut else {**body, "choices": [{**body["choices"][0], "finish_reason": "length"}]}  # type: ignore[index]  # pyright: ignore

    assert ask.outcome("q").cost.provider == COST
    assert ask.outcome("q").cost.saving == COST and ask("q") == body
    assert [ask.outcome("q", True).saving for _ in range(2)] == [None, None]


def test_unknown_cost_is_said(kit: Kit) -> None:
    """A call that tells nothing has an unknown cost, not zero."""
    ask = kit.call(exact(), scope=None)(answer)
    assert ask.outcome("q").cost.unknown == 1
    assert (
        rows(kit)[0]["counterfactual_cost"] is None and rows(kit, "attempts")[0]["usage_state"] == "missing"
    )


def test_unknown_price_is_refused_before_the_call(kit: Kit) -> None:
    """A model that no price list knows raises UnknownPrice, and the function does not run."""
    calls = []

    @kit.call(exact(), scope=None)
    def ask(q: str, model: str = "m") -> str:
        calls.append(q)
        return "a"

    ask("q")
    with pytest.raises(UnknownPrice):
        ask("q", model="no-such-model-xyz")
    assert calls == ["q"] and [row["error"] for row in rows(kit)] == [None, "UnknownPrice"]


def test_what_the_provider_says_it_billed(kit: Kit) -> None:
    """A response that says what it cost is recorded at that, without a price row, known model or not."""
    said = {"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105, "cost": 0.00012}
    answer: dict[str, object] = {
              "id": "gen-1", "object": "chat.completion", "provider": "Some Host", "model": "maker/odd-model",
              "choices": [{"message": {"content": "a"}, "finish_reason": "stop"}], "usage": said}  # fmt: skip

    @kit.call(scope=None, provider="openrouter")
    def ask() -> dict[str, object]:
        return answer

    assert ask.outcome().cost.provider == 120_000
    (attempt,) = rows(kit, "attempts")
    assert (attempt["cost"], attempt["price_id"], attempt["in_fresh"]) == (120_000, None, 100)


def test_a_response_handed_on_is_billed_once(kit: Kit) -> None:
    """An outer call that returns, or streams on, what an inner one gave it adds nothing to the bill, hit or not."""

    @kit.call(exact(), scope=None, name="inner")
    def inner(q: str) -> dict[str, Any]:
        return {**RESPONSE}

    @kit.call(scope=None, name="outer")
    def outer(q: str) -> dict[str, Any]:
        return inner(q)

    @kit.call(exact(), scope=None, name="inner chunks")
    def chunks(q: str) -> Iterator[dict[str, Any]]:
        yield {
            "object": "chat.completion.chunk", "model": "m", "usage": RESPONSE["usage"],
            "choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}],
        }  # fmt: skip

    @kit.call(scope=None, name="outer chunks")
    def on(q: str) -> Iterator[dict[str, Any]]:
        yield from chunks(q)

    for paid in (COST, 0):
        assert outer.outcome("q").cost == costkit.Cost(provider=paid, counterfactual=COST)
        stream = on.outcome("q")
        assert len(list(stream)) == 1 and stream.outcome is not None
        assert stream.outcome.cost == costkit.Cost(provider=paid, counterfactual=COST)


def test_a_usage_told_by_hand_is_not_read_again(kit: Kit) -> None:
    """record(usage=...) stands for the response the function returns; a response recorded and freed for none."""

    @kit.call(scope=None)
    def told(q: str) -> dict[str, Any]:
        spend()
        return {**RESPONSE}

    @kit.call(scope=None)
    def retried(q: str) -> dict[str, Any]:
        failed = {**RESPONSE}
        costkit.record(failed)
        del failed  # the next dict is likely to get its id
        return {**RESPONSE}

    assert told.outcome("q").cost.provider == COST
    assert [retried.outcome(str(i)).cost.provider for i in range(5)] == [2 * COST] * 5


def test_what_is_recorded_too_late_is_said(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """record() of a thread that outlives its call warns that the money is not counted."""
    go, done = threading.Event(), threading.Event()
    warned: list[str] = []

    @kit.call(scope=None)
    def ask(q: str) -> str:
        def later() -> None:
            go.wait(20)
            spend()
            done.set()

        threading.Thread(target=contextvars.copy_context().run, args=(later,)).start()
        spend()
        return q

    monkeypatch.setattr(kit, "_warn", warned.append)
    assert ask.outcome("q").cost.provider == COST
    go.set()
    assert done.wait(20) and "after the call had ended" in warned[0]


@pytest.mark.parametrize("value", [{(1, 2): "tuple key"}, "lone \udc80"])
def test_text_that_cannot_be_kept_costs_no_answer(tmp_path: Path, value: Any) -> None:
    """With store_text, a value without a JSON form still reaches the caller, and its row the ledger."""
    with Kit(tmp_path / "kit", prices=RATES, store_text=True) as kit:

        @kit.call(exact(), scope=None)
        def ask(q: Any) -> Any:
            spend()
            return q

        assert ask(value) == value
        assert [r["provider_cost"] for r in rows(kit)] == [COST]


def test_a_call_inside_another_kits_call_is_outermost_in_its_own_ledger(kit: Kit, tmp_path: Path) -> None:
    """Each ledger's views hold all of its own spend: a parent that another kit recorded is none there."""
    with Kit(tmp_path / "other", prices=RATES) as other:

        @other.call(scope=None)
        def inner(q: str) -> str:
            spend()
            return q

        @kit.call(scope=None)
        def outer(q: str) -> str:
            return inner(q)

        assert outer.outcome("q").cost.provider == COST
        assert [r["provider_cost"] for r in rows(other, "query_costs")] == [COST]
