"""What odd, huge and hostile input costs: `python -m tests.benchmarks.bad_input --json`.

Every case goes through wrapped plain functions, coroutines, streams and async streams, with the exact tier and
without. It is refused before the function runs, or the function runs and its answer comes back and is recorded:
:func:`tried` checks which, and that nothing was left half-done. Times are milliseconds of the slowest way to make the
call, memory the peak of what Python allocated during it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
import tempfile
import time
import tracemalloc
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

import costkit

KINDS = ("sync", "async", "stream", "async_stream")
WHOLE = "Five days."


def deep(levels: int = 10_000) -> list[Any]:
    """A list in a list in a list."""
    inner: list[Any] = []
    for _ in range(levels):
        inner = [inner]
    return inner


def cyclic() -> dict[str, Any]:
    """A dict that holds itself."""
    made: dict[str, Any] = {"role": "user"}
    made["content"] = [made]
    return made


class Hostile:
    """An object that answers every question but its class with an exception."""

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":
            return object.__getattribute__(self, name)  # asyncio itself cannot return an object without one
        raise RuntimeError(f"hostile: {name}")

    def __repr__(self) -> str:
        raise RuntimeError("hostile: repr")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("hostile: eq")

    def __hash__(self) -> int:
        raise RuntimeError("hostile: hash")


class Nameless(Hostile):
    """Not even its class."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"hostile: {name}")


ASKED: dict[str, Callable[[], dict[str, Any]]] = {
    "1e7 characters": lambda: {"prompt": "x" * 10**7},
    "1e7 characters of words": lambda: {"prompt": "refund 5 days\n" * (10**7 // 14)},
    "1e7 characters to be escaped": lambda: {"prompt": '"\\\x00' * (10**7 // 3)},
    "1e5 messages": lambda: {"prompt": [{"role": "user", "content": f"{n} days"} for n in range(10**5)]},
    "NaN": lambda: {"prompt": [math.nan, math.inf, -0.0]},
    "a lone surrogate": lambda: {"prompt": "\ud800 \udfff"},
    "a NUL": lambda: {"prompt": "\x00\x1a\ufeff"},
    "10,000 levels": lambda: {"prompt": deep()},
    "a dict in itself": lambda: {"prompt": [cyclic()]},
    "a huge integer": lambda: {"prompt": 10**20_000},
    "1e6 bytes": lambda: {"prompt": bytes(10**6)},
    "a hostile object": lambda: {"prompt": Hostile()},
    "an object without a class": lambda: {"prompt": Nameless()},
    "a generator": lambda: {"prompt": (n for n in "ab")},
    "a model of 1e6 characters": lambda: {"prompt": "hi", "model": "m" * 10**6},
    "a model with a surrogate": lambda: {"prompt": "hi", "model": "m\ud800"},
    "a model that is no text": lambda: {"prompt": "hi", "model": math.nan},
    "a scope of 1e7 characters": lambda: {"prompt": "hi", "tenant": "t" * 10**7},
    "a scope with a surrogate": lambda: {"prompt": "hi", "tenant": "\ud800"},
    "a scope that is NaN": lambda: {"prompt": "hi", "tenant": math.nan},
    "a scope in itself": lambda: {"prompt": "hi", "tenant": cyclic()},
}
"""Arguments, by what is wrong with them."""

GOOD = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}
USAGE: dict[str, Callable[[], Any]] = {
    "no usage": lambda: None,
    "negative": lambda: {**GOOD, "completion_tokens": -500, "total_tokens": 500},
    "NaN tokens": lambda: {**GOOD, "prompt_tokens": math.nan},
    "infinite": lambda: {**GOOD, "prompt_tokens": math.inf},
    "1e300": lambda: {**GOOD, "completion_tokens": 1e300, "total_tokens": 1e300},
    "a 20,000-digit count": lambda: {**GOOD, "completion_tokens": 10**20_000},
    "half a token": lambda: {**GOOD, "completion_tokens": 0.5},
    "text": lambda: {**GOOD, "completion_tokens": "500"},
    "true": lambda: {**GOOD, "completion_tokens": True},
    "a wrong total": lambda: {**GOOD, "total_tokens": 9},
    "more cached than sent": lambda: {**GOOD, "prompt_tokens_details": {"cached_tokens": 1001}},
    "more reasoning than output": lambda: {**GOOD, "completion_tokens_details": {"reasoning_tokens": 501}},
    "no prompt tokens": lambda: {"completion_tokens": 500, "total_tokens": 500},
    "usage that is a list": lambda: [1000, 500],
    "usage in itself": lambda: {**GOOD, "completion_tokens_details": cyclic(), "total_tokens": 1},
    "usage 10,000 levels deep": lambda: {**GOOD, "completion_tokens_details": deep(), "total_tokens": 1},
    "a hostile usage": lambda: {**GOOD, "total_tokens": Hostile()},
    "a usage without a class": lambda: {**GOOD, "total_tokens": Nameless()},
    "more in itself": lambda: {**GOOD, "more": cyclic()},
    "more 10,000 levels deep": lambda: {**GOOD, "more": deep()},
    "more with a surrogate": lambda: {**GOOD, "more": "\ud800"},
    "more with a huge integer": lambda: {**GOOD, "more": 10**20_000},
}
"""Usage as no provider should report it; in the last four the numbers that count are right."""

VALUES: dict[str, Callable[[], Any]] = {
    "1e7 characters": lambda: "x" * 10**7,
    "1e5 parts": lambda: [{"text": f"{n} days"} for n in range(10**5)],
    "NaN": lambda: [math.nan, -0.0],
    "a lone surrogate": lambda: "\ud800",
    "10,000 levels": deep,
    "a dict in itself": cyclic,
    "a huge integer": lambda: 10**20_000,
    "bytes": lambda: bytes(range(256)),
    "a hostile object": Hostile,
    "a response of nonsense": lambda: {
        "object": "chat.completion", "model": ["m"], "choices": [7, None, {"message": cyclic()}], "usage": 7,
    },
    "a response of 1e7 characters": lambda: response({**GOOD}, "x" * 10**7),
}  # fmt: skip
"""What a function may return, or a stream yield."""


def response(usage: Any, text: Any = WHOLE) -> dict[str, Any]:
    """A chat completion with this usage."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}


def chunks(usage: Any) -> list[dict[str, Any]]:
    """The same as a stream: two chunks of text, one with the usage."""
    head = {"object": "chat.completion.chunk", "model": "m"}
    parts = [{"index": 0, "delta": {"content": text}, "finish_reason": None} for text in ("Five", " days.")]
    end = {"index": 0, "delta": {}, "finish_reason": "stop"}
    return [*({**head, "choices": [part]} for part in parts), {**head, "choices": [end], "usage": usage}]


@dataclass(frozen=True, slots=True)
class Case:
    """``ask`` makes the arguments, ``answer`` what the function returns, ``parts`` what its stream yields."""

    name: str
    ask: Callable[[], dict[str, Any]]
    answer: Callable[[], Any]
    parts: Callable[[], list[Any]]


def _hi() -> dict[str, Any]:
    return {"prompt": "hi"}


CASES: tuple[Case, ...] = (
    *(Case(f"ask {n}", ask, lambda: response(GOOD), lambda: chunks(GOOD)) for n, ask in ASKED.items()),
    *(
        Case(f"usage {n}", _hi, lambda u=u: response(u()), lambda u=u: chunks(u()))  # type: ignore[misc]
        for n, u in USAGE.items()
    ),
    *(Case(f"value {n}", _hi, v, lambda v=v: [v(), v()]) for n, v in VALUES.items()),  # type: ignore[misc]
)


@dataclass(frozen=True, slots=True)
class Tried:
    """How one case went: the error that refused it, if any, and what the ledger holds of it."""

    refused: BaseException | None
    got: Any
    calls: int
    seconds: float
    rows: list[dict[str, Any]]
    attempts: list[dict[str, Any]]
    health: dict[str, int]
    flights: int


class Fake:
    """The user's function of each kind, and how often it ran."""

    def __init__(self, case: Case) -> None:
        self.case, self.calls = case, 0
        self.gave: Any = None

    def answer(self) -> Any:
        """What a plain function returns."""
        self.calls += 1
        self.gave = self.case.answer()
        return self.gave

    def parts(self) -> Any:
        """What a stream yields."""
        self.calls += 1
        self.gave = self.case.parts()
        return self.gave


def _run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """As ``asyncio.run``, which cannot return an object that has no repr: it prints its task."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def wrap(kit: costkit.Kit, kind: str, exact: bool, fake: Fake, **more: Any) -> Callable[..., Any]:
    """A function that makes the wrapped call and returns its value, or the list of its chunks."""
    settings: Any = kit.call(
        *([costkit.exact(ttl="1d")] if exact else []), scope="tenant", name="ask", version="1", **more
    )
    if kind == "sync":

        def ask(prompt: Any, *, model: Any = "m", tenant: Any = "acme") -> Any:
            return fake.answer()

        return settings(ask)  # type: ignore[no-any-return]
    if kind == "async":

        async def ask_async(prompt: Any, *, model: Any = "m", tenant: Any = "acme") -> Any:
            return fake.answer()

        wrapped = settings(ask_async)
        return lambda **arguments: _run(asyncio.wait_for(wrapped(**arguments), 60))
    if kind == "stream":

        def stream(prompt: Any, *, model: Any = "m", tenant: Any = "acme") -> Iterator[Any]:
            yield from fake.parts()

        streamed = settings(stream)
        return lambda **arguments: list(streamed(**arguments))

    async def stream_async(prompt: Any, *, model: Any = "m", tenant: Any = "acme") -> AsyncIterator[Any]:
        for part in fake.parts():
            yield part

    streamed_async = settings(stream_async)

    async def read(arguments: dict[str, Any]) -> list[Any]:
        return [part async for part in streamed_async(**arguments)]

    return lambda **arguments: _run(asyncio.wait_for(read(arguments), 60))


def tried(case: Case, kind: str, exact: bool, folder: str, **settings: Any) -> tuple[Tried, Fake]:
    """Make the call once, in a kit of its own; ``max_cost`` is the call's, other settings are the kit's."""
    fake, arguments = Fake(case), case.ask()
    own = {name: settings.pop(name) for name in ("max_cost",) if name in settings}
    with warnings.catch_warnings(), costkit.Kit(folder, prices={"m": costkit.Rates(1, 2)}, **settings) as kit:
        warnings.simplefilter("ignore")
        call, refused, got = wrap(kit, kind, exact, fake, **own), None, None
        start = time.perf_counter()
        try:
            got = call(**arguments)
        except Exception as exc:  # noqa: BLE001 - what it is is the question
            refused = exc
        seconds = time.perf_counter() - start
        con = kit.ledger()
        rows = [dict(row) for row in con.execute("SELECT * FROM queries")]
        attempts = [dict(row) for row in con.execute("SELECT * FROM attempts")]
        con.close()
        flights = len(kit._ports.flights)
        return Tried(refused, got, fake.calls, seconds, rows, attempts, kit.health(), flights), fake


def figures(case: Case, kind: str, exact: bool) -> dict[str, float | str]:
    """Milliseconds and peak MiB of one case, each in a run of its own: tracing memory takes time."""
    with tempfile.TemporaryDirectory() as home:
        timed, _ = tried(case, kind, exact, f"{home}/timed")
        tracemalloc.start()
        try:
            tried(case, kind, exact, f"{home}/traced")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    said = "answered" if timed.refused is None else f"refused: {type(timed.refused).__name__}"
    return {"ms": round(timed.seconds * 1e3, 1), "mib": round(peak / 2**20, 1), "end": said}


def measure(cases: tuple[Case, ...] = CASES) -> dict[str, Any]:
    """The worst of each case over all ways to make the call, and of all cases."""
    found: dict[str, Any] = {}
    for case in cases:
        runs = [figures(case, kind, exact) for kind in KINDS for exact in (True, False)]
        ends = sorted({str(run["end"]) for run in runs})
        worst = {name: max(float(run[name]) for run in runs) for name in ("ms", "mib")}
        found[case.name] = {**worst, "end": ends}
        print(
            f"{case.name:40}{worst['ms']:10.1f} ms{worst['mib']:8.1f} MiB   {', '.join(ends)}",
            file=sys.stderr,
        )
    slowest = max(found, key=lambda name: found[name]["ms"])
    largest = max(found, key=lambda name: found[name]["mib"])
    return {
        "worst_ms": found[slowest]["ms"], "worst_ms_case": slowest,
        "worst_mib": found[largest]["mib"], "worst_mib_case": largest, "cases": found,
    }  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.bad_input", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    options = parser.parse_args()
    told = measure(tuple(case for case in CASES if options.only in case.name))
    if options.json:
        print(json.dumps(told, indent=2))
    else:
        print("\n".join(f"{name:16}{value}" for name, value in told.items() if name != "cases"))


if __name__ == "__main__":
    main()
