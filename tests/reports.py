"""What the tests of the report share: a folder whose figures can be added up by hand, and a report as it is shown."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from costkit.report import Report, to_table
from tests.recorded import DAY, START, attempt, folder_of, missing, query


def shown(report: Report, **console: Any) -> str:
    out = StringIO()
    Console(file=out, width=120, highlight=False, **{"color_system": None, **console}).print(to_table(report))
    return out.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten outermost queries of every kind of outcome, with prices in round numbers."""
    tenant = '{"tenant": "acme"}'
    return folder_of(
        tmp_path / "kit",
        queries=[
            # Made and then served twice: once as it was, once stale.
            query("a1", key="A", scope=tenant, provider_cost=1000, latency=2.0),
            query("a2", key="A", scope=tenant, saved_by="exact", counterfactual_cost=1000, latency=0.1),
            query(
                "a3",
                key="A",
                scope=tenant,
                saved_by="stale",
                counterfactual_cost=1000,
                latency=0.2,
                at=START + DAY,
            ),
            query("r1", key="A", scope=tenant, role="refresh", provider_cost=700, at=START + DAY),
            # A hit whose own call nobody recorded, and one whose counterfactual is unknown.
            query("c1", key="C", saved_by="coalesced", counterfactual_cost=None, latency=0.3),
            # An outer call that cost nothing itself, with one nested call made and one served.
            query("n1", name="app.rag", key="N", latency=4.0),
            query(
                "n2", name="app.llm", parent_id="n1", root_id="n1", key="X", provider_cost=2000, latency=3.0
            ),
            query(
                "n3",
                name="app.llm",
                parent_id="n1",
                root_id="n1",
                key="A",
                saved_by="exact",
                counterfactual_cost=500,
            ),
            # An outer call whose only nested call was served: no model was asked.
            query("o1", name="app.rag", latency=0.5),
            query(
                "o2",
                name="app.llm",
                parent_id="o1",
                root_id="o1",
                key="A",
                saved_by="exact",
                counterfactual_cost=400,
            ),
            query("f1", error="ValueError", unknown_costs=1, counterfactual_cost=None, latency=9.0),
            query("i1", error="CancelledError", complete=0, provider_cost=300, latency=1.5),
            query("b1", error="BudgetExceeded", latency=0.001),
            query("u1", unknown_costs=1, counterfactual_cost=None, name="app.own"),
            query("ref", role="reference", provider_cost=50),
        ],
        attempts=[
            attempt("a1"),
            attempt("r1", cost=700),
            attempt("n2", root_id="n1", cost=2000, model="big", in_fresh=200, cache_read=0, out_text=100),
            missing("f1", error="ValueError", finish=None),
            attempt("i1", cost=300, usage_state="estimated", finish=None),
            attempt("u1", model="own-7b", cost=None, price_id=None),
            attempt("ref", cost=50),
        ],
        budgets=[
            {"id": "x", "label": "kit 5 USD/day", "cap": 5 * 10**9, "starts": START, "ends": START + 3 * DAY}
            | {"spent": 10**9, "held": 2 * 10**9, "lapsed": 10**8},
            {
                "id": "y",
                "label": "over",
                "cap": 1,
                "starts": 0,
                "ends": START - 1,
                "spent": 1,
                "held": 0,
                "lapsed": 0,
            },
        ],
    )
