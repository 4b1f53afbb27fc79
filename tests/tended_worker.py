"""A process with a gate of its own on a shared ledger: ``python -m tests.tended_worker FOLDER SEED REQUESTS``.

It decides and testifies, then waits for a line on its standard input, and prints where its gate stands.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

from costkit.bound import PER_REQUEST, Bound
from costkit.bound.tended import LABEL, Tended, evidence_of
from costkit.ledger import Evidence, Ledger

__all__ = ["BOUND", "PRIOR", "stands"]

BOUND, PRIOR = Bound(0.05, PER_REQUEST), [0.0, 1.0]


def stands(tended: Tended) -> str:
    """All of a gate's state that its decisions rest on."""
    gate = tended.follow()
    ladder, detector = gate.ladder, gate._detector(None)
    return repr(
        (
            gate.standing(), ladder.level, ladder.worth, ladder.strata.labels, ladder.strata.wrong, ladder.shares(),
            ladder._shares.long(), gate.score._weights.tolist(), detector.levels, sorted(map(str, gate.closed)),
            len(tended._waiting), tended.demoted_at,
        )
    )  # fmt: skip


def main(folder: Path, seed: int, requests: int) -> None:
    rand, ledger = random.Random(seed), Ledger(folder)
    tended = Tended("gate", BOUND, PRIOR, ledger.reader)
    for number in range(requests):
        x, id = rand.uniform(-2, 8), f"{seed} {number}"
        passage = tended.decide((1.0, x) if rand.random() < 0.7 else None, scope=rand.choice("ab"))
        wrong = rand.random() < 0.3 * (x < 2)
        late = passage.labelled and rand.random() < 0.3
        told = wrong if passage.labelled and not late else None
        rows = [evidence_of("gate", passage, query_id=id, at=time.time(), wrong=told)]
        if late:
            rows.append(
                Evidence(
                    "gate",
                    id,
                    time.time(),
                    LABEL,
                    None,
                    None,
                    None,
                    passage.chance,
                    passage.generation,
                    wrong=wrong,
                )
            )
        ledger.testify(rows)
        if number % 20 == 0:
            ledger.flush()
    ledger.flush()
    print("written", flush=True)
    sys.stdin.readline()
    print(stands(tended), flush=True)
    ledger.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
