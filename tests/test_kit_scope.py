"""Who may share an answer of a kit: scopes from arguments and from the context."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

import pytest

from costkit import Kit, exact
from costkit.errors import ScopeError, UnkeyableArgument
from tests import kits
from tests.kits import answer, rows

kit = kits.kit


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


def test_an_unsaid_scope_argument_is_another_call(kit: Kit) -> None:
    """A scope that comes from kit.scope() is None to the function: not the call that passes it."""

    @kit.call(exact(), scope="tenant")
    def ask(q: str, *, tenant: str | None = None) -> str:
        return f"for {tenant}"

    with kit.scope(tenant="acme"):
        assert ask("q") == "for None" and ask.outcome("q").saving == "exact"
    assert ask("q", tenant="acme") == "for acme"
