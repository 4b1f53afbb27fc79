"""locust's web UI and HTML report in a real browser: ``make test-browser`` (playwright, and a Chromium on the PATH)."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.loadtests.runs import start
from tests.serving.simulators import serving

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None or importlib.util.find_spec("playwright") is None, reason="make test-browser"
    ),
]


@pytest.fixture
def page(tmp_path: Path) -> Iterator[tuple[Any, str]]:
    """A page of a browser, and the address of a locust that waits to be started."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with serving(tmp_path, "--slots", "100", "--output-tokens-mean", "5") as server:
        more = ["--host", server.url, "--web-host", "127.0.0.1", "--web-port", str(port), "--price-in", "1"]
        run = start(
            tmp_path / "run", "chat", *more, "--price-out", "2", "--slo", "ttft.p95<5s", headless=False
        )
        try:
            _wait(f"http://127.0.0.1:{port}/")
            playwright = importlib.import_module("playwright.sync_api")
            with playwright.sync_playwright() as driver:
                browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
                yield browser.new_page(), f"http://127.0.0.1:{port}"
                browser.close()
        finally:
            run.kill()


def _wait(url: str) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, ConnectionError):
            assert time.monotonic() < end, "locust's web UI did not come"
            time.sleep(0.2)


def test_a_run_started_in_the_browser(page: tuple[Any, str]) -> None:
    """The form takes our options, the tab fills and ends with a verdict, the report has our part; no script fails."""
    browser, url = page
    errors: list[str] = []
    browser.on("pageerror", lambda error: errors.append(str(error)))
    browser.goto(url)
    browser.get_by_text("Custom parameters").click()
    browser.locator("input[name=rate]").fill("20")
    browser.get_by_text("Advanced options").click()
    browser.locator("input[name=runTime]").fill("4s")
    browser.get_by_role("button", name="Start").click()
    browser.get_by_role("tab", name="LLM").click()
    browser.get_by_role("cell", name="cost per query").wait_for(timeout=15_000)
    browser.get_by_role("cell", name="verdict", exact=True).wait_for(timeout=20_000)
    assert browser.get_by_role("cell", name="time to first token").count() == 1
    browser.goto(f"{url}/stats/report")
    browser.locator("section.costkit-load").wait_for(timeout=10_000)
    assert "cost per query" in browser.locator("section.costkit-load").inner_text()
    assert browser.locator("section.costkit-load svg").count() >= 2, "the pictures"
    assert errors == []
