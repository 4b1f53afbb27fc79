"""The assistant as `costkit gold run` imports it: what its cache takes for the same question."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "serving" / "assistant" / "docs"


def version_of(folder: Path, **settings: str) -> str:
    """The version under which a fresh process would file its answers."""
    hidden = {"OPENAI_API_KEY", "OPENAI_BASE_URL", "COSTKIT_MODEL", "COSTKIT_DOCS"}
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    program = "from serving.assistant.app import ask; print(ask._plan.version)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
        env={**environment, "COSTKIT_FOLDER": str(folder), **settings},
    )  # fmt: skip
    return done.stdout.strip()


def test_another_model_or_article_is_another_answer(tmp_path: Path) -> None:
    """Answers of one model, server or set of articles are never served for another's."""
    docs = tmp_path / "docs"
    docs.mkdir()
    for source in sorted(DOCS.glob("*.md"))[:3]:
        (docs / source.name).write_bytes(source.read_bytes())
    usual = version_of(tmp_path / "kit", COSTKIT_DOCS=str(docs))
    assert version_of(tmp_path / "kit", COSTKIT_DOCS=str(docs)) == usual
    others = [version_of(tmp_path / "kit", COSTKIT_DOCS=str(docs), COSTKIT_MODEL="another")]
    others += [version_of(tmp_path / "kit", COSTKIT_DOCS=str(docs), OPENAI_BASE_URL="http://127.0.0.1:9/v1")]
    edited = sorted(docs.glob("*.md"))[0]
    edited.write_text(edited.read_text() + "\nIt is now 99 days.\n")
    others += [version_of(tmp_path / "kit", COSTKIT_DOCS=str(docs))]
    assert len({usual, *others}) == 4
