"""A semantic hit of costkit beside other semantic caches, in interleaved rounds of one run.

`python -m tests.benchmarks.lookup_peers setup` makes an environment for each peer below .venv-peers (pinned);
`python -m tests.benchmarks.lookup --json` then measures them beside costkit. One that is not installed or does not work
is skipped, and the reason is printed. redisvl and LangChain's RedisSemanticCache need a Redis with its search module,
which neither PyPI nor Debian packages: they are not measured. What a look-up is in each cache:
:mod:`tests.benchmarks.lookup_contenders`.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .lookup_contenders import ASKS
from .lookup_rows import Rows
from .peers import Contender, Skipped, setup

# The same store below both: what GPTCache does not pin itself is pinned here, with numpy for the rows.
_BELOW = ("gptcache==0.1.44", "faiss-cpu==1.15.1", "sqlalchemy==2.1.9", "numpy==2.4.6")
PINS: Mapping[str, tuple[str, ...]] = {
    "gptcache-faiss": _BELOW,
    "langchain-gptcache": ("langchain-community==0.4.2", "langchain-core==1.7.2", *_BELOW),
}
ENVIRONMENT = {"gptcache": "gptcache-faiss", "langchain_gptcache": "langchain-gptcache"}


def compare(rows: Rows, rounds: int, calls: int) -> dict[str, Any]:
    """Microseconds of a hit: the median of the rounds' medians, round and round in turn, and why some are left out."""
    medians: dict[str, list[float]] = {name: [] for name in ASKS}
    skipped: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        rows.save(Path(folder))
        running = {}
        for name in ASKS:
            try:
                running[name] = Contender(
                    name, Path(folder) / name, folder, module="tests.benchmarks.lookup_contenders",
                    environment=ENVIRONMENT, make="lookup-peers",
                )  # fmt: skip
                stack.callback(running[name].close)
            except Skipped as why:
                skipped[name] = str(why)
        for _ in range(rounds):
            for name in [name for name in running if name not in skipped]:
                try:
                    medians[name].append(statistics.median(running[name].round(calls)) / 1e3)
                except Skipped as why:
                    skipped[name] = str(why)
    hits = {name: round(statistics.median(m), 1) for name, m in medians.items() if m and name not in skipped}
    own = hits.get("costkit")
    times = {name: round(us / own, 1) for name, us in hits.items() if own and name != "costkit"}
    return {"hit_us": hits, "times_costkit": times, "skipped": skipped, "rounds": rounds, "calls": calls}


if __name__ == "__main__":
    if sys.argv[1:] != ["setup"]:
        sys.exit(
            "python -m tests.benchmarks.lookup_peers setup; the figures: python -m tests.benchmarks.lookup"
        )
    setup(PINS)
