"""Judges that compare by themselves: structure, text, tool calls, sources, marks with an encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from ..errors import ConfigError, JudgeError
from ..marks import KINDS, VETO, differs, marks
from ..texts import refuses
from .calling import calling
from .form import Leaf, Tree, answer_tree, arguments_tree, form, near, pick, text_form
from .identity import identity
from .judge import Judge
from .said import text_of, tool_calls

__all__ = ["close_text", "same_answer", "same_json", "same_sources", "same_text", "same_tool_call"]


def _text_key(answer: Any) -> str:
    text, refused = text_of(answer)
    return f"{'refusal' if refused else 'text'} {text_form(text)}"


def _calls_key(answer: Any) -> str:
    calls = tool_calls(answer)
    if not calls:
        return _text_key(answer)
    return form([[call.name, arguments_tree(call.arguments)] for call in calls])


same_answer = Judge("same_answer", "same_answer/1", exact=True, form=lambda answer: form(answer_tree(answer)))
"""The same structure where the answer has one (JSON text, dicts, lists, dataclasses, pydantic models, the messages
and tool calls of a provider's response; ids and usage are no part of it), else the same text as :data:`same_text`
compares it. Numbers are equal by value, True is not 1, order counts in lists and not among keys; a text inside a
structure is compared exactly."""

same_text = Judge("same_text", "same_text/1", exact=True, form=_text_key)
"""The same text, without case, extra spaces, Unicode's several spellings of one character, a closing full stop, and
quotation marks around the whole. Where a provider marks an answer as a refusal, it equals refusals only."""

same_tool_call = Judge("same_tool_call", "same_tool_call/1", exact=True, form=_calls_key)
"""The same tools, called in the same order with the same arguments; ids and text beside them are ignored. Where
neither answer calls a tool, the same text."""


def same_json(
    fields: Sequence[str] | None = None, *, tolerance: float | Decimal = 0, name: str | None = None
) -> Judge:
    """The same JSON, or the same values at some paths of it.

    Args:
        fields: the paths to compare, such as "total", "items.*.sku", "items.0.name"; None, all of it.
        tolerance: how far apart two numbers may be, absolutely.
        name: what reports call the judge.

    A served answer that is not JSON is different. The judge raises :class:`JudgeError` where the reference is not, or
    where neither answer has any of the fields.

    Raises:
        ConfigError: fields is a text or holds what is no path; tolerance is no number of 0 or more.

    >>> total = same_json(["total"], tolerance=0.01)
    >>> total.compare('{"total": 9.99, "id": 1}', '{"id": 2, "total": 10}')
    True
    """
    paths = _paths(fields)
    try:
        most = Decimal(str(tolerance))
    except InvalidOperation:
        most = Decimal("nan")
    if isinstance(tolerance, bool) or not most.is_finite() or most < 0:
        raise ConfigError(f"same_json(tolerance={tolerance!r:.40}): give a number of 0 or more, such as 0.01")

    def key(answer: Any) -> str | None:
        found = _picked(_data(answer), paths)
        return form(found) if found is not None and any(found) else None

    def says(served: Any, reference: Any, question: Any) -> bool:
        wanted, given = _picked(_data(reference), paths), _picked(_data(served), paths)
        if wanted is None:
            raise JudgeError(
                "the reference answer is not JSON; take same_answer or same_text for answers that are text"
            )
        if paths and not any(wanted) and not (given and any(given)):
            raise JudgeError(
                f"neither answer has any of the fields {', '.join(fields or ())}; check fields=..."
            )
        return given is not None and near(given, wanted, most)

    ident = f"same_json/1 {identity(paths, str(most.normalize()))}"
    return Judge(name or "same_json", ident, exact=True, says=says, form=None if most else key)


def _paths(fields: Sequence[str] | None) -> tuple[tuple[str, ...], ...]:
    if fields is None:
        return ()
    if isinstance(fields, str) or not fields or not all(isinstance(path, str) for path in fields):
        raise ConfigError('same_json(fields=...): give a list of paths, such as ["total", "items.*.sku"]')
    paths = tuple(tuple(path.split(".")) for path in fields)
    if not all(all(path) for path in paths):
        raise ConfigError("same_json(fields=...): a path has an empty step; write it as items.*.sku")
    return paths


def _data(answer: Any) -> Tree | None:
    """The structure an answer carries, whatever carries it; None where it is a text that is not JSON."""
    tree = answer_tree(answer)
    if isinstance(tree, dict) and "said" in tree and len(tree) == 1:
        said = tree["said"]
        tree = said[0]["text"] if len(said) == 1 and not said[0]["calls"] else None
    return None if isinstance(tree, Leaf) else tree


def _picked(tree: Tree | None, paths: Sequence[Sequence[str]]) -> list[Tree] | None:
    if tree is None:
        return None
    return [pick(tree, path) for path in paths] if paths else [pick(tree, ())]


def same_sources(sources: Callable[[Any], Iterable[str]] | None = None, *, name: str | None = None) -> Judge:
    """The same set of cited documents.

    Args:
        sources: gives the ids that an answer cites. None: the answer's ``.citations`` or ``.sources``, or the values
            of these keys in a dict, as texts.
        name: what reports call the judge.

    Where neither answer cites anything, they are compared by :data:`same_answer`. Raises :class:`JudgeError` where an
    id is no text or the answer has no place for sources.

    Raises:
        ConfigError: sources is no plain function.

    >>> same_sources(lambda answer: answer["cites"]).compare({"cites": ["kb-1", "kb-2"]}, {"cites": ["kb-2", "kb-1"]})
    True
    """
    cited = calling(sources or _cited, "same_sources(sources=...)", "answer", question=None)

    def key(answer: Any) -> str:
        found = cited(None, answer)
        ids = None if isinstance(found, str) else sorted(set(found))
        if ids is None or not all(isinstance(one, str) for one in ids):
            raise JudgeError("sources must be a list of ids, each a text")
        return f"sources {form(list(ids))}" if ids else f"answer {form(answer_tree(answer))}"

    ident = f"same_sources/1 {identity(sources)}"
    return Judge(name or "same_sources", ident, exact=True, form=key)


def _cited(answer: Any) -> Iterable[str]:
    for place in ("citations", "sources"):
        found = answer.get(place) if isinstance(answer, dict) else getattr(answer, place, None)
        if isinstance(found, list | tuple | set | frozenset):
            return found
    raise JudgeError(
        f"an answer of type {type(answer).__name__} has no citations or sources; say where they are: "
        "same_sources(lambda answer: ...)"
    )


def close_text(
    encoder: Any = None,
    *,
    at: float,
    kinds: Sequence[str] = (*VETO, "negations", "names"),
    name: str | None = None,
) -> Judge:
    """The same marks, and texts whose embeddings have a cosine of at least ``at``.

    Args:
        encoder: anything that :func:`costkit.embed.encoder_of` takes; None, its default.
        at: the least cosine similarity, above 0, at most 1. It has no default: measure it on gold (:func:`measure`).
        kinds: the kinds of mark that must agree, of ``costkit.marks.KINDS``: "order" and "questions" may be added.
        name: what reports call the judge.

    A refusal is as good as a refusal only, and an empty text as an empty one. No judge of this kind is right by
    construction: until it is measured its sensitivity is 0.

    Raises:
        ConfigError: an argument is none of these.
        MissingExtra: the encoder needs a package that is not installed.
    """
    from ..embed import encoder_of

    if isinstance(at, bool) or not isinstance(at, int | float) or not 0 < at <= 1:
        raise ConfigError(f"close_text(at={at!r:.40}): give the least cosine similarity, above 0, at most 1")
    wanted = frozenset(kinds) if not isinstance(kinds, str) else frozenset({kinds})
    if unknown := wanted - set(KINDS):
        raise ConfigError(f"close_text(kinds=...): {min(unknown)!r:.40} is none of {', '.join(KINDS)}")
    known = encoder_of(encoder)

    def says(served: Any, reference: Any, question: Any) -> bool:
        (one, refused), (two, wanted_no) = text_of(served), text_of(reference)
        if text_form(one) == text_form(two):
            return refused == wanted_no
        if (refused or refuses(one)) != (wanted_no or refuses(two)) or not (one.strip() and two.strip()):
            return False
        if wanted.intersection(differs(marks(one), marks(two))):
            return False
        first, second = known.encode([one, two])
        return float(first @ second) >= at

    ident = f"close_text/1 {known.id} {identity(float(at), sorted(wanted))}"
    return Judge(name or "close_text", ident, says=says)
