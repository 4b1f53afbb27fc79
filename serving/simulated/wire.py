"""HTTP/1.1 over an asyncio Protocol: one request at a time on a kept-alive connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol, cast

MAX_HEAD = 64 * 1024
MAX_BODY = 8 * 1000 * 1000
LINGER_S = 5.0


@dataclass(frozen=True, slots=True)
class Request:
    """A whole request; header names in lower case, `arrival` by the loop's clock at its last byte."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    arrival: float


class Exchange(Protocol):
    """An answer on its way, told when its client has gone."""

    def cancel(self) -> None:
        """Stop: nobody listens any more."""


class WireError(Exception):
    """A request that HTTP itself forbids; answered with `status`, then the connection closes."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def render(status: int, body: bytes, content_type: str = "application/json", extra: str = "") -> bytes:
    r"""Return a whole response; `extra` holds further header lines, each with its line end.

    >>> render(404, b"{}").split(b"\r\n")[0]
    b'HTTP/1.1 404 Not Found'
    """
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: {content_type}\r\n"
        f"content-length: {len(body)}\r\n{extra}\r\n"
    )
    return head.encode() + body


def error_body(message: str, kind: str, param: str | None = None, code: str | None = None) -> bytes:
    """Return an error in OpenAI's form."""
    return json.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}}).encode()


def frame(data: bytes) -> bytes:
    """Return one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Connection(asyncio.Protocol):
    """One client connection; `handle` must end each answer with `finish()` or `close()`."""

    def __init__(self, handle: Callable[[Request, Connection], None], live: set[Connection]) -> None:
        self.exchange: Exchange | None = None
        self._handle = handle
        self._live = live
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._head: tuple[str, str, dict[str, str], int] | None = None
        self._busy = False
        self._closing = False
        self._wants_close = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._live.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._live.discard(self)
        if self.exchange is not None:
            exchange, self.exchange = self.exchange, None
            exchange.cancel()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self._buffer += data
        if self._busy and len(self._buffer) > MAX_HEAD:
            self._transport.pause_reading()
        elif not self._busy:
            self._advance()

    def send(self, data: bytes) -> None:
        """Write bytes of the answer."""
        self._transport.write(data)

    def finish(self) -> None:
        """End the answer; the next request on this connection may begin."""
        self.exchange = None
        if self._closing:
            return
        close = self._wants_close
        self._busy = False
        if close:
            self.close()
            return
        self._transport.resume_reading()
        if self._buffer:
            # Through the loop, so that pipelined requests cannot nest one in another.
            self._loop.call_soon(self._advance)

    def close(self) -> None:
        """End the connection after what was sent so far."""
        self._closing = True
        self.exchange = None
        self._transport.close()

    def abort(self) -> None:
        """End the connection now."""
        self._transport.abort()

    def _advance(self) -> None:
        if self._busy or self._closing:
            return
        try:
            request = self._take()
        except WireError as error:
            kind = "invalid_request_error"
            self.send(render(error.status, error_body(str(error), kind), extra="connection: close\r\n"))
            self._linger()
            return
        if request is not None:
            self._busy = True
            self._wants_close = request.headers.get("connection", "").lower() == "close"
            self._handle(request, self)

    def _take(self) -> Request | None:
        """Cut one whole request off the buffer, or return None until there is one."""
        if self._head is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end > MAX_HEAD or (end < 0 and len(self._buffer) > MAX_HEAD):
                raise WireError(431, "The request's headers are over 64 KB.")
            if end < 0:
                return None
            self._head = parse_head(bytes(self._buffer[:end]))
            del self._buffer[: end + 4]
            if self._head[2].get("expect", "").lower() == "100-continue":
                self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        method, path, headers, length = self._head
        if len(self._buffer) < length:
            return None
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
        self._head = None
        return Request(method, path, headers, body, self._loop.time())

    def _linger(self) -> None:
        """Let the client read the refusal: closing with its bytes unread would reset the connection."""
        self._closing = True
        self._buffer.clear()
        self._transport.write_eof()
        self._loop.call_later(LINGER_S, self._transport.abort)


def parse_head(head: bytes) -> tuple[str, str, dict[str, str], int]:
    r"""Return method, path without query, headers and body length.

    Raises:
        WireError: not HTTP/1.1, or a body that is too long or of unknown length.

    >>> parse_head(b"GET /health?x=1 HTTP/1.1\r\nHost: a")
    ('GET', '/health', {'host': 'a'}, 0)
    """
    first, *lines = head.decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/"):
        raise WireError(400, "This is not an HTTP request.")
    if parts[2] != "HTTP/1.1":
        raise WireError(505, "Only HTTP/1.1 is served.")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or name != name.strip() or (name == "content-length" and name in headers):
            raise WireError(400, "A header line is malformed.")
        headers[name] = value.strip()
    if "transfer-encoding" in headers:
        raise WireError(411, "Send the body with a Content-Length, not chunked.")
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise WireError(400, "Content-Length is not a number.")
    if len(length) > 12 or int(length) > MAX_BODY:
        raise WireError(413, f"The body is over {MAX_BODY // 1_000_000} MB.")
    return parts[0], parts[1].partition("?")[0], headers, int(length)
