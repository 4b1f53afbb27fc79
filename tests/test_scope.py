"""Who may share answers: ids and labels of scopes."""

from __future__ import annotations

import pytest

from costkit.errors import ScopeError
from costkit.scope import UNSAID, Scopes, scope_id, shared_by


def test_ids_tell_scopes_apart() -> None:
    """Other names, values or types are other scopes; the order of names does not matter."""
    scopes = [
        None,
        {"t": "a"},
        {"t": "b"},
        {"u": "a"},
        {"t": 1},
        {"t": "1"},
        {"t": True},
        {"t": "a", "u": "b"},
    ]
    assert len({scope_id(scope) for scope in scopes}) == len(scopes)
    assert scope_id({"t": "a", "u": "b"}) == scope_id({"u": "b", "t": "a"})


def test_remembered_or_not_the_same() -> None:
    """What is remembered is what is computed, for text and for other values, however often it is asked."""
    for readable in (True, False):
        scopes = Scopes(readable=readable)
        for scope in ({"t": "acme"}, {"t": 7}, {"t": "acme"}, {"u": "acme"}):
            assert scopes.named(scope) == (scope_id(scope), scopes.label(scope))
        assert scopes.named(None) == ("-", None)
    assert Scopes(readable=False).named({"t": "acme"})[1] == scope_id({"t": "acme"})


def test_many_scopes_do_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many scopes are remembered."""
    monkeypatch.setattr("costkit.scope._MOST", 10)
    scopes = Scopes(readable=True)
    named = [scopes.named({"t": str(n)}) for n in range(100)]
    assert len(scopes._known) <= 10 and len(set(named)) == 100


@pytest.mark.parametrize("said", [UNSAID, "", [], (), 5, ["a", 5]])
def test_what_says_nothing(said: object) -> None:
    """Unsaid, empty, or no name: refused, with how to say it."""
    with pytest.raises(ScopeError, match="scope"):
        shared_by(said)  # type: ignore[arg-type]


def test_what_is_said() -> None:
    """A name, names, or None said aloud."""
    assert (shared_by("t"), shared_by(["t", "u"]), shared_by(None)) == (("t",), ("t", "u"), None)
