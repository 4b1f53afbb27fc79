"""``python -m tests.simulation``."""

from __future__ import annotations

import argparse
import sys
import time

from . import __doc__ as about
from .mutations import MUTATIONS
from .run import run
from .world import Broken


def main() -> int:
    """Runs the seeds, or one of them with its trace."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation", description=(about or "").split("\n")[0]
    )
    parser.add_argument("--seeds", type=int, default=10_000)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--mutation", choices=MUTATIONS, default="")
    args = parser.parse_args()
    seeds = range(args.seeds) if args.seed is None else [args.seed]
    started, calls, broken = time.perf_counter(), 0, 0
    for seed in seeds:
        try:
            calls += len(run(seed, args.mutation, print if args.trace else None).callers)
        except Broken as error:
            broken += 1
            print(error, file=sys.stderr)
    took = time.perf_counter() - started
    print(f"{len(seeds)} seeds, {calls} calls, {broken} broken, {took:.1f} s")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
