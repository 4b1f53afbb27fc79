"""Two or more replicas of one model behind vLLM's own router, ``vllm-router``, in an environment of its own.

What the router does to cost and p95: a policy that knows prompts (``cache_aware``, ``consistent_hash``) sends equal
beginnings to the same replica, so they are prefilled once and not once a replica; one that does not (``round_robin``,
``power_of_two``) balances better. A replica that answers 503 (its queue is full) is tried elsewhere, except that
``cache_aware`` may choose the same one again: there ``balance`` must be less than what a replica takes in.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from serving.engine import install, server
from serving.engine.command import at, choose_port
from serving.engine.layout import SERVED_NAMES, EngineError, Layout, one_at_a_time, private_folder, sha256
from serving.engine.process import members
from serving.engine.profile import Profile
from serving.engine.server import Naming, Server
from serving.engine.warm import healthy

BALANCE = 4  # half of what a replica of profile "ci" computes at once; the router's own 64 is for GPUs
POLICIES = ("cache_aware", "round_robin", "power_of_two", "consistent_hash", "random", "sticky_least_loaded")
ROUTER_S = 60.0  # until the router has seen its replicas' health: about 2 s
MOST = 8  # replicas on one machine; each takes 2 to 4 GB
NAME = "vllm-router"


def make_environment(layout: Layout) -> str:
    """Install the router's lock, hashes required, in a fresh environment; nothing if it holds that very lock."""
    wanted, stamp = sha256(layout.router_lock), layout.router / "lock.sha256"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted and program(layout).exists():
        return "already there"
    python = install.find_python()
    private_folder(layout.router)
    install.run_step(
        layout,
        [python, "-m", "venv", "--clear", str(layout.router)],
        "the router's environment could not be made",
    )
    private_folder(layout.router)  # --clear took the .gitignore along
    pip = [
        str(layout.router / "bin" / "python"),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]
    install.run_step(
        layout,
        [*pip, *install.PINNED, "-r", str(layout.router_lock)],
        "the router could not be installed; check the network and pip's settings",
    )
    stamp.write_text(wanted, encoding="utf-8")
    return "installed"


def program(layout: Layout) -> Path:
    """The router's program."""
    return layout.router / "bin" / "vllm-router"


def command(
    layout: Layout, replicas: Sequence[str], port: int, policy: str, balance: int = BALANCE
) -> list[str]:
    """The router's command line in front of ``replicas`` (root addresses)."""
    line = [str(program(layout)), *at(port), "--policy", policy, "--worker-urls", *replicas]
    # Balance goes before prefix hits once a replica has this many requests, and half as many again, more than another.
    line += [f"--balance-abs-threshold={balance}", "--balance-rel-threshold=1.5"]
    # A replica that is full or down is tried elsewhere at once: waiting would be the p95 of the spilled requests.
    line += [f"--retry-max-retries={2 * len(replicas)}"]
    line += ["--retry-initial-backoff-ms=1", "--retry-max-backoff-ms=20"]
    line += ["--worker-startup-check-interval=1", "--health-check-interval-secs=2"]
    # 503 says "full", not "broken": the breaker must not take a full replica out of service.
    line += ["--disable-circuit-breaker"]
    return [*line, f"--prometheus-port={choose_port(0)}", "--log-level=warning"]


def start(
    layout: Layout, replicas: Sequence[Server], port: int, policy: str, balance: int = BALANCE
) -> Server:
    """Start the router in front of running ``replicas`` and wait until it answers."""
    port = server.claim(layout, port)
    line = command(layout, [one.root for one in replicas], port, policy, balance)
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    router = server.launch(
        layout, line, lambda scratch: kept | {"TMPDIR": scratch}, Naming(NAME, policy, "", port)
    )
    try:
        _wait_ready(router)
    except BaseException:
        server.stop(layout, router)
        raise
    return router


def _wait_ready(router: Server) -> None:
    deadline = time.monotonic() + ROUTER_S
    while not healthy(router.root):
        if router.group not in members(router.group):
            raise EngineError(
                f"{NAME} ended while starting: {server.last_error(Path(router.log))} (log: {router.log})"
            )
        if time.monotonic() > deadline:
            raise EngineError(f"{NAME} was not ready after {ROUTER_S:.0f} s (log: {router.log})")
        time.sleep(0.1)


@contextlib.contextmanager
def replicated(
    layout: Layout,
    model: str,
    profile: Profile,
    *,
    count: int,
    port: int,
    policy: str,
    balance: int = BALANCE,
    extra: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> Iterator[tuple[Server, list[Server]]]:
    """``count`` replicas on free ports behind a router on ``port``, all ready; all ended afterwards.

    Raises:
        EngineError: the count or policy is none, a port is taken, or a server did not start; nothing is left.
    """
    if not 1 <= count <= MOST:
        raise EngineError(f"--count {count}: 1 to {MOST} replicas on one machine")
    if policy not in POLICIES:
        raise EngineError(f"--policy {policy}: choose one of {', '.join(POLICIES)}")
    with one_at_a_time(layout):
        make_environment(layout)
    port = server.claim(layout, port)
    begun: list[Server] = []
    try:
        for _ in range(count):
            begun.append(server.start(layout, model, 0, profile, alone=False, extra=extra))
        for one in begun:
            server.wait_ready(one)
            say(f"replica of {SERVED_NAMES[model]} {one.base_url}, log {one.log}")
        router = start(layout, begun, port, policy, balance)
        begun.append(router)
        yield router, begun[:-1]
    finally:
        for one in reversed(begun):
            server.stop(layout, one)
