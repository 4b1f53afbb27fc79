"""How much of a machine one prompt token and one output token take, fitted from the requests of a load run.

An engine with continuous batching computes many answers in one step, so no request has a time of its own. What adds up
is the machine's busy time. It is divided in two steps:

1. A prompt token that is not cached delays the first token by the time the machine needs for it, whoever else is there.
   So the delay is regressed on uncached tokens, cached tokens and two figures for waiting: the requests in flight ahead
   and the uncached tokens of those among them that have no first token yet. None of the four may be negative; the
   constant may, because waiting grows faster than in proportion to who is ahead.
2. What is then left of the busy time was spent on output tokens. A token costs less the more answers share a step:
   the figure holds at the load of the run.

Intervals are percentile intervals of a moving-block bootstrap over requests in the order they were sent, because
neighbours in a queue are not independent (Künsch, Annals of Statistics 17, 1989).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from costkit.stats import Values
from loadtests.sample import Sample

FEWEST = 60  # requests with usage; below, an interval would say more than the data do
REPEATS = 1000
_COLUMNS = 4  # uncached tokens, cached tokens, requests ahead, uncached tokens ahead
_SUBSETS = [
    list(chosen)
    for size in range(1, _COLUMNS + 1)
    for chosen in itertools.combinations(range(_COLUMNS), size)
]
Limits = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Weights:
    """Seconds of the whole machine per token, each with its limits; ``requests`` is how many they were fitted from."""

    fresh: float
    cached: float
    output: float
    fresh_limits: Limits
    cached_limits: Limits
    output_limits: Limits
    requests: int
    confidence: float


@dataclass(frozen=True, slots=True)
class Run:
    """The requests that reached the engine, in the order they were sent, as columns.

    ``delay`` is seconds from sending to the first token, ``ahead`` how many others were in flight when it was sent,
    ``backlog`` the uncached tokens of those of them that had no first token yet,
    ``share`` the seconds of the machine that fall to the request if all in flight share it alike. ``seconds`` is the
    length of the run, ``busy`` how long at least one request was in flight. ``lost`` is the share of requests whose
    tokens nobody reported (errors and cut streams), ``spared`` how many were answered without the
    engine.
    """

    delay: Values
    fresh: Values
    cached: Values
    output: Values
    ahead: Values
    backlog: Values
    share: Values
    seconds: float
    busy: float
    lost: float
    spared: int


def columns(samples: Iterable[Sample]) -> Run:
    """Sort the samples of a run and divide its busy time among them.

    Raises:
        ValueError: too few of them report their tokens; the message says how many are needed.

    >>> two = [Sample(0, "a", 0.0, 0.0, 2.0, first=1.0, last=2.0, prompt_tokens=9, output_tokens=5)] * 60
    >>> run = columns(two)
    >>> run.busy, round(float(run.share[0]), 4), run.lost
    (2.0, 0.0333, 0.0)
    """
    everything = sorted(samples, key=lambda one: (one.sent, one.id))
    worked = [one for one in everything if not _spared(one)]
    told = np.array([_told(one) for one in worked], dtype=bool)
    if told.sum() < FEWEST:
        raise ValueError(
            f"{int(told.sum())} requests report their tokens, {FEWEST} are needed: make the run longer"
        )
    sent = np.array([one.sent for one in worked])
    ended = np.array([one.ended for one in worked])
    share, ahead, busy = _divide(sent, np.maximum(ended, sent))
    kept = [one for one, good in zip(worked, told, strict=True) if good]
    cached = np.array([float(one.cached_tokens or 0) for one in kept])
    start = min(min(one.intended, one.sent) for one in everything)
    fresh = np.array([float(one.prompt_tokens or 0) for one in kept]) - cached
    return Run(
        delay=np.array([(one.first or 0.0) - one.sent for one in kept]),
        fresh=fresh,
        cached=cached,
        output=np.array([float(one.output_tokens or 0) for one in kept]),
        ahead=ahead[told],
        backlog=_backlog(kept, fresh),
        share=share[told],
        seconds=max(one.ended for one in everything) - start,
        busy=busy,
        lost=1 - float(told.mean()),
        spared=len(everything) - len(worked),
    )


def fit(run: Run, *, confidence: float = 0.95, seed: int = 0) -> Weights:
    """The weights of a run and their limits; seeded.

    Raises:
        ValueError: all prompts have about the same number of uncached tokens, so that their time cannot be told from
            waiting.
    """
    spread = float(run.fresh.std())
    if spread < 0.05 * max(1.0, float(run.fresh.mean())):
        raise ValueError(
            "all prompts have about as many uncached tokens, so their time cannot be told from waiting: "
            "offer prompts of different lengths"
        )
    sums = _sums(run)
    a, c, b = (float(one) for one in _weights(sums.sum(axis=0)[None])[0])
    drawn = _weights(np.array(list(_resampled(sums, seed))))
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    fresh, cached, output = ((float(one), float(other)) for one, other in zip(low, high, strict=True))
    return Weights(a, c, b, fresh, cached, output, len(run.fresh), confidence)


def _spared(one: Sample) -> bool:
    """Answered without the engine: by a saving, or by a service that needed no model for it."""
    return one.saving is not None or (one.error is None and one.prompt_tokens == 0 and one.output_tokens == 0)


def _told(one: Sample) -> bool:
    return (
        one.error is None
        and one.first is not None
        and one.prompt_tokens is not None
        and bool(one.output_tokens)
    )


def _divide(sent: Values, ended: Values) -> tuple[Values, Values, float]:
    """Each request's share of the busy time, how many were in flight before it, and the busy time, in seconds."""
    times = np.concatenate([sent, ended])
    change = np.concatenate([np.ones(len(sent)), -np.ones(len(ended))])
    # At equal times ends come first, so that one request after another never counts as two at once.
    order = np.lexsort((change, times))
    at, flying = times[order], np.cumsum(change[order])
    lasted = np.diff(at, append=at[-1])
    paid = np.concatenate([[0.0], np.cumsum(np.where(flying > 0, lasted / np.maximum(flying, 1), 0.0))])
    place = np.empty(len(times), dtype=np.int64)
    place[order] = np.arange(len(times))
    first, last = place[: len(sent)], place[len(sent) :]
    return paid[last] - paid[first], flying[first] - 1, float(lasted[flying > 0].sum())


def _backlog(kept: Sequence[Sample], fresh: Values) -> Values:
    """Uncached tokens of earlier requests without a first token at the moment each request was sent."""
    sent = np.array([one.sent for one in kept])
    first = np.array([one.first or 0.0 for one in kept])
    order = np.argsort(first, kind="stable")
    begun = np.concatenate([[0.0], np.cumsum(fresh[order])])
    before = np.concatenate([[0.0], np.cumsum(fresh)])[:-1]
    waiting: Values = before - begun[np.searchsorted(first[order], sent, side="right")]
    return waiting


def _sums(run: Run) -> Values:
    """For each request the products that the fit adds up: a 6 x 6 matrix (regressors, delay) and four totals, flat."""
    rows = np.column_stack(
        [np.ones_like(run.delay), run.fresh, run.cached, run.ahead, run.backlog, run.delay]
    )
    products = (rows[:, :, None] * rows[:, None, :]).reshape(len(rows), -1)
    return np.column_stack([products, run.fresh, run.cached, run.output, run.share])


def _resampled(sums: Values, seed: int) -> Iterable[Values]:
    """Totals of moving-block bootstrap samples, blocks of about the square root of the number of requests."""
    number = len(sums)
    length = max(1, round(number**0.5))
    blocks = -(-number // length)
    circle = np.concatenate(
        [np.zeros((1, sums.shape[1])), np.cumsum(np.vstack([sums, sums[:length]]), axis=0)]
    )
    rng = np.random.default_rng(seed)
    for _ in range(REPEATS):
        starts = rng.integers(0, number, blocks)
        yield (circle[starts + length] - circle[starts]).sum(axis=0)


def _weights(totals: Values) -> Values:
    """Seconds per uncached, cached and output token, a row each, from rows of summed products."""
    size = _COLUMNS + 2
    gram = totals[:, : size * size].reshape(-1, size, size)
    fresh, cached, output, busy = totals[:, size * size :].T
    # takes the constant out
    centred = gram[:, 1:, 1:] - gram[:, 0, 1:, None] * gram[:, 0, None, 1:] / gram[:, 0, 0, None, None]
    found = non_negative(centred[:, :_COLUMNS, :_COLUMNS], centred[:, :_COLUMNS, _COLUMNS])
    prompts = found[:, 0] * fresh + found[:, 1] * cached
    # Prompts alone cannot fill more than the machine's busy time: then only their ratio is known.
    scale = np.minimum(1.0, busy / np.maximum(prompts, 1e-300))
    return np.column_stack([found[:, 0] * scale, found[:, 1] * scale, (busy - prompts * scale) / output])


def non_negative(gram: Values, towards: Values) -> Values:
    """Coefficients ``w >= 0`` that minimise ``w G w - 2 w t``, a row each: least squares from its normal equations.

    ``gram`` has shape (n, k, k) and ``towards`` (n, k). Exact: every set of columns that may be in use is tried, which
    for four columns is quicker than an iteration.

    >>> non_negative(np.eye(4)[None], np.array([[1.0, -2.0, 0.5, 3.0]])).round(6).tolist()
    [[1.0, 0.0, 0.5, 3.0]]
    """
    scale = np.sqrt(np.maximum(np.diagonal(gram, axis1=1, axis2=2), 1e-300))
    scaled, aim = gram / (scale[:, :, None] * scale[:, None, :]), towards / scale
    best, least = np.zeros_like(towards), np.zeros(len(towards))
    for chosen in _SUBSETS:
        # A trace on the diagonal, for columns that are zero or another's multiple: a smaller set holds the same fit.
        part = scaled[:, chosen][:, :, chosen] + 1e-10 * np.eye(len(chosen))
        found = np.linalg.solve(part, aim[:, chosen, None])[..., 0]
        loss = -(found * aim[:, chosen]).sum(axis=1)
        better = (found >= 0).all(axis=1) & (loss < least - 1e-12)
        best[better], least[better] = 0.0, loss[better]
        best[np.ix_(better, chosen)] = found[better]
    return np.asarray(best / scale, dtype=np.float64)
