"""What exact and semantic caching would have saved of a log, at several bounds, with intervals."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bound import PER_HIT, PER_REQUEST, Bound, Gate
from ..errors import ConfigError
from ..semantic.features import PRIOR
from ..semantic.pool import Meaning
from ..semantic.rehearsal import Asked, Met, Rehearsal
from ..stats import binomial_limits, quantile
from ..stats.blocks import block_mean, block_statistic
from .log import Line, Log

__all__ = ["BOUNDS", "AtBound", "Curve", "Figure", "Replay", "replay"]

BOUNDS = (
    Bound(0.01, PER_HIT), Bound(0.02, PER_HIT), Bound(0.05, PER_HIT),
    Bound(0.01, PER_REQUEST), Bound(0.02, PER_REQUEST),
)  # fmt: skip

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and of how much."""

_PROBES = 32  # questions embedded one by one, to know what a lookup takes here


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure and its 95% interval over time; None for too few rows."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class AtBound:
    """What one gate would have done. Shares are of all rows, money in nano-dollars, latencies in seconds.

    ``hits`` counts answers served by meaning alone, ``net`` is their share; audited ones are no hits. ``wrong`` of them
    differ from the logged answer; ``wrong_share`` is over hits or over all rows, as the bound is, with exact limits.
    ``opened``: the row at which something was first let through. ``saved`` is what exact and semantic hits together
    would have cost, where that is known; ``labels``: how many more the next step waits for, None where no number helps.
    """

    bound: Bound
    net: Figure
    hits: int
    wrong: int
    wrong_share: Figure
    exact_hits: int
    audits: int
    demotions: int
    opened: int | None
    saved: Figure | None
    p95: Figure | None
    labels: int | None


@dataclass(frozen=True, slots=True)
class Curve:
    """Precision against hit rate: of the candidates least likely wrong, so many of all rows, so many of them right."""

    name: str
    hit_rate: tuple[float, ...]
    precision: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Replay:
    """What :func:`replay` found. Money in nano-dollars, latencies and ``lookup`` in seconds, ``span`` in Unix seconds.

    ``differ``: of ``repeats`` identical calls, how many have an answer that the judge tells from the stored one: no
    gate can be surer than that. ``spent`` is over the rows of known cost, ``unpriced`` counts the others. ``ttl`` in
    seconds; ``named`` is the name that says the encoder to costkit, "" the default, None a callable's.
    """

    log: Log
    rows: int
    scopes: int
    encoder: str
    judge: str
    span: tuple[float, float] | None
    exact: Figure
    repeats: int
    differ: int | None
    spent: int | None
    unpriced: int
    exact_saved: Figure | None
    p95: Figure | None
    exact_p95: Figure | None
    lookup: float
    bounds: tuple[AtBound, ...]
    curves: tuple[Curve, ...] = ()
    ttl: float | None = None
    named: str | None = ""

    def to_dict(self) -> dict[str, Any]:
        """As data for JSON: no row's text is in it."""
        log = {
            "where": self.log.where, "name": self.log.name, "columns": self.log.columns.named(),
            "same": list(self.log.columns.same), "left_out": dict(self.log.left_out), "first_bad": self.log.first_bad,
        }  # fmt: skip
        return {**asdict(replace(self, log=None)), "log": log}  # type: ignore[arg-type]


def replay(
    log: Log,
    meaning: Meaning,
    bounds: Sequence[Bound] = BOUNDS,
    *,
    ttl: float | None = None,
    seed: int = 0,
    curves: bool = False,
    progress: Progress | None = None,
) -> Replay:
    """Stream a log through the exact and the semantic tier, at each bound.

    Nothing is called and nothing spent, but for a judge that asks somebody. Rows are taken in the order of time.

    Args:
        meaning: settings, judge and encoder of the tier; its bound is not used.
        ttl: seconds for which a stored answer is served.
        seed: of the coins that choose audits.
        curves: draw precision against hit rate as well (one more pass).

    Raises:
        ConfigError: ttl is given and the log has no times, or there is no bound.
        EncoderError: the encoder gave no usable vectors.
    """
    lines = log.lines
    if not bounds:
        raise ConfigError("replay(bounds=()): give at least one, such as Bound(0.02)")
    if ttl is not None and any(line.at is None for line in lines):
        raise ConfigError(
            f"{log.where}: --ttl needs a time for every row; say --time COLUMN, or leave it out"
        )
    asked = [Asked(line.text, line.truth, line.same, line.tenant, line.at or 0.0) for line in lines]
    tested = [replace(meaning, bound=bound).tested for bound in bounds]
    if not all(bound.max_error > 0 for bound in tested):
        raise ConfigError(
            f"judge {meaning.judge.name}: nobody knows how many wrong answers it misses, so no bound can be kept with "
            "it; measure it first (costkit.judges.measure), or take one that compares, such as same_answer"
        )
    rehearsal = Rehearsal(meaning, asked, ttl=ttl, told=_part(progress, "embedding"))
    gates = [Gate(bound, PRIOR) for bound in tested]
    met = rehearsal.run(gates, seed=seed, told=_part(progress, "replaying"))
    lookup = _lookup(meaning, lines)
    alone = _exact_alone(rehearsal, ttl)
    judged = [rehearsal.wrong(stored, at) for at, stored in alone.items()] if _is_quick(meaning) else None
    hit = np.array([at in alone for at in range(len(lines))])
    books = _Books(lines)
    times = [line.at for line in lines if line.at is not None]
    return Replay(
        log=log, rows=len(lines), scopes=len({line.tenant for line in lines}), encoder=meaning.encoder.id,
        judge=meaning.judge.name, span=(times[0], times[-1]) if len(times) == len(lines) else None,
        exact=_share(hit), repeats=len(alone), differ=None if judged is None else sum(judged),
        spent=books.spent, unpriced=books.unpriced, exact_saved=books.saved(hit),
        p95=books.p95(hit & False, hit & False, 0.0), exact_p95=books.p95(hit & False, hit, 0.0), lookup=lookup,
        bounds=tuple(
            _at_bound(bound, gate, of, books, lookup) for bound, gate, of in zip(bounds, gates, met, strict=True)
        ),
        curves=_curves(rehearsal, tested[0], progress) if curves else (), ttl=ttl, named=_named(meaning),
    )  # fmt: skip


def _named(meaning: Meaning) -> str | None:
    """What ``semantic(encoder=...)`` is given for this encoder."""
    said, known = meaning.settings.encoder, {"all-MiniLM-L6-v2": "", "wordllama": "wordllama"}
    return said if isinstance(said, str) and said != "minilm" else known.get(meaning.encoder.name)


def _at_bound(bound: Bound, gate: Gate, met: list[Met], books: _Books, lookup: float) -> AtBound:
    kinds = np.array([one.kind for one in met])
    served, exact = kinds == "served", kinds == "exact"
    hits, wrong = int(served.sum()), sum(bool(one.wrong) for one in met if one.kind == "served")
    of = hits if bound.per == PER_HIT else len(met)
    limits = binomial_limits(wrong, of) if of else (None, None)
    through = np.flatnonzero(served | (kinds == "audit"))
    return AtBound(
        bound=bound, net=_share(served), hits=hits, wrong=wrong, wrong_share=Figure(wrong / max(1, of), *limits),
        exact_hits=int(exact.sum()), audits=int((kinds == "audit").sum()), demotions=gate.generation,
        opened=int(through[0]) + 1 if len(through) else None, saved=books.saved(served | exact),
        p95=books.p95(served, exact, lookup), labels=gate.standing().next_labels,
    )  # fmt: skip


class _Books:
    """Cost and latency of the rows, as far as they are known."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._cost = np.array([np.nan if line.cost is None else line.cost for line in lines], float)
        self._latency = np.array([np.nan if line.latency is None else line.latency for line in lines], float)
        self.unpriced = int(np.isnan(self._cost).sum())
        self.spent = None if self.unpriced == len(lines) else round(float(np.nansum(self._cost)))

    def saved(self, hit: NDArray[np.bool_]) -> Figure | None:
        """What these rows cost; rows of unknown cost are left out."""
        if self.spent is None:
            return None
        parts = np.where(hit, np.nan_to_num(self._cost), 0.0)
        span = block_mean(parts)
        return Figure(
            float(parts.sum()), *(() if span is None else (span[0] * len(parts), span[1] * len(parts)))
        )

    def p95(self, served: NDArray[np.bool_], exact: NDArray[np.bool_], lookup: float) -> Figure | None:
        """The p95 where served rows take a lookup, exact ones nothing, and all others a lookup more than they took."""
        after = np.where(exact, 0.0, np.where(served, lookup, self._latency + lookup))
        after = after[~np.isnan(self._latency)]
        if not after.size:
            return None
        span = block_statistic(after.size, lambda rows: quantile(after[rows], 0.95))
        return Figure(quantile(after, 0.95), *(span or ()))


def _share(hit: NDArray[np.bool_]) -> Figure:
    return Figure(float(hit.mean()), *(block_mean(hit) or ()))


def _exact_alone(rehearsal: Rehearsal, ttl: float | None) -> dict[int, int]:
    """Rows that are hits of the exact tier where it is the only one, and the rows whose answers they get."""
    stored: dict[tuple[int, int], int] = {}
    found: dict[int, int] = {}
    for number, row in enumerate(rehearsal.rows):
        place = rehearsal.place(number)
        before = stored.get(place)
        if before is not None and (ttl is None or rehearsal.rows[before].at + ttl > row.at):
            found[number] = before
        else:
            stored[place] = number
    return found


def _is_quick(meaning: Meaning) -> bool:
    return meaning.judge.says is None and meaning.judge.score is None


def _lookup(meaning: Meaning, lines: Sequence[Line]) -> float:
    """Seconds that embedding one question takes on this machine: the median of a few that were not seen before."""
    took = []
    step = max(1, len(lines) // _PROBES)
    for number, line in enumerate(lines[::step][:_PROBES]):
        start = time.perf_counter()
        meaning.encoder.one(f"{line.text[:1000]} {number}?")
        took.append(time.perf_counter() - start)
    return quantile(took, 0.5)


def _curves(rehearsal: Rehearsal, bound: Bound, progress: Progress | None) -> tuple[Curve, ...]:
    """With every row in the pool and labelled: candidates by the score as it was before each label, and by cosine."""
    (met,) = rehearsal.run([Gate(bound, PRIOR)], shadow=True, whole=True, told=_part(progress, "drawing"))
    found = [one for one in met if one.candidate is not None and one.passage is not None]
    if not found:
        return ()
    wrong = np.array([bool(one.wrong) for one in found])
    by_score = np.argsort(
        [one.passage.risk or 0.0 for one in found if one.passage is not None], kind="stable"
    )
    by_cosine = np.argsort([-(one.similarity or 0.0) for one in found], kind="stable")
    return (
        _curve("the gate's score", wrong[by_score], len(met)),
        _curve("cosine alone", wrong[by_cosine], len(met)),
    )


def _curve(name: str, wrong: NDArray[np.bool_], rows: int) -> Curve:
    taken = np.arange(1, len(wrong) + 1)
    shown = np.unique(np.linspace(0, len(wrong) - 1, min(len(wrong), 200)).astype(int))
    precision = 1 - np.cumsum(wrong) / taken
    return Curve(name, tuple((taken[shown] / rows).tolist()), tuple(precision[shown].tolist()))


def _part(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(what, done, total)
