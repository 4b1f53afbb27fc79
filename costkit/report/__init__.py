"""What people read from the record: ``costkit report``, ``why`` and ``doctor``, as data and as tables.

>>> import costkit, tempfile
>>> kit = costkit.Kit(tempfile.mkdtemp() + "/kit")
>>> make_report(kit.folder).counts.queries
0
"""

from __future__ import annotations

from .doctor import Check, Health, examine
from .facts import Select
from .plot import daily, plot
from .summary import Report, make_report
from .table import to_table
from .why import Story, tell

__all__ = [
    "Check",
    "Health",
    "Report",
    "Select",
    "Story",
    "daily",
    "examine",
    "make_report",
    "plot",
    "tell",
    "to_table",
]
