"""The vectors of all questions, made once for all rules and seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from costkit import embed
from costkit.embed import Encoder, Model
from costkit.errors import CostkitError

from .near import Floats

__all__ = ["embedded", "encoder_named", "encoders", "recalled"]

_BATCH = 64


def encoder_named(name: str) -> Encoder:
    """An encoder by what the command line says: a folder with an ONNX model, or a name that costkit.embed knows."""
    if (Path(name) / "model.onnx").exists():
        return embed.onnx(name)
    return embed.encoder_of(None if name == "default" else name)


def encoders(gate: str, more: Sequence[str]) -> tuple[list[Encoder], dict[str, str]]:
    """The gate's encoder, then those of ``more`` that can be had; of the others the reason why not.

    Raises:
        CostkitError: the gate's own cannot be had.
    """
    found, missing = [encoder_named(gate)], {}
    found[0].encode(["a question"])
    for name in more:
        try:
            encoder = encoder_named(name)
            encoder.encode(["a question"])
        except CostkitError as exc:
            missing[name] = str(exc)
            continue
        if encoder.id not in [other.id for other in found]:
            found.append(encoder)
    return found, missing


def embedded(encoder: Encoder, texts: Sequence[str], step: Callable[[int], None]) -> Floats:
    """The unit vectors of the texts, shape (n, d); ``step`` is told how many are done."""
    parts = []
    for start in range(0, len(texts), _BATCH):
        parts.append(encoder.encode(texts[start : start + _BATCH]))
        step(min(len(texts), start + _BATCH))
    return np.concatenate(parts)


def recalled(name: str, texts: Sequence[str], vectors: Floats) -> Encoder:
    """An encoder that knows the vectors of these texts and no others."""
    at = {text: i for i, text in enumerate(texts)}
    dimension = int(vectors.shape[1])
    model = Model(name, dimension, lambda asked: vectors[[at[text] for text in asked]])
    return Encoder(name, lambda: model, id=name, dimension=dimension)
