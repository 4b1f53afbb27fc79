"""The whole flow under a virtual clock, faults everywhere, decided by one seed and replayable by it.

    python -m tests.simulation --seeds 10000          # every invariant, checked at every step
    python -m tests.simulation --seed 4711 --trace    # one run, step by step

Real: the flow, the flights and stream tails of each process, its bookkeeping of refreshes, the entries and their codec.
Simulated: time, processes that die, memory and disk of the store, the claims between processes, the budget, the
upstream, and clients that cancel or leave.

No call is excused by a count. Whoever begins to spend must be in the right at that moment, by what is true in the
world: nothing that it could have seen answers it, and nobody whose turn lasts makes the same call.
"""
