"""Streamed requests over kept-alive connections, stamped as the bytes are read: no SDK, no HTTP library.

A response is read in a callback of gevent's event loop, which stamps it and hands it to
:class:`loadtests.stream.Answer`; the request's own greenlet wakes once, when the response is over. What that saves
beside other clients: ``python -m tests.benchmarks.load_truth --clients``.
"""

from __future__ import annotations

import errno
import os
import select
import socket as plain
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import gevent
from gevent import socket
from gevent import ssl as gevent_ssl
from gevent.event import Event

from loadtests.stream import Answer

__all__ = ["AddressError", "Client", "Target", "parse_target"]

_READ = 32 * 1024
_CONNECT_S = 10.0


class AddressError(ValueError):
    """The address is none that requests can be sent to; the message says what to write."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go. ``host`` is what the Host header says."""

    address: str
    port: int
    secure: bool
    path: str
    host: str


def parse_target(url: str) -> Target:
    """The chat endpoint of a base URL such as ``http://127.0.0.1:8000`` or ``https://api.example.com/v1``.

    Raises:
        AddressError: no http or https URL.

    >>> parse_target("http://127.0.0.1:8000").path, parse_target("https://llm.example/api/v1/").path
    ('/v1/chat/completions', '/api/v1/chat/completions')
    """
    form = "say it like --host http://127.0.0.1:8000 or --host https://host/v1"
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError as error:
        raise AddressError(f"address {url!r:.100}: {error}; {form}") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.password:
        raise AddressError(f"address {_bare(url)!r:.100}: {form}")
    secure = parts.scheme == "https"
    path = parts.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path = (path or "/v1") + "/chat/completions"
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    name = host if port is None else f"{host}:{port}"
    if any(ord(one) <= 32 or ord(one) > 126 for one in path + name):
        raise AddressError(f"address {url!r:.100}: only ASCII without spaces; {form}")
    return Target(parts.hostname, port or (443 if secure else 80), secure, path, name)


def _bare(url: str) -> str:
    """Without a name and a password, which are not to be printed."""
    head, at, tail = url.rpartition("@")
    return f"{head.partition('://')[0]}://...@{tail}" if at else url


@dataclass(slots=True)
class Client:
    """Sends requests to one target; keeps connections that answers left open.

    ``headers`` go with every request; what they hold is never printed. ``timeout`` is in seconds, from the sending of
    a request to the end of its answer. A host's name is looked up once.
    """

    target: Target
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = 120.0
    verify: bool = True
    _idle: list[Any] = field(default_factory=list, repr=False)
    _context: ssl.SSLContext | None = field(default=None, repr=False)
    _head: bytes = field(default=b"", repr=False)
    _addresses: list[tuple[int, Any]] = field(default_factory=list, repr=False)
    _next: int = 0

    def __post_init__(self) -> None:
        for name, value in self.headers.items():
            _check_header(name, value)
        if self.target.secure:
            self._context = gevent_ssl.create_default_context()
            if not self.verify:
                self._context.check_hostname = False
                self._context.verify_mode = ssl.CERT_NONE
        fixed = {
            "content-type": "application/json",
            "accept": "text/event-stream",
            "accept-encoding": "identity",
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in {**fixed, **self.headers}.items())
        start = f"POST {self.target.path} HTTP/1.1\r\nhost: {self.target.host}\r\n{lines}"
        self._head = start.encode("latin-1")

    def post(
        self, body: bytes, more: Mapping[str, str] | None = None, *, keep_text: bool = False
    ) -> tuple[Answer, float]:
        """Send one request and read its answer to the end; returns it and the moment of sending, monotonic seconds.

        Whatever goes wrong is ``answer.error``: ``connect_...``, ``unknown_host``, ``tls``, ``timeout``, ``cut_off``,
        or one of :class:`loadtests.stream.Answer`'s.
        """
        extra = "".join(f"{name}: {value}\r\n" for name, value in (more or {}).items())
        data = b"%bcontent-length: %d\r\n%b\r\n%b" % (self._head, len(body), extra.encode("latin-1"), body)
        return self._exchange(data, Answer(keep_text=keep_text))

    def get(self, path: str) -> Answer:
        """Fetch a page of the same server; ``answer.kept`` has its first 64 KiB."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        start = f"GET {path} HTTP/1.1\r\nhost: {self.target.host}\r\naccept-encoding: identity\r\n{lines}\r\n"
        return self._exchange(start.encode("latin-1"), Answer())[0]

    def _exchange(self, data: bytes, answer: Answer) -> tuple[Answer, float]:
        sent = time.monotonic()
        until = sent + self.timeout
        try:
            connection = self._take() or self._connect()
        except OSError as error:
            answer.end_of_input(_why(error))
            return answer, sent
        try:
            connection.settimeout(max(0.001, until - time.monotonic()))
            connection.sendall(data)
            connection.settimeout(0)
            _Reading(connection, answer).run(until)
        except OSError as error:
            answer.end_of_input(_why(error))
        finally:
            # A greenlet that is killed while it waits must not leave a half-read connection to the next one.
            if answer.reusable:
                self._idle.append(connection)
            else:
                connection.close()
        return answer, sent

    def close(self) -> None:
        """Close the kept connections."""
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> Any:
        """A kept connection on which nothing waits; the server may have closed it meanwhile."""
        while self._idle:
            connection = self._idle.pop()
            if not _readable(connection.fileno()):
                return connection
            connection.close()
        return None

    def _connect(self) -> Any:
        if not self._addresses:
            # Once: a look-up runs in a thread of its own, which on a busy machine comes late.
            found = socket.getaddrinfo(self.target.address, self.target.port, type=plain.SOCK_STREAM)
            self._addresses += [(family, where) for family, _, _, _, where in found]
        family, where = self._addresses[self._next % len(self._addresses)]
        connection: Any = socket.socket(family, plain.SOCK_STREAM)
        try:
            connection.settimeout(min(_CONNECT_S, self.timeout))
            connection.connect(where)
            connection.setsockopt(plain.IPPROTO_TCP, plain.TCP_NODELAY, 1)
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_hostname=self.target.address)
        except BaseException:
            # The next one tries another of the host's addresses.
            self._next += 1
            connection.close()
            raise
        return connection


class _Reading:
    """Feeds an answer from a non-blocking connection until it is over."""

    __slots__ = ("_answer", "_number", "_over", "_read", "_tls")

    def __init__(self, connection: Any, answer: Answer) -> None:
        self._answer, self._number = answer, connection.fileno()
        self._tls = hasattr(connection, "getpeercert")
        # Past the socket object: the same system call for half the work.
        self._read = connection.recv if self._tls else partial(os.read, self._number)
        self._over = Event()

    def run(self, until: float) -> None:
        watcher = gevent.get_hub().loop.io(self._number, 1)
        try:
            watcher.start(self._ready)
            if not self._over.wait(max(0.0, until - time.monotonic())):
                self._answer.end_of_input("timeout")
        finally:
            watcher.stop()
            watcher.close()
            # Killed from outside: what has come is all there is.
            self._answer.end_of_input("unfinished")

    def _ready(self) -> None:
        """In the event loop: nothing here may wait or raise."""
        over = False
        try:
            more = True
            while more and not over:
                data = self._read(_READ)
                at = time.monotonic()
                if not data:
                    self._answer.end_of_input()
                    over = True
                else:
                    over = self._answer.feed(data, at)
                # TLS may hold back what the socket no longer shows as readable.
                more = self._tls or len(data) == _READ
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError as error:
            self._answer.end_of_input(_why(error))
            over = True
        except Exception:  # noqa: BLE001 -- a request must end, whatever its answer did
            self._answer.end_of_input("bad_http")
            over = True
        if over:
            self._over.set()


def _readable(number: int) -> bool:
    """Is there something to read, or is the other side gone? Without gevent's patches, which would wait."""
    poll = _poll()
    poll.register(number, select.POLLIN | select.POLLHUP | select.POLLERR)
    return bool(poll.poll(0))


def _poll() -> Any:
    from gevent.monkey import get_original

    return get_original("select", "poll")()


def _why(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, plain.gaierror):
        return "unknown_host"
    if isinstance(error, ssl.SSLError):
        return "tls"
    if isinstance(error, (ConnectionResetError, BrokenPipeError, ConnectionAbortedError)):
        return "cut_off"
    return f"connect_{errno.errorcode.get(error.errno or 0, 'failed').lower()}"


def _check_header(name: str, value: str) -> None:
    token = name.replace("-", "").replace("_", "")
    if not token.isascii() or not token.isalnum():
        raise ValueError(f"header {name!r:.60}: a name is made of letters, digits and hyphens")
    if any(one in value for one in "\r\n\0") or not all(ord(one) < 256 for one in value):
        raise ValueError(f"header {name}: its value holds a line break or a character that HTTP cannot carry")
