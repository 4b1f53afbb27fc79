"""What the tests of gates share: a function asked about a few topics, and evidence written by hand."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import costkit
from costkit.bound import Standing
from costkit.embed import Encoder, encoder_of
from tests.recorded import START

TOPICS = 8
NEAR = (1.0, 1.0, 1.0, 1.0, 1.2, 0.6, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0)


def spell(texts: list[str]) -> list[list[float]]:
    """Vectors, shape (texts, topics)."""
    return [[1.0 if f"topic{topic} " in text + " " else 0.01 for topic in range(TOPICS)] for text in texts]


def encoder() -> Encoder:
    return encoder_of(spell, name="topics/1")


def asked(
    folder: Path,
    calls: int,
    *,
    wrong_from: int = 10**9,
    judge: Any = None,
    max_error: float = 0.05,
    **settings: Any,
) -> Standing:
    """So many differently worded calls on a few topics; from ``wrong_from`` on answers change with every call.

    Each call is told to cost a thousandth of a dollar. Returns where the process's own gate stands after the last.
    """
    prices = {"m": costkit.Rates("1", "1")}
    with costkit.Kit(folder, prices=prices, store_text=True) as kit:

        @kit.call(
            costkit.semantic("question", encoder=encoder(), veto=()),
            scope="tenant", name="ask", max_error=max_error, judge=judge or costkit.judges.same_answer, **settings,
        )  # fmt: skip
        def ask(question: str, *, tenant: str) -> str:
            number, topic = question.split()[1:3]
            costkit.record(model="m", usage=costkit.Usage(in_fresh=900, out_text=100))
            return topic if int(number) < wrong_from else f"{topic} {number}"

        for number in range(calls):
            ask(f"tell {number} topic{number % TOPICS}", tenant=f"t{number % 2}")
        kit._ledger.flush()
        pool = kit._ports.pools(ask._plan)
        assert pool is not None
        return pool.tended(None).follow().standing()


def gate(id: str = "g", **changes: Any) -> dict[str, Any]:
    """A row of ``gates``: 5 % of hits, judged by same_answer."""
    bound = {"max_error": 0.05, "per": "hit", "confidence": 0.95, "audit": 0.05, "arl": 1e5, "asked": 0.05}
    about = {"encoder": "e", "judge": "j", "judge_name": "same_answer", "model": None, "text": "question"}
    return {
        "id": id, "name": changes.get("name", "app.ask"), "version": "1", "saving": "semantic",
        "bound": json.dumps({**bound, **changes.get("bound", {})}),
        "about": json.dumps({**about, **changes.get("about", {})}), "at": changes.get("at", START),
    }  # fmt: skip


def evidence(query_id: str | None, kind: str, **changes: Any) -> dict[str, Any]:
    """A row of ``evidence`` of the gate ``g``: a candidate on the first rung."""
    row = {
        "gate": "g", "query_id": query_id, "at": START, "kind": kind, "rung": 0, "risk": 0.01,
        "features": struct.pack(f"<{len(NEAR)}d", *NEAR), "chance": 1.0, "generation": 0, "scope": None, "tag": None,
        "wrong": None,
    }  # fmt: skip
    bare = {"rung": None, "risk": None, "features": None} if kind in ("none", "label", "fresh") else {}
    return {**row, **bare, **changes}


def shadowed(count: int, **changes: Any) -> list[dict[str, Any]]:
    """Evidence that opens the gate: so many candidates of the first rung, all right."""
    return [
        evidence(f"d{number}", "declined", wrong=0, at=START + number, **changes) for number in range(count)
    ]
