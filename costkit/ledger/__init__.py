"""The record: one SQLite file with a documented, public schema.

``queries`` holds one row per call of a wrapped function, nested calls below their parent; ``attempts`` one
row per call to a model; ``prices`` the price rows that were used; ``token_ratios`` what providers reported for
the tokens we counted; ``budgets`` and ``holds`` what is spent and held of each budget with a window; ``meta``
what is to be known of the file; ``gates`` and ``evidence`` what each lossy saving's gate decided and what that
turned out to be, ``gate_states`` how far a process has read it. Money is integer nano-dollars, times are Unix
seconds, durations seconds, and NULL means unknown, never zero. Read through the views, which stay stable while tables
grow:

- ``query_costs``: one row per outermost call, nested calls added up: ``provider_cost`` (paid),
  ``counterfactual_cost`` (the same query without the savings), ``overhead_cost``, ``saving``,
  ``unknown_costs`` (attempts without a known cost), ``estimated`` (attempts whose usage was estimated),
  ``latency``, ``saved_by``;
- ``savings``: the same money by function and kind of saving; ``daily``: by day (UTC).

>>> print(MIGRATIONS[0].strip().splitlines()[0])
CREATE TABLE queries (
"""

from __future__ import annotations

from costkit.ledger.evidence import Evidence, GateRow, GateState
from costkit.ledger.rows import Query
from costkit.ledger.schema import APPLICATION_ID, MIGRATIONS, connect
from costkit.ledger.writer import Ledger

__all__ = ["APPLICATION_ID", "MIGRATIONS", "Evidence", "GateRow", "GateState", "Ledger", "Query", "connect"]
