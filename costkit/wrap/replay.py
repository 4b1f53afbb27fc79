"""Recorded answers as the HTTP library's own responses, so that an SDK reads them as any other."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import functools
import sys
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Sequence
from typing import Any

from costkit.wrap.wire import bytes_of, is_last, only_usage

__all__ = ["AsyncBody", "Body", "Made", "plain_headers", "response"]

# True only of the connection it came over, or said anew by whoever builds the response.
_REMADE = frozenset({"content-encoding", "content-length", "transfer-encoding", "connection", "keep-alive"})

Headers = Sequence[tuple[str, str]]


class Made:
    """What one live call made, and the server's response that it made it of."""

    def __init__(self, value: Any, live: Any) -> None:
        self.value, self.live = value, live


class Body:
    """The bytes of a stream, event by event. Closing it closes the call."""

    def __init__(self, chunks: Generator[Any, None, None], *, hide_usage: bool, live: Any) -> None:
        self._chunks, self._hide_usage, self._live = chunks, hide_usage, live
        self._bytes = self._run()
        self.over = False

    def __iter__(self) -> Iterator[bytes]:
        return self._bytes

    def _run(self) -> Generator[bytes, None, None]:
        last: bytes | None = None
        for chunk in self._chunks:
            if last is not None:
                yield last
                last = None
            if self._hide_usage and only_usage(chunk):
                continue
            if is_last(chunk):
                # Some readers leave at the last event: the call must have ended well by then.
                last = bytes_of(chunk)
                continue
            yield bytes_of(chunk)
        self.over = True
        if last is not None:
            yield last

    def close(self) -> None:
        """Leave the stream; from another thread than the reader's it is cut off at its source."""
        try:
            self._bytes.close()
            self._chunks.close()
        except ValueError:  # being read this very moment
            if self._live is not None:
                self._live.close()

    def dropped(self) -> None:
        """Nobody holds the response any more."""
        if not self.over:
            self.close()


class AsyncBody:
    """The same for an async client."""

    def __init__(self, chunks: AsyncGenerator[Any, None], *, hide_usage: bool, live: Any) -> None:
        self._chunks, self._hide_usage, self._live = chunks, hide_usage, live
        self._bytes = self._run()
        self._loop = asyncio.get_running_loop()
        self.over = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._bytes

    async def _run(self) -> AsyncGenerator[bytes, None]:
        last: bytes | None = None
        async for chunk in self._chunks:
            if last is not None:
                yield last
                last = None
            if self._hide_usage and only_usage(chunk):
                continue
            if is_last(chunk):
                last = bytes_of(chunk)
                continue
            yield bytes_of(chunk)
        self.over = True
        if last is not None:
            yield last

    async def aclose(self) -> None:
        """Leave the stream; from another task than the reader's it is cut off at its source."""
        try:
            await self._bytes.aclose()
            await self._chunks.aclose()
        except RuntimeError:  # being read this very moment
            if self._live is not None:
                with contextlib.suppress(RuntimeError):
                    await self._live.aclose()

    def dropped(self) -> None:
        """Nobody holds the response any more."""
        if not self.over and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(lambda: self._loop.create_task(self.aclose()))


def plain_headers(live: Any) -> Headers:
    """The headers of the server's own response, without those that a new one says anew."""
    return [(name, value) for name, value in live.headers.multi_items() if name.lower() not in _REMADE]


def response(
    request: Any, status: int, headers: Headers, *, seconds: float, live: Any = None,
    content: bytes | None = None, body: Body | AsyncBody | None = None,
) -> Any:  # fmt: skip
    """A response of the HTTP library that made ``request``; it took ``seconds``."""
    library: Any = sys.modules[type(request).__module__.partition(".")[0]]
    told = {} if live is None else live.extensions
    extensions = {name: told[name] for name in ("http_version", "reason_phrase") if name in told}
    more: dict[str, Any] = {"content": content}
    if body is not None:
        base = library.SyncByteStream if isinstance(body, Body) else library.AsyncByteStream
        more = {"stream": _as_stream(isinstance(body, Body), base)(body)}
    made = library.Response(status, headers=headers, request=request, extensions=extensions, **more)
    made.elapsed = datetime.timedelta(seconds=seconds)
    return made


@functools.cache
def _as_stream(sync: bool, base: Any) -> Any:
    """The class of a byte stream of this library that reads from a Body."""

    class Stream(base):  # type: ignore[misc]
        def __init__(self, body: Any) -> None:
            self.body = body
            # An SDK's streams hold themselves in a circle. The garbage collector would close the generators of a
            # dropped one in any order; held from outside the circle, they are closed in theirs.
            weakref.finalize(self, body.dropped).atexit = False

        if sync:

            def __iter__(self) -> Iterator[bytes]:
                return iter(self.body)

            def close(self) -> None:
                self.body.close()

        else:

            def __aiter__(self) -> AsyncIterator[bytes]:
                found: AsyncIterator[bytes] = aiter(self.body)
                return found

            async def aclose(self) -> None:
                await self.body.aclose()

    return Stream
