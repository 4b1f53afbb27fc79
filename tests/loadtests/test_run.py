"""Whole load runs in the real locust, against the simulated server: what goes in comes out, from every process."""

from __future__ import annotations

import csv
import json
import re
import signal
import time
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest

from loadtests.arrivals import Plan, Stage, arrivals
from loadtests.rows import three_digits
from tests.loadtests.runs import Run, start
from tests.serving.simulators import Server, serving

pytestmark = pytest.mark.slow
KEY = "sk-geheim-1234567890"
SERVER = ["--slots", "200", "--output-tokens-mean", "8", "--output-tokens-sigma", "0", "--key", KEY]
SERVER += ["--prefix-cache-blocks", "1000"]
PLAN = Plan((Stage(30, 30, 3.0),), seed=4)
COMMON = [
    "--rate",
    "30",
    "--run-time",
    "3s",
    "--seed",
    "4",
    "--words",
    "20",
    "--price-in",
    "1",
    "--price-out",
    "2",
]
EARLY = ["--rate", "0.5", "--arrivals", "constant", "--run-time", "5s", "--words", "20"]
EARLY += [
    "--slo",
    "e2e.p50<30s",
]  # a latency limit that lets the generator be as late as a busy machine makes it
TRACE = [(0, 100, 5, [1]), (100, 700, 6, [1, 2]), (900, 40, 7, [9])]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server"), *SERVER) as one:
        yield one


@pytest.fixture(scope="module")
def runs(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    """All runs at once: they wait more than they work."""
    home = tmp_path_factory.mktemp("runs")
    trace = home / "trace.jsonl"
    rows = [{"timestamp": t, "input_length": i, "output_length": o, "hash_ids": h} for t, i, o, h in TRACE]
    trace.write_text("\n".join(json.dumps(row) for row in rows))

    def go(name: str, file: str, *more: str) -> Run:
        return start(home / name, file, "--host", server.url, *more, OPENAI_API_KEY=KEY)

    made = {
        "alone": go("alone", "chat", *COMMON, "--html", str(home / "page.html"), "--csv", str(home / "table"),
                    "--slo", "e2e.p50<30s,errors<5%"),
        "shared": go("shared", "chat", *COMMON, "--processes", "2"),
        "replay": go("replay", "replay", "--trace", str(trace)),
        "talk": go("talk", "multiturn", "--rate", "4", "--run-time", "2s", "--turns", "3", "--think", "100ms"),
        "early": go("early", "chat", *EARLY),
        "early-shared": go("early-shared", "chat", *EARLY, "--processes", "2"),
        "stopped": go("stopped", "chat", "--rate", "20", "--words", "20", "--max-tokens", "50", "--processes", "2"),
        "expired": start(home / "expired", "chat", "--host", server.url, OPENAI_API_KEY="sk-expired"),
        "nine": go("nine", "chat", "--rate", "nine"),
        "system": go("system", "chat", "--system", "/no/such/file"),
        "think": go("think", "multiturn", "--think", "soon", "--processes", "2"),
        "rated": go("rated", "replay", "--trace", str(trace), "--rate", "5"),
        "gpt-9": go("gpt-9", "chat", "--processes", "2", "--model", "gpt-9"),
    }  # fmt: skip
    try:
        yield made
    finally:
        for run in made.values():
            run.kill()


def due() -> list[float]:
    return [round(at, 6) for _, at in takewhile(lambda one: one[1] < 3.0, arrivals(PLAN))]


@pytest.mark.parametrize("name", ["alone", "shared"])
def test_every_planned_request_is_sent_and_kept(runs: dict[str, Run], name: str) -> None:
    """One process or two: the requests are exactly the plan's, each once, none lost in flight at the end."""
    run = runs[name]
    code = run.wait()
    assert code == run.told["exit_code"] and code in {0, 4, 5}, run.err
    samples = sorted(run.samples, key=lambda row: row.id)
    assert [(row.id, row.intended) for row in samples] == list(enumerate(due()))
    assert {row.error for row in samples} == {None}
    assert {row.worker for row in samples} == ({0} if name == "alone" else {0, 1})
    assert run.told["verdict"]["missing"] == 0 and run.told["requests"] == len(samples)


@pytest.mark.parametrize("name", ["alone", "shared"])
def test_locusts_own_table_counts_requests_once(runs: dict[str, Run], name: str) -> None:
    """Each figure has a row of its own, from all workers, and the aggregate is that of the requests alone."""
    run = runs[name]
    run.wait()
    rows = {
        (kind, label.strip()): int(count)
        for kind, label, count in re.findall(r"^(\w*) +(\S.*?) {2,}(\d+) +0\(0\.00%\)", run.err, re.M)
    }
    n = len(due())
    assert rows["E2E", "chat"] == rows["TTFT", "chat [ms]"] == rows["COST", "chat [micro-USD]"] == n
    assert rows["LAG", "chat [us]"] == rows["TPOT", "chat [us]"] == n
    assert rows["ITL", "chat [us]"] == sum(len(row.gaps) for row in run.samples)
    assert re.search(rf"^ +Aggregated +{n} ", run.err, re.M)


def test_files_of_locust_have_it_too(runs: dict[str, Run]) -> None:
    """CSV rows are complete to the last request, with three digits; the HTML report has the section."""
    run = runs["alone"]
    run.wait()
    with (run.folder.parent / "table_stats.csv").open() as lines:
        rows = {(row["Type"], row["Name"]): row for row in csv.DictReader(lines)}
    assert (
        int(rows["E2E", "chat"]["Request Count"])
        == int(rows["", "Aggregated"]["Request Count"])
        == len(due())
    )
    cost = sum(row.cost_nano or 0 for row in run.samples) / 1000 / len(due())
    assert float(rows["COST", "chat [micro-USD]"]["Average Response Time"]) == pytest.approx(cost)
    middle = sorted(three_digits((row.tpot or 0.0) * 1e6) for row in run.samples)[len(due()) // 2 - 2 :][:5]
    assert float(rows["TPOT", "chat [us]"]["50%"]) in middle
    page = (run.folder.parent / "page.html").read_text()
    assert page.count("<section") == 1 and page.rstrip().endswith("</html>")


def test_what_is_printed_ends_with_what_to_do(runs: dict[str, Run]) -> None:
    """In a pipe there is one table at the end, no stream of them, and the report is the last thing said."""
    run = runs["alone"]
    run.wait()
    assert (run.out + run.err).count("Aggregated") == 2  # times, and percentiles
    assert "next:" in run.out and run.out.rstrip().splitlines()[-1].startswith("all of it: ")


def test_the_key_is_nowhere(runs: dict[str, Run]) -> None:
    """The key that all these requests were sent with is in no file and in no line."""
    for run in runs.values():
        run.wait() if run is not runs["stopped"] else None
        assert KEY not in run.out + run.err
    for path in runs["alone"].folder.parent.rglob("*"):
        assert not path.is_file() or KEY not in path.read_text(errors="replace")


def test_a_trace_is_sent_as_recorded(runs: dict[str, Run]) -> None:
    """Times, answer lengths and shared prefixes are the trace's; the run ends with it by itself."""
    run = runs["replay"]
    assert run.wait() in {0, 5}, run.err
    samples = sorted(run.samples, key=lambda row: row.id)
    assert [(row.intended, row.output_tokens) for row in samples] == [(0.0, 5), (0.1, 6), (0.9, 7)]
    assert (samples[1].cached_tokens or 0) >= 90 and (samples[1].prompt_tokens or 0) >= 700


@pytest.mark.parametrize("name", ["early", "early-shared"])
def test_a_last_answer_that_is_early_ends_no_run(runs: dict[str, Run], name: str) -> None:
    """Where every answer is there before the time is up, the run still is as long as asked, judged and valid."""
    assert runs[name].wait() == 4, runs[name].err  # two requests meet no objective, nor miss one, for sure
    told = runs[name].told
    assert told["seconds"] == pytest.approx(5.0, abs=0.1)
    assert told["verdict"]["valid"] and told["verdict"]["planned"] == len(runs[name].samples) == 2


def test_conversations_have_rows_of_their_own(runs: dict[str, Run]) -> None:
    """Later turns are counted apart from first ones and are no arrivals of the plan."""
    run = runs["talk"]
    assert run.wait() in {0, 5}, run.err
    first = [row for row in run.samples if row.id >= 0]
    later = [row for row in run.samples if row.id < 0]
    assert {row.name for row in first} == {"chat turn 1"} and {row.name for row in later} == {
        "chat later turns"
    }
    assert run.told["verdict"]["planned"] == len(first) and later


def test_ctrl_c_keeps_what_was_taken(runs: dict[str, Run], server: Server) -> None:
    """Interrupted in mid-run, both workers' samples are written, those in flight after their answer."""
    run = runs["stopped"]
    time.sleep(6)
    run.interrupt()
    assert run.wait() in {0, 5}, run.err
    samples = run.samples
    assert len(samples) > 10 and {row.error for row in samples} == {None}
    assert {row.worker for row in samples} == {0, 1}
    # The plan has no holes up to the last one sent.
    assert sorted(row.id for row in samples)[:-3] == list(range(len(samples) - 3))


def test_sigterm_keeps_what_was_taken(server: Server, tmp_path: Path) -> None:
    """A run that is told to end by its supervisor writes its files too."""
    run = start(tmp_path, "chat", "--host", server.url, "--rate", "20", OPENAI_API_KEY=KEY)
    before, until = len(server.log.read_text().splitlines()), time.monotonic() + 20
    while len(server.log.read_text().splitlines()) < before + 10 and time.monotonic() < until:
        time.sleep(0.1)
    run.process.send_signal(signal.SIGTERM)
    run.wait()
    assert len(run.samples) > 3 and run.told["requests"] == len(run.samples)


@pytest.mark.parametrize(
    ("name", "code", "line"),
    [
        ("expired", 1, r"refuses the API key \(401\): set OPENAI_API_KEY"),
        ("nine", 2, "invalid float value: 'nine'"),
        ("system", 2, "/no/such/file: cannot be read"),
        ("think", 2, "'soon' is no length of time"),
        ("rated", 2, "--rate: replay sends at the trace's own times"),
        ("gpt-9", 1, "has no model 'gpt-9'; it lists simulated"),
    ],
)
def test_what_cannot_run_is_said_in_one_line(runs: dict[str, Run], name: str, code: int, line: str) -> None:
    """A refusal comes before any load, with its exit code and no key, and leaves no worker behind."""
    run = runs[name]
    # Ends only when every process has closed its end of the pipes.
    assert run.wait() == code, run.err
    assert len([one for one in run.err.splitlines() if re.search(line, one)]) == 1
    assert "sk-expired" not in run.err + run.out and "Traceback" not in run.err
    assert not (run.folder / "run").exists()
