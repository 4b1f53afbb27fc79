"""Part two of the demo: the semantic tier on invented traffic, from shadow to serving, and off when answers change."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import costkit
from costkit.bound import Bound
from costkit.bound.tended import Tended
from costkit.semantic.features import PRIOR
from serving.demo.people import Asked, answer_of

__all__ = ["CHANGE", "MAX_ERROR", "Mark", "Story", "told"]

MAX_ERROR = 0.05  # of the answers served by meaning
CHANGE = 2 / 3
"""When the answers change: after this share of the requests."""
_LOOK = 10  # requests from one look at the gate to the next
_KINDS = "SELECT query_id, kind FROM evidence WHERE query_id IS NOT NULL AND kind != 'label' ORDER BY id"


@dataclass(frozen=True, slots=True)
class Mark:
    """The gate after ``at`` requests: the certified risk, None in shadow."""

    at: int
    certified: float | None


@dataclass(frozen=True, slots=True)
class Story:
    """What happened, request by request.

    ``savings``: what answered it (None: a call); ``wrong``: a served answer that is not the right one; ``audited``: a
    hit whose call was made anyway. ``changed`` is the number of the first request after the change; ``opened`` and
    ``closed`` are those at which the gate was first found open, and found in shadow after the change (None: never,
    or it was so when the change came).
    ``spent`` and ``saved`` in dollars, by the ledger; ``seconds``: of the whole run.
    """

    savings: tuple[str | None, ...]
    wrong: tuple[bool, ...]
    audited: tuple[bool, ...]
    marks: tuple[Mark, ...]
    changed: int
    opened: int | None
    closed: int | None
    spent: float
    saved: float
    seconds: float
    max_error: float


def told(
    asked: Sequence[Asked],
    prices: costkit.Prices,
    answer: dict[str, Any],
    *,
    max_error: float = MAX_ERROR,
    tick: Callable[[], None] = lambda: None,
) -> Story:
    """Ask everything through the public decorator, with the default encoder, judge and gate; ``answer``: what a call
    is charged as, a provider's response with its model and usage.

    Raises:
        CostkitError: the encoder's packages are not installed.
    """
    changed, now = round(CHANGE * len(asked)), [0]
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, costkit.Kit(Path(folder) / "kit", prices=prices) as kit:

        @kit.call(
            costkit.exact(),
            costkit.semantic("question"),
            max_error=max_error, per="hit", judge=costkit.judges.same_answer, scope="tenant",
            name="help_desk", version="1",
        )  # fmt: skip
        def ask(question: str, *, tenant: str) -> str:
            costkit.record(answer)
            return answer_of(tenant, asked[now[0]].intent, now[0] >= changed)

        outcomes, wrong, marks = [], [], []
        gate: Tended | None = None
        for number, one in enumerate(asked):
            now[0] = number
            outcome = ask.outcome(one.text, tenant=one.tenant)
            outcomes.append(outcome)
            wrong.append(outcome.value != answer_of(one.tenant, one.intent, number >= changed))
            if number % _LOOK == _LOOK - 1:
                gate = gate or _gate(kit, max_error)
                marks += [] if gate is None else [_mark(gate, number + 1)]
            tick()
        kinds = dict(kit.ledger().execute(_KINDS))
        if gate is not None:
            gate.close()
    return Story(
        tuple(o.saving for o in outcomes), tuple(wrong),
        tuple(kinds.get(o.query_id) == "audit" for o in outcomes), tuple(marks), changed,
        *_moments(marks, changed),
        sum(o.cost.usd or 0.0 for o in outcomes), sum(o.cost.saving_usd or 0.0 for o in outcomes),
        time.perf_counter() - started, max_error,
    )  # fmt: skip


def _gate(kit: costkit.Kit, max_error: float) -> Tended | None:
    """The call's gate, followed from its evidence as `costkit gate` does."""
    row = kit.ledger().execute("SELECT id FROM gates").fetchone()
    return None if row is None else Tended(row[0], Bound(max_error, per="hit"), PRIOR, kit.ledger)


def _mark(gate: Tended, at: int) -> Mark:
    standing = gate.follow().standing()
    return Mark(at, standing.certified if standing.state == "open" else None)


def _moments(marks: Sequence[Mark], changed: int) -> tuple[int | None, int | None]:
    """When it opened, and closed after the change; a gate that was shut just then has not closed because of it."""
    opened = next((m.at for m in marks if m.certified is not None), None)
    serving = any(m.certified is not None for m in marks if m.at <= changed < m.at + _LOOK)
    closed = next((m.at for m in marks if m.at > changed and m.certified is None), None)
    return opened, closed if serving else None
