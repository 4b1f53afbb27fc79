"""What is run: the command line and the environment of a vLLM server."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from serving.engine.layout import SERVED_NAMES, EngineError, Layout
from serving.engine.profile import Profile, fill

HOST = "127.0.0.1"
# Where Debian and Ubuntu keep the allocator of the package libtcmalloc-minimal4.
TCMALLOC = Path("/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4")


def command(layout: Layout, model: str, port: int, profile: Profile, extra: Sequence[str] = ()) -> list[str]:
    """vLLM's command line for a model of `SERVED_NAMES` on ``port``; flags in ``extra`` beat the profile's."""
    launcher = Path(__file__).with_name("launch.py")
    line = [str(layout.python), "-P", str(launcher), "serve", str(layout.model(model))]
    line += ["--config", str(profile.path), "--served-model-name", SERVED_NAMES[model]]
    return [*line, *at(port), *extra]


def gpu_command(profile: Profile, model: str | None, port: int, extra: Sequence[str] = ()) -> list[str]:
    """The command line of a plain vLLM, which is found in ``COSTKIT_VLLM`` or on the PATH.

    Raises:
        EngineError: this machine has no NVIDIA driver or no vLLM.
    """
    if not shutil.which("nvidia-smi"):
        raise EngineError(
            "no NVIDIA driver on this machine (nvidia-smi is missing); "
            "without a GPU: python3 -m serving.engine serve --profile local"
        )
    vllm = shutil.which(os.environ.get("COSTKIT_VLLM") or "vllm")
    if not vllm:
        raise EngineError(
            "no `vllm` on the PATH; in an environment of its own: pip install vllm==0.32.0, "
            "then activate it or name the program: COSTKIT_VLLM=/path/to/vllm"
        )
    # A model of one's own must not answer under the profile's name.
    named = [] if model is None else [model, "--served-model-name", model]
    return [vllm, "serve", *named, "--config", str(profile.path), *at(port), *extra]


def at(port: int) -> list[str]:
    """Where a server listens: on the loopback interface alone."""
    return ["--host", HOST, "--port", str(port)]


def environment(
    layout: Layout,
    profile: Profile,
    scratch: str,
    inherited: Mapping[str, str],
    *,
    alone: bool = True,
) -> dict[str, str]:
    """The server's environment: no network but loopback, caches inside the checkout.

    What the user has set for ``VLLM_CPU_*`` stands, then the profile's variables. With ``alone=False`` the server has
    one thread and takes any core, because others run beside it.
    """
    cores = ",".join(str(core) for core in sorted(os.sched_getaffinity(0)))
    defaults = fill(profile.env, cores=cores, preload=preload(layout))
    if not alone:
        defaults |= {
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
        }
    if not alone or not shutil.which("g++", path=inherited.get("PATH", "")):
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
    return defaults | _kept(inherited) | fixed


def gpu_environment(profile: Profile, scratch: str, inherited: Mapping[str, str]) -> dict[str, str]:
    """The environment of a plain vLLM: the user's own, model hub included, with the profile's variables."""
    return fill(profile.env) | _kept(inherited) | {"TMPDIR": scratch, "VLLM_RPC_BASE_PATH": scratch}


def _kept(inherited: Mapping[str, str]) -> dict[str, str]:
    # VLLM_API_KEY would lock the loopback server against the demo and the tests.
    dropped = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "VLLM_API_KEY"}
    return {name: value for name, value in inherited.items() if name not in dropped}


def preload(layout: Layout) -> str:
    """The libraries that make the CPU build faster and are here, as ``LD_PRELOAD`` wants them."""
    found = [path for path in (TCMALLOC, layout.venv / "lib" / "libiomp5.so") if path.is_file()]
    return ":".join(str(path) for path in found)


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
