"""What a kit wraps and how it is set: wrong settings are errors that name them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from costkit import Kit, exact
from costkit.errors import ConfigError
from tests import kits
from tests.kits import answer

kit = kits.kit


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
