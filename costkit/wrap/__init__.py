"""A whole SDK client on the path of a wrapped function; see :meth:`costkit.Kit.wrap`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from costkit.budget import Budget, amount
from costkit.errors import ConfigError
from costkit.exact import Exact
from costkit.plan import Plan
from costkit.wrap.client import Route, install, is_installed
from costkit.wrap.wire import admission, body_of
from costkit.wrapped import Owner

if TYPE_CHECKING:
    from costkit.semantic.pool import Meaning

__all__ = ["wrap_client"]

C = TypeVar("C")

_PATHS = {
    "openai": ("/chat/completions", "/completions", "/responses", "/embeddings"),
    "anthropic": ("/v1/messages",),
}
_WRITE_NOTHING = "/embeddings"
_USAGE_ON_REQUEST = frozenset({"/chat/completions", "/completions"})


def wrap_client(
    owner: Owner,
    client: C,
    *,
    exact: Exact | None,
    meaning: Meaning | None = None,
    scope: tuple[str, ...] | None,
    name: str | None,
    version: str | None,
    ignore: Sequence[str],
    provider: str | None,
    budget: tuple[Budget, ...] = (),
    max_cost: str | int | Callable[..., Any] | None = None,
    stream_usage: bool = True,
) -> C:
    """A copy of the client, of the same class, whose calls of models go through ``owner``.

    Raises:
        ConfigError: no client of the openai or anthropic SDK, one that is wrapped, or a setting that is none.
    """
    sdk, asynchronous = _kind(client)
    if isinstance(ignore, str) or not all(isinstance(field, str) for field in ignore):
        raise ConfigError(
            f"kit.wrap(ignore=...): {ignore!r:.80} names no fields; say ignore=['user', 'metadata']"
        )
    admit = None if exact is None else admission(exact.admit)
    most = max_cost if max_cost is None or callable(max_cost) else amount(max_cost, "kit.wrap(max_cost=...)")
    plans = {}
    for path in _PATHS[sdk]:
        for stream in (False, True):
            said = ".".join(part for part in path.split("/") if part not in ("", "v1"))
            plans[path, stream] = _plan(
                name=f"{name or sdk}.{said}", version=version or "1", stream=stream, scope=scope, provider=provider,
                exact=None if exact is None else replace(exact, admit=admit), ignore=frozenset(ignore),
                budget=budget, max_cost=most, outputs=path != _WRITE_NOTHING,
                meaning=None if path == _WRITE_NOTHING else meaning,
            )  # fmt: skip
    usage_paths = _USAGE_ON_REQUEST if stream_usage else frozenset[str]()
    route = Route(owner, asynchronous, plans, usage_paths)
    copied: C = install(client.copy(max_retries=0), route)  # type: ignore[attr-defined]
    return copied


def _kind(client: object) -> tuple[str, bool]:
    """Of which SDK the client is, and whether it is async; raises ConfigError."""
    if isinstance(client, type):
        raise ConfigError(f"kit.wrap({client.__name__}): give a client, kit.wrap({client.__name__}())")
    for base in type(client).__mro__:
        sdk, _, rest = base.__module__.partition(".")
        if sdk in _PATHS and rest == "_base_client" and base.__name__ in ("SyncAPIClient", "AsyncAPIClient"):
            if is_installed(client):
                raise ConfigError(
                    "kit.wrap(client): it is wrapped already; give all savings to one kit.wrap(...)"
                )
            return sdk, base.__name__ == "AsyncAPIClient"
    raise ConfigError(
        f"kit.wrap(): {type(client).__module__}.{type(client).__qualname__} is no client that it knows; it takes "
        "OpenAI, AsyncOpenAI, Anthropic, AsyncAnthropic and their Azure, Bedrock and Vertex kinds. For anything "
        "else put @kit.call(...) on a function that makes the call"
    )


def _plan(
    *, name: str, version: str, exact: Exact | None, scope: tuple[str, ...] | None, ignore: frozenset[str],
    provider: str | None, stream: bool, budget: tuple[Budget, ...], max_cost: Any, outputs: bool,
    meaning: Meaning | None,
) -> Plan:  # fmt: skip
    signature = inspect.signature(_fields)
    return Plan(
        fn=_fields, name=name, version=version, source="", closed=False, exact=exact, scope=scope,
        left_out=ignore | frozenset(scope or ()), key=None, model="model", provider=provider, stream=stream,
        signature=signature, method_signature=signature, names=frozenset(), positional=None, defaults={},
        budget=budget, max_cost=max_cost, outputs=outputs, meaning=meaning, reads=body_of,
    )  # fmt: skip


def _fields(**fields: Any) -> None:
    """What a call's arguments are: the fields of its body."""
