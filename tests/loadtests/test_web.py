"""locust's web UI, asked over HTTP as a browser does: the tab, its rows, the report, a run that is started there."""

from __future__ import annotations

import json
import re
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loadtests.web import into_page
from tests.loadtests.runs import Run, start
from tests.serving.simulators import serving

pytestmark = pytest.mark.slow


class Page:
    """A running web UI."""

    def __init__(self, run: Run, port: int, model: str) -> None:
        self.run, self.base, self.model = run, f"http://127.0.0.1:{port}", model

    def get(self, path: str, **form: str) -> str:
        data = urllib.parse.urlencode(form).encode() if form else None
        with urllib.request.urlopen(self.base + path, data=data, timeout=10) as answer:
            return str(answer.read().decode())

    def rows(self) -> dict[str, dict[str, str]]:
        """Of the tab, by metric."""
        told = json.loads(self.get("/stats/requests"))["extended_stats"]
        return {row["metric"]: row for table in told if table["key"] == "llm" for row in table["data"]}

    def until(self, seconds: float, what: Any) -> None:
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, "did not come about"
            time.sleep(0.2)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    home = tmp_path_factory.mktemp("web")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with serving(home, "--slots", "100", "--output-tokens-mean", "5", "--output-tokens-sigma", "0") as server:
        more = ["--host", server.url, "--web-host", "127.0.0.1", "--web-port", str(port), "--price-in", "1"]
        run = start(home / "run", "chat", *more, "--price-out", "2", "--rate", "99", headless=False)
        one = Page(run, port, server.url)
        try:
            one.until(20, lambda: _answers(one))
            yield one
        finally:
            run.kill()


def _answers(page: Page) -> bool:
    try:
        return bool(page.get("/"))
    except (urllib.error.URLError, ConnectionError):
        return False


def test_a_run_in_the_web_ui(page: Page) -> None:
    """The form has our options, a run started there fills the tab, and its end shows the verdict and the report."""
    index = page.get("/")
    assert '"title": "LLM"' in index or '"title":"LLM"' in index
    assert "burstiness" in index and "extended_tables" in index
    form = {"user_count": "1", "spawn_rate": "1", "host": page.model, "rate": "30", "run_time": "3s"}
    assert json.loads(page.get("/swarm", **form))["success"]
    page.until(15, lambda: "cost per query" in page.rows())
    assert page.rows()["time to first token"]["p95"].endswith("ms")
    page.until(20, lambda: "verdict" in page.rows())
    folder = page.run.folder / "run"
    told = json.loads((folder / "run.json").read_text())
    assert told["settings"]["rate"] == 30 and 60 < told["requests"] < 125
    assert page.rows()["verdict"]["count"] == str(told["requests"])
    stats = {(row["method"], row["name"]): row for row in json.loads(page.get("/stats/requests"))["stats"]}
    total = stats["", "Aggregated"] if ("", "Aggregated") in stats else stats[None, "Aggregated"]
    assert stats["E2E", "chat"]["num_requests"] == total["num_requests"] == told["requests"]
    assert page.get("/stats/report").count("<section") == 1


def test_a_refusal_in_the_web_ui(page: Page) -> None:
    """A run that cannot begin stops at once, and the page's table of exceptions says why."""
    form = {"user_count": "1", "spawn_rate": "1", "host": "http://127.0.0.1:1", "rate": "30"}
    page.get("/swarm", **form)

    def told() -> bool:
        said = json.loads(page.get("/exceptions"))["exceptions"]
        return any(re.search("nothing listens there", one["msg"]) for one in said)

    page.until(15, told)
    page.until(15, lambda: json.loads(page.get("/stats/requests"))["state"] in {"stopped", "ready"})


def test_a_page_without_a_body_keeps_its_text(tmp_path: Path) -> None:
    """Where locust's report looks otherwise than we know it, nothing of it is lost."""
    assert into_page("plain", "<section/>") == "plain<section/>"
