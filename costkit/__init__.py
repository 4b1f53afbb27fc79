"""costkit cuts the cost and the p95 of LLM calls, and keeps the record that shows what it saved.

>>> import costkit, tempfile
>>> kit = costkit.Kit(tempfile.mkdtemp() + "/kit")
>>> @kit.call(costkit.exact(ttl="1d"), scope="tenant")
... def ask(question: str, *, tenant: str) -> str:
...     return f"an expensive answer to {question}"
>>> _ = ask("How long do refunds take?", tenant="acme")
>>> ask.outcome("How long do refunds take?", tenant="acme").saving
'exact'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .call import Attempt, Cost, Outcome, Usage
from .errors import BudgetExceeded, CostkitError
from .exact import exact
from .kit import Kit
from .prices import OwnGPU, Prices, Rates
from .semantic import semantic
from .session import record, reference

if TYPE_CHECKING:
    from . import judges

__all__ = [
    "Attempt",
    "BudgetExceeded",
    "Cost",
    "CostkitError",
    "Kit",
    "Outcome",
    "OwnGPU",
    "Prices",
    "Rates",
    "Usage",
    "exact",
    "judges",
    "record",
    "reference",
    "semantic",
]

__version__ = "0.1.0.dev0"


def __getattr__(name: str) -> Any:
    """Judges are loaded by whoever names one: a call that only serves exact repeats needs none."""
    if name != "judges":
        raise AttributeError(f"module 'costkit' has no attribute {name!r}")
    import costkit.judges as found

    return found
