"""What the tests of the simulated server share: a real process of it, and clients that speak raw bytes."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import openai
import pytest

ROOT = Path(__file__).parents[2]
FIXED = ["--output-tokens-sigma", "0"]


@dataclass
class Server:
    """A running server: its address, its process and what it logged, complete once it has ended."""

    host: str
    port: int
    process: subprocess.Popen[str]
    log: Path
    url: str

    def truth(self) -> list[dict[str, Any]]:
        """End the server and return its truth log in the order of arrival."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(10) == 0
        rows = [json.loads(line) for line in self.log.read_text().splitlines()]
        return sorted(rows, key=lambda row: int(row["id"].rpartition("-")[2]))

    def sdk(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url + "/v1", api_key="none", max_retries=0, timeout=20)


@contextmanager
def serving(tmp_path: Path, *arguments: str) -> Iterator[Server]:
    """Start a server of its own and end it, whatever happens."""
    log = tmp_path / f"truth-{random.getrandbits(40)}.jsonl"
    command = [sys.executable, "-m", "serving.simulated", "--truth-log", str(log), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "the server ended before it was ready"
        ready = json.loads(line)
        assert ready["pid"] == process.pid
        host, _, port = ready["url"].removeprefix("http://").partition(":")
        yield Server(host, int(port), process, log, ready["url"])
    finally:
        process.kill()
        process.communicate()


def body(text: str = "How long do refunds take?", **more: object) -> dict[str, Any]:
    return {"model": "simulated", "messages": [{"role": "user", "content": text}], **more}


def post(payload: bytes, path: str = "/v1/chat/completions", method: str = "POST") -> bytes:
    return b"%b %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (
        method.encode(),
        path.encode(),
        len(payload),
        payload,
    )


@dataclass(eq=False)
class RawClient(asyncio.Protocol):
    """One streamed request on its own connection, stamped at the socket."""

    payload: bytes
    done: asyncio.Future[RawClient]
    sent: float = 0.0
    first: float = 0.0
    last: float = 0.0
    data: bytearray = field(default_factory=bytearray)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.sent = time.perf_counter()
        self.transport.write(self.payload)

    def data_received(self, data: bytes) -> None:
        self.last = time.perf_counter()
        self.data += data
        if not self.first and b'"content":"' in data.replace(b'"content":""', b""):
            self.first = self.last
        if self.data.endswith(b"\r\n0\r\n\r\n"):
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(self)

    @property
    def id(self) -> str:
        return self.data.partition(b"x-request-id: ")[2].partition(b"\r\n")[0].decode()

    @property
    def ended_well(self) -> bool:
        return b"data: [DONE]\n\n\r\n0\r\n\r\n" in self.data


async def open_loop(server: Server, rate: float, count: int) -> list[RawClient]:
    """Send `count` streamed requests as a Poisson process of `rate` a second; return them all finished."""
    loop, rng = asyncio.get_running_loop(), random.Random(7)
    payload = post(json.dumps(body(stream=True)).encode())
    start, offset, waiting = loop.time() + 0.05, 0.0, list[asyncio.Future[RawClient]]()
    connecting = list[asyncio.Task[Any]]()
    for _ in range(count):
        offset += rng.expovariate(rate)
        await asyncio.sleep(max(0.0, start + offset - loop.time()))
        done: asyncio.Future[RawClient] = loop.create_future()
        waiting.append(done)

        def client(done: asyncio.Future[RawClient] = done) -> RawClient:
            return RawClient(payload, done)

        connecting.append(loop.create_task(loop.create_connection(client, server.host, server.port)))
    await asyncio.wait_for(asyncio.gather(*connecting), 60)
    return await asyncio.wait_for(asyncio.gather(*waiting), 60)


def exchange(server: Server, data: bytes, timeout: float = 10) -> bytes:
    """Send raw bytes, say no more, and return all that comes until the server closes or is silent."""
    with socket.create_connection((server.host, server.port), timeout=timeout) as connection:
        connection.sendall(data)
        got = b""
        while chunk := connection.recv(65536):
            got += chunk
        return got


def statuses(got: bytes) -> list[int]:
    return [int(part[:3]) for part in got.split(b"HTTP/1.1 ")[1:]]


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("shared"), "--output-tokens-mean", "2", *FIXED) as server:
        yield server


def closing(request: bytes) -> bytes:
    return request.replace(b"host: x", b"connection: close")


def refused(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "serving.simulated", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=20, cwd=ROOT, stdin=subprocess.DEVNULL
    )
