"""Load runs as locust makes them, one after the other: started, waited for, and read from the folders they leave."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from loadtests.arrivals import parse_seconds, parse_stages
from loadtests.sample import Sample, read_samples

__all__ = ["Finished", "RunError", "Runner", "as_interrupts", "load", "locust", "served", "split", "timed"]

_FILES = Path(__file__).resolve().parent
_READY_S = 60.0
_STOP_S = 10.0
_MORE_S = 180.0  # for its start, its preflight and the requests under way at its end


class RunError(Exception):
    """A load run could not be made; ``code`` is the exit code that says why."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that is over: locust's exit code, what ``run.json`` says, every request."""

    code: int
    told: dict[str, Any]
    samples: tuple[Sample, ...]


class Runner(Protocol):
    """Something that makes one load run."""

    def __call__(self, host: str, folder: Path, args: Sequence[str], seconds: float) -> Finished:
        """Load ``host`` for so many seconds, leave the run in ``folder``."""
        ...


def split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is said before ``--``, and what is said after it, which goes to the locust file.

    >>> split(["--slo", "errors<1%", "--", "--max-tokens", "64"])
    (['--slo', 'errors<1%'], ['--max-tokens', '64'])
    """
    given = list(argv)
    cut = given.index("--") if "--" in given else len(given)
    return given[:cut], given[cut + 1 :]


def timed(args: Sequence[str], default: float) -> tuple[float, list[str]]:
    """How long a run with these options of a locust file sends, in whole seconds, and the options that say so.

    Said by ``--run-time`` or ``-t``, else by the length of ``--stages``, else the default.

    Raises:
        ValueError: no length of time, or one of nothing.

    >>> timed(["--rate", "5", "--run-time=1m30s"], 60)
    (90.0, ['--rate', '5', '--run-time', '90s'])
    >>> timed(["--stages", "10@30s,20@45s"], 60)
    (75.0, ['--stages', '10@30s,20@45s', '--run-time', '75s'])
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-t", "--run-time")
    parser.add_argument("--stages")
    try:
        told, rest = parser.parse_known_args(list(args))
    except argparse.ArgumentError as error:
        raise ValueError(f"{error.argument_name}: {error.message}") from None
    stages = ["--stages", told.stages] if told.stages is not None else []
    if told.run_time is not None:
        seconds = _seconds(told.run_time)
    else:
        seconds = sum(one.seconds for one in parse_stages(told.stages)) if told.stages else default
    whole = math.ceil(seconds)
    if whole < 1:
        raise ValueError("--run-time 0: say a length such as 60s")
    return float(whole), [*rest, *stages, "--run-time", f"{whole}s"]


def _seconds(text: str) -> float:
    """Locust's way to say it (1h20m, 90) and ours (500ms, 1.5m)."""
    parts = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", text.strip())
    if parts is None or not parts[0]:
        return parse_seconds(text)
    hours, minutes, seconds = (int(one or 0) for one in parts.groups())
    return float(3600 * hours + 60 * minutes + seconds)


def load(folder: Path, code: int = 0) -> Finished:
    """A run from the folder it left.

    Raises:
        RunError: no run is there, or its files are damaged.
    """
    try:
        told = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        if not isinstance(told, dict) or "verdict" not in told:
            raise ValueError("run.json is not the report of a run")
        return Finished(code, told, tuple(read_samples(folder / "requests.jsonl")))
    except (OSError, ValueError) as error:
        raise RunError(f"{folder}: no load run can be read there ({error})") from None


def locust(file: str) -> Runner:
    """A runner that starts ``locust --headless`` on one of the locust files here (or on a path) as its own process.

    Raises:
        RunError: at once where there is no such file; from the runner where the run could not be made.
    """
    path = Path(file) if file.endswith(".py") else _FILES / f"{file}.py"
    if not path.is_file():
        raise RunError(
            f"{path}: no such locust file; say chat, rag, multiturn, replay or a path ending in .py", 2
        )

    def run(host: str, folder: Path, args: Sequence[str], seconds: float) -> Finished:
        folder.parent.mkdir(parents=True, exist_ok=True)
        place = ["--out", str(folder.parent), "--run-name", folder.name]
        command = [
            sys.executable,
            "-m",
            "locust",
            "-f",
            str(path),
            "--headless",
            "--host",
            host,
            *place,
            *args,
        ]
        log = folder.parent / f"{folder.name}.log"
        # A folder of an earlier run must not be taken for this one's.
        (folder / "run.json").unlink(missing_ok=True)
        with log.open("w", encoding="utf-8") as out:
            code = _waited(subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True), seconds)
        if not (folder / "run.json").exists():
            raise RunError(_last_line(log), code if code in {1, 2, 3, 4, 5} else 1)
        return load(folder, code)

    return run


@contextlib.contextmanager
def as_interrupts() -> Iterator[None]:
    """Inside, being told to end (SIGTERM, or SIGHUP of a closed terminal) is a Ctrl-C: what was started ends too."""
    before = {}
    for number in (signal.SIGTERM, signal.SIGHUP):
        with contextlib.suppress(ValueError):  # only the main thread may ask for signals
            before[number] = signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def served(command: Sequence[str]) -> Iterator[str]:
    """Start a server that prints one JSON line with its ``url`` when it is ready; it is stopped at the end.

    Raises:
        RunError: it ended, or said nothing within a minute.
    """
    try:
        server = subprocess.Popen(
            command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, start_new_session=True, text=True
        )
    except OSError as error:
        raise RunError(f"{command[0]}: cannot be started ({error.strerror or error})") from None
    try:
        url = _url(server, command)
        # Whoever logs there would stand still once the pipe is full.
        threading.Thread(target=_drained, args=(server.stdout,), daemon=True).start()
        yield url
    finally:
        _ended(server, signal.SIGTERM)


def _drained(lines: IO[str] | None) -> None:
    with contextlib.suppress(OSError, ValueError):  # closed in the meantime
        for _ in lines or ():
            pass


def _url(server: subprocess.Popen[str], command: Sequence[str]) -> str:
    import selectors

    assert server.stdout is not None
    with selectors.DefaultSelector() as ready:
        ready.register(server.stdout, selectors.EVENT_READ)
        line = server.stdout.readline() if ready.select(_READY_S) else ""
    try:
        told = json.loads(line)
        return str(told["url"])
    except (ValueError, KeyError, TypeError):
        raise RunError(
            f'{" ".join(command)}: did not print a line such as {{"url": "http://127.0.0.1:8000"}} within a minute'
        ) from None


def _waited(child: subprocess.Popen[bytes], seconds: float) -> int:
    """Its exit code. An interrupt is passed on once, so that the run ends as it would by itself."""
    try:
        return child.wait(seconds + _MORE_S)
    except KeyboardInterrupt:
        _ended(child, signal.SIGINT, _MORE_S)
        raise
    except subprocess.TimeoutExpired:
        _ended(child, signal.SIGTERM)
        raise RunError(f"a run of {seconds:g} s was not over {_MORE_S:g} s later and was stopped") from None


def _ended(child: subprocess.Popen[Any], how: signal.Signals, patience: float = _STOP_S) -> None:
    """End a child and what it started, gently first."""
    for number, wait in ((how, patience), (signal.SIGTERM, _STOP_S), (signal.SIGKILL, _STOP_S)):
        if child.poll() is not None:
            break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(wait)
    # Workers that outlived it are in its group.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


def _last_line(log: Path) -> str:
    """What a run that never came about said: its own words, not locust's log."""
    lines = [
        line.strip()
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.strip()
    ]
    own = [line for line in lines if line.startswith("loadtests: ")]
    return (own or lines or [f"the run left nothing; see {log}"])[-1].removeprefix("loadtests: ")
