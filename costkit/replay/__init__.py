"""What would I save? A log of calls, streamed through the exact and the semantic tier without a call made.

columns  which column of a log means what
log      JSONL, CSV or a kit's own record as lines
measure  hit rates, wrong answers, money and p95 at several bounds, with intervals
table    the same for a terminal, with the settings to paste
plot     precision against hit rate

Whether a stored answer may stand in is judged by the answer that the log holds. A log of one's own says more than any
public data: its answers are those of the model, its questions those of the users.
"""

from __future__ import annotations

from .columns import Columns
from .log import Line, Log, read_ledger, read_log
from .measure import BOUNDS, AtBound, Curve, Figure, Replay, replay
from .plot import plot
from .table import settings, to_table

__all__ = [
    "BOUNDS",
    "AtBound",
    "Columns",
    "Curve",
    "Figure",
    "Line",
    "Log",
    "Replay",
    "plot",
    "read_ledger",
    "read_log",
    "replay",
    "settings",
    "to_table",
]
