"""A kit with an open gate and many stored answers, for the look-up benchmarks.

The gate is certified by the public :meth:`costkit.Kit.certify` on questions of the same templates; the stored answers
are written as the flow writes them, without the calls.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import costkit
from costkit import codec
from costkit.bound import Passage
from costkit.bound.tended import Tended
from costkit.embed import Encoder
from costkit.scope import scope_id
from costkit.semantic.pool import Pool, Sought
from costkit.store import Entry

from .lookup_rows import TAIL, Rows, combined

_CERTIFYING = 800  # questions of which the gate is certified, each asked twice


@dataclass(frozen=True, slots=True)
class Filled:
    """The kit, its wrapped function and what it answers; ``reached`` holds the questions that went past the cache."""

    kit: costkit.Kit
    ask: Any
    pool: Pool
    tended: Tended
    answers: dict[str, str]
    reached: list[str]
    admit_ns: Sequence[int]


@contextmanager
def filled(folder: Path, rows: Rows, encoder: Encoder) -> Iterator[Filled]:
    """The kit with these rows stored and its gate open."""
    answers = dict(zip(rows.stored + rows.asked, rows.answers + rows.expected, strict=True))
    reached: list[str] = []
    with costkit.Kit(folder) as kit:

        @kit.call(
            costkit.semantic("question", encoder=encoder), scope=None, name="ask",
            max_error=0.05, judge=costkit.judges.same_answer,
        )  # fmt: skip
        def ask(question: str) -> str:
            reached.append(question)
            return answers[question]

        pairs = combined(_CERTIFYING, seed=2)
        kit.certify(ask, [(text, answer) for q, answer in pairs for text in (q, f"{q} {TAIL}")])
        pool = kit._pools.of(ask._plan)
        assert pool is not None
        tended, scope = pool.tended(None), scope_id(None)
        assert tended.follow().standing().state == "open", "the gate did not open"
        space = pool.namespace({"question": rows.stored[0]}, None, tended)
        epoch, taken = kit._store.epoch((), scope), []
        for number, answer in enumerate(rows.answers):
            key, text = f"{number:064x}", rows.stored[number]
            none = Passage("none", None, None, None, generation=tended.generation)
            sought = Sought(tended.id, none, scope, space, rows.vectors[number], pool.profiler.of(text), text)
            entry = Entry(payload=codec.encode(answer), at=time.time(), epoch=epoch)
            kit._store.set(scope, key, entry)
            began = time.perf_counter_ns()
            pool.admit(sought, key=key, value=answer, entry=entry)
            taken.append(time.perf_counter_ns() - began)
        yield Filled(kit, ask, pool, tended, answers, reached, taken)
