"""Gold files: what a test is, reading it, and saying what to mend in a broken one."""

from __future__ import annotations

import difflib
import inspect
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import GoldError
from .text import fold, short

_TEXTS = ("contains", "cite", "sources", "tags")
KEYS = ("question", "contains", "contains_any", "equals", "cite", "sources", "refuse", "tags", "args")


@dataclass(frozen=True, slots=True)
class GoldTest:
    """One question and what makes an answer right; ``where`` is its file and number."""

    question: str
    contains: tuple[str, ...] = ()
    contains_any: tuple[tuple[str, ...], ...] = ()
    equals: str | None = None
    cite: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    refuse: bool = False
    tags: tuple[str, ...] = ()
    args: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""


def load_gold(path: Path | str) -> list[GoldTest]:
    """The tests of a TOML file, or of every one in a folder in the order of their names.

    Raises GoldError naming the file, the test and its question, and what to mend.
    """
    root = Path(path)
    files = sorted(root.glob("*.toml")) if root.is_dir() else [root]
    if not files:
        raise GoldError(f"{root}: holds no .toml file; write one with at least one [[test]]")
    tests: list[GoldTest] = []
    seen: dict[str, str] = {}
    for file in files:
        for number, table in enumerate(_tables(file), 1):
            test = _test(table, f"{file.name} test {number}")
            key = json.dumps([fold(test.question), dict(test.args)], sort_keys=True, default=str)
            if key in seen:
                raise GoldError(
                    f"{title(test)}: asks the same as {seen[key]}; delete one or change its arguments"
                )
            seen[key] = test.where
            tests.append(test)
    return tests


def _tables(file: Path) -> list[Any]:
    try:
        data = tomllib.loads(file.read_text("utf-8-sig"))
    except OSError as error:
        raise GoldError(
            f"{file}: cannot be read ({error.strerror}); give a .toml file or a folder of them"
        ) from None
    except UnicodeDecodeError as error:
        raise GoldError(f"{file}: not UTF-8 text at byte {error.start}; save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise GoldError(f"{file}: not TOML: {error}") from None
    for key in data:
        if key != "test":
            raise GoldError(f"{file}: unknown top-level key {key!r}; every test starts with a line [[test]]")
    tables = data.get("test")
    if not isinstance(tables, list) or not tables:
        raise GoldError(f"{file}: holds no test; start each with a line [[test]] (two brackets)")
    return tables


def _test(table: Any, where: str) -> GoldTest:
    question = table.get("question") if isinstance(table, dict) else None
    if not isinstance(question, str) or not question.strip():
        raise GoldError(f'{where}: question is missing or empty; write question = "..."')
    name = f"{where} ({short(question)})"
    args = table.get("args", {})
    if not isinstance(args, dict):
        raise GoldError(f'{name}: args must be a table such as {{ tenant = "acme" }}')
    args = {**{k: v for k, v in table.items() if k not in KEYS}, **args}
    for key in table:
        near = difflib.get_close_matches(key, KEYS, 1, 0.8)
        if key not in KEYS and near:
            raise GoldError(
                f"{name}: unknown key {key!r}, did you mean {near[0]!r}? "
                f"An argument of the function with that name goes into args = {{ {key} = ... }}"
            )
    texts = {key: _strings(table.get(key, []), key, name) for key in _TEXTS}
    groups = table.get("contains_any", [])
    if not isinstance(groups, list) or not all(isinstance(g, list) and g for g in groups):
        raise GoldError(f'{name}: contains_any must be a list of lists, [["30 days", "a month"]]')
    test = GoldTest(
        question=question,
        contains_any=tuple(_strings(g, "contains_any", name) for g in groups),
        equals=_kind(table.get("equals"), str, "equals", name),
        refuse=bool(_kind(table.get("refuse"), bool, "refuse", name)),
        args=args,
        where=where,
        **texts,
    )
    _check(test, name)
    return test


def _check(test: GoldTest, name: str) -> None:
    asked = [k for k in ("contains", "contains_any", "equals", "cite") if getattr(test, k) not in ((), None)]
    if test.refuse and asked:
        raise GoldError(f"{name}: refuse = true together with {' and '.join(asked)}; keep one of the two")
    if test.refuse and test.sources:
        raise GoldError(f"{name}: refuse = true together with sources; what no document answers has none")
    if not test.refuse and not asked:
        raise GoldError(
            f"{name}: nothing to check; add contains, contains_any, equals, cite or refuse = true"
        )


def _strings(value: Any, key: str, name: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(v, str) and v.strip() for v in value):
        raise GoldError(f'{name}: {key} must be a list of texts, none empty, such as ["30 days"]')
    return tuple(value)


def _kind(value: Any, kind: type, key: str, name: str) -> Any:
    if value is not None and not isinstance(value, kind):
        wanted = "true or false" if kind is bool else "a text"
        raise GoldError(f"{name}: {key} must be {wanted}, not {value!r}")
    return value


def title(test: GoldTest) -> str:
    return f"{test.where} ({short(test.question)})" if test.where else short(test.question)


def check_arguments(tests: Sequence[GoldTest], ask: Callable[..., Any]) -> None:
    """Raises GoldError for the first test whose arguments ``ask`` does not take; calls nothing."""
    try:
        signature = inspect.signature(ask)
    except (TypeError, ValueError):
        return
    for test in tests:
        try:
            signature.bind(test.question, **test.args)
        except TypeError as error:
            takes = ", ".join(signature.parameters)
            raise GoldError(f"{title(test)}: {error}; the function takes ({takes})") from None
