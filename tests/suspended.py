"""A coroutine stopped exactly where it suspends, as often as it does."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def throw_at(limit: int, coroutine: Coroutine[Any, Any, Any], error: type[BaseException]) -> int:
    """Run a coroutine and throw the error in where it suspends for the ``limit``-th time; how often it suspended."""
    suspensions = 0
    try:
        pending = coroutine.send(None)
        while True:
            suspensions += 1
            if suspensions == limit:
                pending = coroutine.throw(error())
                continue
            if pending is None:
                await asyncio.sleep(0)
            else:
                pending._asyncio_future_blocking = False  # as a task does that waits for it
                await asyncio.wait([pending])
            pending = coroutine.send(None)
    except (StopIteration, error):
        return suspensions
