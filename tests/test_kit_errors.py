"""A kit where things go wrong: the function's errors, its own folder's, and rows that were tampered with."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from costkit import Kit, exact
from costkit.errors import ConfigError, FolderError, LedgerVersionError
from tests import kits
from tests.kits import COST, answer, rows, spend

kit = kits.kit


def test_recursion_with_the_same_call(kit: Kit) -> None:
    """A function that calls itself with the same arguments does not wait for itself."""
    depth = []

    @kit.call(exact(), scope=None)
    def ask(q: str) -> int:
        depth.append(1)
        return len(depth) if len(depth) > 3 else ask(q)

    assert ask("q") == 4


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
