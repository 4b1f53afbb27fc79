"""Profiles: how vLLM is started, as files that people read, ``serving/profiles/NAME.yaml`` with ``NAME.env``.

The YAML is vLLM's own ``--config`` file and goes to vLLM unread but for a few lines; here it is only checked, so that
a slip is one line now and not a stack trace after ten seconds.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from serving.engine.layout import EngineError

FOLDER = Path(__file__).resolve().parents[1] / "profiles"
NAMES = ("ci", "local", "gpu", "ray")
_LINE = re.compile(r"([a-z][a-z0-9-]*):(?:\s+(.*))?")
_VARIABLE = re.compile(r"([A-Z][A-Z0-9_]*)=(.*)")
# Said by the engine itself, or a secret that belongs into no file of settings.
_NOT_HERE = {
    "host": "--port alone is free, the host is loopback",
    "port": "give --port",
    "api-key": "keys stay out",
}


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile as read: ``flags`` are the top-level lines of the YAML (values as written), ``env`` its variables."""

    name: str
    path: Path
    flags: Mapping[str, str]
    env: Mapping[str, str]

    @property
    def plain(self) -> bool:
        """Whether it is for a plain vLLM, outside this project's environment: those name their model themselves."""
        return "model" in self.flags

    @property
    def dtype(self) -> str:
        """The number type of weights and activations, "auto" where the profile does not say."""
        return self.flags.get("dtype", "auto")


def load(name: str) -> Profile:
    """The profile called ``name`` (one of `NAMES`), or the one in a file of that path.

    Raises:
        EngineError: there is no such profile, or a line of it cannot be read; the message names file and line.

    >>> load("ci").dtype
    'float32'
    """
    path = FOLDER / f"{name}.yaml" if name in NAMES else Path(name)
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        raise EngineError(f"no profile {name!r}: give {', '.join(NAMES)} or the path of a .yaml file")
    beside = path.with_suffix(".env")
    env = _variables(beside) if beside.is_file() else {}
    return Profile(name if name in NAMES else path.stem, path.resolve(), _flags(path), env)


def fill(env: Mapping[str, str], **values: str) -> dict[str, str]:
    """``env`` with its placeholders replaced; a variable that ends up empty is left out.

    >>> fill({"BIND": "{cores}", "LD_PRELOAD": "{preload}"}, cores="0,1", preload="")
    {'BIND': '0,1'}
    """
    try:
        filled = {name: value.format(**values) for name, value in env.items()}
    except (KeyError, IndexError, ValueError):
        known = ", ".join("{" + name + "}" for name in values)
        raise EngineError(f"a profile's .env holds a placeholder other than {known}") from None
    return {name: value for name, value in filled.items() if value}


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EngineError(f"{path} cannot be read as text: {error}") from None
    if any(char not in string.printable and not char.isprintable() for char in text):
        raise EngineError(f"{path} holds control characters: this is no profile")
    return [
        (n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip() and line.strip()[0] != "#"
    ]


def _flags(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, line in _lines(path):
        if line[0] == " ":
            continue  # the inside of a nested value, which vLLM reads
        match = _LINE.fullmatch(line.rstrip())
        if not match:
            raise EngineError(
                f"{path}, line {number}: not `flag: value` with a long flag of `vllm serve`: {line:.60}"
            )
        name, value = match[1], (match[2] or "").split(" #")[0].strip().strip("\"'")
        if name in _NOT_HERE:
            raise EngineError(f"{path}, line {number}: {name} has no place in a profile ({_NOT_HERE[name]})")
        if name in found:
            raise EngineError(f"{path}, line {number}: {name} is there twice")
        found[name] = value
    if not found:
        raise EngineError(f"{path} holds no flag")
    return found


def _variables(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, line in _lines(path):
        match = _VARIABLE.fullmatch(line.strip())
        if not match:
            raise EngineError(f"{path}, line {number}: not NAME=value")
        if match[1].endswith(("_KEY", "_TOKEN")):
            raise EngineError(
                f"{path}, line {number}: {match[1]} looks like a key, and keys stay out of files"
            )
        found[match[1]] = match[2]
    return found
