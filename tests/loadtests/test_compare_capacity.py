"""capacity and compare as people run them: their exit codes, their JSON, what they leave, and how they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from loadtests import capacity, compare
from loadtests.arrivals import Plan, Stage
from loadtests.report import make_report
from loadtests.runs import Finished, RunError, Runner, load, locust, served, split
from loadtests.sample import Sample, write_samples
from loadtests.slo import parse_objectives
from tests.loadtests.generated import clean, dropped, failed, sample
from tests.loadtests.queues import BASE, SERVERS

ROOT = Path(__file__).parents[2]
READY = 'import json, time; print(json.dumps({"url": "http://127.0.0.1:9"}), flush=True); time.sleep(60)'


def said(args: Sequence[str], name: str, default: str) -> str:
    return args[args.index(name) + 1] if name in args else default


def simulated(factor: float = 1.0, cost: int = 1000, spoil: str = "") -> Runner:
    """Runs against a queue of eight servers, ``factor`` times as slow; leaves what a locust run leaves."""

    def run(host: str, folder: Path, args: Sequence[str], seconds: float) -> Finished:
        slow = factor if host.endswith("b") else 1.0
        rate, seed = float(said(args, "--rate", "4")), int(said(args, "--seed", "0"))
        plan = Plan((Stage(rate, rate),), seed=seed)
        free, rows = [0.0] * SERVERS, list[Sample]()
        lengths = np.random.default_rng(seed).lognormal(-0.125, 0.3, 100_000).tolist()
        for one in clean(plan, seconds, jitter=0.0001):
            server = free.index(min(free))
            start = max(one.sent, free[server])
            free[server] = start + lengths[one.id] * slow
            wait = start - one.sent
            price = int(cost * (0.7 if host.endswith("b") else 1.0))
            rows.append(
                sample(
                    one.id, one.intended, one.lag, wait + BASE, wait + lengths[one.id] * slow, cost_nano=price
                )
            )
        if spoil == "generator":
            rows = dropped(rows, 0.2)
        if spoil == "server":
            rows = [failed(one.id, one.intended) if one.id % 7 == 0 else one for one in rows]
        objectives = parse_objectives(said(args, "--slo", ""))
        hour = float(said(args, "--machine-hour", "0")) or None
        made = make_report(rows, seconds=seconds, plan=plan, objectives=objectives, usd_per_hour=hour)
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps(made.as_json()))
        write_samples(folder / "requests.jsonl", rows)
        return load(folder, made.exit_code)

    return run


def capacity_of(tmp_path: Path, runner: Runner, *more: str) -> int:
    argv = ["--host", "http://a", "--slo", "ttft.p95<300ms", "--start", "2", "--requests", "400"]
    argv += ["--most-requests", "800", "--out", str(tmp_path), "--precision", "0.3", *more]
    return capacity.main(argv, runner)


@pytest.mark.slow
def test_capacity_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The rate found is below the queue's peak, above half of it, and 1,000 good requests cost what the hour says."""
    code = capacity_of(tmp_path, simulated(), "--machine-hour", "3.60", "--json")
    told = json.loads(capsys.readouterr().out)
    assert code == told["exit_code"] and code in {0, 4}
    assert SERVERS / 2 <= told["passes"] < SERVERS and told["usd_per_1000_good"] == pytest.approx(
        1 / told["goodput_per_s"], rel=0.05
    )
    assert json.loads((tmp_path / "capacity.json").read_text()) == told
    assert (tmp_path / "capacity.png").stat().st_size > 20_000
    folders = [Path(one["folder"]) for one in told["runs"]]
    assert all((one / "requests.jsonl").exists() for one in folders) and len(set(folders)) == len(folders)


def test_capacity_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On a terminal each run is one line as it ends, and the last lines are the result and what to do next."""
    capacity_of(tmp_path, simulated(), "--runs", "3")
    out, err = capsys.readouterr()
    assert err.count("requests: ") == 3 and "highest rate that meets the objectives" in out
    assert "not resolved: 3 runs were not enough" in out
    assert out.splitlines()[-1].startswith("next: search on from there: --start ")


@pytest.mark.parametrize(("error", "code"), [(RunError("it ended", 4), 4), (KeyboardInterrupt(), 130)])
@pytest.mark.parametrize("runs", [0, 2])
def test_what_a_search_found_before_it_was_cut_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, runs: int
) -> None:
    """A run that cannot be made, or Ctrl-C, loses nothing of the runs before it; its own exit code is told."""
    made: list[Path] = []

    def run(host: str, folder: Path, args: Sequence[str], seconds: float) -> Finished:
        if len(made) == runs:
            raise error
        made.append(folder)
        return simulated()(host, folder, args, seconds)

    assert capacity_of(tmp_path / "out", run) == code
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    if not runs:
        assert not out and err.count("\n") == 1
        return
    told = json.loads((tmp_path / "out" / "capacity.json").read_text())
    assert told["exit_code"] == code and [one["folder"] for one in told["runs"]] == [str(one) for one in made]
    assert told["passes"] in {2.0, 4.0} and "passed, but only once" in told["stopped"]
    assert out.splitlines()[-1].startswith("next: mend what ended the search, and go on from there: --start ")
    assert (str(error) or "interrupted") in out and (tmp_path / "out" / "capacity.png").exists()


@pytest.mark.slow
def test_capacity_of_a_bad_generator_or_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A generator that drops requests is exit code 5, a server that meets no objective at any rate 3."""
    assert capacity_of(tmp_path / "a", simulated(spoil="generator"), "--runs", "6") in {4, 5}
    assert capacity_of(tmp_path / "b", simulated(spoil="server"), "--runs", "30") == 3
    assert "no rate met the objectives" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "said_"),
    [(["--slo", ""], "--slo"), (["--slo", "speed<5"], "speed"), (["--start", "0"], "start"),
     (["--requests", "9"], "requests"), (["--file", "nothing"], "nothing.py")],
)  # fmt: skip
def test_capacity_refuses_bad_arguments(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], said_: str
) -> None:
    """A bad argument is one line on standard error and exit code 2, before any load."""
    argv = ["--host", "http://a", "--slo", "ttft.p95<1s", "--out", str(tmp_path / "out"), *more]
    assert capacity.main(argv) == 2
    err = capsys.readouterr().err
    assert said_ in err and err.count("\n") == 1 and not (tmp_path / "out").exists()


def compared(tmp_path: Path, runner: Runner, *more: str) -> int:
    argv = [
        "--a",
        "http://a",
        "--b",
        "http://b",
        "--out",
        str(tmp_path),
        *more,
        "--",
        "--rate",
        "4",
        "--run-time",
        "150s",
    ]
    return compare.main(argv, runner)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (["--run-time=150s"], 150), (["-t", "2m30s"], 150), (["--run-time", "1500ms"], 2), (["-t90"], 90),
        (["--stages", "4@100s,8@50s"], 150), (["--stages=4@100s", "--run-time", "30"], 30), ([], 60),
    ],
)  # fmt: skip
def test_the_length_of_a_run_is_as_said(tmp_path: Path, said: list[str], seconds: int) -> None:
    """However locust's users write the time, the runs are that long; unsaid, as long as the stages are."""
    asked = []

    def runner(host: str, folder: Path, args: Sequence[str], seconds: float) -> Finished:
        asked.append((list(args), seconds))
        raise RunError("enough", 4)

    argv = ["--a", "http://a", "--b", "http://b", "--out", str(tmp_path), "--", "--rate", "4", *said]
    assert compare.main(argv, runner) == 4
    [(args, told)] = asked
    assert told == seconds and args[:2] == ["--rate", "4"] and args[-2:] == ["--run-time", f"{seconds}s"]
    assert sum(one.startswith(("--run-time", "-t")) for one in args) == 1
    assert any(one.startswith("--stages") for one in said) == ("--stages" in args)


@pytest.mark.parametrize(
    "said", [["--run-time", "soon"], ["--run-time", "0"], ["--run-time"], ["--stages", "4"]]
)
def test_no_length_of_time_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], said: list[str]
) -> None:
    """What is no length of time is one line and exit code 2, before any load."""
    argv = ["--a", "http://a", "--b", "http://b", "--out", str(tmp_path / "out"), "--", *said]
    assert compare.main(argv) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "usage" not in err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("runner", "code", "words"),
    [
        (simulated(0.8), 0, ["B is faster", "B is cheaper", "conditional on this trace"]),
        (simulated(1.3), 3, ["B is slower", "B is cheaper"]),
        (simulated(1.0, spoil="generator"), 5, ["INVALID run of A", "do not use"]),
        (simulated(1.0, spoil="server"), 1, ["failed:"]),
    ],
)
def test_compare_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], runner: Runner, code: int, words: list[str]
) -> None:
    """Faster, slower, invalid and failing are told in words and by exit code; the picture and the JSON are there."""
    assert compared(tmp_path, runner) == code
    out = capsys.readouterr().out
    assert all(word in out for word in words) and out.splitlines()[-1].startswith("next: ")
    told = json.loads((tmp_path / "compare.json").read_text())
    assert told["exit_code"] == code and [one["side"] for one in told["runs"]] == ["a", "b", "b", "a"]
    assert (tmp_path / "compare.png").stat().st_size > 20_000


def test_prices_that_differ_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the same tokens cost other money on the other side, that is said: it may be no saving at all."""
    compared(tmp_path, simulated(1.0))
    assert "charge other prices for the same tokens" in capsys.readouterr().out


def test_compare_shows_no_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same server twice at the same price: no difference, exit code 4, and how to narrow the interval."""
    same = simulated()
    code = compare.main(
        ["--a", "http://a", "--b", "http://a/", "--out", str(tmp_path), "--json", "--", "--rate", "4"], same
    )
    told = json.loads(capsys.readouterr().out)
    assert code == 4 and {one["which"] for one in told["figures"].values()} == {"the same"}


@pytest.mark.slow
def test_compare_tells_a_warm_cache(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the repeats differ much, because a run found the cache of the one before it, that is said."""
    seen: list[str] = []

    def warming(host: str, folder: Path, args: Sequence[str], seconds: float) -> Finished:
        seen.append(host)
        factor = 0.3 if host.endswith("b") and seen.count(host) > 1 else 0.9
        return simulated(factor)(host, folder, args, seconds)

    compared(tmp_path, warming)
    assert "was a cache warm?" in capsys.readouterr().out


@pytest.mark.parametrize("order", ["", "aab", "abc"])
def test_compare_refuses_bad_orders(tmp_path: Path, capsys: pytest.CaptureFixture[str], order: str) -> None:
    """An order in which the sides do not come equally often is refused before any run."""
    assert compared(tmp_path, simulated(), "--order", order) == 2
    assert "--order" in capsys.readouterr().err


def test_a_server_is_started_afresh_and_stopped() -> None:
    """A command is started, its URL read, and nothing of it is left; one that says nothing useful is an error."""
    with served([sys.executable, "-c", READY]) as url:
        assert url == "http://127.0.0.1:9"
        found = subprocess.run(["pgrep", "-f", "127.0.0.1:9"], capture_output=True, text=True)
        pids = [int(one) for one in found.stdout.split()]
    deadline = time.monotonic() + 5
    while any(_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert pids and not any(_alive(pid) for pid in pids)
    for command in (
        ["/no/such/command"],
        [sys.executable, "-c", "print('hello')"],
        [sys.executable, "-c", ""],
    ):
        with pytest.raises(RunError), served(command):
            pass


def test_a_server_that_talks_is_listened_to() -> None:
    """A server that logs more than a pipe holds goes on: what it says after its first line is read and left."""
    talk = "import json; print(json.dumps({'url': 'http://127.0.0.1:9'}), flush=True)\n"
    talk += "for n in range(20_000): print('x' * 100, flush=True)\nimport sys; sys.stderr.write('done')"
    with served([sys.executable, "-c", talk]) as _:
        found = ["1"]
        until = time.monotonic() + 20
        while found and time.monotonic() < until:
            time.sleep(0.1)
            pids = subprocess.run(
                ["pgrep", "-f", "range.20_000"], capture_output=True, text=True
            ).stdout.split()
            found = [one for one in pids if _alive(int(one))]
    assert not found


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return b") Z " not in Path(f"/proc/{pid}/stat").read_bytes()


def test_damaged_runs_are_refused(tmp_path: Path) -> None:
    """A folder without a run, or with a broken one, is one clear error that names it."""
    for text in (None, "{", "[]", '{"name": 1}'):
        if text is not None:
            (tmp_path / "run.json").write_text(text)
        with pytest.raises(RunError, match=str(tmp_path)):
            load(tmp_path)
    assert split(["--a", "x"]) == (["--a", "x"], [])


@pytest.mark.slow
def test_a_run_that_cannot_be_made(tmp_path: Path) -> None:
    """No server: what the run itself said, in one line, with its exit code; nothing is measured."""
    with pytest.raises(RunError) as caught:
        locust("chat")("http://127.0.0.1:9", tmp_path / "run", ["--rate", "5", "--run-time", "2s"], 2.0)
    assert "127.0.0.1:9" in str(caught.value) and "\n" not in str(caught.value) and caught.value.code != 0


@pytest.mark.slow
def test_compare_against_real_servers(tmp_path: Path) -> None:
    """Through locust, two simulated servers of which B takes half the time a token: faster for sure."""
    server = f"{sys.executable} -m serving.simulated --slots 64 --output-tokens-sigma 0.3 --tpot-ms"
    command = [
        sys.executable,
        "-m",
        "loadtests.compare",
        "--a",
        f"{server} 10",
        "--b",
        f"{server} 5",
        "--json",
    ]
    command += ["--order", "ab", "--out", str(tmp_path), "--", "--rate", "12", "--run-time", "12s"]
    command += ["--max-tokens", "20", "--words", "20"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=110)
    told = json.loads(done.stdout)
    # A busy machine may spoil the generator's timing; the figures are paired all the same.
    assert done.returncode in {0, 3, 5} and told["exit_code"] == done.returncode, done.stderr
    assert told["figures"]["e2e_p50"]["which"] == "lower" and told["figures"]["e2e_p50"]["change"] < -0.3


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_everything(tmp_path: Path, how: signal.Signals) -> None:
    """Ctrl-C during a comparison, or a kill, ends the run and the server that it started, in one line."""
    script = textwrap.dedent("""
        import signal, sys
        from loadtests.compare import main
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
        sys.exit(main(sys.argv[1:]))
    """)
    server = f"{sys.executable} -m serving.simulated --model interrupted"
    argv = ["--a", server, "--b", server, "--out", str(tmp_path), "--", "--rate", "5", "--run-time", "60s"]
    child = subprocess.Popen(
        [sys.executable, "-c", script, *argv], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 30
    log = tmp_path / "1-a.log"
    while not (log.exists() and "spawned" in log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    child.send_signal(how)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130 and "interrupted" in err and "Traceback" not in err
    assert (tmp_path / "1-a" / "requests.jsonl").exists()
    left = subprocess.run(["pgrep", "-f", "--", "--model interrupted"], capture_output=True, text=True).stdout
    assert not [pid for pid in left.split() if _alive(int(pid))]
