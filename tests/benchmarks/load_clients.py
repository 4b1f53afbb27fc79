"""The clients that the load generator is measured beside: what one streamed answer costs each of them.

    python -m tests.benchmarks.load_clients NAME URL --rate 50 --seconds 10

Each sends the same seeded Poisson arrivals, reads every event as JSON as its users do, and prints one JSON object:
processor time per request, start-up left out, and its own p95 from the intended send. Runs in any environment that
has the client.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

BODY: dict[str, Any] = {
    "model": "simulated",
    "messages": [{"role": "user", "content": "How long do refunds take?"}],
    "stream": True,
    "stream_options": {"include_usage": True},
}
HEADERS = {"content-type": "application/json", "accept": "text/event-stream"}


def plan(rate: float, seconds: float, seed: int = 1) -> list[float]:
    """Send times of a Poisson process, in seconds."""
    rng, times, now = random.Random(seed), [], 0.0
    while (now := now + rng.expovariate(rate)) < seconds:
        times.append(now)
    return times


def says(line: bytes) -> bool:
    """Does this line of a stream hold content?"""
    if not line.startswith(b"data: {"):
        return False
    choices = json.loads(line[6:]).get("choices")
    return bool(choices and choices[0]["delta"].get("content"))


class Stamps:
    """First and last content of one request, from its intended send."""

    def __init__(self, due: float) -> None:
        self.due = due
        self.first: float | None = None
        self.last: float | None = None

    def content(self) -> None:
        self.last = time.monotonic() - self.due
        self.first = self.first or self.last


async def aiohttp(url: str, times: list[float]) -> list[Stamps]:
    import aiohttp as library  # pyright: ignore[reportMissingImports]

    async with library.ClientSession(connector=library.TCPConnector(limit=0)) as session:

        async def one(stamps: Stamps) -> None:
            async with session.post(url + "/v1/chat/completions", json=BODY, headers=HEADERS) as answer:
                async for line in answer.content:
                    if says(line):
                        stamps.content()

        return await _open_loop(times, one)


async def openai(url: str, times: list[float]) -> list[Stamps]:
    import openai as library

    async with library.AsyncOpenAI(base_url=url + "/v1", api_key="none", max_retries=0) as client:

        async def one(stamps: Stamps) -> None:
            async for chunk in await client.chat.completions.create(**BODY):
                if chunk.choices and chunk.choices[0].delta.content:
                    stamps.content()

        return await _open_loop(times, one)


async def _open_loop(times: list[float], one: Callable[[Stamps], Awaitable[None]]) -> list[Stamps]:
    start, tasks, found = time.monotonic() + 0.1, [], []
    for at in times:
        await asyncio.sleep(max(0.0, start + at - time.monotonic()))
        found.append(Stamps(start + at))
        tasks.append(asyncio.ensure_future(one(found[-1])))
    await asyncio.gather(*tasks)
    return found


def geventhttpclient(url: str, times: list[float]) -> list[Stamps]:
    from geventhttpclient import HTTPClient

    client = HTTPClient.from_url(url, concurrency=10_000, network_timeout=60, connection_timeout=10)
    body = json.dumps(BODY)

    def one(stamps: Stamps) -> None:
        answer = client.post("/v1/chat/completions", body=body, headers=HEADERS)
        while line := answer.readline(b"\n"):
            if says(bytes(line)):
                stamps.content()
        answer.release()

    return _greenlets(times, one)


def requests(url: str, times: list[float]) -> list[Stamps]:
    import requests as library
    from requests.adapters import HTTPAdapter

    session = library.Session()
    session.mount("http://", HTTPAdapter(pool_maxsize=10_000))

    def one(stamps: Stamps) -> None:
        with session.post(url + "/v1/chat/completions", json=BODY, headers=HEADERS, stream=True) as answer:
            for line in answer.iter_lines():
                if says(line):
                    stamps.content()

    return _greenlets(times, one)


def ours(url: str, times: list[float]) -> list[Stamps]:
    from loadtests.wire import Client, parse_target

    client = Client(parse_target(url))
    body = json.dumps(BODY).encode()

    def one(stamps: Stamps) -> None:
        answer, _ = client.post(body)
        assert answer.first is not None and answer.last is not None, answer.error
        stamps.first, stamps.last = answer.first - stamps.due, answer.last - stamps.due

    return _greenlets(times, one)


def _greenlets(times: list[float], one: Callable[[Stamps], None]) -> list[Stamps]:
    import gevent

    start, tasks, found = time.monotonic() + 0.1, [], []
    for at in times:
        gevent.sleep(max(0.0, start + at - time.monotonic()))
        found.append(Stamps(start + at))
        tasks.append(gevent.spawn(one, found[-1]))
    gevent.joinall(tasks, raise_error=True)
    return found


ASYNC = {"aiohttp": aiohttp, "openai": openai}
GEVENT = {"ours": ours, "geventhttpclient": geventhttpclient, "requests": requests}
NAMES = (*GEVENT, *ASYNC)


def measure(name: str, url: str, rate: float, seconds: float) -> dict[str, Any]:
    """Warm up with five requests, then measure; milliseconds."""
    if name in GEVENT:
        from gevent import monkey

        monkey.patch_all()
        run: Callable[[list[float]], list[Stamps]] = lambda times: GEVENT[name](url, times)  # noqa: E731
    else:
        run = lambda times: asyncio.run(ASYNC[name](url, times))  # noqa: E731
    run([0.0, 0.1, 0.2, 0.3, 0.4])
    times = plan(rate, seconds)
    before = time.process_time()
    found = run(times)
    spent = time.process_time() - before
    good = [one for one in found if one.first is not None and one.last is not None]
    return {
        "client": name,
        "rate": rate,
        "requests": len(times),
        "answered": len(good),
        "cpu_ms_per_request": round(1000 * spent / len(times), 3),
        "ttft_p95_ms": _p95([one.first or 0.0 for one in good]),
        "e2e_p95_ms": _p95([one.last or 0.0 for one in good]),
    }


def _p95(values: list[float]) -> float | None:
    return round(1000 * sorted(values)[int(0.95 * len(values))], 1) if values else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("url")
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    print(json.dumps(measure(given.name, given.url, given.rate, given.seconds)))


if __name__ == "__main__":
    main()
