"""Starting, finding and stopping vLLM servers of this checkout."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from serving.engine.install import check_model
from serving.engine.layout import SERVED_NAMES, EngineError, Layout, private_folder
from serving.engine.process import end_group, members, started_at

HOST = "127.0.0.1"
READY_S = 420.0  # 25 to 35 s on an idle two-core machine, 200 s beside another busy server
FIRST_ANSWER_S = 180.0  # compiles the code for logprobs the first time: 49 s on a crowded machine
KV_CACHE_GIB = 2  # of memory; 46,592 tokens of SmolLM2 in float32

# What every server is started with, and why.
FLAGS: tuple[tuple[str, ...], ...] = (
    # Longest prompt and answer together. Longer requests are refused with 400, never cut; a small limit keeps
    # one huge prompt from stalling everybody's p95 behind its prefill (about 1.5 s at this length).
    ("--max-model-len", "2048"),
    # Answers computed at once; the rest queue. On two cores four run as fast each as two (26 ms a token);
    # eight give 10 % more tokens per second at nearly twice the time per token. Fewer: a longer queue.
    ("--max-num-seqs", "8"),
    # No graph compilation: ready some 40 s sooner at every start, for 15 to 25 % fewer tokens per second.
    ("--enforce-eager",),
    # A prompt that begins like an earlier one skips that part's prefill, in blocks of 128 tokens: the saving
    # a provider sells as "cached input". Answers do not change.
    ("--enable-prefix-caching",),
    # Reports those tokens as usage.prompt_tokens_details.cached_tokens, so that they can be priced.
    ("--enable-prompt-tokens-details",),
    # Adds the server's own time to first token, queue and decode time to each answer: the histograms of
    # /metrics are too coarse for the p95 of a small model.
    ("--enable-per-request-metrics",),
    # Echoes x-request-id, which joins a ledger row to the server's log.
    ("--enable-request-id-headers",),
)


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: its process group and where it answers."""

    group: int
    started: int  # clock ticks since boot, see process.started_at
    port: int
    model: str
    dtype: str
    log: str
    scratch: str  # vLLM's sockets and temporary files, removed with it

    @property
    def base_url(self) -> str:
        return f"http://{HOST}:{self.port}/v1"


def command(layout: Layout, model: str, port: int, dtype: str) -> list[str]:
    """vLLM's command line for ``model`` (``smollm2`` or ``tiny``) on ``port``.

    ``dtype`` "float32" gives the same greedy text at any load; "bfloat16" is faster and does not.
    """
    launcher = Path(__file__).with_name("launch.py")
    line = [str(layout.python), "-P", str(launcher), "serve", str(layout.model(model))]
    line += [
        "--served-model-name",
        SERVED_NAMES[model],
        "--host",
        HOST,
        "--port",
        str(port),
        "--dtype",
        dtype,
    ]
    return line + [word for flag in FLAGS for word in flag]


def environment(layout: Layout, model: str, scratch: str, inherited: Mapping[str, str]) -> dict[str, str]:
    """The server's environment: no network but loopback, all cores, caches inside the checkout.

    What the user has set for ``VLLM_CPU_*`` stands.
    """
    cores = ",".join(str(core) for core in sorted(os.sched_getaffinity(0)))
    defaults = {
        "VLLM_CPU_KVCACHE_SPACE": str(KV_CACHE_GIB),
        # By itself vLLM leaves a core free and computes on the other; naming all cores halves prefill time.
        "VLLM_CPU_OMP_THREADS_BIND": cores,
    }
    if model == "tiny":
        # Its tests run beside other work, and its speed says nothing: one thread, wherever there is room.
        defaults |= {
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
        }
    if model == "tiny" or not shutil.which("g++", path=inherited.get("PATH", "")):
        # The first request for logprobs compiles C++, even with --enforce-eager. Without a compiler it would
        # end the engine; with one it pays: about a quarter more tokens per second (in bfloat16).
        defaults["TORCH_COMPILE_DISABLE"] = "1"
    cache = layout.run / "cache"
    fixed = {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "PYTHONSAFEPATH": "1",
        "TMPDIR": scratch,
        "VLLM_RPC_BASE_PATH": scratch,
        "HF_HOME": str(cache / "hf"),
        "VLLM_CACHE_ROOT": str(cache / "vllm"),
        "VLLM_CONFIG_ROOT": str(cache / "vllm-config"),
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
    }
    # VLLM_API_KEY would lock the loopback server against the demo and the tests.
    dropped = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "VLLM_API_KEY"}
    kept = {name: value for name, value in inherited.items() if name not in dropped}
    return defaults | kept | fixed


def choose_port(wanted: int) -> int:
    """``wanted`` if it is free on the loopback interface, a free one if it is 0; else `EngineError`."""
    if not 0 <= wanted <= 65535:
        raise EngineError(f"--port {wanted} is not a port; give 0 (any free one) to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
        except OSError as error:
            raise EngineError(
                f"port {wanted} cannot be used ({error.strerror}); choose another with --port"
            ) from None
        return int(probe.getsockname()[1])


def start(layout: Layout, model: str, port: int, dtype: str) -> Server:
    """Start a server in its own session and write down who it is; it is not ready yet, see `wait_ready`."""
    check_model(layout, model)
    for server in running(layout):
        if server.port == port:
            raise EngineError(
                f"{server.model} already runs on port {port}; python3 -m serving.engine stop --port {port}"
            )
    port = choose_port(port)
    log = private_folder(layout.run) / f"{port}.log"
    # In the system's temporary folder: a socket's path may have 107 bytes, which a deep checkout exceeds.
    scratch = tempfile.mkdtemp(prefix="costkit-vllm-")
    with log.open("wb") as out:
        child = subprocess.Popen(
            command(layout, model, port, dtype),
            env=environment(layout, model, scratch, os.environ),
            cwd=layout.run,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    name = SERVED_NAMES[model]
    try:
        server = Server(child.pid, started_at(child.pid) or 0, port, name, dtype, str(log), scratch)
        _record(layout, port).write_text(json.dumps(asdict(server)), encoding="utf-8")
    except BaseException:  # also Ctrl-C: a server that is not on record could not be stopped later
        end_group(child.pid)
        raise
    return server


def wait_ready(server: Server, seconds: float = READY_S) -> float:
    """Wait until the server is healthy and has answered one chat request; seconds that request took.

    Raises `EngineError` with the end of the log if the server dies or ``seconds`` pass.
    """
    deadline = time.monotonic() + seconds
    while not _healthy(server):
        if server.group not in members(server.group):
            raise EngineError(
                f"vLLM ended while starting: {_last_error(Path(server.log))} (log: {server.log})"
            )
        if time.monotonic() > deadline:
            raise EngineError(f"vLLM was not ready after {seconds:.0f} s (log: {server.log})")
        time.sleep(0.25)
    return _warm_up(server, FIRST_ANSWER_S)


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


def _forget(layout: Layout, server: Server) -> None:
    shutil.rmtree(server.scratch, ignore_errors=True)
    _record(layout, server.port).unlink(missing_ok=True)


def _record(layout: Layout, port: int) -> Path:
    return layout.run / f"{port}.json"


# Whatever proxy the user has set, loopback is reached directly.
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


def _healthy(server: Server) -> bool:
    try:
        with _open(f"http://{HOST}:{server.port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _warm_up(server: Server, seconds: float) -> float:
    # Logprobs too: their code is compiled at the first request that asks, which would be some user's p99.
    body = {
        "model": server.model,
        "messages": [{"role": "user", "content": "Say hello."}],
        "max_tokens": 8,
        "temperature": 0,
        "logprobs": True,
    }
    request = urllib.request.Request(
        f"{server.base_url}/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    begun = time.monotonic()
    try:
        with _open(request, timeout=seconds) as answer:
            json.load(answer)["choices"][0]
    except (OSError, ValueError, LookupError) as error:
        raise EngineError(f"vLLM is up but did not answer a request: {error} (log: {server.log})") from None
    return time.monotonic() - begun


def _last_error(log: Path) -> str:
    lines = [
        line.strip()
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.strip()
    ]
    errors = [line for line in lines if "Error" in line]
    return (errors or lines or ["no output"])[-1][-300:]
