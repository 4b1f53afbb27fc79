"""The assistant's service: the same answers with and without costkit, its account, its tenants, its errors, its end."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.serving.services import OTHERS, PRICES, QUESTION, Service, asking, free_port, refused, service
from tests.serving.simulators import Server, serving

REFUSALS = (
    (["--fault", "rate429:1", "--retry-after", "2.5"], 429, "2.5"),
    (["--fault", "error503:1", "--retry-after", "none"], 503, None),
    (["--fault", "error500:1"], 500, None),
    (["--fault", "html:1"], 502, None),
    (["--key", "another"], 401, None),
)
FAST = ["--speed", "20", "--slots", "100"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A fast simulated model."""
    with serving(tmp_path_factory.mktemp("model"), *FAST) as server:
        yield server


@pytest.fixture(scope="module")
def on(model: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service with costkit."""
    with service(tmp_path_factory.mktemp("on"), model.url + "/v1") as running:
        yield running


@pytest.fixture(scope="module")
def off(model: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service without costkit."""
    with service(tmp_path_factory.mktemp("off"), model.url + "/v1", costkit=False) as running:
        yield running


def ledger(running: Service) -> dict[str, tuple[str | None, int, int]]:
    """The ledger's requests by their id: what saved it, nano-dollars, attempts of unknown cost."""
    with contextlib.closing(sqlite3.connect(running.errors.parent / "kit" / "ledger.db")) as connection:
        rows = connection.execute(
            "SELECT id, saved_by, provider_cost, unknown_costs FROM query_costs"
        ).fetchall()
    return {id: (saved_by, cost, unknown) for id, saved_by, cost, unknown in rows}


def test_both_answer_alike_and_only_costkit_has_an_account(on: Service, off: Service) -> None:
    """Streamed or whole, with or without costkit, a hit or a call: one text, verified, with its source."""
    texts = {
        one.ask(question, stream=stream).text
        for question in [QUESTION]
        for stream in (True, False)
        for one in (off, on, on)
    }
    assert len(texts) == 1 and texts.pop().endswith("[kb-115]")
    plain = off.ask(QUESTION)
    assert "costkit" not in plain.usage and plain.usage["completion_tokens"] > 5 and plain.ended


def test_the_account_is_the_ledgers(on: Service) -> None:
    """A call costs its tokens at the given prices; its repeat costs nothing, uses no tokens and names what saved it."""
    first, again, elsewhere = on.ask(OTHERS[0]), on.ask(OTHERS[0]), on.ask(OTHERS[0], tenant="northwind")
    used = first.usage
    assert first.account["cost_nano_usd"] == 1000 * used["prompt_tokens"] + 2000 * used["completion_tokens"]
    assert (first.account["saving"], again.account["saving"], elsewhere.account["saving"]) == (
        None,
        "exact",
        None,
    )
    assert again.account["cost_nano_usd"] == 0 and again.text == first.text
    assert (again.usage["prompt_tokens"], again.usage["completion_tokens"]) == (0, 0)
    assert len({reply.account["query_id"] for reply in (first, again, elsewhere)}) == 3
    time.sleep(0.5)  # rows of hits are written by then
    kept = ledger(on)
    for reply in (first, again, elsewhere):
        account = reply.account
        assert kept[account["query_id"]] == (account["saving"], account["cost_nano_usd"], 0)


def test_small_talk_costs_nothing(on: Service, off: Service) -> None:
    """A rule's answer has no tokens and no cost, and is not the model's."""
    reply = on.ask("hello!")
    assert reply.account["cost_nano_usd"] == 0 and reply.usage["total_tokens"] == 0
    assert reply.text == off.ask("hello!").text and reply.text.startswith("Hello!")


def test_identical_requests_at_once_make_one_call(on: Service) -> None:
    """Thirty at once are one paid call and twenty-nine that share it, each with the whole answer and its own row."""
    with ThreadPoolExecutor(30) as pool:
        replies = list(pool.map(lambda _: on.ask(OTHERS[1]), range(30)))
    assert len({reply.text for reply in replies}) == 1 and all(reply.ended for reply in replies)
    paid = [reply for reply in replies if reply.account["cost_nano_usd"]]
    assert len(paid) == 1 and {r.account["saving"] for r in replies if r is not paid[0]} <= {
        "coalesced",
        "exact",
    }
    assert len({reply.account["query_id"] for reply in replies}) == 30


def test_the_sdk_reads_it(on: Service) -> None:
    """The OpenAI SDK streams from the service, its extra header and the account among the usage included."""
    sdk = openai.OpenAI(
        base_url=f"http://{on.host}:{on.port}/v1", api_key="none", default_headers={"X-Tenant": "acme"}
    )
    assert [model.id for model in sdk.models.list()] == ["simulated"]
    chunks = list(
        sdk.chat.completions.create(
            model="simulated", messages=[{"role": "user", "content": QUESTION}], stream=True,
            stream_options={"include_usage": True},
        )
    )  # fmt: skip
    assert chunks[-2].choices[0].finish_reason == "stop" and chunks[-1].usage is not None
    assert "query_id" in (chunks[-1].usage.model_extra or {})["costkit"]


@pytest.mark.parametrize(
    ("tenant", "more", "status", "word"),
    [
        (None, {}, 400, "X-Tenant"),
        ("nobody", {}, 403, "nobody"),
        ("acme", {"model": "gpt-9"}, 404, "gpt-9"),
        ("acme", {"messages": []}, 400, "messages"),
        ("acme", {"messages": [{"role": "user", "content": "  "}]}, 400, "messages"),
        ("acme", {"messages": [{"role": "assistant", "content": "hi"}]}, 400, "messages"),
        ("acme", {"messages": [{"role": "user", "content": "why? " * 1000}]}, 400, "4,000 characters"),
        ("x" * 5000, {}, 403, "is not known"),
        ("acme", {"model": "m" * 5000}, 404, "does not exist"),
        ("acme", {"stream": "yes"}, 400, "stream"),
        ("acme", {"n": 2}, 400, "'n'"),
    ],
)
def test_bad_requests(on: Service, tenant: str | None, more: dict[str, Any], status: int, word: str) -> None:
    """Each is refused with its status and an error that names the fault, and names no other tenant."""
    reply = on.ask(tenant=tenant, **more)
    assert reply.status == status and word in reply.error["message"]
    assert "northwind" not in reply.error["message"] and len(reply.body) < 500


@pytest.mark.parametrize(
    "content",
    [
        "\ud800 how do refunds work?",
        "refunds\0 for plans",
        [{"type": "text", "text": "how do refunds work?"}, {}],
    ],
)
def test_odd_questions(on: Service, off: Service, content: object) -> None:
    """Half surrogates, null characters and lists of parts are answered, alike by both and from the cache."""
    asked = [{"role": "user", "content": content}]
    replies = [one.ask(messages=asked) for one in (off, on, on)]
    assert len({reply.text for reply in replies}) == 1 and all(reply.ended for reply in replies)
    assert replies[2].account["saving"] == "exact"


def test_other_paths(on: Service) -> None:
    """Health, unknown paths and unknown methods, all on one kept-alive connection."""
    connection = on.connect()
    for method, path, status in (
        ("GET", "/health", 200),
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/chat/completions", 405),
        ("GET", "/v1/models", 200),
    ):
        connection.request(method, path)
        response = connection.getresponse()
        response.read()
        assert response.status == status
    connection.close()


@pytest.mark.slow
@pytest.mark.parametrize("costkit", [True, False])
def test_errors_of_the_model_keep_their_status(tmp_path: Path, costkit: bool) -> None:
    """Streamed or whole, the client gets the model's status, its error as JSON, and its Retry-After; none costs."""
    port = free_port()
    with service(tmp_path, f"http://127.0.0.1:{port}/v1", "--model", "simulated", costkit=costkit) as running:
        assert running.ask().status == 502  # nobody is there yet
        for number, (options, status, header) in enumerate(REFUSALS):
            with serving(tmp_path, "--port", str(port), *options):
                for stream in (True, False):
                    reply = running.ask(f"{OTHERS[0]} {number} {stream}", stream=stream)
                    assert (reply.status, reply.headers.get("retry-after")) == (status, header)
                    assert reply.error["message"] and b"<html>" not in reply.body
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(20) == 0
        rows = ledger(running) if costkit else {}
    assert len(rows) == (1 + 2 * len(REFUSALS) if costkit else 0)
    assert set(rows.values()) <= {(None, 0, 0)}


@pytest.mark.slow
@pytest.mark.parametrize("costkit", [True, False])
def test_a_cut_stream_is_an_error(tmp_path: Path, costkit: bool) -> None:
    """A model's stream without an end is no answer: a stream ends with an error event, a whole answer is a 502."""
    with (
        serving(tmp_path, "--fault", "truncate:1", *FAST) as server,
        service(tmp_path, server.url + "/v1", costkit=costkit) as running,
    ):
        for question in OTHERS:
            reply = running.ask(question, stream=True)
            if reply.status == 200:
                assert not reply.ended and "error" in reply.events[-1]
                finishes = [c["finish_reason"] for e in reply.events for c in e.get("choices", [])]
                assert set(finishes) == {None}
            else:
                assert reply.status == 502
            assert running.ask(question + " please", stream=False).status == 502


@pytest.mark.slow
@pytest.mark.parametrize("costkit", [True, False])
def test_a_client_that_leaves_ends_the_call(tmp_path: Path, costkit: bool) -> None:
    """When the client closes in mid-answer the model's stream is closed too, and the service goes on."""
    with (
        serving(tmp_path, "--slots", "1", "--tpot-ms", "400") as server,
        service(tmp_path, server.url + "/v1", costkit=costkit) as running,
    ):
        asked = json.dumps(asking()).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nx-tenant: acme\r\ncontent-length: {len(asked)}\r\n\r\n"
        with socket.create_connection((running.host, running.port), timeout=20) as client:
            client.sendall(head.encode() + asked)
            assert b'"content"' in client.recv(4000)
        deadline = time.monotonic() + 5
        while b'"status": 499' not in server.log.read_bytes():
            assert time.monotonic() < deadline, "the model's stream was left open"
            time.sleep(0.05)
        assert running.ask("hello").status == 200
        assert running.errors.read_text() == ""
        if costkit:
            running.process.send_signal(signal.SIGTERM)
            assert running.process.wait(20) == 0
            # What was received until then is billed, by estimate.
            (paid,) = [cost for _, cost, unknown in ledger(running).values() if cost and not unknown]
            assert 100_000 < paid < 400_000


@pytest.mark.slow
def test_who_shared_the_call_of_a_client_that_leaves_gets_the_whole_answer(tmp_path: Path) -> None:
    """Three clients share a call; the one it was made for leaves in its middle; the others read on, nothing twice."""
    with (
        serving(tmp_path, "--tpot-ms", "60") as server,
        service(tmp_path, server.url + "/v1") as running,
        ThreadPoolExecutor(2) as pool,
    ):
        asked = json.dumps(asking()).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nx-tenant: acme\r\ncontent-length: {len(asked)}\r\n\r\n"
        with socket.create_connection((running.host, running.port), timeout=20) as first:
            first.sendall(head.encode() + asked)
            assert b'"content"' in first.recv(4000)
            others = [pool.submit(running.ask) for _ in range(2)]
            time.sleep(0.4)
        replies = [other.result(30) for other in others]
        again = running.ask()
        assert again.account["saving"] == "exact"
        assert [reply.text for reply in replies] == [again.text] * 2 and all(reply.ended for reply in replies)
        assert sorted(reply.account["saving"] or "" for reply in replies) == ["", "coalesced"]
        statuses = sorted(row["status"] for row in server.truth())
    assert statuses == [200, 499]


@pytest.mark.slow
@pytest.mark.parametrize("costkit", [True, False])
def test_sigterm_lets_answers_end(tmp_path: Path, costkit: bool) -> None:
    """The answer that runs is sent to its end, kept connections and the port are closed, the exit code is 0."""
    with (
        serving(tmp_path, "--prefill-base-ms", "800") as server,
        service(tmp_path, server.url + "/v1", costkit=costkit) as running,
    ):
        idle = running.connect()
        idle.request("GET", "/health")
        idle.getresponse().read()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(running.ask)
            time.sleep(0.3)
            running.process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            with pytest.raises(OSError):
                socket.create_connection((running.host, running.port), timeout=5)
            with pytest.raises((http.client.HTTPException, OSError)):
                idle.request("GET", "/health")
                idle.getresponse()
            reply = waiting.result(20)
        assert reply.status == 200 and reply.ended and reply.text.endswith("[kb-115]")
        assert running.process.wait(20) == 0
        if costkit:
            assert [cost > 0 for _, cost, _ in ledger(running).values()] == [True]


@pytest.mark.slow
def test_a_drain_has_an_end(tmp_path: Path) -> None:
    """A client that would be answered for minutes is cut off after --drain-seconds."""
    with (
        serving(tmp_path, "--tpot-ms", "5000") as server,
        service(tmp_path, server.url + "/v1", "--drain-seconds", "0.5") as running,
        ThreadPoolExecutor(1) as pool,
    ):
        waiting = pool.submit(running.ask)
        time.sleep(0.5)
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(10) == 0
        with pytest.raises((http.client.HTTPException, OSError)):
            waiting.result(10)


@pytest.mark.slow
def test_it_prints_no_question(tmp_path: Path) -> None:
    """Neither its output nor costkit's ledger holds a question, a failing one included."""
    with (
        serving(tmp_path, "--fault", "error500:0.5", *FAST) as server,
        service(tmp_path, server.url + "/v1") as running,
    ):
        for number in range(6):
            running.ask(f"how much does the team plan cost zebrafish{number}")
        running.process.send_signal(signal.SIGTERM)
        printed, _ = running.process.communicate(timeout=20)
    assert "zebrafish" not in printed + running.errors.read_text()
    files = list((tmp_path / "kit").glob("ledger*"))
    assert files and not any(b"zebrafish" in file.read_bytes() for file in files)


@pytest.mark.slow
def test_the_semantic_tier_is_a_flag(tmp_path: Path, model: Server) -> None:
    """With --semantic another phrasing meets a gate in shadow: it is called, judged, and its row says so."""
    pytest.importorskip("onnxruntime")
    options = ["--semantic", "--max-error", "0.05"]
    with service(tmp_path, model.url + "/v1", *options) as running:
        running.ask("how long do refunds take on the annual plan?")
        near = running.ask("how long do refunds take on the yearly plan?")
        assert near.account["saving"] is None and near.account["cost_nano_usd"] > 0
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(20) == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "kit" / "ledger.db")) as connection:
        assert connection.execute("SELECT count(*) FROM gates").fetchone() == (1,)
        rows = connection.execute("SELECT kind, wrong FROM evidence ORDER BY id").fetchall()
    assert [kind for kind, _ in rows] == ["none", "declined"] and rows[1][1] is not None


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--costkit", "off", "--semantic", "--max-error", "0.1"], 2, "--semantic needs"),
        (["--costkit", "on", "--semantic"], 2, "--max-error"),
        (["--costkit", "on", "--price-in", "1"], 2, "--price-out"),
        (["--costkit", "off", "--upstream", "ftp://x"], 2, "base URL"),
        (["--costkit", "off", "--upstream", "http://127.0.0.1:9/v1"], 1, "cannot be reached"),
        (["--costkit", "off", "--key-env", "NO_SUCH_KEY"], 2, "NO_SUCH_KEY"),
        (["--costkit", "off", "--docs", "/nowhere", "--model", "m"], 2, "/nowhere"),
    ],
)
def test_starts_that_are_refused(arguments: list[str], code: int, words: str) -> None:
    """Each is one clear line and its code, before anything is served."""
    ended = refused(*arguments)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert words in ended.stderr.splitlines()[-1] and "Traceback" not in ended.stderr


@pytest.mark.slow
def test_it_needs_a_price_and_a_model(model: Server, tmp_path: Path) -> None:
    """With costkit a model without a price is refused at the start, and a page for an API is told apart."""
    folder = ["--folder", str(tmp_path / "kit")]
    ended = refused("--costkit", "on", "--upstream", model.url + "/v1", *folder)
    assert ended.returncode == 2 and "--price-in" in ended.stderr and ended.stderr.count("\n") == 1
    ended = refused(
        "--costkit", "on", *PRICES, "--upstream", model.url + "/v1", "--port", str(model.port), *folder
    )
    assert ended.returncode == 1 and "in use" in ended.stderr
    with serving(tmp_path, "--answer-html") as server:
        ended = refused("--costkit", "off", "--upstream", server.url + "/v1")
        assert ended.returncode == 1 and "is this an API?" in ended.stderr and ended.stderr.count("\n") == 1
