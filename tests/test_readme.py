"""The README's example runs as it stands, against the simulated server through the real OpenAI SDK."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from serving.simulated.run import running

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_first_example_runs(tmp_path: Path) -> None:
    """Copied out and run, it answers the second call from the cache, pays nothing for it and says what it saved."""
    example = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert example is not None
    with running("--model", "gpt-5-mini") as base_url:
        done = subprocess.run(
            [sys.executable, "-c", example[1]], cwd=tmp_path, capture_output=True, text=True, timeout=60,
            env={**os.environ, "OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "none", "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    saving, paid, saved = done.stdout.split()
    assert (saving, float(paid)) == ("exact", 0.0) and float(saved) > 0


def test_files_the_readme_names_exist() -> None:
    """Every relative link and picture of the README leads to a file of the repository."""
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", README)
    assert len(links) >= 4
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_make_targets_the_readme_names_exist() -> None:
    """Every `make TARGET` of the README is a target of the Makefile."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:^ {4}|`)make ([a-z-]+)\b", README, re.MULTILINE))
    assert named >= {"demo", "test", "serve", "record"}
    assert [target for target in named if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []
