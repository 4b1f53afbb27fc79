"""The simulated server, each test with the real process and a real client."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import os
import random
import signal
import socket
import statistics
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

from serving.prompt_digest import prompt_digest
from serving.simulated import Answer, RecordingError, load_recording, write_recording
from serving.simulated.timing import PrefixCache

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


# ---- time -------------------------------------------------------------------------------------------------


def test_deadlines_hold_at_50_requests_a_second(tmp_path: Path) -> None:
    """Every deadline is arithmetically exact, no byte comes early, and undisturbed clients see no drift."""
    with serving(tmp_path, "--slots", "200", "--output-tokens-mean", "20", *FIXED) as server:
        clients = asyncio.run(open_loop(server, 50, 150))
        truth = {row["id"]: row for row in server.truth()}
    assert len(truth) == 150 and all(client.ended_well for client in clients)
    errors = []
    for client in clients:
        row = truth[client.id]
        assert row["queue_s"] == 0 and row["completion_tokens"] == 20
        assert row["first_token"] - row["start"] == pytest.approx(
            0.020 + 0.00005 * row["prompt_tokens"], abs=2e-6
        )
        assert row["last_token"] - row["first_token"] == pytest.approx(0.190, abs=2e-6)
        errors.append(client.last - client.sent - (row["last_token"] - row["arrival"]))
    assert min(errors) > -0.002
    # The lowest tenth, as pauses of a busy test machine make the others late; delays counted from each
    # callback instead of from deadlines would add up in every answer.
    assert statistics.quantiles(errors, n=10)[0] < 0.010


def test_slots_are_taken_in_order_and_passed_on_at_their_deadline(tmp_path: Path) -> None:
    """Two slots serve nine requests two at a time, first come first served, with no drift between turns."""
    with serving(tmp_path, "--slots", "2", "--output-tokens-mean", "5", *FIXED) as server:
        asyncio.run(open_loop(server, 2000, 9))
        rows = server.truth()
    starts = [row["start"] for row in rows]
    assert starts == sorted(starts) and all(
        row["queue_s"] == pytest.approx(row["start"] - row["arrival"]) for row in rows
    )
    for before, row in zip(rows, rows[2:], strict=False):
        assert row["start"] == pytest.approx(max(row["arrival"], before["last_token"]), abs=2e-6)
    assert sum(row["queue_s"] > 0 for row in rows) >= 5


def test_client_that_leaves_frees_its_place(tmp_path: Path) -> None:
    """A request whose client has gone holds neither slot nor place in the queue, and is logged as 499."""
    with serving(tmp_path, "--slots", "1", "--output-tokens-mean", "3000", *FIXED) as server:
        asked = post(json.dumps(body(stream=True)).encode())
        serves, waits = (socket.create_connection((server.host, server.port), timeout=10) for _ in range(2))
        serves.sendall(asked)
        assert serves.recv(100)
        waits.sendall(asked)
        assert waits.recv(100)
        metrics = exchange(server, b"GET /metrics HTTP/1.1\r\nconnection: close\r\n\r\n").decode()
        assert 'requests_running{model_name="simulated"} 1\n' in metrics
        assert 'requests_waiting{model_name="simulated"} 1\n' in metrics
        waits.close()
        serves.close()
        answer = server.sdk().chat.completions.create(**body(max_tokens=2))
        assert answer.choices[0].finish_reason == "length"
        assert [row["status"] for row in server.truth()] == [499, 499, 200]


def test_speed_shortens_real_time_only(tmp_path: Path) -> None:
    """At speed 20 an answer of 2.0 simulated seconds takes about a tenth, and the log still says 2.0."""
    with serving(tmp_path, "--speed", "20", "--output-tokens-mean", "199", *FIXED) as server:
        began = time.perf_counter()
        server.sdk().chat.completions.create(**body())
        took = time.perf_counter() - began
        (row,) = server.truth()
    assert row["last_token"] - row["start"] == pytest.approx(2.0, abs=0.01)
    assert took < 1.9


# ---- answers ----------------------------------------------------------------------------------------------


def test_sdk_stream_and_plain_answer(tmp_path: Path) -> None:
    """The OpenAI SDK reads both kinds of answer, usage last in a stream, with ids that name the log's row."""
    with serving(tmp_path, "--output-tokens-mean", "7", *FIXED) as server, server.sdk() as sdk:
        plain = sdk.chat.completions.create(**body())
        chunks = list(
            sdk.chat.completions.create(**body(), stream=True, stream_options={"include_usage": True})
        )
        bare = list(sdk.chat.completions.create(**body(), stream=True))
        assert [model.id for model in sdk.models.list()] == ["simulated"]
        rows = server.truth()
    assert plain.choices[0].message.content and plain.choices[0].finish_reason == "stop"
    assert plain.usage and plain.usage.completion_tokens == 7
    assert plain.usage.total_tokens == plain.usage.prompt_tokens + 7
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[0].choices[0].delta.content == ""
    assert sum(bool(chunk.choices and chunk.choices[0].delta.content) for chunk in chunks) == 7
    assert chunks[-2].choices[0].finish_reason == "stop" and chunks[-1].choices == []
    assert chunks[-1].usage and chunks[-1].usage.completion_tokens == 7
    assert all(chunk.usage is None for chunk in bare) and bare[-1].choices[0].finish_reason == "stop"
    assert [row["id"] for row in rows] == [plain.id, chunks[0].id, bare[0].id]


def test_chunks_and_early_role(tmp_path: Path) -> None:
    """Five tokens come in one chunk due with its last; an early role chunk does not wait for prefill."""
    options = ["--tokens-per-chunk", "5", "--role-chunk-early", "--prefill-base-ms", "300"]
    with serving(tmp_path, *options, "--output-tokens-mean", "12", *FIXED) as server, server.sdk() as sdk:
        began = time.perf_counter()
        stream = sdk.chat.completions.create(**body(), stream=True)
        role = next(stream)
        early = time.perf_counter() - began
        texts = [text for chunk in stream if (text := chunk.choices[0].delta.content)]
        (row,) = server.truth()
    assert role.choices[0].delta.role == "assistant" and early < 0.28
    assert [len(text.split()) for text in texts] == [5, 5, 2]
    prefill = 0.300 + 0.00005 * row["prompt_tokens"]
    assert row["first_token"] - row["start"] == pytest.approx(prefill + 4 * 0.010, abs=2e-6)


def test_repeated_prefix_is_cached_and_prefills_faster(tmp_path: Path) -> None:
    """A shared beginning counts as cached in whole blocks, shortens prefill, and is evicted."""
    options = ["--prefix-cache-blocks", "40", "--block-tokens", "16", "--prefill-ms-per-token", "1"]
    shared = "alpha beta gamma delta " * 50
    with serving(tmp_path, *options, "--output-tokens-mean", "2", *FIXED) as server, server.sdk() as sdk:

        def cached(text: str) -> int:
            usage = sdk.chat.completions.create(**body(text)).usage
            assert usage and usage.prompt_tokens_details
            return usage.prompt_tokens_details.cached_tokens or 0

        counts = [
            cached(shared + "one"),
            cached(shared + "two"),
            cached("other " * 640),
            cached(shared + "three"),
        ]
        rows = server.truth()
    assert counts == [0, 192, 0, 0]
    assert [row["cached_tokens"] for row in rows] == counts
    for row in rows:
        uncached = row["prompt_tokens"] - row["cached_tokens"]
        assert row["first_token"] - row["start"] == pytest.approx(0.020 + 0.001 * uncached, abs=2e-6)


def test_prefix_cache_forgets_the_tail_of_a_prompt_first() -> None:
    """When one block too many comes, the last block of the oldest prompt goes and its shared head stays."""
    cache = PrefixCache(blocks=3, block_tokens=1)
    assert [cache.use(prompt) for prompt in ("abc", "x", "abz")] == [0, 0, 2]


def test_seed_decides_text_length_and_fault(tmp_path: Path) -> None:
    """Two runs with one seed give equal answers and faults in order; another seed gives others."""

    def run(seed: str) -> list[object]:
        arguments = ["--seed", seed, "--fault", "error500:0.3", "--speed", "50", "--output-tokens-mean", "8"]
        seen: list[object] = []
        with serving(tmp_path, *arguments) as server, server.sdk() as sdk:
            for _ in range(20):
                try:
                    seen.append(sdk.chat.completions.create(**body()).choices[0].message.content)
                except openai.InternalServerError:
                    seen.append(500)
        return seen

    first = run("1")
    assert first == run("1") and first != run("2")
    assert 500 in first and len({len(str(text).split()) for text in first}) > 4


# ---- faults and bad input ---------------------------------------------------------------------------------


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
    head, _, answer = exchange(shared_server, _closing(post(payload))).partition(b"\r\n\r\n")
    assert statuses(head) == [status]
    error = json.loads(answer)["error"]
    assert error["type"] == "invalid_request_error" and word in error["message"]


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("shared"), "--output-tokens-mean", "2", *FIXED) as server:
        yield server


def _closing(request: bytes) -> bytes:
    return request.replace(b"host: x", b"connection: close")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (_closing(post(b"{}", "/v1/nothing")), 404),
        (_closing(post(b"{}", "/v1/chat/completions", "PUT")), 405),
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
    got = exchange(shared_server, asked + _closing(post(json.dumps(body()).encode())))
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
        got = exchange(shared_server, _closing(post(json.dumps(asked).encode())))
        assert statuses(got) == [200]
        assert json.loads(got.partition(b"\r\n\r\n")[2])["usage"]["prompt_tokens"] >= 4


# ---- replay -----------------------------------------------------------------------------------------------

RECORDED = "Refunds take 14\u2028days \u2013 \u00e0 la carte plans 30."


def record(folder: Path) -> dict[str, Any]:
    asked: dict[str, Any] = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "refund?"}],
        "temperature": 0,
    }
    answers = [
        Answer(prompt_digest(asked), RECORDED, "length", 31, 16, 12, 0.100, 0.320),
        Answer("0" * 64, "", "stop", 5, 0, 0, 0.1, 0.2),
    ]
    write_recording(folder, answers, model="tiny", date="2026-01-31", machine="test")
    return asked


def test_replay_is_exact(tmp_path: Path) -> None:
    """A recorded prompt gets its text, usage and service times back, labelled, streamed or not."""
    asked = record(tmp_path / "rec")
    with (
        serving(tmp_path, "--recording", str(tmp_path / "rec"), "--speed", "2") as server,
        server.sdk() as sdk,
    ):
        raw = sdk.chat.completions.with_raw_response.create(**asked)
        stream = sdk.chat.completions.create(
            **asked, stream=True, stream_options={"include_usage": True}, user="u"
        )
        chunks = list(stream)
        rows = server.truth()
    plain = raw.parse()
    assert raw.headers["x-costkit-replay"] == "recorded"
    assert str(plain.system_fingerprint).startswith("replay-") and len(str(plain.system_fingerprint)) == 15
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert plain.choices[0].message.content == text == RECORDED
    assert plain.choices[0].finish_reason == "length"
    for usage in (plain.usage, chunks[-1].usage):
        assert usage and usage.prompt_tokens_details
        assert (usage.prompt_tokens, usage.completion_tokens) == (31, 12)
        assert usage.prompt_tokens_details.cached_tokens == 16
    for row in rows:
        assert row["first_token"] - row["start"] == pytest.approx(0.100, abs=2e-6)
        assert row["last_token"] - row["start"] == pytest.approx(0.320, abs=2e-6)
        assert (row["prompt_tokens"], row["cached_tokens"], row["completion_tokens"]) == (31, 16, 12)


def test_unrecorded_prompt_is_said_so(tmp_path: Path) -> None:
    """A prompt that was not recorded gets 422 with the recording's date and model, never an answer."""
    asked = record(tmp_path / "rec")
    with serving(tmp_path, "--recording", str(tmp_path / "rec")) as server:
        with pytest.raises(openai.UnprocessableEntityError) as caught:
            server.sdk().chat.completions.create(**{**asked, "temperature": 1})
        assert server.truth()[0]["status"] == 422
    error = cast(dict[str, Any], caught.value.body)
    assert error["type"] == "not_recorded"
    assert all(word in error["message"] for word in ("2026-01-31", "tiny", "make record"))
    assert prompt_digest({**asked, "temperature": 1}) in error["message"]


def _spoil_meta(folder: Path, name: str, value: object) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, name: value}))


def _rewrite(folder: Path, data: bytes) -> None:
    """Replace the answers and make the digest fit, so that a later check has to find the fault."""
    (folder / "answers.jsonl.gz").write_bytes(data)
    _spoil_meta(folder, "answers_sha256", hashlib.sha256(data).hexdigest())


def _rows(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line) for line in gzip.decompress((folder / "answers.jsonl.gz").read_bytes()).splitlines()
    ]


def _with_row(folder: Path, change: dict[str, object]) -> None:
    rows = [{**_rows(folder)[0], **change}, _rows(folder)[1]]
    _rewrite(folder, gzip.compress("\n".join(json.dumps(row) for row in rows).encode()))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("stale digest", "answers_sha256"),
        ("row count", "rows=3"),
        ("no meta", "cannot be read"),
        ("no answers", "cannot be read"),
        ("meta not JSON", "is not JSON"),
        ("meta field", "'date'"),
        ("half a gzip", "gzip"),
        ("not gzip", "gzip"),
        ("row not JSON", "line 1: is not JSON"),
        ("row field", "'text'"),
        ("twice", "appears twice"),
        ("times", "ttft_s"),
    ],
)
def test_broken_recording_is_refused(tmp_path: Path, fault: str, words: str) -> None:
    """Each way a recording can be stale or broken is one clear error that names the file."""
    folder = tmp_path / "rec"
    record(folder)
    packed = (folder / "answers.jsonl.gz").read_bytes()
    match fault:
        case "stale digest":
            (folder / "answers.jsonl.gz").write_bytes(gzip.compress(b"{}"))
        case "row count":
            _spoil_meta(folder, "rows", 3)
        case "no meta":
            (folder / "meta.json").unlink()
        case "no answers":
            (folder / "answers.jsonl.gz").unlink()
        case "meta not JSON":
            (folder / "meta.json").write_text("{")
        case "meta field":
            _spoil_meta(folder, "date", None)
        case "half a gzip":
            _rewrite(folder, packed[: len(packed) // 2])
        case "not gzip":
            _rewrite(folder, b"plain")
        case "row not JSON":
            _rewrite(folder, gzip.compress(b"{\n"))
        case "row field":
            _with_row(folder, {"text": None})
        case "twice":
            _with_row(folder, {"prompt": "0" * 64})
        case "times":
            _with_row(folder, {"ttft_s": 9})
    with pytest.raises(RecordingError) as caught:
        load_recording(folder)
    assert words in str(caught.value) and str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_server_refuses_a_stale_recording(tmp_path: Path) -> None:
    """The process itself ends with code 2 and one line, before it serves anything."""
    record(tmp_path)
    _spoil_meta(tmp_path, "rows", 1)
    ended = _run("--recording", str(tmp_path))
    assert ended.returncode == 2 and ended.stdout == ""
    assert ended.stderr.count("\n") == 1 and "stale" in ended.stderr and "Traceback" not in ended.stderr


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "serving.simulated", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=20, cwd=ROOT, stdin=subprocess.DEVNULL
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["--fault", "explode:0.5"],
        ["--fault", "drop:0.7", "stall:1:0.7"],
        ["--slots", "0"],
        ["--tpot-ms", "nan"],
    ],
)
def test_bad_arguments(arguments: list[str]) -> None:
    """Arguments that make no sense are refused with code 2 and no traceback."""
    ended = _run(*arguments)
    assert ended.returncode == 2 and "error:" in ended.stderr and "Traceback" not in ended.stderr


# ---- the process ------------------------------------------------------------------------------------------


def test_port_in_use(shared_server: Server) -> None:
    """A second server on a taken port says so and ends with code 1."""
    ended = _run("--port", str(shared_server.port))
    assert ended.returncode == 1 and "in use" in ended.stderr and "Traceback" not in ended.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_in_mid_answer(tmp_path: Path, number: signal.Signals) -> None:
    """A signal ends the server with code 0, closes open streams and logs them."""
    with serving(tmp_path, "--output-tokens-mean", "3000", *FIXED) as server:
        with socket.create_connection((server.host, server.port), timeout=10) as connection:
            connection.sendall(post(json.dumps(body(stream=True)).encode()))
            assert connection.recv(100)
            server.process.send_signal(number)
            assert server.process.wait(10) == 0
        assert '"status": 499' in server.log.read_text()


def test_ends_when_standard_input_closes(tmp_path: Path) -> None:
    """With --die-with-parent the server ends when the pipe to its standard input closes."""
    with serving(tmp_path, "--die-with-parent") as server:
        assert statuses(exchange(server, b"GET /health HTTP/1.1\r\nconnection: close\r\n\r\n")) == [200]
        assert server.process.stdin is not None
        server.process.stdin.close()
        server.process.stdin = None
        assert server.process.wait(10) == 0


def test_ends_when_its_parent_is_killed() -> None:
    """With --die-with-parent no process is left when the parent is killed, even without a pipe to it."""
    script = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-m', 'serving.simulated',"
        " '--die-with-parent'], stdin=subprocess.DEVNULL); p.wait()"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert parent.stdout is not None
    child = json.loads(parent.stdout.readline())["pid"]
    try:
        parent.kill()
        parent.wait(10)
        # The child holds the other end of the pipe: its end is the end of the file.
        assert parent.stdout.read() == ""
    finally:
        parent.stdout.close()
        if (
            Path(f"/proc/{child}/cmdline").exists()
            and b"simulated" in Path(f"/proc/{child}/cmdline").read_bytes()
        ):
            os.kill(child, signal.SIGKILL)
            pytest.fail("the server outlived its parent")
