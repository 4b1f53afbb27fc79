"""Is a server ready, and has each feature been used once before somebody's p99 pays for its first time."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from serving.engine.layout import EngineError

FIRST_ANSWER_S = 180.0  # compiles the code for logprobs the first time: 49 s on a crowded machine
_SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}
# What the demo, the gold tests and the load tests ask for, each in a request of its own.
FEATURES: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "logprobs": {"logprobs": True, "top_logprobs": 2},
    "stream": {"stream": True, "stream_options": {"include_usage": True}},
    "schema": {"response_format": {"type": "json_schema", "json_schema": {"name": "ok", "schema": _SCHEMA}}},
}

# Whatever proxy the user has set, loopback is reached directly.
open_url = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


def healthy(root: str, seconds: float = 5) -> bool:
    """Whether the server at ``root`` ("http://127.0.0.1:8000") answers its health check with 200."""
    try:
        with open_url(f"{root}/health", timeout=seconds) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def warm_up(root: str, model: str, log: str, seconds: float = FIRST_ANSWER_S) -> dict[str, float]:
    """Use each of `FEATURES` once; seconds that each took.

    Raises:
        EngineError: one of them was not answered; the message names it and the server's ``log``.
    """
    return {name: _ask(root, model, name, log, seconds) for name in FEATURES}


def _ask(root: str, model: str, feature: str, log: str, seconds: float) -> float:
    message = {"role": "user", "content": "Say hello."}
    body = {"model": model, "messages": [message], "max_tokens": 8, "temperature": 0, **FEATURES[feature]}
    request = urllib.request.Request(
        f"{root}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    begun = time.monotonic()
    try:
        with open_url(request, timeout=seconds) as answer:
            whole = answer.read()
        if feature == "stream":
            if not whole.rstrip().endswith(b"data: [DONE]"):
                raise ValueError("the stream did not end with [DONE]")
        else:
            json.loads(whole)["choices"][0]
    except (OSError, ValueError, LookupError) as error:
        raise EngineError(
            f"vLLM is up but did not answer a request ({feature}): {error} (log: {log})"
        ) from None
    return time.monotonic() - begun
