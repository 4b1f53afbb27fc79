"""What else could decide which stored answer to serve, on the same streams and with the same exact tier before it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from .entry import Entry
from .near import Near
from .rows import OUT_OF_SCOPE, Ints, Stream
from .tally import Tally

__all__ = ["THRESHOLDS", "any_right", "nearest_right", "per_entry", "same_texts", "static"]

Bools = npt.NDArray[np.bool_]

THRESHOLDS = np.append(np.linspace(0.5, 0.995, 100), 2.0)
"""Cosines tried as the one threshold; above the last one nothing is ever served."""

_NONE = -2


def same_texts(texts: list[str]) -> Ints:
    """A number for each text, equal for equal ones."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(text, len(numbers)) for text in texts], dtype=np.int64)


def static(near: Near, stream: Stream, same: Ints) -> list[Tally]:
    """One tally for each of :data:`THRESHOLDS`: the nearest stored answer is served if it is that near.

    A question is stored only when it was not served, as in a cache that is really used. All thresholds walk at once.
    """
    size = len(THRESHOLDS)
    stored = np.zeros((len(stream), size), dtype=np.bool_)
    known = np.full((int(same.max()) + 1, size), _NONE, dtype=np.int64)
    exact, hits, wrong, wrong_exact = np.zeros((4, size), dtype=np.int64)
    for t, truth in enumerate(stream.answers):
        free = np.ones(size, dtype=np.bool_)
        if t >= stream.known:
            identical = known[same[t]] != _NONE
            exact += identical
            wrong_exact += identical & (known[same[t]] != truth)
            found, cosine = _nearest_stored(near, t, stored)
            hit = ~identical & (cosine >= THRESHOLDS)
            hits += hit
            wrong += hit & (stream.answers[found] != truth)
            free = ~identical & ~hit
        if truth != OUT_OF_SCOPE:
            stored[t] = free
            known[same[t], free] = truth
    return [
        Tally(stream.asked, *(int(count[i]) for count in (exact, hits, wrong, wrong_exact)))
        for i in range(size)
    ]


def _nearest_stored(near: Near, t: int, stored: Bools) -> tuple[Ints, npt.NDArray[np.float64]]:
    """For each threshold the nearest question stored under it, and its cosine; -inf where that is below it anyway."""
    size = stored.shape[1]
    found, cosine = np.zeros(size, dtype=np.int64), np.full(size, -np.inf)
    order = near.order[t][near.order[t] >= 0]
    if not len(order):
        return found, cosine
    first = stored[order].argmax(axis=0)
    there = stored[order[first], np.arange(size)]
    found[there], cosine[there] = order[first[there]], near.cosine[t][first[there]]
    # None of the k nearest is stored: one further away counts where even that may pass the threshold.
    rest = np.flatnonzero(~there & (near.cosine[t][len(order) - 1] >= THRESHOLDS))
    if len(rest) and len(order) < t:
        table = np.where(stored[:t, rest].T, near.all_before(t)[None, :], -np.inf)
        found[rest] = table.argmax(axis=1)
        cosine[rest] = table.max(axis=1)
    return found, cosine


Rule = Callable[[int, Bools], tuple[int | None, bool]]
"""Of question t and what is stored: the question whose answer to serve, if any, and else whether to store this one."""


def _played(stream: Stream, same: Ints, rule: Rule) -> Tally:
    """One rule behind the exact tier, which every answer of the model enters."""
    stored = np.zeros(len(stream), dtype=np.bool_)
    known: dict[int, int] = {}
    exact = hits = wrong = wrong_exact = 0
    for t, truth in enumerate(stream.answers.tolist()):
        text = int(same[t])
        if t >= stream.known and text in known:
            exact += 1
            wrong_exact += known[text] != truth
            continue
        keep = True
        if t >= stream.known:
            serve, keep = rule(t, stored)
            if serve is not None:
                hits += 1
                wrong += int(stream.answers[serve]) != truth
                continue
        if truth != OUT_OF_SCOPE:
            stored[t] = keep
            known[text] = truth
    return Tally(stream.asked, exact, hits, wrong, wrong_exact)


def any_right(stream: Stream, same: Ints) -> Tally:
    """Serve exactly when a stored answer is right, however far its question lies: no cache can do more."""
    held: set[int] = set(stream.answers[: stream.known].tolist()) - {OUT_OF_SCOPE}
    holder = {int(stream.answers[t]): t for t in range(stream.known)}

    def rule(t: int, stored: Bools) -> tuple[int | None, bool]:
        truth = int(stream.answers[t])
        if truth in held:
            return holder[truth], False
        if truth != OUT_OF_SCOPE:
            held.add(truth)
            holder[truth] = t
        return None, True

    return _played(stream, same, rule)


def nearest_right(near: Near, stream: Stream, same: Ints) -> Tally:
    """Serve exactly when the nearest stored answer is right: what a perfect judge of the candidate would do."""

    def rule(t: int, stored: Bools) -> tuple[int | None, bool]:
        found = _candidate(near, t, stored)
        right = found is not None and stream.answers[found[0]] == stream.answers[t]
        return (found[0], False) if found is not None and right else (None, True)

    return _played(stream, same, rule)


def per_entry(near: Near, stream: Stream, same: Ints, max_error: float, seed: int) -> Tally:
    """A threshold of its own for each entry (:class:`Entry`), whose promise is per request.

    A question that the model answered is stored where it had no candidate, or its candidate was wrong.
    """
    rng = np.random.default_rng([seed, 1])
    entries: dict[int, Entry] = {}

    def rule(t: int, stored: Bools) -> tuple[int | None, bool]:
        found = _candidate(near, t, stored)
        if found is None:
            return None, True
        j, cosine = found
        entry = entries.setdefault(j, Entry())
        if rng.random() >= entry.doubt(cosine, max_error):
            return j, False
        right = bool(stream.answers[j] == stream.answers[t])
        entry.learn(cosine, right)
        return None, not right

    return _played(stream, same, rule)


def _candidate(near: Near, t: int, stored: Bools) -> tuple[int, float] | None:
    """The nearest stored question and its cosine."""
    order = near.order[t][near.order[t] >= 0]
    among = np.flatnonzero(stored[order])
    if len(among):
        return int(order[among[0]]), float(near.cosine[t][among[0]])
    if len(order) == t or not stored[:t].any():
        return None
    before = np.where(stored[:t], near.all_before(t), -np.inf)
    j = int(before.argmax())
    return j, float(before[j])
