"""The name under which a recorded answer is filed: a digest of what was asked.

The recorder and the simulated server both call this function, so a prompt is found again exactly when the
request asks for the same thing, whichever way the answer travels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

TRANSPORT_FIELDS = frozenset({"stream", "stream_options", "user"})
"""Request fields that change how an answer travels or who asked, never what is answered."""


def prompt_digest(body: Mapping[str, object]) -> str:
    """Return the SHA-256 (64 hex digits) of a chat-completion request's meaning.

    The body is written as canonical JSON (sorted keys, no spaces, UTF-8, lone surrogates kept) without the
    fields in `TRANSPORT_FIELDS`. Nothing is normalised beyond that: `0` and `0.0` differ, and so do a missing
    field and its default, so recorder and caller must build bodies the same way.

    Raises:
        TypeError: a value is not JSON.
        ValueError: a number is NaN or infinite.

    >>> asked = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    >>> prompt_digest(asked) == prompt_digest({**asked, "stream": True, "user": "u1"})
    True
    >>> prompt_digest(asked) == prompt_digest({**asked, "temperature": 0})
    False
    """
    asked = {name: value for name, value in body.items() if name not in TRANSPORT_FIELDS}
    text = json.dumps(asked, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
