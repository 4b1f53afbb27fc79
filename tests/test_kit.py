"""A real kit in a real folder: what is served, what is paid, what is recorded."""

from __future__ import annotations

import contextvars
import importlib.util
import os
import random
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import costkit
from costkit import Kit, exact
from costkit.errors import (
    ConfigError,
    FolderError,
    LedgerVersionError,
    ScopeError,
    UnkeyableArgument,
    UnknownPrice,
)

RATES = {"m": costkit.Rates(1, 2)}
USAGE = costkit.Usage(in_fresh=1000, out_text=500)
COST = 1000 * 1000 + 500 * 2000  # nano-dollars: 1 USD and 2 USD per million tokens


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    with Kit(tmp_path / "kit", prices=RATES) as made:
        yield made


def rows(kit: Kit, what: str = "queries") -> list[dict[str, Any]]:
    con = kit.ledger()
    try:
        return [
            dict(r)
            for r in con.execute(
                f"SELECT * FROM {what} ORDER BY rowid"
                if what != "query_costs"
                else "SELECT * FROM query_costs ORDER BY id"
            )
        ]
    finally:
        con.close()


def spend() -> None:
    costkit.record(usage=USAGE, model="m")


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


# --- who may share
# -------------------------------------------------------------------------------------------------


def test_scope_from_argument_and_from_context(kit: Kit) -> None:
    """The scope is taken from the call, then from kit.scope, innermost first; scopes never share."""
    calls = []

    @kit.call(exact(), scope="tenant")
    def ask(q: str, tenant: str | None = None) -> str:
        calls.append(tenant)
        return f"for call {len(calls)}"

    assert ask("q", tenant="acme") == "for call 1"
    with kit.scope(tenant="acme"):
        assert ask("q") == "for call 2"  # the same scope, but the function sees tenant=None
        with kit.scope(tenant="globex"):
            assert ask("q") == "for call 3"
            assert ask("q", "acme") == "for call 1"
        assert ask("q") == "for call 2"
    assert [r["scope"] for r in rows(kit)[:2]] == ['{"tenant": "acme"}'] * 2


def test_scope_of_a_name_that_is_no_argument(kit: Kit) -> None:
    """A scope may live in the context alone, beside another that is an argument."""
    calls = []

    @kit.call(exact(), scope=("tenant", "user"))
    def ask(q: str, user: str) -> int:
        calls.append(q)
        return len(calls)

    for tenant, user, expected in (("a", "x", 1), ("b", "x", 2), ("a", "y", 3), ("a", "x", 1)):
        with kit.scope(tenant=tenant):
            assert ask("q", user) == expected


def test_a_missing_scope_raises_before_the_call(kit: Kit) -> None:
    """Without a scope value the call is refused, named, and nothing runs or is recorded."""
    calls = []

    @kit.call(exact(), scope="tenant")
    def ask(q: str, tenant: str | None = None) -> None:
        calls.append(q)

    with pytest.raises(
        ScopeError, match=r"ask\(\): the scope 'tenant' has no value; pass tenant=\.\.\., or call"
    ):
        ask("q")
    assert not calls and not rows(kit)


@pytest.mark.parametrize("unsaid", [{}, {"scope": ()}, {"scope": ""}])
def test_scope_must_be_said(kit: Kit, unsaid: dict[str, Any]) -> None:
    """Leaving scope out, or empty, is an error at the decorator."""
    with pytest.raises(ScopeError, match="scope=None"):
        kit.call(exact(), **unsaid)


def test_scope_labels_can_be_hidden(tmp_path: Path) -> None:
    """scope_labels=False keeps a digest of the tenant's name in the record, not the name."""
    with Kit(tmp_path / "kit", scope_labels=False) as kit:
        ask = kit.call(exact(), scope="tenant")(answer)
        ask("q", tenant="acme")
        assert "acme" not in str(rows(kit)) and len(rows(kit)[0]["scope"]) == 32


def answer(q: str, *, tenant: str = "t") -> str:
    return f"{q} for {tenant}"


def test_an_unkeyable_scope_is_refused(kit: Kit) -> None:
    """A scope value without a canonical form is costkit's own error, with and without a saving."""
    for savings in ((), (exact(),)):
        ask = kit.call(*savings, scope="tenant", name=f"ask{len(savings)}")(answer)
        with pytest.raises(UnkeyableArgument, match="tenant"):
            ask("q", tenant=object())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_forget_one_tenant(kit: Kit) -> None:
    """kit.forget deletes one scope's answers and leaves the other's."""
    ask = kit.call(exact(), scope="tenant")(answer)
    ask("q", tenant="a")
    ask("q", tenant="b")
    assert kit.forget(tenant="a") == 1
    assert ask.outcome("q", tenant="a").saving is None and ask.outcome("q", tenant="b").saving == "exact"


def test_two_tenants_never_get_each_others_answer(tmp_path: Path) -> None:
    """20,000 interleaved calls of two tenants from 8 threads: every answer is the caller's own tenant's."""
    with Kit(tmp_path / "kit") as kit:
        made = []

        @kit.call(exact(), scope="tenant")
        def ask(q: str, *, tenant: str) -> dict[str, str]:
            made.append(tenant)
            return {"tenant": tenant, "q": q}

        foreign: list[Any] = []
        served = []

        def work(seed: int) -> None:
            pick = random.Random(seed)
            for _ in range(2500):
                tenant, q = pick.choice("ab"), f"q{pick.randrange(25)}"
                got = ask(q, tenant=tenant)
                served.append(1)
                if got != {"tenant": tenant, "q": q}:
                    foreign.append((tenant, q, got))

        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(90)
        assert len(served) == 20_000 and foreign == []
        assert len(made) == 50  # each of 25 questions once a tenant


# --- what is keyed
# -------------------------------------------------------------------------------------------------


class Client:
    base_url = "http://localhost"


def test_unkeyable_arguments_and_their_mends(kit: Kit) -> None:
    """A client object is refused with both mends named; each mend works."""
    calls = []

    def ask(q: str, client: Client) -> int:
        calls.append(client)
        return len(calls)

    plain = kit.call(exact(), scope=None, name="plain")(ask)
    with pytest.raises(UnkeyableArgument, match=r"plain\(\): argument client .*ignore=\['client'\].*key="):
        plain("q", Client())
    assert not calls
    ignoring = kit.call(exact(), scope=None, name="ignoring", ignore=["client"])(ask)
    assert ignoring("q", Client()) == ignoring("q", Client()) == 1
    by_url = kit.call(exact(), scope=None, name="by_url", key={"client": lambda c: c.base_url})(ask)
    other = Client()
    other.base_url = "http://elsewhere"
    assert (by_url("q", Client()), by_url("q", Client()), by_url("q", other)) == (2, 2, 3)
    by_call = kit.call(exact(), scope=None, name="by_call", key=lambda q, client: q.lower())(ask)
    assert (by_call("q", Client()), by_call("Q", Client())) == (4, 4)


def test_positional_only_and_keyword_of_one_name_are_two(kit: Kit) -> None:
    """f(1, a=2) and f(9, a=2) are different calls although both arguments are called a."""

    @kit.call(exact(), scope=None)
    def f(a: int, /, *rest: int, **more: int) -> tuple[Any, ...]:
        return (a, rest, sorted(more.items()))

    calls: list[tuple[tuple[int, ...], dict[str, int]]] = [
        ((1,), {"a": 2}),
        ((9,), {"a": 2}),
        ((1,), {}),
        ((1, 2), {}),
        ((1,), {"rest": 2}),
        ((1,), {"*rest": 2}),
        ((1, 2), {"*rest": 2}),
        ((1, 3), {"*rest": 2}),
        ((1,), {"**a": 2}),
        ((1,), {"b": 2}),
    ]
    for args, kwargs in calls:
        assert f.outcome(*args, **kwargs).saving is None
        assert f(*args, **kwargs) == (args[0], args[1:], sorted(kwargs.items()))


MODULE = """
def ask(q):
    {comment}
    return {result}
"""


def load(tmp_path: Path, result: str, comment: str = "# a comment") -> Callable[[str], str]:
    path = tmp_path / "app.py"
    path.write_text(MODULE.format(result=result, comment=comment))
    os.utime(path, ns=(1, hash((result, comment)) % 10**15))
    import linecache

    linecache.clearcache()
    spec = importlib.util.spec_from_file_location("app", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    found: Callable[[str], str] = module.ask
    return found


def test_editing_the_function_starts_afresh(tmp_path: Path) -> None:
    """A changed body is a miss; a changed comment is not; version= takes it into the user's hands."""
    with Kit(tmp_path / "kit") as kit:
        decorate = kit.call(exact(), scope=None)
        assert decorate(load(tmp_path, "q + '1'"))("q") == "q1"
        again = decorate(load(tmp_path, "q + '1'", "# another comment"))
        assert again.outcome("q").saving == "exact"
        edited = decorate(load(tmp_path, "q + '2'"))
        assert edited("q") == "q2"
    with Kit(tmp_path / "kit2") as kit:
        fixed = kit.call(exact(), scope=None, version="1")
        assert fixed(load(tmp_path, "q + '1'"))("q") == fixed(load(tmp_path, "q + '2'"))("q") == "q1"


def test_one_name_for_two_functions_is_refused(kit: Kit) -> None:
    """Two functions that would share keys but may answer differently are an error at the decorator."""

    def make(prompt: str) -> Callable[[str], str]:
        def ask(q: str) -> str:
            return prompt + q

        return ask

    kit.call(exact(), scope=None)(make("a"))
    with pytest.raises(ConfigError, match="give each its own name"):
        kit.call(exact(), scope=None)(make("b"))
    kit.call(exact(), scope=None, name="b")(make("b"))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"ignore": ["clent"]}, "no argument 'clent'; did you mean 'client'"),
        ({"key": {"zzz": str}}, "no argument 'zzz'; it has q, client"),
    ],
)
def test_wrong_names_in_settings(kit: Kit, settings: dict[str, Any], match: str) -> None:
    """A misspelt argument in ignore= or key= is an error at the decorator, with the near name."""

    def ask(q: str, client: Client) -> None: ...

    with pytest.raises(ConfigError, match=match):
        kit.call(exact(), scope=None, **settings)(ask)


def test_what_cannot_be_wrapped(kit: Kit) -> None:
    """Two of one saving, something that is no function, a staticmethod object, a wrapped function:
    refused."""
    import functools

    with pytest.raises(ConfigError, match="once"):
        kit.call(exact(), exact(), scope=None)
    decorate = kit.call(exact(), scope=None)
    wrongs: list[Any] = [5, functools.partial(answer, "q"), staticmethod(answer), decorate(answer)]
    for wrong in wrongs:
        with pytest.raises(ConfigError):
            decorate(wrong)


# --- methods, nesting, reference
# ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bot:
    name: str

    def greet(self, who: str) -> str:
        return f"{self.name} greets {who}"


def test_methods_and_classmethods(kit: Kit) -> None:
    """A method binds; a dataclass instance is part of the key, an ignored one is not; classmethods work."""

    @dataclass
    class Agent:
        name: str

        @kit.call(exact(), scope=None, name="m.greet")
        def greet(self, who: str) -> str:
            return f"{self.name} greets {who}"

        @classmethod
        @kit.call(exact(), scope=None, name="m.make", ignore=["cls"])
        def make(cls, name: str) -> str:
            return cls.__name__ + name

        @staticmethod
        @kit.call(exact(), scope=None, name="m.plain")
        def plain(name: str) -> str:
            return name

    assert Agent("A").greet("x") == "A greets x" and Agent("B").greet("x") == "B greets x"
    assert Agent("A").greet.outcome("x").saving == "exact"
    assert Agent.greet(Agent("A"), "x") == "A greets x"
    cls: Any = Agent  # type checkers do not bind cls through a descriptor below @classmethod
    assert cls.make("1") == "Agent1" == cls("A").make("1")
    # From 3.13 on a classmethod binds the call alone, not the attributes of what it wraps.
    bound = (cls,) if sys.version_info >= (3, 13) else ()
    assert cls.make.outcome(*bound, "1").saving == "exact"
    assert Agent.plain("p") == "p" and Agent.plain.outcome("p").saving == "exact"


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


def test_recursion_with_the_same_call(kit: Kit) -> None:
    """A function that calls itself with the same arguments does not wait for itself."""
    depth = []

    @kit.call(exact(), scope=None)
    def ask(q: str) -> int:
        depth.append(1)
        return len(depth) if len(depth) > 3 else ask(q)

    assert ask("q") == 4


# --- errors
# ----------------------------------------------------------------------------------------------------------


class Odd(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def test_the_functions_errors_pass_unchanged(kit: Kit) -> None:
    """The very exception object comes out, is recorded by its class with what was spent, and nothing is
    stored."""
    error = Odd(5)

    @kit.call(exact(), scope=None)
    def ask(q: str) -> None:
        spend()
        raise error

    for call in (ask, ask.outcome):
        with pytest.raises(Odd) as caught:
            call("q")
        assert caught.value is error and error.__cause__ is None and error.__context__ is None
    assert [(r["error"], r["complete"], r["provider_cost"]) for r in rows(kit)] == [("Odd", 1, COST)] * 2


def test_a_plain_function_may_raise_stop_iteration(kit: Kit) -> None:
    """Even StopIteration passes through as it is."""

    @kit.call(exact(), scope=None)
    def ask() -> None:
        raise StopIteration(3)

    with pytest.raises(StopIteration) as caught:
        ask()
    assert caught.value.value == 3


def test_interrupts_are_recorded_and_hold_nothing(kit: Kit) -> None:
    """Ctrl-C inside the function passes through; the row says incomplete; the next call runs."""
    calls = []

    @kit.call(exact(), scope=None)
    def ask() -> str:
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return "a"

    with pytest.raises(KeyboardInterrupt):
        ask()
    assert ask() == "a" and [r["complete"] for r in rows(kit)] == [0, 1]


def test_an_admit_that_raises_is_recorded(kit: Kit) -> None:
    """The error of the user's admit comes out, and what the call cost is in the record."""

    def admit(value: Any) -> bool:
        raise Odd(1)

    @kit.call(exact(admit=admit), scope=None)
    def ask() -> str:
        spend()
        return "a"

    with pytest.raises(Odd):
        ask()
    assert [(r["error"], r["provider_cost"]) for r in rows(kit)] == [("Odd", COST)]


def test_bad_arguments_are_pythons_own_error(kit: Kit) -> None:
    """A call that does not fit the signature is a TypeError before anything is recorded."""
    ask = kit.call(exact(), scope=None)(answer)
    for args, kwargs in (
        ((), {}),
        (("a", "b"), {}),
        (("a",), {"q": "b"}),
        ((), {"z": 1}),
        (("a",), {"z": 1}),
    ):
        with pytest.raises(TypeError):
            ask(*args, **kwargs)
    assert not rows(kit)


# --- time, epochs, processes, trouble
# --------------------------------------------------------------------------------


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


CHILD = """
import sys, costkit
kit = costkit.Kit(sys.argv[1])
@kit.call(costkit.exact(epoch="kb"), scope="tenant", name="ask", version="1")
def ask(q, *, tenant):
    return {"q": q, "by": sys.argv[2]}
print(ask(sys.argv[3], tenant="acme")["by"], flush=True)
if len(sys.argv) > 4:
    kit.bump("kb")
"""


def test_processes_share_answers_and_bumps(tmp_path: Path) -> None:
    """What one process stored another serves; what one bumped another misses; the record has all of it."""
    folder = str(tmp_path / "kit")

    def child(*args: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", CHILD, folder, *args], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert child("one", "q") == "one"
    assert child("two", "q") == "one"
    with Kit(folder) as kit:
        ask = kit.call(exact(epoch="kb"), scope="tenant", name="ask", version="1")(
            lambda q, *, tenant: {"by": "parent"}
        )
        assert ask("q", tenant="acme") == {"q": "q", "by": "one"}
        assert child("three", "q", "bump") == "one"
        assert ask("q", tenant="acme") == {"by": "parent"}
        assert [r["saved_by"] for r in rows(kit)] == [None, "exact", "exact", "exact", None]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_fork(kit: Kit) -> None:
    """A forked child serves, calls and records on its own, even when forked while threads were busy."""
    ask = kit.call(exact(), scope=None)(answer)
    ask("q")
    stop = threading.Event()

    def busy() -> None:
        while not stop.wait(0.001):
            ask("q")

    thread = threading.Thread(target=busy)
    thread.start()
    children = []
    for i in range(5):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                good = ask.outcome("q").saving == "exact" and ask(f"child{i}") == f"child{i} for t"
                kit.close()
                code = 0 if good else 2
            finally:
                os._exit(code)
        children.append(child)
    codes = [os.waitpid(child, 0)[1] for child in children]
    stop.set()
    thread.join(20)
    assert codes == [0] * 5
    assert ask.outcome("child3").saving == "exact"
    assert sum(r["saved_by"] is None for r in rows(kit)) == 6


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


def test_store_trouble_is_a_miss(kit: Kit) -> None:
    """With the cache's table gone every call is answered by the function, and health says so."""
    ask = kit.call(exact(), scope=None)(answer)
    con = sqlite3.connect(kit.folder / "cache" / "cache.db", isolation_level=None)
    con.execute("ALTER TABLE Cache RENAME TO Gone")
    assert ask("q") == "q for t"
    health = kit.health()
    assert health["failed"] >= 1 and health["unwritten"] == 1 and health["unrecorded"] == 0


def test_ledger_trouble_is_an_answer_and_one_warning(kit: Kit) -> None:
    """With the record's table gone calls go on; it is said once and counted each time."""

    @kit.call(scope=None)
    def ask(n: int) -> int:
        spend()
        return n

    con = sqlite3.connect(kit.folder / "ledger.db", isolation_level=None)
    con.execute("ALTER TABLE queries RENAME TO gone")
    with pytest.warns(RuntimeWarning, match="calls go on, unrecorded") as caught:
        assert [ask(n) for n in range(3)] == [0, 1, 2]
    assert len(caught) == 1 and kit.health()["unrecorded"] == 3
    con.execute("ALTER TABLE gone RENAME TO queries")
    assert ask(3) == 3 and len(rows(kit)) == 1


def test_tampered_rows_are_misses(tmp_path: Path) -> None:
    """A row with diskcache's pickle mode and a foreign file name runs nothing, removes nothing, and is a
    miss."""
    victim, proof = tmp_path / "victim", tmp_path / "proof"
    victim.write_text("precious")
    with Kit(tmp_path / "kit") as kit:
        kit.call(exact(), scope=None)(answer)("q")
    con = sqlite3.connect(tmp_path / "kit" / "cache" / "cache.db", isolation_level=None)
    evil = b"cos\nsystem\n(S'touch %s'\ntR." % str(proof).encode()
    con.execute("UPDATE Cache SET mode = 4, value = ?, filename = ?", (evil, str(victim)))
    con.execute("INSERT OR REPLACE INTO Settings VALUES ('disk_pickle_protocol', 2)")
    with Kit(tmp_path / "kit") as kit:
        ask = kit.call(exact(), scope=None)(answer)
        assert ask.outcome("q").saving is None and ask.outcome("q").saving == "exact"
    assert victim.read_text() == "precious" and not proof.exists()


def test_a_secret_keeps_forgers_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers stored without the secret are not served with it; a short secret is refused."""
    monkeypatch.delenv("COSTKIT_SECRET", raising=False)
    with Kit(tmp_path / "kit") as kit:
        kit.call(exact(), scope=None)(answer)("q")
    with Kit(tmp_path / "kit", secret="0123456789abcdef") as kit:
        ask = kit.call(exact(), scope=None)(answer)
        assert ask.outcome("q").saving is None and ask.outcome("q").saving == "exact"
    monkeypatch.setenv("COSTKIT_SECRET", "0123456789abcdef")
    with Kit(tmp_path / "kit") as kit:
        assert kit.call(exact(), scope=None)(answer).outcome("q").saving == "exact"
    with pytest.raises(ConfigError, match="at least 16 bytes"):
        Kit(tmp_path / "kit", secret="short")


def test_bad_folders(tmp_path: Path) -> None:
    """A foreign folder and a newer ledger are refused before anything runs."""
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "file").write_text("mine")
    with pytest.raises(FolderError, match="other files"):
        Kit(tmp_path / "x")
    Kit(tmp_path / "kit").close()
    con = sqlite3.connect(tmp_path / "kit" / "ledger.db")
    con.execute("PRAGMA user_version = 99")
    con.close()
    with pytest.raises(LedgerVersionError, match="upgrade"):
        Kit(tmp_path / "kit")


def test_used_after_close_and_at_exit(tmp_path: Path) -> None:
    """A program that never closes its kit still finds its rows in the record."""
    code = f"""
    import costkit
    kit = costkit.Kit({str(tmp_path / "kit")!r})
    ask = kit.call(costkit.exact(), scope=None, name="ask", version="1")(lambda q: q)
    for _ in range(50):
        ask("q")
    kit.close()
    ask("q")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    with Kit(tmp_path / "kit") as kit:
        assert len(rows(kit)) == 51


def test_async_iterators_are_told_from_functions(kit: Kit) -> None:
    """The decorator sees the kind by itself."""
    from costkit.wrapped import AsyncCall, AsyncStreamCall, StreamCall, SyncCall

    def a() -> int:
        return 1

    async def b() -> int:
        return 1

    def c() -> Iterator[int]:
        yield 1

    async def d() -> AsyncIterator[int]:
        yield 1

    decorate = kit.call(scope=None)
    kinds = [type(x) for x in (decorate(a), decorate(b), decorate(c), decorate(d))]
    assert kinds == [SyncCall, AsyncCall, StreamCall, AsyncStreamCall]


RESPONSE: dict[str, Any] = {
    "object": "chat.completion",
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}],
    "usage": {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500},
}


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


def test_an_unsaid_scope_argument_is_another_call(kit: Kit) -> None:
    """A scope that comes from kit.scope() is None to the function: not the call that passes it."""

    @kit.call(exact(), scope="tenant")
    def ask(q: str, *, tenant: str | None = None) -> str:
        return f"for {tenant}"

    with kit.scope(tenant="acme"):
        assert ask("q") == "for None" and ask.outcome("q").saving == "exact"
    assert ask("q", tenant="acme") == "for acme"


def test_a_shorter_ttl_holds_for_answers_made_under_a_longer_one(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ttl is what the running program says, not what the one that stored the answer said."""
    wrapped = [kit.call(exact(ttl=ttl), scope=None, name="ask", version="1")(answer) for ttl in ("1d", "1h")]
    now = time.time()
    wrapped[0]("q")
    monkeypatch.setattr(time, "time", lambda: now + 7200)
    assert [w.outcome("q").saving for w in wrapped] == ["exact", None]


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda kit: kit.call(exact(), scope=5), r"scope=.*5"),
        (lambda kit: kit.call(exact(), scope=None, model="modle")(answer), "model='modle'"),
        (lambda kit: kit.call(exact(), scope=None, key="q")(answer), r"key=.*not str"),
        (lambda kit: kit.call(exact(), scope=None, key={"q": "q"})(answer), r"key=.*give a function"),
        (lambda kit: exact(ttl=[1]), "ttl"),  # type: ignore[arg-type]  # pyright: ignore
        (lambda kit: exact(epoch=5), "epoch"),  # type: ignore[arg-type]  # pyright: ignore
        (lambda kit: exact(admit=True), "admit"),  # type: ignore[arg-type]  # pyright: ignore
        (lambda kit: Kit(kit.folder, secret=5), "secret"),  # type: ignore[arg-type]  # pyright: ignore
    ],
)
def test_settings_of_the_wrong_kind(kit: Kit, wrong: Callable[[Kit], Any], match: str) -> None:
    """A setting of the wrong kind is a ConfigError that names it, not a TypeError from inside."""
    with pytest.raises(ConfigError, match=match):
        wrong(kit)


@dataclass
class Marked:
    """A dataclass that carries more than its fields."""

    text: str

    def __post_init__(self) -> None:
        self.marks = [self.text]


@dataclass
class Lines(list[str]):
    """A dataclass that is a list, too."""

    kind: str


@pytest.mark.filterwarnings("ignore:costkit")
def test_state_beyond_the_fields_is_part_of_the_key(kit: Kit) -> None:
    """Two dataclass arguments that differ outside their fields are two calls; such a value is not stored."""

    @kit.call(exact(), scope=None)
    def ask(q: Any) -> str:
        return repr(getattr(q, "marks", list(q) if isinstance(q, list) else None))

    one, two = Marked("x"), Marked("x")
    two.marks.append("y")
    a, b = Lines("k"), Lines("k")
    b.append("line")
    assert [ask(q) for q in (one, two, a, b)] == ["['x']", "['x', 'y']", "[]", "['line']"]
    give = kit.call(exact(), scope=None, name="give")(lambda: two)
    assert give().marks == give().marks == ["x", "y"] and give.outcome().saving is None


def test_an_answer_that_cannot_be_stored_is_said(kit: Kit) -> None:
    """A value that would not come back as what it is passes through, with one warning that says why."""
    ask = kit.call(exact(), scope=None, name="ask")(lambda q: iter([q]))
    with pytest.warns(RuntimeWarning, match="ask: its answers cannot be stored .*list_iterator"):
        assert list(ask("q")) == ["q"]
    assert list(ask("q")) == ["q"]


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
