"""A wrapped function still looks and binds like the function."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from costkit import Kit, exact
from costkit.plan import Plan, make_plan


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    with Kit(tmp_path / "kit") as made:
        yield made


def plain(question: str, n: int = 1, *, tenant: str = "t") -> str:
    """What plain says."""
    return question * n


async def coroutine(question: str) -> str:
    """What coroutine says."""
    return question


def stream(question: str) -> Iterator[str]:
    """What stream says."""
    yield question


async def async_stream(question: str) -> AsyncIterator[str]:
    """What async_stream says."""
    yield question


KINDS: list[Callable[..., Any]] = [plain, coroutine, stream, async_stream]
PREDICATES: list[Callable[[Any], bool]] = [
    inspect.iscoroutinefunction,
    inspect.isgeneratorfunction,
    inspect.isasyncgenfunction,
    callable,
]


@pytest.mark.parametrize("fn", KINDS, ids=lambda f: f.__name__)
def test_looks_like_the_function(kit: Kit, fn: Callable[..., Any]) -> None:
    """Name, docstring, module, signature, annotations and inspect's predicates are the function's own."""
    wrapped = kit.call(exact(), scope=None)(fn)
    for attribute in ("__name__", "__qualname__", "__doc__", "__module__", "__annotations__"):
        assert getattr(wrapped, attribute) == getattr(fn, attribute)
    assert inspect.signature(wrapped) == inspect.signature(fn)
    assert inspect.unwrap(wrapped) is fn
    assert [p(wrapped) for p in PREDICATES] == [p(fn) for p in PREDICATES]
    assert inspect.getsource(inspect.unwrap(wrapped)) == inspect.getsource(fn)


def test_a_method_looks_like_the_method(kit: Kit) -> None:
    """The signature of a bound method has no self, and reading it from the class has it."""

    class Agent:
        @kit.call(exact(), scope=None, ignore=["self"])
        def ask(self, question: str, n: int = 2) -> str:
            """What ask says."""
            return question * n

    assert str(inspect.signature(Agent().ask)) == "(question: 'str', n: 'int' = 2) -> 'str'"
    assert list(inspect.signature(Agent.ask).parameters) == ["self", "question", "n"]
    assert Agent().ask.__doc__ == "What ask says." and Agent().ask("a") == "aa"
    one = Agent()
    bound = one.ask
    assert (bound("b"), bound.outcome("b").saving) == ("bb", "exact")


def test_each_instance_binds_itself(kit: Kit) -> None:
    """Methods of two instances taken before either is called do not mix."""

    class Agent:
        def __init__(self, name: str) -> None:
            self.name = name

        @kit.call(scope=None)
        def ask(self) -> str:
            return self.name

    one, two = Agent("one").ask, Agent("two").ask
    assert (one(), two(), one()) == ("one", "two", "one")


SIGNATURES: list[Callable[..., Any]] = [
    lambda: None,
    lambda a: None,
    lambda a, b: None,
    lambda a, b=2: None,
    lambda a=1, b=2: None,
    lambda a, *, b: None,
    lambda a, *, b=2: None,
    lambda *, a, b=2: None,
    lambda a, /: None,
    lambda a, /, b=2: None,
    lambda a=1, /, *, b: None,
    lambda *args: None,
    lambda a, *args: None,
    lambda a, *args, b=2: None,
    lambda **kwargs: None,
    lambda a, **kwargs: None,
    lambda a, /, **kwargs: None,
    lambda a, b=2, /, *args, c, d=4, **kwargs: None,
]


def plan_of(fn: Callable[..., Any]) -> Plan:
    return make_plan(
        fn, exact=None, scope=None, name=None, version="1", ignore=(), key=None, model=None, provider=None
    )


def bound_by_inspect(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What inspect binds, flattened by hand; the error's type where it refuses."""
    try:
        bound = inspect.signature(fn).bind(*args, **kwargs)
    except TypeError:
        return TypeError
    bound.apply_defaults()
    flat: dict[str, Any] = {}
    parameters = inspect.signature(fn).parameters
    for name, value in bound.arguments.items():
        if parameters[name].kind is inspect.Parameter.VAR_POSITIONAL:
            flat["*" + name] = value
        elif parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            flat.update({("**" + k if k in parameters else k): v for k, v in value.items()})
        else:
            flat[name] = value
    return flat


def bound_by_plan(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    try:
        return plan_of(fn).bind(args, kwargs)
    except TypeError:
        return TypeError


@pytest.mark.parametrize("fn", SIGNATURES, ids=lambda f: str(inspect.signature(f)))
def test_binds_as_inspect_does(fn: Callable[..., Any]) -> None:
    """For every number of positional arguments and every set of keywords the binding, or the refusal, is
    inspect's."""
    refused = accepted = 0
    names = ("a", "b", "c", "z", "args", "kwargs")
    for count in range(4):
        for size in range(4):
            for keywords in itertools.combinations(names, size):
                args, kwargs = tuple(range(count)), {name: name.upper() for name in keywords}
                expected = bound_by_inspect(fn, args, kwargs)
                assert bound_by_plan(fn, args, kwargs) == expected, (args, kwargs)
                refused += expected is TypeError
                accepted += expected is not TypeError
    assert accepted


def test_version_is_the_same_without_source() -> None:
    """A function without source is versioned by its bytecode, nested functions and sets included, stably."""

    def made(text: str) -> Plan:
        space: dict[str, Any] = {}
        code = f"def f(q):\n    g = lambda x: x in {{'a', 'b', {text!r}}}\n    return g(q)\n"
        exec(compile(code, "<nowhere>", "exec"), space)  # noqa: S102
        fn = space["f"]
        return make_plan(
            fn, exact=None, scope=None, name="f", version=None, ignore=(), key=None, model=None, provider=None
        )

    assert made("c").version == made("c").version != made("d").version


def test_decorating_twice_is_refused(kit: Kit) -> None:
    """A wrapped function is not wrapped again."""
    from costkit.errors import ConfigError

    with pytest.raises(ConfigError, match="wrapped already"):
        kit.call(scope=None)(kit.call(scope=None)(plain))


def test_what_a_closure_captured_is_part_of_the_version() -> None:
    """The same code around another prompt is another version, in every process; around an equal one it is the same."""

    def made(prompt: str) -> str:
        def ask(question: str) -> str:
            return prompt + question

        return make_plan(
            ask,
            exact=None,
            scope=None,
            name=None,
            version=None,
            ignore=(),
            key=None,
            model=None,
            provider=None,
        ).version

    assert made("be brief") == made("be brief") != made("be long")
