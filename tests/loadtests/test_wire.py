"""The stream client over real sockets: kept connections, TLS, and servers that behave badly."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import gevent
import pytest

from loadtests.wire import AddressError, Client, parse_target
from tests.loadtests.test_stream import DONE, HEAD, STOP, chunked, text

GOOD = HEAD + chunked(text("a"), text("b"), STOP, DONE)


class Peer:
    """A server in a thread that answers each request of each connection as it is told; counts both."""

    def __init__(
        self, answer: Callable[[socket.socket, int], bool], context: ssl.SSLContext | None = None
    ) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.answer, self.context = answer, context
        self.connections, self.requests = 0, list[bytes]()
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.threads[0].start()

    @property
    def url(self) -> str:
        return f"http{'s' if self.context else ''}://127.0.0.1:{self.listener.getsockname()[1]}"

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            self.threads.append(threading.Thread(target=self._serve, args=(plain,), daemon=True))
            self.threads[-1].start()

    def _serve(self, plain: socket.socket) -> None:
        try:
            with self.context.wrap_socket(plain, server_side=True) if self.context else plain as link:
                link.settimeout(10)
                while request := self._read(link):
                    self.requests.append(request)
                    if not self.answer(link, len(self.requests)):
                        return
        except OSError:
            pass

    def _read(self, link: socket.socket) -> bytes:
        got = b""
        while b"\r\n\r\n" not in got:
            if not (more := link.recv(65536)):
                return b""
            got += more
        head, _, body = got.partition(b"\r\n\r\n")
        length = next((int(x[15:]) for x in head.split(b"\r\n") if x.startswith(b"content-length:")), 0)
        while len(body) < length:
            body += link.recv(65536)
        return head + b"\r\n\r\n" + body


@contextmanager
def peer(
    answer: Callable[[socket.socket, int], bool], context: ssl.SSLContext | None = None
) -> Iterator[Peer]:
    one = Peer(answer, context)
    try:
        yield one
    finally:
        one.listener.close()


def says(data: bytes, *, goes_on: bool = True) -> Callable[[socket.socket, int], bool]:
    """Answers everything with these bytes, and closes then or not."""

    def answer(link: socket.socket, _: int) -> bool:
        link.sendall(data)
        return goes_on

    return answer


good = says(GOOD)


def test_connections_are_kept() -> None:
    """Requests one after the other share a connection; at the same time each has its own."""
    with peer(good) as server:
        client = Client(parse_target(server.url), {"x-one": "1"})
        for _ in range(3):
            answer, _ = client.post(b"{}", {"x-two": "2"})
            assert answer.error is None
        assert server.connections == 1
        assert b"x-one: 1\r\n" in server.requests[0] and b"x-two: 2\r\n" in server.requests[0]
        assert b"accept-encoding: identity" in server.requests[0]
        gevent.joinall([gevent.spawn(client.post, b"{}") for _ in range(4)], raise_error=True)
        assert server.connections == 4
        client.close()


def test_stamps_are_of_the_moment_of_reading() -> None:
    """What comes 100 ms later is stamped 100 ms later, whatever else the process does meanwhile."""

    def slow(link: socket.socket, _: int) -> bool:
        link.sendall(HEAD)
        for one in (text("a"), text("b"), STOP):
            time.sleep(0.1)
            link.sendall(b"%x\r\n%b\r\n" % (len(one), one))
        link.sendall(b"0\r\n\r\n")
        return True

    with peer(slow) as server:
        answer, sent = Client(parse_target(server.url)).post(b"{}")
    assert answer.first is not None and 0.09 < answer.first - sent < 0.3
    assert 0.07 < answer.gaps[0] < 0.3


def test_a_connection_that_the_server_closed_is_not_used() -> None:
    """After an idle connection was closed by the server the next request opens a new one and succeeds."""
    with peer(says(GOOD, goes_on=False)) as server:
        client = Client(parse_target(server.url))
        for _ in range(3):
            assert client.post(b"{}")[0].error is None
            time.sleep(0.05)
        assert server.connections == 3


def test_a_server_that_hangs_costs_the_timeout_and_no_more() -> None:
    """A request that is never answered fails with its code when its time is over, in mid-answer too."""

    def hang(link: socket.socket, number: int) -> bool:
        link.sendall(HEAD if number == 1 else b"")
        return number < 9

    with peer(hang) as server:
        client = Client(parse_target(server.url), timeout=0.2)
        for _ in range(2):
            begun = time.monotonic()
            assert client.post(b"{}")[0].error == "timeout"
            assert time.monotonic() - begun < 1.0


def test_a_connection_cut_in_mid_answer() -> None:
    """A reset in mid-answer is an error, never a short answer."""
    with peer(says(HEAD + chunked(text("a"))[:-5], goes_on=False)) as server:
        answer, _ = Client(parse_target(server.url)).post(b"{}")
    assert (answer.error, answer.reusable) == ("cut_off", False)


def test_nobody_there() -> None:
    """A port without a server and a host without an address have codes of their own."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert Client(parse_target(f"http://127.0.0.1:{port}")).post(b"{}")[0].error == "connect_econnrefused"
    assert (
        Client(parse_target("http://no-such-host.invalid"), timeout=5).post(b"{}")[0].error == "unknown_host"
    )


def test_killed_in_mid_request() -> None:
    """A request whose greenlet is killed leaves no half-read connection to the next one."""

    def first_hangs(link: socket.socket, number: int) -> bool:
        link.sendall(HEAD if number == 1 else GOOD)
        return True

    with peer(first_hangs) as server:
        client = Client(parse_target(server.url))
        task = gevent.spawn(client.post, b"{}")
        gevent.sleep(0.1)
        task.kill()
        assert client.post(b"{}")[0].error is None
        assert server.connections == 2


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    made = [path.with_name("key.pem"), path.with_name("cert.pem")]
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    command += ["-keyout", str(made[0]), "-out", str(made[1]), "-days", "2", "-subj", "/CN=127.0.0.1"]
    subprocess.run([*command, "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    path.write_bytes(made[0].read_bytes() + made[1].read_bytes())
    return path


def test_tls(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over TLS answers come whole, larger than one record too; connections are kept; who is not trusted is refused."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    large = HEAD + chunked(*[text("x" * 5000)] * 40, STOP)
    with peer(says(large), context) as server:
        assert Client(parse_target(server.url)).post(b"{}")[0].error == "tls"
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        client, before = Client(parse_target(server.url)), server.connections
        for _ in range(3):
            answer, _ = client.post(b"x" * 100_000)
            assert (answer.error, len(answer.gaps)) == (None, 39)
        assert server.connections == before + 1


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:8000", "ftp://x", "http://", "http://x:99999", "http://a b/", "http://user:geheim@host"],
)
def test_addresses_that_are_none(url: str) -> None:
    """What is no http address is refused with the mend, and a password in it is not said again."""
    with pytest.raises(AddressError) as told:
        parse_target(url)
    assert "--host http" in str(told.value) and "geheim" not in str(told.value)


def test_headers_cannot_be_smuggled() -> None:
    """A header with a line break is refused before anything is sent, without its value."""
    with pytest.raises(ValueError, match="authorization") as told:
        Client(parse_target("http://x"), {"authorization": "Bearer geheim\r\nx: y"})
    assert "geheim" not in str(told.value)
    assert "geheim" not in repr(Client(parse_target("http://x"), {"authorization": "Bearer geheim"}))
