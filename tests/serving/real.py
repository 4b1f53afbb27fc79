"""What the tests with a real vLLM share: starting one as a user does, and asking it over plain HTTP."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from serving.engine import server
from serving.engine.layout import here

REPOSITORY = Path(__file__).resolve().parents[2]
LOADED_START_S = 620  # 30 s on an idle machine, minutes beside another busy server
WANTED = os.environ.get("COSTKIT_TEST_VLLM") == "1" or here().venv.exists()
vllm = [
    pytest.mark.vllm,
    pytest.mark.timeout(LOADED_START_S),
    pytest.mark.skipif(
        not WANTED,
        reason="no real vLLM here: `python3 -m serving.engine setup` first, or set COSTKIT_TEST_VLLM=1",
    ),
]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer's HTTP status and JSON body."""

    status: int
    body: dict[str, Any]

    @property
    def text(self) -> str:
        return str(self.body["choices"][0]["message"]["content"])

    @property
    def cached(self) -> int:
        """Prompt tokens that the server says came from its prefix cache."""
        return int((self.body["usage"].get("prompt_tokens_details") or {}).get("cached_tokens") or 0)


def engine(*arguments: str, timeout: float = LOADED_START_S) -> str:
    """Run ``python -m serving.engine`` as a user does and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "serving.engine", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def served(*arguments: str) -> Iterator[server.Server]:
    """A server in the background on a free port, stopped afterwards whatever happened."""
    own, _, flags = " ".join(arguments).partition(" -- ")
    line = ["serve", "--port", "0", "--background", *own.split(), *(["--", *flags.split()] if flags else [])]
    port = re.findall(r"base URL http://127\.0\.0\.1:(\d+)/v1", engine(*line))[0]
    try:
        yield next(one for one in server.running(here()) if one.port == int(port))
    finally:
        engine("stop", "--port", port)


def post(root: str, body: dict[str, Any]) -> Reply:
    """One chat completion."""
    request = urllib.request.Request(
        f"{root}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return Reply(answer.status, json.load(answer))
    except urllib.error.HTTPError as error:
        return Reply(error.code, {})


def ask(root: str, text: str, tokens: int = 4, model: str = "tiny-random", **more: Any) -> Reply:
    """One greedy answer to one user message."""
    message = {"role": "user", "content": text}
    return post(root, {"model": model, "messages": [message], "max_tokens": tokens, "temperature": 0, **more})


@contextmanager
def crowd(root: str, size: int, tokens: int = 1500) -> Iterator[list[int]]:
    """Keep ``size`` long answers wanted at any moment while the block lasts; yields the statuses, complete at its end.

    The block begins when the server has refused the first of them.
    """
    over = threading.Event()
    statuses: list[int] = []

    def keep_asking(number: int) -> None:
        while not over.is_set():
            statuses.append(ask(root, f"crowd {number}", tokens, ignore_eos=True).status)
            time.sleep(0.02 if statuses[-1] == 503 else 0)

    with ThreadPoolExecutor(size) as pool:
        working = [pool.submit(keep_asking, number) for number in range(size)]
        try:
            deadline = time.monotonic() + 60
            while 503 not in statuses and time.monotonic() < deadline:
                time.sleep(0.02)
            assert 503 in statuses, "the server never was full"
            yield statuses
        finally:
            over.set()
    for one in working:
        one.result()
