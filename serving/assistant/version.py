"""What an answer of the assistant depends on beside its question, as a short digest."""

from __future__ import annotations

import hashlib
from pathlib import Path

__all__ = ["version_of"]


def version_of(docs: Path, model: str, url: str | None) -> str:
    """Changes with the model, the server asked, the articles and the assistant's own code."""
    files = [*(p for p in docs.rglob("*") if p.is_file()), *Path(__file__).parent.glob("*.py")]
    told = hashlib.sha256(f"{model}\n{url}\n".encode())
    for file in sorted(files):
        told.update(f"{file.name}\n".encode() + hashlib.sha256(file.read_bytes()).digest())
    return told.hexdigest()[:12]
