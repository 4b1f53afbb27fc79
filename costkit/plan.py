"""What is known of a wrapped function before it is called: how to bind, name, version and key a call."""

from __future__ import annotations

import ast
import contextlib
import difflib
import hashlib
import inspect
import textwrap
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .budget import Budget, amount
from .errors import ConfigError
from .exact import Exact
from .key import digest, encode_value

if TYPE_CHECKING:
    from .semantic.pool import Meaning

__all__ = ["MaxCost", "Plan", "make_plan"]

MaxCost = int | Callable[..., Any]
"""The most one call may cost: nano-dollars, or a function of its arguments that says it as text ("0.02 USD") or 0."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything about a wrapped function that does not change between calls."""

    fn: Callable[..., Any]
    name: str
    version: str
    source: str
    closed: bool
    exact: Exact | None
    scope: tuple[str, ...] | None
    left_out: frozenset[str]
    key: Callable[..., Any] | Mapping[str, Callable[[Any], Any]] | None
    model: str | None
    provider: str | None
    stream: bool
    signature: inspect.Signature
    method_signature: inspect.Signature
    names: frozenset[str]
    positional: tuple[str, ...] | None
    defaults: Mapping[str, Any] = field(repr=False)
    budget: tuple[Budget, ...] = ()
    max_cost: MaxCost | None = None
    outputs: bool = True  # False: the model writes nothing (embeddings), so no output limit is needed
    meaning: Meaning | None = None
    reads: Callable[[Any], Any] | None = None  # a value, or a chunk, to what the usage readers know

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments by name, defaults filled in; raises TypeError as the function itself would."""
        names = self.positional
        if names is not None and len(args) <= len(names):
            bound = {**self.defaults, **dict(zip(names, args, strict=False)), **kwargs}
            twice = kwargs and any(n in kwargs for n in names[: len(args)])
            if bound.keys() == self.names and not twice:
                return bound
        return self._bind_slowly(args, kwargs)

    def _bind_slowly(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        flat: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            kind = self.signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_KEYWORD:
                # A keyword may be called like a positional-only parameter, or not be an identifier at all.
                for k, v in value.items():
                    flat[k if k.isidentifier() and k not in self.names else "**" + k] = v
            elif kind is inspect.Parameter.VAR_POSITIONAL:
                flat["*" + name] = value
            else:
                flat[name] = value
        return flat

    def called(self, function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
        """What ``function`` returns for this call's arguments, given as the caller of the wrapped one gives them."""
        return function(*_positional(self.signature, arguments), **_named(self.signature, arguments))

    def digest(self, scope: Mapping[str, Any] | None, arguments: Mapping[str, Any]) -> str:
        """The key of a call; raises UnkeyableArgument."""
        return digest(scope, self.name, self.version, self.keyed(arguments))

    def keyed(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the key of a call is made of."""
        if callable(self.key):
            return {"key()": self.called(self.key, arguments)}
        if not (self.left_out or self.key):
            return arguments
        by_name = self.key or {}
        return {
            name: by_name[name](value) if name in by_name else value
            for name, value in arguments.items()
            # A scope that the call leaves to kit.scope(...) is None to the function: another call.
            if name not in self.left_out or (value is None and name in (self.scope or ()))
        }

    def model_of(self, arguments: Mapping[str, Any]) -> str | None:
        """The model this call asks for, where an argument says so."""
        model = None if self.model is None else arguments.get(self.model)
        return model if isinstance(model, str) else None


def _positional(signature: inspect.Signature, arguments: Mapping[str, Any]) -> list[Any]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    values = [arguments[p.name] for p in signature.parameters.values() if p.kind in kinds]
    for p in signature.parameters.values():
        if p.kind is inspect.Parameter.VAR_POSITIONAL:
            values.extend(arguments["*" + p.name])
    return values


def _named(signature: inspect.Signature, arguments: Mapping[str, Any]) -> dict[str, Any]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    taken = {p.name for p in signature.parameters.values() if p.kind in kinds}
    named = {n.removeprefix("**"): v for n, v in arguments.items() if n not in taken}
    return {n: v for n, v in named.items() if not n.startswith("*")}


def make_plan(
    fn: Callable[..., Any],
    *,
    exact: Exact | None,
    scope: tuple[str, ...] | None,
    name: str | None,
    version: str | None,
    ignore: tuple[str, ...],
    key: Callable[..., Any] | Mapping[str, Callable[[Any], Any]] | None,
    model: str | None,
    provider: str | None,
    budget: tuple[Budget, ...] = (),
    max_cost: str | int | Callable[..., Any] | None = None,
    meaning: Meaning | None = None,
) -> Plan:
    """Check the decorator's settings against the function; raises ConfigError."""
    if isinstance(fn, (staticmethod, classmethod)):
        raise ConfigError(f"kit.call(...) goes below @{type(fn).__name__}, next to the function")
    if not callable(fn) or not hasattr(fn, "__qualname__"):
        raise ConfigError(
            f"kit.call(...) wraps a function, not {type(fn).__name__}; give it a def of its own"
        )
    if isinstance(getattr(fn, "_plan", None), Plan):
        raise ConfigError(f"{fn!r} is wrapped already; give both savings to one kit.call(...)")
    signature = inspect.signature(fn)
    parameters = signature.parameters
    kinds = {p.kind for p in parameters.values()}
    _check_names(fn, ignore=ignore, key=key, model=model)
    if meaning is not None:
        _check_meaning(fn, meaning, key, frozenset(ignore) | frozenset(scope or ()))
    variadic = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD} & kinds
    simple = not variadic and inspect.Parameter.POSITIONAL_ONLY not in kinds
    source = _source(fn)
    empty = inspect.Parameter.empty
    positional = [p.name for p in parameters.values() if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    return Plan(
        fn=fn,
        name=name or f"{fn.__module__}.{fn.__qualname__}",
        version=version if version is not None else source,
        source=source,
        closed=bool(getattr(fn, "__closure__", None)),
        exact=exact,
        scope=scope,
        left_out=frozenset(ignore) | frozenset(scope or ()),
        key=key,
        model=model,
        provider=provider,
        stream=inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn),
        signature=signature,
        method_signature=_without_self(signature),
        names=frozenset(parameters),
        positional=tuple(positional) if simple else None,
        defaults={p.name: p.default for p in parameters.values() if p.default is not empty},
        budget=budget,
        meaning=meaning,
        max_cost=max_cost
        if max_cost is None or callable(max_cost)
        else amount(max_cost, "kit.call(max_cost=...)"),
    )


def _check_names(fn: Callable[..., Any], *, ignore: tuple[str, ...], key: object, model: str | None) -> None:
    """Settings name arguments that the function has; raises ConfigError."""
    parameters = inspect.signature(fn).parameters
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    if key is not None and not callable(key) and not isinstance(key, Mapping):
        raise ConfigError(
            f"kit.call(key=...): a function, or {{argument: function}}, not {type(key).__name__}"
        )
    by_name = list(key) if isinstance(key, Mapping) else []
    for setting, names in (("ignore", ignore), ("key", by_name)):
        for wrong in names:
            if wrong not in parameters and not open_ended:
                near = difflib.get_close_matches(wrong, parameters, 1)
                raise ConfigError(
                    f"kit.call({setting}=...): {fn.__qualname__} has no argument {wrong!r}"
                    + (f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(parameters)}")
                )
    if key is not None and not callable(key) and not all(callable(of) for of in dict(key).values()):
        raise ConfigError(
            "kit.call(key=...): for each argument give a function, {'client': lambda c: c.base_url}"
        )
    if model not in (None, "model") and model not in parameters and not open_ended:
        raise ConfigError(
            f"kit.call(model={model!r}): {fn.__qualname__} has no argument of that name, so no price could be "
            "checked before a call; name the argument that holds the model, or say model=None"
        )


def _check_meaning(fn: Callable[..., Any], meaning: Meaning, key: object, left_out: frozenset[str]) -> None:
    """The claimed argument is one of the function's, and may be told from the others; raises ConfigError."""
    parameters, settings = inspect.signature(fn).parameters, meaning.settings
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    for setting, name in (("text", settings.text), ("sources", settings.sources)):
        if name is not None and name not in parameters and not open_ended:
            raise ConfigError(
                f"semantic({setting}={name!r}): {fn.__qualname__} has no such argument; it has {', '.join(parameters)}"
            )
    if settings.text in left_out:
        raise ConfigError(
            f"semantic({settings.text!r}): the same argument is in ignore or scope, so all its texts would share an "
            "answer; take it out there, or claim another one"
        )
    if callable(key) or (isinstance(key, Mapping) and settings.text in key):
        raise ConfigError(
            f"kit.call(key=...): with semantic({settings.text!r}) give functions for single other arguments, "
            "{'client': lambda client: client.base_url}: what must be identical has to be told from the claimed text"
        )


def _without_self(signature: inspect.Signature) -> inspect.Signature:
    parameters = list(signature.parameters.values())
    first = parameters[0].kind if parameters else inspect.Parameter.VAR_POSITIONAL
    if first in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD):
        parameters = parameters[1:]
    return signature.replace(parameters=parameters)


def _source(fn: Callable[..., Any]) -> str:
    """A digest of the function's own code: its syntax tree where the source is at hand, else its bytecode.

    Text and numbers that a closure captured are part of it; globals it reads and functions it calls are not.

    Comments, layout, docstring and decorators do not count.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(fn)))
        node = tree.body[0]
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.decorator_list = []
            if ast.get_docstring(node) is not None:
                node.body = node.body[1:] or [ast.Pass()]
        text = ast.unparse(tree)
    except (OSError, TypeError, SyntaxError, IndexError):
        code = getattr(fn, "__code__", None)
        text = fn.__qualname__ if code is None else _code_text(code)
    text += _captured(fn)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _captured(fn: Callable[..., Any]) -> str:
    """Plain values that a closure captured, as they are when it is wrapped: another prompt is another function."""
    names = getattr(getattr(fn, "__code__", None), "co_freevars", ())
    captured = []
    for name, cell in zip(names, getattr(fn, "__closure__", None) or (), strict=False):
        with contextlib.suppress(ValueError):  # A cell that is still empty.
            if type(cell.cell_contents) in (str, bytes, int, float, bool, type(None)):
                captured.append(f"{name}={encode_value(cell.cell_contents)}")
    return "\n".join(captured)


def _code_text(code: types.CodeType) -> str:
    """Bytecode, names and constants, the same in every process."""
    plain = [c for c in code.co_consts if not isinstance(c, types.CodeType) and c is not ...]
    inner = "".join(_code_text(c) for c in code.co_consts if isinstance(c, types.CodeType))
    return f"{code.co_code.hex()}{encode_value(plain)}{code.co_names!r}({inner})"
