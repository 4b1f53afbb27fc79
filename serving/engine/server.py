"""Starting, finding and stopping servers of this checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from serving.engine import command as commands
from serving.engine.command import HOST, choose_port
from serving.engine.guard import PATIENCE_S, STAY
from serving.engine.install import check_model
from serving.engine.layout import SERVED_NAMES, EngineError, Layout, private_folder
from serving.engine.process import end_group, members, started_at
from serving.engine.profile import Profile
from serving.engine.warm import healthy, warm_up

READY_S = 420.0  # 25 to 35 s on an idle two-core machine, 200 s beside another busy server
LOG_BYTES = 20_000_000  # of an earlier server's log, kept beside the new one


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: the session of its guard and all its processes, and where it answers."""

    group: int
    started: int  # clock ticks since boot, see process.started_at
    port: int
    model: str
    dtype: str
    log: str
    scratch: str  # vLLM's sockets and temporary files, removed with it
    profile: str = ""

    @property
    def root(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def base_url(self) -> str:
        return f"{self.root}/v1"


def start(
    layout: Layout, model: str, port: int, profile: Profile, *, alone: bool = True, extra: Sequence[str] = ()
) -> Server:
    """Start a model of `SERVED_NAMES` in its own session and write down who it is; not ready yet: `wait_ready`.

    ``alone=False`` leaves the other cores to others, as replicas and tests do. ``extra`` are further flags of
    ``vllm serve``.
    """
    check_model(layout, model)
    port = claim(layout, port)
    # Random weights are for tests, whose machine does other work too.
    alone = alone and model != "tiny"
    return launch(
        layout,
        commands.command(layout, model, port, profile, extra),
        lambda scratch: commands.environment(layout, profile, scratch, os.environ, alone=alone),
        Naming(SERVED_NAMES[model], profile.name, _dtype(profile, extra), port),
    )


def start_gpu(
    layout: Layout, model: str | None, port: int, profile: Profile, *, extra: Sequence[str] = ()
) -> Server:
    """Start a plain vLLM on this machine's GPU; not ready yet, see `wait_ready`."""
    port = claim(layout, port)
    line = commands.gpu_command(profile, model, port, extra)
    name = model or profile.flags.get("served-model-name") or profile.flags["model"]
    return launch(
        layout,
        line,
        lambda scratch: commands.gpu_environment(profile, scratch, os.environ),
        Naming(name, profile.name, _dtype(profile, extra), port),
    )


@dataclass(frozen=True, slots=True)
class Naming:
    """What is said of a server that is about to start."""

    model: str
    profile: str
    dtype: str
    port: int


def launch(
    layout: Layout,
    line: Sequence[str],
    environment: Callable[[str], Mapping[str, str]],
    name: Naming,
    patience: float = PATIENCE_S,
) -> Server:
    """Start ``line`` behind a guard, which ends it should this process die before `stay`.

    ``environment`` is given the server's own folder for temporary files; ``patience`` is how many seconds the server
    has for its own shutdown.
    """
    log = private_folder(layout.run) / f"{name.port}.log"
    _set_aside(log)
    # In the system's temporary folder: a socket's path may have 107 bytes, which a deep checkout exceeds.
    scratch = tempfile.mkdtemp(prefix="costkit-vllm-")
    try:
        env = environment(scratch)
    except EngineError:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    guard = [sys.executable, "-P", str(Path(__file__).with_name("guard.py")), str(os.getpid()), str(patience)]
    with log.open("wb") as out:
        child = subprocess.Popen(
            [*guard, *line],
            env=env,
            cwd=layout.run,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        server = Server(
            child.pid,
            started_at(child.pid) or 0,
            name.port,
            name.model,
            name.dtype,
            str(log),
            scratch,
            name.profile,
        )
        _record(layout, name.port).write_text(json.dumps(asdict(server)), encoding="utf-8")
    except BaseException:  # also Ctrl-C: a server that is not on record could not be stopped later
        end_group(child.pid)
        raise
    return server


def stay(server: Server) -> None:
    """Let the server outlive this process."""
    os.kill(server.group, STAY)


def claim(layout: Layout, port: int) -> int:
    """``port``, or a free one for 0; `EngineError` with the way out if something answers there already."""
    for server in running(layout):
        if server.port == port:
            raise EngineError(
                f"{server.model} already runs on port {port}; python3 -m serving.engine stop --port {port}"
            )
    return choose_port(port)


def wait_ready(server: Server, seconds: float = READY_S) -> dict[str, float]:
    """Wait until the server is healthy and has used each feature once; seconds that each took.

    Raises `EngineError` with the end of the log if the server dies or ``seconds`` pass.
    """
    deadline = time.monotonic() + seconds
    while not healthy(server.root):
        if server.group not in members(server.group):
            raise EngineError(
                f"vLLM ended while starting: {last_error(Path(server.log))} (log: {server.log})"
            )
        if time.monotonic() > deadline:
            raise EngineError(f"vLLM was not ready after {seconds:.0f} s (log: {server.log})")
        time.sleep(0.25)
    return warm_up(server.root, server.model, server.log)


def stop(layout: Layout, server: Server) -> None:
    """End the server and all its children; `EngineError` if any of them survives even that."""
    left = end_group(server.group) if alive(server) else ()
    if left:
        raise EngineError(
            f"processes {left} of the server on port {server.port} did not end; end them by hand"
        )
    _forget(layout, server)


def running(layout: Layout) -> list[Server]:
    """Servers of this checkout with a live process; notes of dead ones are removed."""
    found: list[Server] = []
    for path in sorted(layout.run.glob("*.json")):
        try:
            server = Server(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            continue  # stopped by somebody else just now
        except (ValueError, TypeError):
            raise EngineError(
                f"{path} is damaged; remove it and look for a left-over server yourself"
            ) from None
        if alive(server):
            found.append(server)
        else:
            _forget(layout, server)
    return found


def alive(server: Server) -> bool:
    """Whether any process of the server lives; a later process that got its number does not count."""
    start = started_at(server.group)
    return bool(members(server.group)) and start in (None, server.started)


def memory_mb(server: Server) -> int:
    """Resident memory of all the server's processes, shared pages counted once each, in MiB."""
    pages = 0
    for pid in members(server.group):
        try:
            pages += int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
        except OSError:
            continue
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20


def last_error(log: Path) -> str:
    """The last line of ``log`` that tells of an error, else its last line."""
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"Error\b|\berror:", line)]
    return (errors or lines or ["no output"])[-1][-300:]


def _dtype(profile: Profile, extra: Sequence[str]) -> str:
    return extra[extra.index("--dtype") + 1] if "--dtype" in extra[:-1] else profile.dtype


def _set_aside(log: Path) -> None:
    """Keep the end of the log of the server that was on this port before."""
    if log.is_file():
        with log.open("rb") as old:
            old.seek(max(0, log.stat().st_size - LOG_BYTES))
            log.with_suffix(".log.1").write_bytes(old.read())


def _forget(layout: Layout, server: Server) -> None:
    shutil.rmtree(server.scratch, ignore_errors=True)
    _record(layout, server.port).unlink(missing_ok=True)


def _record(layout: Layout, port: int) -> Path:
    return layout.run / f"{port}.json"
