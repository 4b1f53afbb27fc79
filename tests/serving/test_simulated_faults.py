"""The simulated server's faults, and what it does with bad input, with the real process and a real client."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import openai
import pytest

from tests.serving import simulators
from tests.serving.simulators import (
    FIXED,
    Server,
    body,
    closing,
    exchange,
    open_loop,
    post,
    serving,
    statuses,
)

shared_server = simulators.shared_server


def test_errors_and_rate_limits(tmp_path: Path) -> None:
    """error500 and rate429 reach the SDK as their own exceptions, 429 with retry-after."""
    with serving(tmp_path, "--fault", "error500:1") as server, pytest.raises(openai.InternalServerError):
        server.sdk().chat.completions.create(**body())
    with serving(tmp_path, "--fault", "rate429:1") as server:
        with pytest.raises(openai.RateLimitError) as caught:
            server.sdk().chat.completions.create(**body(stream=True))
        assert caught.value.response.headers["retry-after"] == "1"
        assert [(row["status"], row["fault"]) for row in server.truth()] == [(429, "rate429")]


def test_stall_delays_the_answer_by_its_length(tmp_path: Path) -> None:
    """A stalled answer is whole, and late by exactly the stall, which counts in simulated seconds too."""
    options = ["--fault", "stall:0.5:1", "--speed", "2", "--output-tokens-mean", "10", *FIXED]
    with serving(tmp_path, *options) as server:
        (client,) = asyncio.run(open_loop(server, 100, 1))
        (row,) = server.truth()
    assert client.ended_well and row["fault"] == "stall"
    ideal = 0.020 + 0.00005 * row["prompt_tokens"] + 9 * 0.010 + 0.5
    assert row["last_token"] - row["start"] == pytest.approx(ideal, abs=2e-6)
    assert client.last - client.sent > ideal / 2 - 0.002


def test_truncated_stream_has_no_finish_reason(tmp_path: Path) -> None:
    """A truncated stream ends in good form without finish_reason; a truncated plain answer is cut."""
    with serving(tmp_path, "--fault", "truncate:1", "--output-tokens-mean", "30", *FIXED) as server:
        with server.sdk() as sdk:
            chunks = list(sdk.chat.completions.create(**body(), stream=True))
            with pytest.raises(openai.APIConnectionError):
                sdk.chat.completions.create(**body())
        rows = server.truth()
    assert all(choice.finish_reason is None for chunk in chunks for choice in chunk.choices)
    assert rows[0]["completion_tokens"] == sum(bool(c.choices[0].delta.content) for c in chunks) < 30
    assert [row["fault"] for row in rows] == ["truncate", "truncate"]


def test_dropped_connection(tmp_path: Path) -> None:
    """A dropped stream closes without its end, a dropped plain answer without a byte; slots come free."""
    with serving(
        tmp_path, "--fault", "drop:1", "--slots", "1", "--output-tokens-mean", "30", *FIXED
    ) as server:
        stream = exchange(server, post(json.dumps(body(stream=True)).encode()))
        assert stream.startswith(b"HTTP/1.1 200") and not stream.endswith(b"0\r\n\r\n")
        assert b'"finish_reason":"stop"' not in stream
        assert exchange(server, post(json.dumps(body()).encode())) == b""
        assert [row["fault"] for row in server.truth()] == ["drop", "drop"]


def test_full_queue_answers_503(tmp_path: Path) -> None:
    """With one slot taken and one request waiting, the third is refused at once."""
    options = ["--slots", "1", "--queue-limit", "1", "--output-tokens-mean", "30", *FIXED]
    with serving(tmp_path, *options) as server:
        clients = asyncio.run(_three_then_close(server))
        assert sorted(row["status"] for row in server.truth()) == [200, 200, 503]
    assert sum(b"queue_full" in client for client in clients) == 1


async def _three_then_close(server: Server) -> list[bytes]:
    request = post(json.dumps(body()).encode()).replace(b"host: x", b"connection: close")

    async def one() -> bytes:
        reader, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(request)
        got = await reader.read()
        writer.close()
        return got

    return list(await asyncio.wait_for(asyncio.gather(one(), one(), one()), 20))


@pytest.mark.parametrize(
    ("payload", "status", "word"),
    [
        (b"{", 400, "JSON"),
        (b'{"a": NaN}', 400, "NaN"),
        (b"[" * 100_000, 400, "JSON"),
        (b"[]", 400, "object"),
        (b'{"model": "simulated"}', 400, "messages"),
        (b'{"model": "simulated", "messages": [3]}', 400, "messages"),
        (b'{"messages": [{"role": "user"}]}', 400, "model"),
        (b'{"model": "gpt-9", "messages": [{"role": "user", "content": "x"}]}', 404, "gpt-9"),
        (b'{"model": "simulated", "messages": [{"role": "user"}], "max_tokens": 0}', 400, "max_tokens"),
        (b'{"model": "simulated", "messages": [{"role": "user"}], "n": 2}', 400, "'n'"),
    ],
)
def test_bad_bodies(shared_server: Server, payload: bytes, status: int, word: str) -> None:
    """A body that cannot be served gets its status and an OpenAI-style error that names the fault."""
    head, _, answer = exchange(shared_server, closing(post(payload))).partition(b"\r\n\r\n")
    assert statuses(head) == [status]
    error = json.loads(answer)["error"]
    assert error["type"] == "invalid_request_error" and word in error["message"]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (closing(post(b"{}", "/v1/nothing")), 404),
        (closing(post(b"{}", "/v1/chat/completions", "PUT")), 405),
        (b"GET /health?probe=1 HTTP/1.1\r\nconnection: close\r\n\r\n", 200),
        (b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 9000000\r\n\r\n" + b" " * 9_000_000, 413),
        (b"POST /v1/chat/completions HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000, 431),
    ],
)
def test_bad_requests(shared_server: Server, data: bytes, status: int) -> None:
    """What HTTP or the routes refuse is answered with its status and the connection ends in good form."""
    assert statuses(exchange(shared_server, data)) == [status]


def test_pipelined_and_split_requests(shared_server: Server) -> None:
    """Two requests sent at once are both answered, in order, and so is one that comes byte by byte."""
    health = b"GET /health HTTP/1.1\r\n\r\n"
    asked = post(json.dumps(body(stream=True)).encode())
    got = exchange(shared_server, asked + closing(post(json.dumps(body()).encode())))
    assert statuses(got) == [200, 200] and got.index(b"[DONE]") < got.index(b'"chat.completion"')
    with socket.create_connection((shared_server.host, shared_server.port), timeout=10) as connection:
        for byte in health:
            connection.sendall(bytes([byte]))
        assert statuses(connection.recv(1000)) == [200]


def test_odd_contents_are_counted(shared_server: Server) -> None:
    """Lists of parts, tools, null contents and lone surrogates are served, not crashed on."""
    parts = [{"type": "text", "text": "one two"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    messages = [
        {"role": "user", "content": parts},
        {"role": "assistant", "content": None, "tool_calls": [{}]},
    ]
    for asked in (body(messages=messages, tools=[{"type": "function"}]), body("\ud800 broken", user="u")):
        got = exchange(shared_server, closing(post(json.dumps(asked).encode())))
        assert statuses(got) == [200]
        assert json.loads(got.partition(b"\r\n\r\n")[2])["usage"]["prompt_tokens"] >= 4
