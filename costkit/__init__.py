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

from .call import Attempt, Cost, Outcome, Usage
from .errors import BudgetExceeded, CostkitError
from .exact import exact
from .kit import Kit
from .prices import OwnGPU, Prices, Rates
from .session import record, reference

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
    "record",
    "reference",
]

__version__ = "0.1.0.dev0"
