"""The types of the public API, as mypy and pyright see them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILE = "tests/typing/api.py"


def check(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, cwd=ROOT)


def test_mypy_agrees() -> None:
    """mypy --strict accepts every right line of tests/typing/api.py and finds every wrong one."""
    done = check("mypy", "--strict", "--warn-unused-ignores", "--follow-imports=silent", FILE)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(importlib.util.find_spec("pyright") is None, reason="pyright is not installed")
def test_pyright_agrees() -> None:
    """pyright, with unnecessary ignores as errors, agrees line by line."""
    done = check(
        "pyright", "--pythonpath", sys.executable, "-p", "tests/typing/pyrightconfig.json", "--outputjson"
    )
    report = json.loads(done.stdout)
    assert report["generalDiagnostics"] == []
    assert report["summary"]["filesAnalyzed"] == 1 and done.returncode == 0
