"""Texts into unit vectors, embedded once for whoever asks.

What an encoder is given here: nothing (MiniLM, weights installed by pip), a callable of the user's, the name of a
sentence-transformers model that is already on this machine, or a folder with an ONNX model. Nothing is ever downloaded.

>>> import numpy as np
>>> def spell(texts: list[str]) -> list[list[float]]:
...     return [[text.count("a"), text.count("b"), 1.0] for text in texts]
>>> encoder = encoder_of(spell, name="spell/1")
>>> encoder.encode(["abba", "baab"]).tolist() == [encoder.one("abba").tolist()] * 2
True
>>> encoder.id, encoder.dimension
('spell/1 d3', 3)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from costkit.embed.encoder import Encoder, Model, Vectors
from costkit.embed.models import minilm, onnx, sentence_transformer, wordllama
from costkit.errors import ConfigError

__all__ = ["Encoder", "Model", "Vectors", "encoder_of", "minilm", "onnx", "sentence_transformer", "wordllama"]


def encoder_of(what: object = None, *, name: str | None = None) -> Encoder:
    """The encoder that ``what`` names; nothing is loaded before its first use.

    Args:
        what: None or "minilm" (the default: :func:`minilm`), "wordllama" (:func:`wordllama`), any other text (a
            :func:`sentence_transformer` of that name or folder), an :class:`Encoder`, or a callable that takes a list
            of texts and returns one vector each, as anything numpy can read, shape (texts, dimension).
        name: what a callable's vectors are called. Vectors under one name are compared with each other, so give another
            name to another model. A plain function of a module needs none.

    Raises:
        ConfigError: ``what`` is none of these, or a callable whose name does not tell what it is.
        MissingExtra: a package is not installed; the message names the extra.
    """
    if isinstance(what, Encoder):
        return what
    if what is None or what == "minilm":
        return minilm()
    if what == "wordllama":
        return wordllama()
    if isinstance(what, str):
        return sentence_transformer(what)
    if not callable(what):
        raise ConfigError(
            f"encoder={type(what).__name__}: give a callable from a list of texts to vectors, a name, or nothing"
        )
    if inspect.iscoroutinefunction(what) or inspect.iscoroutinefunction(getattr(what, "__call__", None)):  # noqa: B004
        raise ConfigError(
            "encoder=: an async function; give a plain one, costkit calls it off the event loop"
        )
    return _of_callable(what, name or _named(what))


def _of_callable(call: Callable[[list[str]], Any], name: str) -> Encoder:
    if not name.isprintable() or len(name) > 200:
        raise ConfigError(f"encoder name={name!r:.40}: printable text of at most 200 characters is needed")
    return Encoder(name, lambda: Model(name, None, call))


def _named(call: object) -> str:
    """What tells a module's function from others; a lambda, a method or an object may hold any model."""
    plain = inspect.isfunction(call) and "<" not in call.__qualname__
    if not plain:
        raise ConfigError(
            "encoder=: costkit cannot tell this callable's model from another one's, and vectors of two models must "
            'not meet; say costkit.embed.encoder_of(callable, name="the model and its version")'
        )
    return f"{call.__module__}.{call.__qualname__}"  # type: ignore[attr-defined]
