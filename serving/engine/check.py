"""Ask the installed vLLM's own parser whether it takes a profile, without starting anything (about 8 seconds)."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from serving.engine.install import SETUP
from serving.engine.layout import EngineError, Layout
from serving.engine.profile import Profile


def check(layout: Layout, profiles: Sequence[Profile]) -> dict[str, str | None]:
    """For each profile ``None``, or what vLLM's parser has against it.

    Raises:
        EngineError: the engine's environment is not there, or its parser could not be asked.
    """
    lines = [
        [*([] if "model" in one.flags else ["some-model"]), "--config", str(one.path)] for one in profiles
    ]
    return dict(zip((one.name for one in profiles), complaints(layout, lines), strict=True))


def complaints(layout: Layout, lines: Sequence[Sequence[str]]) -> list[str | None]:
    """The same for whole command lines, each the words after ``vllm serve``."""
    if not layout.python.exists():
        raise EngineError(f"vLLM is not set up here, so nobody knows its flags; first: {SETUP}")
    done = subprocess.run(
        [str(layout.python), "-P", str(Path(__file__).with_name("flags.py"))],
        input=json.dumps([list(line) for line in lines]),
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"VLLM_NO_USAGE_STATS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    try:
        faults: list[str | None] = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise EngineError(f"vLLM's parser could not be asked: {last[:200]}") from None
    return faults
