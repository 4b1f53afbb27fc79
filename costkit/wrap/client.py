"""A client that stays what it is, but for what its calls go through.

Five methods of one instance are replaced; its class, and the caller's own client, are untouched:

    request                 says that a call of a model begins, and raises our errors as they are
    _build_request          tells which HTTP request is the call
    _client                 an HTTP client that shares all of the old one's state; its ``send`` is ours
    _process_response_data  tells the calling wrapped function what is counted already
    copy, with_options      their clients are wrapped as well
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from costkit.plan import Plan
from costkit.session import current
from costkit.wrap.asked import Asked
from costkit.wrapped import Owner

__all__ = ["Route", "install", "is_installed"]

# What differs from call to call or says who asks, and not what is asked.
_NOT_ASKED = frozenset(
    {
        "accept", "accept-encoding", "api-key", "authorization", "baggage", "connection", "content-length",
        "content-type", "cookie", "host", "idempotency-key", "proxy-authorization", "traceparent", "tracestate",
        "user-agent", "x-api-key", "x-client-request-id", "x-correlation-id", "x-request-id",
    }
)  # fmt: skip
_NOT_ASKED_PREFIX = ("x-stainless-", "x-amz-", "x-b3-")


@dataclass(frozen=True, slots=True)
class Route:
    """What calls of a wrapped client go through."""

    owner: Owner
    asynchronous: bool
    plans: Mapping[tuple[str, bool], Plan]  # by path and whether it streams
    usage_paths: frozenset[str]  # whose streams report usage only where they are asked to

    def asked(self, client: Any, options: Any) -> tuple[Asked | None, Any]:
        """The call that these options of the SDK make, and the options to send; None for what is not ours."""
        body = {**_dict(options.json_data), **_dict(getattr(options, "extra_json", None))}
        path = str(options.url).partition("?")[0]
        plan = self.plans.get((path, body.get("stream") is True))
        # A conversation is kept by the server: an answer from here would not be in it. Background answers come later.
        elsewhere = body.get("background") or body.get("conversation") or options.files
        if plan is None or not body or elsewhere or str(options.method).lower() != "post":
            return None, options
        adds = plan.stream and path in self.usage_paths and _leaves_usage_open(body, options)
        if adds:
            options = copy.copy(options)
            told = {**_dict(body.get("stream_options")), "include_usage": True}
            options.json_data = {**options.json_data, "stream_options": told}
        headers = _headers((getattr(client, "_custom_headers", None), options.headers))
        model = body.get("model")
        return Asked(self.owner, plan, client, headers=headers, model=model, added_usage=adds), options


_asked: ContextVar[Asked | None] = ContextVar("costkit_asked", default=None)


def install(client: Any, route: Route) -> Any:
    """Make this instance's calls go by the route; returns it."""
    http = client._client
    client._client = http if _is_ours(http) else _http_like(http, route.asynchronous)
    request = client.request
    client.request = (_request_async if route.asynchronous else _request)(client, request, route)
    client._build_request = _build(client._build_request)
    client._process_response_data = _process(client._process_response_data)
    for name in ("copy", "with_options"):
        setattr(client, name, _copies(getattr(client, name), route))
    client._costkit_wrapped = True
    return client


def is_installed(client: Any) -> bool:
    """Whether the client is wrapped already."""
    return getattr(client, "_costkit_wrapped", False) is True


def _request(client: Any, request: Callable[..., Any], route: Route) -> Callable[..., Any]:
    def through(cast_to: Any, options: Any, **more: Any) -> Any:
        asked, options = route.asked(client, options)
        token = _asked.set(asked)
        try:
            return _counted(None, request(cast_to, options, **more))
        except Exception:
            failure = None if asked is None else asked.failure
            if failure is None:
                raise
        finally:
            _asked.reset(token)
        raise failure  # older SDKs would make a connection error of it

    return through


def _request_async(client: Any, request: Callable[..., Any], route: Route) -> Callable[..., Any]:
    async def through(cast_to: Any, options: Any, **more: Any) -> Any:
        asked, options = route.asked(client, options)
        token = _asked.set(asked)
        try:
            return _counted(None, await request(cast_to, options, **more))
        except Exception:
            failure = None if asked is None else asked.failure
            if failure is None:
                raise
        finally:
            _asked.reset(token)
        raise failure

    return through


def _build(build: Callable[..., Any]) -> Callable[..., Any]:
    def building(*args: Any, **more: Any) -> Any:
        request, asked = build(*args, **more), _asked.get()
        if asked is not None:
            asked.url = request.url
        return request

    return building


def _process(process: Callable[..., Any]) -> Callable[..., Any]:
    def processing(*args: Any, **more: Any) -> Any:
        return _counted(more.get("data"), process(*args, **more))

    return processing


def _counted(data: Any, made: Any) -> Any:
    """Tell the wrapped function that is running that what this is made of is counted in a call of its own."""
    session = current.get()
    if session is not None:
        told = _dict(data)
        inner = _dict(told.get("message")) or _dict(told.get("response")) or told
        session.counted(made, inner.get("id"))
    return made


def _copies(made: Callable[..., Any], route: Route) -> Callable[..., Any]:
    def copying(*args: Any, **more: Any) -> Any:
        return install(made(*args, **more), route)

    return copying


# --- the HTTP client ----------------------------------------------------------------------------------------


def _is_ours(http: Any) -> bool:
    return hasattr(type(http), "_costkit_http")


def _http_like(http: Any, asynchronous: bool) -> Any:
    """An HTTP client of the same class and state whose ``send`` is ours; closing one closes both."""

    def send(self: Any, request: Any, **options: Any) -> Any:
        asked = _asked.get()
        if asked is None or not asked.is_for(request):
            return http.send(request, **options)
        return asked.send(http, request, options)

    async def send_async(self: Any, request: Any, **options: Any) -> Any:
        asked = _asked.get()
        if asked is None or not asked.is_for(request):
            return await http.send(request, **options)
        return await asked.send_async(http, request, options)

    cls = type(http)
    own: dict[str, Any] = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__del__": lambda self: None,  # whoever holds the old one may use it still
        "_costkit_http": http,
        "send": send_async if asynchronous else send,
    }
    made: Any = object.__new__(type(cls.__name__, (cls,), own))
    made.__dict__ = http.__dict__
    return made


def _leaves_usage_open(body: Mapping[str, Any], options: Any) -> bool:
    told = body.get("stream_options")
    given = isinstance(told, dict) and "include_usage" in told
    elsewhere = "stream_options" in _dict(getattr(options, "extra_json", None))
    return (
        not given
        and not elsewhere
        and (told is None or isinstance(told, dict))
        and type(options.json_data) is dict
    )


def _headers(given: Iterable[Any]) -> dict[str, str]:
    found = {str(name).lower(): value for headers in given for name, value in _dict(headers).items()}
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, str) and name not in _NOT_ASKED and not name.startswith(_NOT_ASKED_PREFIX)
    }


def _dict(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}
