"""What the tests of the assistant's service share: the real process of it before a real simulated server."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.serving.simulators import ROOT

QUESTION = "how long do i have to get my money back on the yearly plan?"
OTHERS = ("what do seats cost?", "how do i restore one file?", "is there a discount for schools?")
PRICES = ["--price-in", "1", "--price-out", "2", "--price-cached", "0.5"]


@dataclass
class Service:
    """A running service; `errors` is where its standard error goes."""

    host: str
    port: int
    process: subprocess.Popen[str]
    errors: Path

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, self.port, timeout=30)

    def ask(self, question: str = QUESTION, *, tenant: str | None = "acme", **more: Any) -> Reply:
        """One request on a connection of its own."""
        asked = asking(question, **more)
        connection = self.connect()
        headers = {} if tenant is None else {"X-Tenant": tenant}
        connection.request("POST", "/v1/chat/completions", json.dumps(asked), headers)
        response = connection.getresponse()
        told = {name.lower(): value for name, value in response.getheaders()}
        try:
            return Reply(response.status, told, response.read())
        finally:
            connection.close()


@dataclass(frozen=True)
class Reply:
    """An answer of the service as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def events(self) -> list[dict[str, Any]]:
        texts = [line[6:] for line in self.body.split(b"\n\n") if line.startswith(b"data: ")]
        return [json.loads(text) for text in texts if text != b"[DONE]"]

    @property
    def ended(self) -> bool:
        return self.body.endswith(b"data: [DONE]\n\n")

    @property
    def text(self) -> str:
        if not self.headers["content-type"].startswith("text/event-stream"):
            return str(json.loads(self.body)["choices"][0]["message"]["content"])
        deltas = [choice["delta"] for event in self.events for choice in event.get("choices", [])]
        return "".join(delta.get("content", "") for delta in deltas)

    @property
    def usage(self) -> dict[str, Any]:
        if not self.headers["content-type"].startswith("text/event-stream"):
            return dict(json.loads(self.body)["usage"])
        return dict(self.events[-1]["usage"])

    @property
    def account(self) -> dict[str, Any]:
        return dict(self.usage["costkit"])

    @property
    def error(self) -> dict[str, Any]:
        return dict(json.loads(self.body)["error"])


def asking(question: str = QUESTION, *, stream: bool = True, **more: object) -> dict[str, Any]:
    """A request's body."""
    asked = {"model": "simulated", "messages": [{"role": "user", "content": question}], "stream": stream}
    if stream:
        asked["stream_options"] = {"include_usage": True}
    return {**asked, **more}


@contextmanager
def service(tmp_path: Path, upstream: str, *arguments: str, costkit: bool = True) -> Iterator[Service]:
    """Start a service of its own and end it, whatever happens."""
    errors = tmp_path / "errors.txt"
    with_it = (
        ["--costkit", "on", "--folder", str(tmp_path / "kit"), *PRICES] if costkit else ["--costkit", "off"]
    )
    command = [
        sys.executable,
        "-m",
        "serving.assistant.service",
        "--upstream",
        upstream,
        *with_it,
        *arguments,
    ]
    with errors.open("w") as stderr:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, stderr=stderr, text=True, cwd=ROOT
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, errors.read_text()
        host, _, port = json.loads(line)["url"].removeprefix("http://").partition(":")
        yield Service(host, int(port), process, errors)
    finally:
        process.kill()
        process.communicate()


def free_port() -> int:
    """A port that nobody has just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def refused(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A start that must fail."""
    command = [sys.executable, "-m", "serving.assistant.service", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=30, cwd=ROOT, stdin=subprocess.DEVNULL
    )
