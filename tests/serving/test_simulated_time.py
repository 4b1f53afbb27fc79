"""The simulated server's time, with the real process and a real client."""

from __future__ import annotations

import asyncio
import json
import socket
import statistics
import time
from pathlib import Path

import pytest

from tests.benchmarks.simulated_deadlines import measure
from tests.serving.simulators import FIXED, body, exchange, open_loop, post, serving


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


@pytest.mark.slow
def test_500_requests_a_second_are_cheap_and_whole() -> None:
    """At 500 a second every request is answered in full, for little CPU time each, which other load hardly moves.

    How late tokens are depends on what else runs: `make deadlines` measures it.
    """
    told = measure(500.0, 3.0)
    assert told["whole"] == told["requests"] > 1300
    assert told["server_cpu_ms_per_request"] < 2.0
