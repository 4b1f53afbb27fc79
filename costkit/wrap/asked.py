"""One call of a wrapped client: what it asks, and how its answer is made, sync or async, whole or streamed.

The SDK builds the request and reads the response; where it would send, the call runs on the same path as a
wrapped function. The response is built anew from what was recorded, on a miss as on a hit, so the SDK cannot
make two different things of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping
from typing import Any

from costkit.drive import run_async, run_async_stream, run_stream, run_sync
from costkit.flow import flow
from costkit.plan import Plan
from costkit.session import Session
from costkit.wrap.replay import AsyncBody, Body, Made, plain_headers, response
from costkit.wrap.wire import Events, NotJson, Recorded, head, is_done, is_last, whole
from costkit.wrapped import Owner

__all__ = ["Asked"]

# Seconds to wait for the end of an async stream after [DONE], so that its connection can be used again.
_DRAIN = 0.1

Options = Mapping[str, Any]


class Asked:
    """One call: the plan it runs by, and what became of it."""

    def __init__(
        self,
        owner: Owner,
        plan: Plan,
        client: Any,
        *,
        headers: Mapping[str, str],
        model: Any,
        added_usage: bool,
    ) -> None:
        self.owner, self.plan, self.client = owner, plan, client
        self.headers, self.model, self.added_usage = headers, model, added_usage
        self.url: Any = None
        self.failure: Exception | None = None  # an error that is not the server's, to be raised as it is
        self.made: Made | None = None

    def is_for(self, request: Any) -> bool:
        """Whether this is the call itself, and not a token refresh on its way."""
        return self.url is not None and request.method == "POST" and str(request.url) == str(self.url)

    def arguments(self, request: Any) -> dict[str, Any] | None:
        """The fields of the body, and under a name of ours where it goes; None where it is no JSON object."""
        try:
            body = json.loads(request.content)
        except (ValueError, RecursionError, RuntimeError):
            return None
        if not isinstance(body, dict):
            return None
        if self.added_usage:
            asked = {
                name: value for name, value in body.pop("stream_options").items() if name != "include_usage"
            }
            body.update({"stream_options": asked} if asked else {})
        named = {f"**{name}" if name.startswith("*") else name: value for name, value in body.items()}
        if self.model is not None:
            named.setdefault("model", self.model)  # some clients move it from the body into the path
        url = request.url
        # Headers and query may hold what nobody should read; their digest tells calls apart as well.
        more = json.dumps([url.query.decode("latin-1"), sorted(self.headers.items())])
        told = hashlib.sha256(more.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return {**named, "*to": f"{url.scheme}://{url.host}:{url.port or ''}{url.path} {told}"}

    # --- in place of the HTTP client's send ---------------------------------------------------------------

    def send(self, http: Any, request: Any, options: Options) -> Any:
        """The response to a request of a sync client."""
        arguments = self._begins(request)
        if arguments is None:
            return http.send(request, **options)
        options = {name: value for name, value in options.items() if name != "stream"}
        ports = self.owner._ports
        try:
            session = self.owner._begin(self.plan, arguments)
            if self.plan.stream:
                source = functools.partial(self._chunks, http, request, options)
                finish = functools.partial(self.owner._finish, session)
                chunks = run_stream(_flow(session), ports, session, source, finish)
                return self._streamed(session, request, next(chunks), chunks)
            invoke = functools.partial(self._fetch, http, request, options)
            done = run_sync(_flow(session), ports, session, invoke)
            self.owner._finish(session, done)
        except Exception as exc:  # noqa: BLE001 - the server's error becomes the response that it was
            return self._failed(exc, request)
        return self._whole(done.value, request, done.latency)

    async def send_async(self, http: Any, request: Any, options: Options) -> Any:
        """The response to a request of an async client."""
        arguments = self._begins(request)
        if arguments is None:
            return await http.send(request, **options)
        options = {name: value for name, value in options.items() if name != "stream"}
        ports = self.owner._ports
        try:
            session = self.owner._begin(self.plan, arguments)
            if self.plan.stream:
                source = functools.partial(self._chunks_async, http, request, options)
                finish = functools.partial(self.owner._finish, session)
                chunks = run_async_stream(_flow(session), ports, session, source, finish)
                return self._streamed(session, request, await anext(chunks), chunks)
            invoke = functools.partial(self._fetch_async, http, request, options)
            done = await run_async(_flow(session), ports, session, invoke)
            self.owner._finish(session, done)
        except Exception as exc:  # noqa: BLE001 - the server's error becomes the response that it was
            return self._failed(exc, request)
        return self._whole(done.value, request, done.latency)

    def _begins(self, request: Any) -> dict[str, Any] | None:
        self.failure = self.made = None
        return self.arguments(request)

    # --- the live call ------------------------------------------------------------------------------------

    def _fetch(self, http: Any, request: Any, options: Options) -> Recorded | NotJson:
        with _servers():
            live = http.send(request, stream=False, **options)
            return self._read(live)

    async def _fetch_async(self, http: Any, request: Any, options: Options) -> Recorded | NotJson:
        with _servers():
            live = await http.send(request, stream=False, **options)
            return self._read(live)

    def _read(self, live: Any) -> Recorded | NotJson:
        if not live.is_success:
            raise self.client._make_status_error_from_response(live)
        value = whole(live)
        self.made = Made(value, live)
        return value

    def _chunks(self, http: Any, request: Any, options: Options) -> Generator[Any, None, None]:
        with _servers():
            live = http.send(request, stream=True, **options)
            try:
                if not live.is_success:
                    live.read()
                reading = self._opened(live)
                yield reading.head
                with reading.ending():
                    for data in live.iter_bytes():
                        yield from reading.feed(data)
                        if reading.done:
                            return
                yield from reading.feed(b"")
            finally:
                live.close()

    async def _chunks_async(self, http: Any, request: Any, options: Options) -> AsyncGenerator[Any, None]:
        with _servers():
            live = await http.send(request, stream=True, **options)
            try:
                if not live.is_success:
                    await live.aread()
                reading = self._opened(live)
                yield reading.head
                received = live.aiter_bytes()
                with reading.ending():
                    async for data in received:
                        for chunk in reading.feed(data):
                            yield chunk
                        if reading.done:
                            await _drain(received)
                            return
                for chunk in reading.feed(b""):
                    yield chunk
            finally:
                await live.aclose()

    def _opened(self, live: Any) -> _Reading:
        if not live.is_success:
            raise self.client._make_status_error_from_response(live)
        reading = _Reading(live)
        self.made = Made(reading.head, live)
        return reading

    # --- the response that the SDK reads ------------------------------------------------------------------

    def _whole(self, value: Any, request: Any, seconds: float) -> Any:
        if isinstance(value, NotJson):
            return value.held
        live = self._live(value)
        headers = value.headers if live is None else plain_headers(live)
        return response(
            request, value.status, headers, seconds=seconds, live=live, content=value.body.encode()
        )

    def _streamed(self, session: Session, request: Any, first: Any, chunks: Any) -> Any:
        live = self._live(first)
        kind: Any = Body if isinstance(chunks, Generator) else AsyncBody
        body = kind(chunks, hide_usage=self.added_usage, live=live)
        status, headers = (
            (first.status, first.headers) if live is None else (live.status_code, plain_headers(live))
        )
        return response(request, status, headers, seconds=session.elapsed(), live=live, body=body)

    def _live(self, value: Any) -> Any:
        """The server's own response, where this very call made ``value`` of it (and no refresh beside it)."""
        return self.made.live if self.made is not None and self.made.value is value else None

    def _failed(self, error: Exception, request: Any) -> Any:
        """The server's refusal as a response; raises whatever else went wrong."""
        if not getattr(error, "_costkit_servers", False):
            self.failure = error
        elif type(error).__module__.partition(".")[0] in ("openai", "anthropic"):
            told: Any = getattr(error, "response", None)
            if told is not None:
                return response(
                    request, told.status_code, plain_headers(told), seconds=_took(told), live=told,
                    content=told.content,
                )  # fmt: skip
        raise error


def _took(told: Any) -> float:
    """How long the response took; the test doubles of HTTP libraries do not say."""
    try:
        return float(told.elapsed.total_seconds())
    except RuntimeError:
        return 0.0


class _Reading:
    """A stream while the server sends it."""

    def __init__(self, live: Any) -> None:
        self.head = head(live)
        self._events = Events(shared=isinstance(self.head, Recorded))
        self.ended = self.done = False

    def feed(self, data: bytes) -> Iterator[Any]:
        for chunk in self._events.feed(data):
            self.ended = self.ended or is_last(chunk)
            self.done = self.done or is_done(chunk)
            yield chunk

    @contextlib.contextmanager
    def ending(self) -> Iterator[None]:
        """A connection that breaks after the last event takes nothing from the answer."""
        try:
            yield
        except Exception:
            if not self.ended:
                raise


async def _drain(received: AsyncIterator[bytes]) -> None:
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_DRAIN):
            async for _ in received:
                pass


@contextlib.contextmanager
def _servers() -> Iterator[None]:
    """Errors in here are the server's, or the way's to it; the SDK knows what to make of them."""
    try:
        yield
    except Exception as exc:
        with contextlib.suppress(AttributeError):
            exc._costkit_servers = True  # type: ignore[attr-defined]
        raise


def _flow(session: Session) -> Any:
    return flow(session.request, time.perf_counter)
