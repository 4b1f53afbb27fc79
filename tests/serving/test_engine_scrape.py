"""Reading a server's metrics and judging its readiness, against small real HTTP servers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from serving.engine.command import choose_port
from serving.engine.layout import EngineError
from serving.engine.scrape import Scrape, between, parse, scrape
from serving.engine.warm import FEATURES, healthy, warm_up

TEXT = """
# HELP vllm:request_success_total Count of successfully processed requests.
# TYPE vllm:request_success_total counter
vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"} 3.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="m, with {braces}"} 4.0
vllm:request_success_created{engine="0",finished_reason="stop",model_name="m"} 1.7e+09
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.1"} 5.0
vllm:time_to_first_token_seconds_sum{engine="0"} 0.5
vllm:kv_cache_usage_perc 0.25 1700000000000
vllm:odd NaN
vllm:broken{
process_cpu_seconds_total 8.2
"""


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """A server that answers everything alike; yields its root address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}"
        finally:
            running.shutdown()
            thread.join()


def test_labels_are_added_up_and_the_rest_is_passed_over() -> None:
    """A metric's value is its sum over labels; buckets, creation times and broken lines are not read."""
    found = parse(TEXT)
    assert dict(found.values) == {
        "vllm:request_success_total": 7.0,
        "vllm:time_to_first_token_seconds_sum": 0.5,
        "vllm:kv_cache_usage_perc": 0.25,
    }
    with pytest.raises(EngineError, match="reports no vllm:gpu_cache_usage_perc"):
        found.get("gpu_cache_usage_perc")


def test_a_server_started_anew_is_no_difference() -> None:
    """A counter that went down means a new server, never negative work; nothing looked up means no hit rate."""
    old, new = Scrape({"vllm:generation_tokens_total": 5.0}), Scrape({"vllm:generation_tokens_total": 2.0})
    with pytest.raises(EngineError, match=r"generation_tokens_total went down.*started anew"):
        between(old, new)
    assert between(new, old).prefix_hit_rate is None and between(new, old).output_tokens == 3


def test_what_is_no_vllm_is_named() -> None:
    """No server, an error page, and a server without vLLM's metrics each end in one line with the address."""
    with pytest.raises(EngineError, match=r"/metrics does not answer .*is the server up\?"):
        scrape(f"http://127.0.0.1:{choose_port(0)}", 2)
    with (
        answering(404, b"<html>no</html>") as root,
        pytest.raises(EngineError, match=r"/metrics does not answer .*404"),
    ):
        scrape(root)
    with answering(200, b"<html>hello</html>") as root, pytest.raises(EngineError, match="nothing of vLLM's"):
        scrape(root)
    with answering(200, TEXT.encode()) as root:
        assert scrape(root).get("request_success_total") == 7


def test_ready_is_200_and_nothing_else() -> None:
    """A health check of 503, as of an engine that died, is not ready; nothing there is not ready either."""
    with answering(503, b"") as root:
        assert not healthy(root)
    with answering(200, b"") as root:
        assert healthy(root)
    assert not healthy(f"http://127.0.0.1:{choose_port(0)}", 1)


@pytest.mark.parametrize(
    ("body", "feature"),
    [(b"<html>", "plain"), (b'{"choices": []}', "plain"), (b'{"choices": [{}]}', "stream")],
)
def test_a_warm_up_that_fails_names_the_feature_and_the_log(body: bytes, feature: str) -> None:
    """What does not answer each feature as it should is refused, with the feature and where the log is."""
    with (
        answering(200, body) as root,
        pytest.raises(EngineError, match=rf"did not answer a request \({feature}\).*\(log: 8000\.log\)"),
    ):
        warm_up(root, "m", "8000.log", 5)


def test_every_feature_that_is_used_is_warmed() -> None:
    """Logprobs, streams and answer schemas, whose first use costs most, are among what is asked once."""
    assert list(FEATURES) == ["plain", "logprobs", "stream", "schema"]
