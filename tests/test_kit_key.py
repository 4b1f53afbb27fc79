"""What makes two calls of a kit the same call: arguments, code, the object a method is bound to."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from costkit import Kit, exact
from costkit.errors import ConfigError, UnkeyableArgument
from tests import kits

kit = kits.kit


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
