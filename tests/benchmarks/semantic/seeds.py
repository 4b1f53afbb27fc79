"""One seed: every rule on the same stream."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np

from . import baselines
from . import stream as costkit_stream
from .near import Floats, near
from .rows import Ints, Rows, Stream, after, joined, stream
from .stream import Bound, Run
from .tally import Tally
from .vectors import recalled

__all__ = ["Job", "Ruled", "Seed", "every", "run"]


@dataclass(frozen=True, slots=True)
class Job:
    """What a seed needs. ``vectors`` maps an encoder's name to a file of float32, shape (rows and gold, d), and to d;
    the first one is the gate's. ``size`` rows are asked, None: all."""

    rows: Rows
    gold: Rows | None
    vectors: Mapping[str, tuple[str, int]]
    bound: Bound
    size: int | None
    drift: bool

    @property
    def everything(self) -> Rows:
        """The rows, then gold's."""
        return self.rows if self.gold is None else joined(self.rows, self.gold)


@dataclass(frozen=True, slots=True)
class Ruled:
    """What one encoder's baselines did."""

    static: list[Tally]
    per_entry: Tally
    nearest_right: Tally


@dataclass(frozen=True, slots=True)
class Seed:
    """The runs of one seed; the ``seeded`` ones began with the gold answers stored."""

    seed: int
    cold: Run
    seeded: Run | None
    any_right: Tally
    any_right_seeded: Tally | None
    ruled: Mapping[str, Ruled]
    ruled_seeded: Mapping[str, Ruled]


def every(job: Job, seeds: Sequence[int], jobs: int) -> Iterator[Seed]:
    """The seeds' results as they come, from ``jobs`` processes (0: from this one)."""
    if jobs <= 1:
        yield from (run(job, seed) for seed in seeds)
        return
    # Each process has its own core; threads of a matrix product would take the other one's.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        waiting = [pool.submit(run, job, seed) for seed in seeds]
        try:
            for done in as_completed(waiting):
                yield done.result()
        finally:
            pool.shutdown(cancel_futures=True)


def run(job: Job, seed: int) -> Seed:
    """Every rule on this seed's stream."""
    rows = job.everything
    vectors = {name: np.fromfile(path, np.float32).reshape(-1, d) for name, (path, d) in job.vectors.items()}
    asked = stream(job.rows, seed, size=job.size, drift=job.drift)
    name, own = next(iter(vectors.items()))
    encoder = recalled(name, rows.texts, own)
    gold = [] if job.gold is None else list(zip(job.gold.texts, map(_answer, job.gold.classes), strict=True))
    cold = costkit_stream.played(rows.texts, asked, encoder, job.bound, gold=gold)
    seeded = above = None
    ruled_seeded: dict[str, Ruled] = {}
    if job.gold is not None:
        behind = after(len(job.gold), rows.classes, asked)
        seeded = costkit_stream.played(rows.texts, asked, encoder, job.bound, gold=gold, stored=True)
        above = baselines.any_right(behind, _same(rows, behind))
        ruled_seeded = {name: _ruled(table, behind, rows, job.bound, seed) for name, table in vectors.items()}
    return Seed(
        seed=seed,
        cold=cold,
        seeded=seeded,
        any_right=baselines.any_right(asked, _same(rows, asked)),
        any_right_seeded=above,
        ruled={name: _ruled(table, asked, rows, job.bound, seed) for name, table in vectors.items()},
        ruled_seeded=ruled_seeded,
    )


def _answer(number: int) -> str:
    return costkit_stream.answer_text(int(number))


def _same(rows: Rows, asked: Stream) -> Ints:
    return baselines.same_texts([rows.texts[i] for i in asked.rows])


def _ruled(vectors: Floats, asked: Stream, rows: Rows, bound: Bound, seed: int) -> Ruled:
    found, same = near(vectors[asked.rows]), _same(rows, asked)
    return Ruled(
        static=baselines.static(found, asked, same),
        per_entry=baselines.per_entry(found, asked, same, bound.max_error, seed),
        nearest_right=baselines.nearest_right(found, asked, same),
    )
