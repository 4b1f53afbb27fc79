"""A load test as it is usually written: so many users, each waits for its answer before it asks again.

A locust file, for :mod:`tests.benchmarks.load_truth`: with 11 users and answers of 540 ms it sends about 20 requests a
second, until the server is slow; then it sends less, and never asks in the worst moments. LOAD_CLOSED_OUT is where the
times to first token are written, in milliseconds from the real send.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from locust import HttpUser, constant, events, task

BODY = {
    "model": "simulated",
    "messages": [{"role": "user", "content": "How long do refunds take?"}],
    "stream": True,
}
firsts: list[float] = []


class ClosedUser(HttpUser):
    """Asks, reads, asks again."""

    wait_time = constant(0)

    @task
    def ask(self) -> None:
        sent, seen = time.monotonic(), False
        with self.client.post("/v1/chat/completions", json=BODY, stream=True, catch_response=True) as answer:
            for line in answer.iter_lines():
                if not seen and line.startswith(b"data: {") and self.holds_content(line):
                    seen = True
                    firsts.append(1000 * (time.monotonic() - sent))

    def holds_content(self, line: bytes) -> bool:
        choices = json.loads(line[6:])["choices"]
        return bool(choices and choices[0]["delta"].get("content"))


@events.quitting.add_listener
def write(**_: Any) -> None:
    Path(os.environ["LOAD_CLOSED_OUT"]).write_text(json.dumps(firsts))
