"""Asking a function every gold question: in turn or several at once, sync or async, wrapped or not."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import nullcontext
from typing import Any

from ..call import Outcome
from ..errors import ConfigError
from ..session import reference
from .judge import Verdict, found, judge, text_of
from .load import GoldTest, check_arguments
from .report import GoldReport, GoldRow

__all__ = ["run_gold"]

Progress = Callable[[int, int], None]


def run_gold(
    tests: Iterable[GoldTest],
    ask: Callable[..., Any],
    *,
    workers: int = 1,
    k: int = 3,
    progress: Progress | None = None,
    cached: bool = False,
) -> GoldReport:
    """Calls ``ask(question, **args)`` for every test and judges the answers.

    ``ask`` is sync or async and returns a text or an object as ``judge`` reads it; ``workers`` calls run at
    once. Where ``ask`` has an ``.outcome``, as costkit's decorator gives it, cost and latency are its own,
    else the latency is measured and the cost unknown. ``k`` is the rank down to which retrieval is scored.
    ``progress(done, total)`` is called after each test. An exception of ``ask`` is a row of kind "error" and
    the run goes on; costkit's own ConfigError and a GoldError (an argument ``ask`` does not take) end it.

    Every question is asked afresh, inside ``costkit.reference()``: an answer cached before the last change would
    be judged in place of today's. ``cached=True`` judges what the caches serve.

    >>> tests = [GoldTest("2 + 2?", contains=("4",)), GoldTest("3 + 3?", contains=("6",))]
    >>> run_gold(tests, lambda question: "It is 4.").right
    1
    """
    todo = list(tests)
    if workers < 1:
        raise ConfigError(f"run_gold(workers={workers}): needs at least 1")
    if k < 1:
        raise ConfigError(f"run_gold(k={k}): needs at least 1")
    check_arguments(todo, ask)
    told = _told(progress, len(todo))
    start = time.perf_counter()
    with nullcontext() if cached else reference():
        if _is_async(ask):
            rows = _off_loop(lambda: asyncio.run(_run_async(todo, ask, workers, k, told)))
        elif workers == 1:
            rows = [told(_row(test, _call(ask, test), k)) for test in todo]
        else:
            rows = _run_threads(todo, ask, workers, k, told)
    return GoldReport(tuple(rows), k, time.perf_counter() - start)


def _told(progress: Progress | None, total: int) -> Callable[[GoldRow], GoldRow]:
    done = 0

    def told(row: GoldRow) -> GoldRow:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)
        return row

    return told


def _is_async(ask: Callable[..., Any]) -> bool:
    inner = inspect.unwrap(ask)
    return any(inspect.iscoroutinefunction(f) for f in (ask, inner, getattr(inner, "__call__", None)))  # noqa: B004


def _off_loop(run: Callable[[], list[GoldRow]]) -> list[GoldRow]:
    """Runs in a thread of its own where a loop runs already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run()
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(contextvars.copy_context().run, run).result()


def _run_threads(
    tests: Sequence[GoldTest],
    ask: Callable[..., Any],
    workers: int,
    k: int,
    told: Callable[[GoldRow], GoldRow],
) -> list[GoldRow]:
    stop = threading.Event()

    def one(test: GoldTest) -> GoldRow | None:
        return None if stop.is_set() else _row(test, _call(ask, test), k)

    with ThreadPoolExecutor(workers) as pool:
        # Each call gets the caller's context, so that kit.scope(...) around the run holds in the threads too.
        futures = [pool.submit(contextvars.copy_context().run, one, test) for test in tests]
        try:
            for future in as_completed(futures):
                if row := future.result():
                    told(row)
        except BaseException:
            stop.set()
            raise
    return [row for future in futures if (row := future.result())]


async def _run_async(
    tests: Sequence[GoldTest],
    ask: Callable[..., Any],
    workers: int,
    k: int,
    told: Callable[[GoldRow], GoldRow],
) -> list[GoldRow]:
    gate = asyncio.Semaphore(workers)

    async def one(test: GoldTest) -> GoldRow:
        async with gate:
            start = time.perf_counter()
            try:
                result = await _invoke(ask, test)
            except ConfigError:
                raise
            except Exception as error:  # noqa: BLE001  (the user's function may raise anything)
                result = error
            return told(_row(test, (result, time.perf_counter() - start), k))

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(test)) for test in tests]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


def _invoke(ask: Callable[..., Any], test: GoldTest) -> Any:
    outcome = getattr(ask, "outcome", None)
    return (outcome if callable(outcome) else ask)(test.question, **test.args)


def _call(ask: Callable[..., Any], test: GoldTest) -> tuple[Any, float]:
    """What the function returned or raised, and the seconds it took."""
    start = time.perf_counter()
    try:
        result = _invoke(ask, test)
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001  (the user's function may raise anything)
        result = error
    return result, time.perf_counter() - start


def _row(test: GoldTest, called: tuple[Any, float], k: int) -> GoldRow:
    result, latency = called
    cost = None
    if isinstance(result, Outcome):
        cost = result.cost.provider if not result.cost.unknown else None
        latency, result = result.latency, result.value
    if isinstance(result, Exception):
        reason = f"{type(result).__name__}: {result}".rstrip(": ")
        return GoldRow(test, Verdict("error", reason), None, cost, latency, None)
    verdict = judge(test, result)
    retrieved = getattr(result, "retrieved", None)
    ranks = None
    if test.sources and retrieved is not None:
        ranks = tuple(found(source, retrieved) for source in test.sources)
    return GoldRow(test, verdict, text_of(result), cost, latency, ranks)
