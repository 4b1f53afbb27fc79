"""What a user writes to put the semantic tier on a call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from costkit.errors import ConfigError
from costkit.marks import KINDS, VETO

__all__ = ["Semantic", "semantic"]


@dataclass(frozen=True, slots=True)
class Semantic:
    """Settings of the semantic tier; made by :func:`semantic`."""

    text: str
    encoder: Any = None
    sources: str | None = None
    veto: tuple[str, ...] = VETO
    admit: Callable[[Any], bool] | None = None
    sightings: int = 1
    max_error: float | None = None
    per: str | None = None
    confidence: float | None = None
    audit: float | None = None
    judge: Any = None

    kind: str = "semantic"
    lossless: bool = False


def semantic(
    text: str,
    *,
    encoder: Any = None,
    sources: str | None = None,
    veto: tuple[str, ...] | list[str] = VETO,
    admit: Callable[[Any], bool] | None = None,
    sightings: int = 1,
    max_error: float | None = None,
    per: str | None = None,
    confidence: float | None = None,
    audit: float | None = None,
    judge: Any = None,
) -> Semantic:
    """Serve the stored answer to a call that means the same, once the gate has certified that it may.

    Until then it is in shadow: every call is made, every candidate labelled by the judge, nothing served.

    Args:
        text: the argument whose meaning may stand for it: text, or a list of chat messages, of which the last one's
            text is claimed and all before it stay as they are. Every other argument must be identical: another system
            prompt, model, tool list or temperature never shares an answer.
        encoder: what turns texts into vectors: a callable ``list[str] -> array (n, d)``, or a name that
            :mod:`costkit.embed` knows. Default: its default encoder.
        sources: an argument with retrieved passages that vary with the phrasing: texts, (id, text) pairs, or mappings
            and objects with an id and a text. It is left out of what must be identical; how many passages two calls
            share counts in the score instead, and no answer is served that was made from a passage which is at hand
            now, by its id, with another text. Bump the epoch of the knowledge base (``exact(epoch=...)``) when
            documents change: of a passage that was not retrieved again nothing is known.
        veto: in what the two questions may never differ (:data:`costkit.marks.KINDS`): numbers, ids, dates and quoted
            spans unless you say otherwise; ``()``: nothing, then they only count in the score.
        admit: called with an answer (of a stream the one that its chunks make), says whether it may stand for another
            call; on top of ``exact(admit=...)``. Answers that are cut off, or refuse in the usual phrases, never do.
        sightings: how many calls must have given an answer before it may be served to another question: its own, and
            calls of others that the judge found to agree with it. They are calls, not callers: somebody who asks often
            is counted often.
        max_error, per, confidence, audit, judge: this saving's own; default what ``kit.call(...)`` says.

    Raises:
        ConfigError: text is no name, a veto is unknown, sightings is no count.

    >>> semantic("question").text
    'question'
    """
    if not isinstance(text, str) or not text:
        raise ConfigError(
            'semantic(text): name the argument whose meaning may stand for it, semantic("question")'
        )
    if isinstance(veto, str) or not all(kind in KINDS for kind in veto):
        raise ConfigError(f"semantic(veto={veto!r}): give a tuple of {', '.join(KINDS)}")
    if admit is not None and not callable(admit):
        raise ConfigError(
            "semantic(admit=...): give a function that is called with the answer and returns a bool"
        )
    if not isinstance(sightings, int) or isinstance(sightings, bool) or sightings < 1:
        raise ConfigError(f"semantic(sightings={sightings!r}): give a count of calls, 1 or more")
    if sources is not None and (not isinstance(sources, str) or sources == text):
        raise ConfigError(f"semantic(sources={sources!r}): name the argument with the passages")
    return Semantic(
        text, encoder, sources, tuple(veto), admit, sightings, max_error, per, confidence, audit, judge
    )
