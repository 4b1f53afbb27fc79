"""What load tests need of the simulated server: reasoning, freezes, refusals of every kind, and the log of what was."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import time
from pathlib import Path
from typing import Any

import openai
import pytest

from serving.simulated.pace import Pace
from tests.serving.simulators import (
    FIXED,
    Server,
    body,
    closing,
    exchange,
    open_loop,
    post,
    refused,
    serving,
    statuses,
)


def events(got: bytes) -> list[dict[str, Any]]:
    """The chunks of one streamed answer."""
    texts = got.partition(b"\r\n\r\n")[2].split(b"data: ")[1:]
    return [json.loads(t.partition(b"\n\n")[0]) for t in texts if not t.startswith(b"[DONE]")]


def ask(server: Server, *lines: str, **more: Any) -> tuple[int, dict[str, str], bytes]:
    """One request with further header lines: status, headers and body."""
    connection = http.client.HTTPConnection(server.host, server.port, timeout=20)
    headers = dict(line.split(": ", 1) for line in lines)
    connection.request("POST", "/v1/chat/completions", json.dumps(body(**more)), headers)
    response = connection.getresponse()
    told = {name.lower(): value for name, value in response.getheaders()}
    try:
        return response.status, told, response.read()
    finally:
        connection.close()


def test_reasoning_comes_first_in_a_field_of_its_own(tmp_path: Path) -> None:
    """30 of 50 tokens are reasoning, no chunk holds both kinds, and usage counts reasoning inside the output."""
    options = [
        "--reasoning-share",
        "0.6",
        "--tokens-per-chunk",
        "4",
        "--speed",
        "20",
        "--output-tokens-mean",
        "50",
    ]
    with serving(tmp_path, *options, *FIXED) as server:
        asked = post(json.dumps(body(stream=True, stream_options={"include_usage": True})).encode())
        chunks = events(exchange(server, closing(asked)))
        plain = json.loads(ask(server)[2])
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    thoughts = [delta["reasoning_content"] for delta in deltas if "reasoning_content" in delta]
    said = [delta["content"] for delta in deltas if delta.get("content")]
    assert [len(text.split()) for text in thoughts] == [4] * 7 + [2]
    assert [len(text.split()) for text in said] == [4] * 5
    assert deltas.index({"content": said[0]}) > max(deltas.index({"reasoning_content": t}) for t in thoughts)
    for usage in (chunks[-1]["usage"], plain["usage"]):
        assert usage["completion_tokens"] == 50
        assert usage["completion_tokens_details"] == {"reasoning_tokens": 30}
    message = plain["choices"][0]["message"]
    assert (len(message["reasoning_content"].split()), len(message["content"].split())) == (30, 20)


def test_a_limit_may_leave_reasoning_only(tmp_path: Path) -> None:
    """An answer cut by its limit while it reasons has no content, as with real models, and ends with "length"."""
    with serving(tmp_path, "--reasoning-share", "0.9", "--output-tokens-mean", "50", *FIXED) as server:
        choice = json.loads(ask(server, max_tokens=20)[2])["choices"][0]
    assert choice["finish_reason"] == "length" and choice["message"]["content"] == ""
    assert len(choice["message"]["reasoning_content"].split()) == 20


def test_a_schema_of_listed_values_is_kept(tmp_path: Path) -> None:
    """A request for JSON with listed values gets valid JSON with the first of them, one piece a token."""
    schema = {"type": "object", "properties": {"quote": {"enum": ["It's free, isn't it?", "No."]}}}
    asked = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    with serving(tmp_path, "--reasoning-share", "0.5", "--speed", "20") as server, server.sdk() as sdk:
        whole = sdk.chat.completions.create(**body(response_format=asked))
        texts = [
            chunk.choices[0].delta.content or ""
            for chunk in sdk.chat.completions.create(**body(response_format=asked), stream=True)
        ]
    assert json.loads(whole.choices[0].message.content or "") == {"quote": "It's free, isn't it?"}
    assert "".join(texts) == whole.choices[0].message.content
    assert whole.usage and whole.usage.completion_tokens == sum(bool(text) for text in texts) > 8


def test_a_freeze_holds_everything_and_moves_what_was_due(tmp_path: Path) -> None:
    """For as long as the server stands still no byte comes; then all goes on where it was, none of it in a burst."""
    options = ["--freeze", "0.6@0.5", "--slots", "50", "--output-tokens-mean", "30", *FIXED]
    with serving(tmp_path, *options) as server:
        clients = asyncio.run(open_loop(server, 40, 40))
        rows = server.truth()
    assert all(client.ended_well for client in clients) and len(rows) == 40
    whole = 0.020 + 0.00005 * rows[0]["prompt_tokens"] + 29 * 0.010
    arrived = [row for row in rows if row["queue_s"] > 0]
    # All that arrived meanwhile got their slots in the moment in which the server went on.
    (thaw,) = {row["start"] for row in arrived}
    frozen = thaw - 0.6
    assert 0.5 - 1e-4 <= frozen - rows[0]["arrival"] < 1.5
    assert all(frozen <= row["arrival"] < thaw for row in arrived)
    caught = [row for row in rows if row["start"] < frozen < row["start"] + whole]
    assert arrived and caught and len(arrived) + len(caught) < len(rows)
    for row in rows:
        held = 0.6 if row in caught else 0.0
        assert row["last_token"] - row["start"] == pytest.approx(whole + held, abs=1e-4)
    stamps = [row[name] for row in rows for name in ("written_first", "written_last")]
    assert not [at for at in stamps if frozen + 1e-4 < at < thaw - 1e-4]


def test_a_freeze_on_request(tmp_path: Path) -> None:
    """POST /control/freeze answers and then holds the whole server, health check included; nonsense is a 400."""
    with serving(tmp_path) as server:
        health = closing(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        for wrong in (b"{}", b'{"seconds": -1}', b'{"seconds": "x"}', b"[", b'{"seconds": 1e999}'):
            assert statuses(exchange(server, closing(post(wrong, "/control/freeze")))) == [400]
        began = time.perf_counter()
        assert statuses(exchange(server, closing(post(b'{"seconds": 0.5}', "/control/freeze")))) == [200]
        answered = time.perf_counter()
        # One that does not wait for the end leaves nothing behind.
        with socket.create_connection((server.host, server.port)) as gone:
            gone.sendall(post(json.dumps(body(stream=True)).encode()))
        assert statuses(exchange(server, health)) == [200]
        assert answered - began < 0.4 and time.perf_counter() - began > 0.5
        assert server.truth() == []


def test_a_freeze_inside_a_freeze_lasts_longer() -> None:
    """Server time stands still for both together, and what was due before a freeze keeps its time on the wall."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        pace, woken = Pace(loop), list[float]()
        began = loop.time()
        pace.at(pace.now() + 0.05, lambda: woken.append(loop.time() - began))
        stopped = pace.at(pace.now() + 0.05, lambda: woken.append(-1.0))
        pace.cancel(stopped)
        at = pace.now()
        pace.freeze(0.1)
        held = pace.now()
        pace.freeze(0.1)
        await asyncio.sleep(0.05)
        assert pace.frozen and pace.now() == held and pace.at_wall(began - 1.0) == began - 1.0
        await asyncio.sleep(0.3)
        assert 0.25 <= woken[0] < 0.34 and len(woken) == 1
        assert pace.wall(at - 1.0) == at - 1.0
        assert pace.wall(held + 1.0) == pytest.approx(held + 1.2)
        assert pace.at_wall(pace.wall(held + 0.01)) == pytest.approx(held + 0.01)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("options", "status", "header", "code"),
    [
        (["--fault", "error503:1"], 503, "1", "overloaded"),
        (["--fault", "error503:1", "--retry-after", "none"], 503, None, "overloaded"),
        (["--fault", "rate429:1", "--retry-after", "2.5"], 429, "2.5", "rate_limit_exceeded"),
        (["--fault", "rate429:1", "--retry-after", "none"], 429, None, "rate_limit_exceeded"),
        (["--key", "current-key"], 401, None, "invalid_api_key"),
    ],
)
def test_refusals(tmp_path: Path, options: list[str], status: int, header: str | None, code: str) -> None:
    """429 and 503 with and without Retry-After, and 401 for a key that is not the one served, never repeated."""
    with serving(tmp_path, *options) as server:
        got, headers, answer = ask(server, "Authorization: Bearer expired-key")
        assert (got, headers.get("retry-after")) == (status, header)
        assert json.loads(answer)["error"]["code"] == code and b"-key" not in answer
        assert [row["status"] for row in server.truth()] == [status]


def test_the_right_key_is_served(tmp_path: Path) -> None:
    """With --key the SDK that has it is served, and the one that has another raises AuthenticationError."""
    with serving(tmp_path, "--key", "current-key", "--speed", "20") as server:
        sdk = openai.OpenAI(base_url=server.url + "/v1", api_key="current-key", max_retries=0)
        assert sdk.chat.completions.create(**body()).choices[0].message.content
        with pytest.raises(openai.AuthenticationError):
            server.sdk().chat.completions.create(**body())


def test_html(tmp_path: Path) -> None:
    """A proxy's page comes with 502, and a wrong port answers every path with a page and 200."""
    with serving(tmp_path, "--fault", "html:1") as server:
        status, headers, answer = ask(server)
        assert status == 502 and headers["content-type"].startswith("text/html") and answer.startswith(b"<!")
    with serving(tmp_path, "--answer-html") as server:
        for path, method in (("/v1/models", "GET"), ("/v1/chat/completions", "POST"), ("/health", "GET")):
            got = exchange(server, closing(post(b"", path, method)))
            assert statuses(got) == [200] and b"<html>" in got


def test_the_log_says_when_tokens_were_written(tmp_path: Path) -> None:
    """Its stamps, on the clock that the first line names, lie between each client's sending and its reading."""
    with serving(tmp_path, "--slots", "100", "--output-tokens-mean", "10", *FIXED) as server:
        clients = asyncio.run(open_loop(server, 50, 50))
        rows = {row["id"]: row for row in server.truth()}
    for client in clients:
        row = rows[client.id]
        assert row["first_token"] <= row["written_first"] <= row["written_last"]
        assert row["late_s"] >= row["written_first"] - row["first_token"] - 2e-6
        # perf_counter and monotonic are one clock on Linux; elsewhere the differences alone are comparable.
        assert row["written_first"] - row["arrival"] <= client.first - client.sent + 1e-3
        assert row["written_last"] - row["arrival"] <= client.last - client.sent + 1e-3


@pytest.mark.parametrize(
    "arguments",
    [["--freeze", "2"], ["--freeze", "0@1"], ["--retry-after", "soon"], ["--reasoning-share", "1.5"]],
)
def test_bad_settings(arguments: list[str]) -> None:
    """Settings that make no sense are refused with code 2 and no traceback."""
    ended = refused(*arguments)
    assert ended.returncode == 2 and "error:" in ended.stderr and "Traceback" not in ended.stderr
