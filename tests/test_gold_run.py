"""Running gold tests against a function, and the report of the run."""

from __future__ import annotations

import asyncio
import json
import threading
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import pytest

import costkit
from costkit.errors import ConfigError, GoldError
from costkit.gold import GoldReport, GoldTest, run_gold


@dataclass(frozen=True)
class Said:
    """An answer of the richer kind."""

    text: str
    citations: tuple[str, ...] = ()
    quote_ok: bool | None = None
    refused: bool = False
    retrieved: tuple[str, ...] = ()


CITED = GoldTest("q", contains=("30 days",), cite=("kb-1",), sources=("kb-1",))


def test_an_answer_that_is_no_text_is_a_clear_error() -> None:
    """A function that returns something else ends the run and says what it must return."""
    with pytest.raises(GoldError, match="returned dict"):
        run_gold([CITED], lambda question: {"a": 1})


def numbered(n: int) -> list[GoldTest]:
    return [
        GoldTest(f"q{i}", contains=(f"answer {i}.",), tags=("even" if i % 2 == 0 else "odd",))
        for i in range(n)
    ]


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_rows_keep_the_order_of_the_tests(workers: int, kind: str) -> None:
    """Sync and async functions, one or several at once, give the same rows in the order of the tests."""

    def ask(question: str) -> str:
        return f"answer {question[1:]}." if question != "q3" else "hm"

    async def aask(question: str) -> str:
        await asyncio.sleep(0.001 if question == "q0" else 0)
        return ask(question)

    seen: list[tuple[int, int]] = []
    report = run_gold(
        numbered(12),
        ask if kind == "sync" else aask,
        workers=workers,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert [row.verdict.kind for row in report.rows] == ["right"] * 3 + ["wrong_answer"] + ["right"] * 8
    assert seen == [(i, 12) for i in range(1, 13)]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_workers_calls_run_at_once_and_never_more(kind: str) -> None:
    """With three workers, three calls meet at a barrier and a fourth never joins them."""
    barrier, lock, running, most = threading.Barrier(3, timeout=20), threading.Lock(), 0, 0

    def enter(step: int) -> None:
        nonlocal running, most
        with lock:
            running += step
            most = max(most, running)

    def ask(question: str) -> str:
        enter(1)
        barrier.wait()
        enter(-1)
        return "x"

    waiting: list[asyncio.Future[None]] = []

    async def aask(question: str) -> str:
        enter(1)
        waiting.append(asyncio.get_running_loop().create_future())
        if len(waiting) == 3:
            for future in waiting:
                future.set_result(None)
            mine, waiting[:] = waiting[-1], []
        else:
            mine = waiting[-1]
        await mine
        enter(-1)
        return "x"

    tests = [GoldTest(f"q{i}", contains=("x",)) for i in range(6)]
    assert run_gold(tests, ask if kind == "sync" else aask, workers=3).right == 6
    assert most == 3


def test_an_async_function_can_be_asked_from_inside_a_running_loop() -> None:
    """In a notebook, where a loop runs already, run_gold works all the same."""

    async def ask(question: str) -> str:
        return "x"

    async def notebook() -> GoldReport:
        return run_gold([GoldTest("q", contains=("x",))], ask)

    assert asyncio.run(notebook()).right == 1


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_exception_of_the_function_is_a_row_and_the_run_goes_on(workers: int, kind: str) -> None:
    """One failing question is of kind error with the exception's class; all others are still asked."""

    def ask(question: str) -> str:
        if question == "q1":
            raise KeyError("gone")
        return f"answer {question[1:]}."

    async def aask(question: str) -> str:
        return ask(question)

    report = run_gold(numbered(4), ask if kind == "sync" else aask, workers=workers)
    assert [row.verdict.kind for row in report.rows] == ["right", "error", "right", "right"]
    assert report.rows[1].verdict.reason == "KeyError: 'gone'" and report.rows[1].text is None


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_configuration_error_of_costkit_ends_the_run(kind: str) -> None:
    """A missing scope would fail every question alike, so it is raised and not counted as wrong answers."""

    def ask(question: str) -> str:
        raise ConfigError("scope is missing")

    async def aask(question: str) -> str:
        return ask(question)

    for workers in (1, 3):
        with pytest.raises(ConfigError, match="scope is missing"):
            run_gold(numbered(5), ask if kind == "sync" else aask, workers=workers)


def test_an_argument_the_function_does_not_take_is_found_before_the_first_call() -> None:
    """A misspelt argument in the last test raises before anything is asked or spent."""
    asked: list[str] = []

    def ask(question: str, *, tenant: str) -> str:
        asked.append(question)
        return "x"

    tests = [GoldTest("q0", contains=("x",), args={"tenant": "a"}),
             GoldTest("q1", contains=("x",), args={"tennant": "a"}, where="gold.toml test 2")]  # fmt: skip
    with pytest.raises(GoldError, match=r"gold.toml test 2 \(q1\): .*tenant.*takes \(question, tenant\)"):
        run_gold(tests, ask)
    assert asked == []


@pytest.mark.parametrize(("workers", "k"), [(0, 3), (1, 0)])
def test_senseless_settings_are_named(workers: int, k: int) -> None:
    """No workers or no rank is a ConfigError that names the setting."""
    with pytest.raises(ConfigError, match="workers=0" if not workers else "k=0"):
        run_gold([], lambda question: "", workers=workers, k=k)


def test_retrieval_is_scored_apart_from_the_answer() -> None:
    """Recall@k and MRR follow their definitions on ranks computed by hand, also where the answer is wrong."""
    found = {"q1": ("a", "b#2", "c"), "q2": ("x", "y", "z", "a"), "q3": ("x",)}

    def ask(question: str) -> Said:
        return Said("wrong", ("x",), True, retrieved=found.get(question, ()))

    wanted = {"q1": ("b", "c"), "q2": ("a",), "q3": ("a",), "q4": ()}
    tests = [GoldTest(question, contains=("right",), sources=sources) for question, sources in wanted.items()]
    report = run_gold(tests, ask, k=3)
    assert report.right == 0 and report.scored == 3
    assert report.recall == pytest.approx((1 + 0 + 0) / 3)
    assert report.mrr == pytest.approx((1 / 2 + 1 / 4 + 0) / 3)
    assert run_gold(tests, ask, k=4).recall == pytest.approx(2 / 3)
    assert run_gold(tests[:1], lambda question: "wrong").recall is None


def test_cost_and_latency_come_from_a_wrapped_function(tmp_path: Path) -> None:
    """A function wrapped by a Kit gives its cost in nano-dollars, a plain one an unknown cost, never zero."""
    kit = costkit.Kit(tmp_path / "kit")

    @kit.call(costkit.exact(ttl="1d"), scope=None)
    def ask(question: str) -> str:
        costkit.record(
            model="gpt-4o-mini", provider="openai", usage=costkit.Usage(in_fresh=1000, out_text=100)
        )
        return "x"

    @kit.call(costkit.exact(ttl="1d"), scope=None)
    async def aask(question: str) -> str:
        return "x"

    tests = [GoldTest("q0", contains=("x",)), GoldTest("q1", contains=("x",))]
    report = run_gold(tests, ask)
    assert report.cost == 1000 * 150 + 100 * 600 and report.cost_unknown == 0
    assert (ask("q0"), ask("q1")) == ("x", "x")
    assert run_gold(tests, ask).cost == 210_000, "a run asks afresh, past the cache"
    assert run_gold(tests, ask, cached=True).cost == 0
    assert all(row.latency < 5 for row in report.rows)
    assert run_gold(tests, aask, workers=2).right == 2
    plain = run_gold(tests, lambda question: "x")
    assert plain.cost is None and plain.cost_unknown == 2 and "unknown" in str(plain)


def test_a_call_without_a_known_price_has_an_unknown_cost(tmp_path: Path) -> None:
    """A wrapped call whose usage is missing counts as unknown and not as free."""
    kit = costkit.Kit(tmp_path / "kit")

    @kit.call(costkit.exact(ttl="1d"), scope=None)
    def ask(question: str) -> str:
        costkit.record({"object": "chat.completion", "model": "gpt-4o-mini", "choices": [{"message": {}}]})
        return "x"

    report = run_gold([GoldTest("q", contains=("x",))], ask)
    assert report.right == 1 and report.cost is None and report.cost_unknown == 1


def test_the_callers_context_reaches_every_call() -> None:
    """What is set around the run, as kit.scope(...) does, is seen by the function in threads and tasks."""
    tenant: ContextVar[str] = ContextVar("tenant", default="nobody")

    def ask(question: str) -> str:
        return tenant.get()

    async def aask(question: str) -> str:
        return tenant.get()

    tests = [GoldTest(f"q{i}", contains=("acme",)) for i in range(4)]
    token = tenant.set("acme")
    try:
        assert [run_gold(tests, f, workers=w).right for f in (ask, aask) for w in (1, 3)] == [4, 4, 4, 4]
    finally:
        tenant.reset(token)


def test_the_report_counts_by_kind_and_tag() -> None:
    """The share, its Wilson interval, the kinds and the tags agree with counting by hand."""
    report = run_gold(numbered(10), lambda question: "answer 4. answer 5." if question < "q6" else "hm")
    assert (report.right, report.share) == (2, 0.2)
    assert report.interval == pytest.approx((0.0567, 0.5098), abs=1e-3)
    assert {tag: (part.right, len(part.rows)) for tag, part in report.by_tag().items()} == {
        "even": (1, 5),
        "odd": (1, 5),
    }
    assert {kind: len(rows) for kind, rows in report.by_kind().items()} == {"right": 2, "wrong_answer": 8}
    assert "8 of 8 failures are of the kind 'wrong answer'" in report.advice()


def test_the_advice_names_errors_first() -> None:
    """One exception outranks many wrong answers, since the other figures hide behind it."""

    def ask(question: str) -> str:
        if question == "q1":
            raise OSError("down")
        return "hm"

    assert "'error'" in run_gold(numbered(5), ask).advice()
    assert (
        "Every answer is right" in run_gold([GoldTest("q", contains=("x",))], lambda question: "x").advice()
    )


def test_the_table_is_plain_text_and_shows_questions_unharmed() -> None:
    """Printed to a pipe the table has no escape codes, and a question with brackets is not read as markup."""
    tests = [GoldTest("is it [bold]free[/bold]?", contains=("yes",), where="g.toml test 1", tags=("price",))]
    text = str(run_gold(tests, lambda question: "no"))
    assert "\x1b" not in text
    for part in ("0 of 1 right", "[bold]free[/bold]?", "g.toml test 1", "lacks 'yes'", "price", "Next:"):
        assert part in text


def test_the_json_holds_every_row_and_the_summary() -> None:
    """The JSON report gives each test's verdict, answer and ranks, and the same totals as the table."""
    report = run_gold(numbered(3), lambda question: Said("answer 1.", retrieved=("a",)))
    data = json.loads(report.to_json())
    assert (data["tests"], data["right"], data["kinds"]) == (3, 1, {"right": 1, "wrong_answer": 2})
    assert [row["kind"] for row in data["rows"]] == ["wrong_answer", "right", "wrong_answer"]
    assert data["rows"][0]["answer"] == "answer 1." and data["cost_nano_usd"] is None


def test_an_empty_report_prints() -> None:
    """No tests at all is no division by zero."""
    report = run_gold([], lambda question: "x")
    assert report.share == 0 and report.latency(0.5) is None and "0 of 0 right" in str(report)
    json.loads(report.to_json())
