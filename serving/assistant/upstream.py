"""The model behind the service: streamed chat completions of an OpenAI-compatible server, over asyncio.

Small and cheap, for a load test asks much of it: connections are kept and used again, chunks are parsed once. It
repeats nothing: a second try that nobody sees would be paid twice and would spoil every figure.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

__all__ = ["Upstream", "UpstreamError"]

Chunk = dict[str, Any]
# Idle connections are dropped before common servers drop them (uvicorn: 5 s).
IDLE_S = 4.0
MOST_IDLE = 512
MAX_LINE = 64 * 1024
MAX_ERROR_BODY = 64 * 1024


class UpstreamError(Exception):
    """The model gave no whole answer: an HTTP status to pass on, its error body (JSON) if it sent one, Retry-After.

    ``status_code`` is the status where the model's server refused the request or was not reached, so that nothing was
    spent; None where it had begun to answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        unpaid: bool = False,
        body: bytes | None = None,
        retry_after: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.status_code = status if unpaid else None
        self.body = body
        self.retry_after = retry_after


@dataclass(slots=True)
class _Line:
    """One connection; `head` is what the last answer on it said."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    idle_since: float = 0.0


class Upstream:
    """A server that speaks OpenAI's protocol.

    Args:
        url: its base URL, such as ``http://127.0.0.1:8000/v1``.
        key: sent as a bearer token, if there is one.
        timeout: seconds without a byte after which a request has failed.
        headers: more of them, sent with each request.

    Raises:
        ValueError: the URL is no http or https URL.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout: float = 60.0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no base URL; give one such as http://127.0.0.1:8000/v1")
        self.url = url.rstrip("/")
        self._host = parts.hostname
        self._tls = parts.scheme == "https"
        self._port = parts.port or (443 if self._tls else 80)
        self._path = parts.path.rstrip("/")
        self._timeout = timeout
        self._idle: deque[_Line] = deque()
        given = f"authorization: Bearer {key}\r\n" if key else ""
        given += "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        self._fixed = f"host: {parts.netloc.rpartition('@')[2]}\r\naccept: */*\r\n{given}"

    async def chat(self, body: Mapping[str, Any]) -> AsyncGenerator[Chunk, None]:
        """The chunks of a streamed chat completion, usage among them; closing early closes the connection.

        Raises:
            UpstreamError: no connection, a refusal (its status), an answer that is no event stream, silence, or a
                stream that ends without a finish reason.
        """
        asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
        line = await self._connect()
        kept = False
        try:
            status, headers = await self._send(line, "POST", "/chat/completions", json.dumps(asked).encode())
            kind = headers.get("content-type", "")
            if status != 200 or not kind.startswith("text/event-stream"):
                raise await self._refused(line, status, headers)
            finished = False
            async with contextlib.aclosing(self._events(line, headers)) as events:
                async for chunk in events:
                    finished = finished or any(c.get("finish_reason") for c in chunk.get("choices") or ())
                    yield chunk
            if not finished:
                raise UpstreamError(502, "the model's stream ended without a finish reason")
            kept = headers.get("connection", "").lower() != "close"
        finally:
            self._leave(line, kept)

    async def models(self) -> list[str]:
        """The names it serves; raises UpstreamError as :meth:`chat` does."""
        line = await self._connect()
        kept = False
        try:
            status, headers = await self._send(line, "GET", "/models", b"")
            if status != 200:
                raise await self._refused(line, status, headers)
            body = await self._body(line, headers)
            try:
                names = [str(model["id"]) for model in json.loads(body)["data"]]
            except (ValueError, TypeError, KeyError) as error:
                raise UpstreamError(502, "its /models is no list of models; is this an API?") from error
            kept = True
            return names
        finally:
            self._leave(line, kept)

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().writer.close()

    async def _connect(self) -> _Line:
        while self._idle:
            line = self._idle.pop()
            fresh = time.monotonic() - line.idle_since < IDLE_S
            if fresh and not line.reader.at_eof() and not line.writer.is_closing():
                return line
            line.writer.close()
        try:
            async with asyncio.timeout(self._timeout):
                streams = await asyncio.open_connection(
                    self._host, self._port, ssl=self._tls or None, limit=MAX_LINE
                )
        except TimeoutError:
            raise UpstreamError(504, "the model's server does not answer", unpaid=True) from None
        except OSError as error:
            why = os.strerror(error.errno) if error.errno and error.errno > 0 else type(error).__name__
            raise UpstreamError(502, f"the model's server cannot be reached ({why})", unpaid=True) from None
        return _Line(*streams)

    def _leave(self, line: _Line, kept: bool) -> None:
        if kept and len(self._idle) < MOST_IDLE:
            line.idle_since = time.monotonic()
            self._idle.append(line)
        else:
            line.writer.transport.abort()

    async def _send(self, line: _Line, method: str, path: str, body: bytes) -> tuple[int, dict[str, str]]:
        """Send a request; return the answer's status and its headers, names in lower case."""
        head = f"{method} {self._path}{path} HTTP/1.1\r\n{self._fixed}"
        if body:
            head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        line.writer.write(f"{head}\r\n".encode() + body)
        try:
            first = await self._line(line)
            status = int(first.split(b" ", 2)[1])
            headers: dict[str, str] = {}
            while text := (await self._line(line)).decode("latin-1").strip():
                name, _, value = text.partition(":")
                headers[name.strip().lower()] = value.strip()
        except (IndexError, ValueError):
            raise UpstreamError(502, "the model's server does not speak HTTP/1.1") from None
        return status, headers

    async def _line(self, line: _Line) -> bytes:
        async with self._patience():
            return await line.reader.readuntil(b"\n")

    @contextlib.asynccontextmanager
    async def _patience(self) -> AsyncIterator[None]:
        """One read, in time; whatever ends it becomes an UpstreamError."""
        try:
            async with asyncio.timeout(self._timeout):
                yield
        except TimeoutError:
            raise UpstreamError(504, f"the model was silent for {self._timeout:g} s") from None
        except (OSError, EOFError, asyncio.LimitOverrunError):
            raise UpstreamError(502, "the connection to the model was lost") from None

    async def _parts(self, line: _Line, headers: Mapping[str, str]) -> AsyncGenerator[bytes, None]:
        """The bytes of the answer's body as they come."""
        if "chunked" in headers.get("transfer-encoding", "").lower():
            while True:
                try:
                    size = int((await self._line(line)).split(b";")[0], 16)
                except ValueError:
                    raise UpstreamError(502, "the model's stream is damaged") from None
                async with self._patience():
                    data = await line.reader.readexactly(size + 2)
                if not size:
                    return
                yield data[:-2]
        left = int(headers["content-length"]) if "content-length" in headers else None
        while left is None or left > 0:
            async with self._patience():
                data = await line.reader.read(MAX_LINE if left is None else min(left, MAX_LINE))
            if not data:
                if left is None:
                    return
                raise UpstreamError(502, "the connection to the model was lost")
            left = None if left is None else left - len(data)
            yield data

    async def _body(self, line: _Line, headers: Mapping[str, str]) -> bytes:
        got = b""
        async with contextlib.aclosing(self._parts(line, headers)) as parts:
            async for part in parts:
                got += part
                if len(got) > MAX_ERROR_BODY:
                    break
        return got

    async def _events(self, line: _Line, headers: Mapping[str, str]) -> AsyncGenerator[Chunk, None]:
        """The JSON of each event, without the closing [DONE]."""
        rest = b""
        async with contextlib.aclosing(self._parts(line, headers)) as parts:
            async for part in parts:
                *events, rest = (rest + part).replace(b"\r\n", b"\n").split(b"\n\n")
                for event in events:
                    if not event.startswith(b"data:") or event[5:].strip() == b"[DONE]":
                        continue  # a comment that keeps the connection alive, or the end
                    try:
                        chunk = json.loads(event[5:])
                    except ValueError:
                        raise UpstreamError(502, "the model's stream is damaged") from None
                    if not isinstance(chunk, dict) or chunk.get("error"):
                        raise UpstreamError(502, "the model's stream ended with an error")
                    yield chunk

    async def _refused(self, line: _Line, status: int, headers: Mapping[str, str]) -> UpstreamError:
        """What a refusal says; a page instead of JSON is not passed on."""
        kind = headers.get("content-type", "no content type")
        if status == 200:
            return UpstreamError(502, f"the model's server answered with {kind}, not an event stream")
        body: bytes | None = None
        with contextlib.suppress(UpstreamError, ValueError):
            body = await self._body(line, headers)
            json.loads(body)
        if not kind.startswith("application/json") or not body:
            body = None
        message, later = f"the model's server answered {status}", headers.get("retry-after")
        return UpstreamError(status, message, unpaid=status >= 400, body=body, retry_after=later)
