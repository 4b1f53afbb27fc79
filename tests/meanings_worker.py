"""A process of its own that asks through one folder: ``python -m tests.meanings_worker FOLDER NAME COUNT``."""

from __future__ import annotations

import json
import sys

from costkit import Kit
from tests.meanings import SURE, gate_of, meaning


def main() -> None:
    folder, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    savings = []
    with Kit(folder) as kit:

        @kit.call(meaning(), **SURE, scope=None, name="ask", version="1")
        def ask(question: str) -> str:
            return "14 days"

        for number in range(count):
            savings.append(ask.outcome(f"how do I get refund {name * (number + 1)}").saving)
        kit._ledger.flush()
        gate = gate_of(kit, ask).follow()
        seen = [sum(gate.counts.values()), gate.labels, gate.ladder.level]
    print(json.dumps({"savings": savings, "seen": seen}))


if __name__ == "__main__":
    main()
