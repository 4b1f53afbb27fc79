"""What a semantic look-up costs, step by step, at 1,000, 10,000 and 100,000 stored questions, beside other caches.

`python -m tests.benchmarks.lookup --json` prints one JSON object; times are microseconds (median and 99th percentile).

``embed``: one text of about 18 and of about 200 tokens, each time a new one, by both encoders. ``floor``: a bare SQLite
commit that waits for the disk, as the ledger's does, which nothing durable can be quicker than. ``sizes``, for each
number of stored questions and encoder (questions and answers are made from templates, a question asked is a stored one
with two words more):

- ``hit``: the whole of a served call through the public decorator, its text embedded a moment ago; ``hit_with_encoder``
  embeds it. Its parts, measured while it runs: ``recall`` (the vector of a text seen lately), ``namespace`` (digest of
  all that must be identical), ``search``, ``decide`` (``profile``: the asked text's words and marks; ``features`` of
  ten neighbours; ``gate``: score, rung, audit coin, with the ledger asked for news) and ``entry`` (the answer, read and
  unsealed). ``exact_hit`` is an identical call's, for comparison.
- ``miss``: a whole call of a function that answers at once. Its parts: ``keep`` (the answer to disk, and ``admit``, its
  row in the index) and ``write`` (evidence and ledger rows, committed and waited for).
- ``index``: ``add`` (one row, committed), ``open_s`` (a new process's first search), ``search``, ``matvec`` (the bare
  numpy product), and from 50,000 rows on ``ann`` (the search with ``costkit[ann]``, what its graph took to build and
  takes in memory, and the share of the true eight nearest found). All else is measured with the exact search.

``peers``: the same hit in other semantic caches, each in a process of its own, in interleaved rounds
(:mod:`tests.benchmarks.lookup_peers`). ``--sizes 10000 --rounds 0`` is the quick way.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import importlib.util
import json
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from costkit.embed import Encoder, encoder_of
from costkit.index import Index, Row, graph
from costkit.index.rows import Vectors

from .lookup_kit import Filled, filled
from .lookup_peers import compare
from .lookup_rows import Rows, made
from .overhead import summary, timed

ASKED = 300
GRAPH_FROM = graph.LEAST
NEIGHBOURS = 8
MISSES = 100


class Parts:
    """Times calls of methods while they run: nanoseconds by name."""

    def __init__(self) -> None:
        self.taken: dict[str, list[int]] = {}

    def watch(self, stack: contextlib.ExitStack, owner: Any, method: str, name: str) -> None:
        """Time this method of this object (or function of this module) until the stack is left."""
        real = getattr(owner, method)

        @functools.wraps(real)
        def timing(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter_ns()
            try:
                return real(*args, **kwargs)
            finally:
                self.taken.setdefault(name, []).append(time.perf_counter_ns() - began)

        own = method in vars(owner)
        setattr(owner, method, timing)
        stack.callback(setattr, owner, method, real) if own else stack.callback(delattr, owner, method)


def embedding(encoder: Encoder, calls: int) -> dict[str, Any]:
    """Microseconds for a short and a long text, after the model is loaded; ``load_s`` says how long that took."""
    short = "how long does it take until my refund is back on the card please"
    began = time.perf_counter()
    encoder.one("hello")
    found: dict[str, Any] = {"load_s": time.perf_counter() - began, "dimension": encoder.dimension}
    for name, text in (("tokens_18", short), ("tokens_200", (short + " and what of the fee ") * 10)):
        found[name] = timed(lambda i, text=text: encoder.one(f"{text} {i}"), calls)  # type: ignore[misc]
    return found


def committing(folder: Path) -> dict[str, float]:
    """A row into a bare SQLite file in WAL mode with synchronous=FULL, as the ledger's is."""
    with contextlib.closing(sqlite3.connect(folder / "floor.db", isolation_level=None)) as con:
        con.execute("PRAGMA journal_mode=WAL")
        con.execute("PRAGMA synchronous=FULL")
        con.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB)")
        return timed(lambda i: con.execute("INSERT INTO t (body) VALUES (?)", (bytes(300),)), MISSES)


def walked(folder: Path, rows: Rows, encoder: Encoder) -> dict[str, Any]:
    """Hits and misses through the public decorator, and their parts."""
    with filled(folder, rows, encoder) as kit:
        _hits(kit, rows.asked[:20])  # warm
        embedded = _hits(kit, _reworded(kit, rows))
        encoder.encode(rows.asked)
        whole = _hits(kit, rows.asked)
        with contextlib.ExitStack() as stack:
            parts = _watched(kit, encoder, stack)
            _hits(kit, rows.asked)
        found: dict[str, Any] = {"dimension": encoder.dimension, "hit": summary(whole), "served": len(whole)}
        found["hit_with_encoder"] = summary(embedded)
        taken = parts.taken
        found["parts"] = {name: summary(taken[name]) for name in ("recall", "namespace", "search", "entry")}
        pieces = [taken[name] for name in ("profile", "neighbours", "choose", "gate")]
        found["decide"] = {
            "whole": summary([sum(one) for one in zip(*pieces, strict=True)]),
            "profile": summary(taken["profile"]),
            "features": summary([sum(one) for one in zip(*pieces[1:3], strict=True)]),
            "gate": summary(taken["gate"]),
        }
        found |= _missed(kit, rows)
        found["admit"] = summary(list(kit.admit_ns))
    return found


def _reworded(kit: Filled, rows: Rows) -> list[str]:
    """Questions whose texts the encoder has never seen."""
    found = [f"{text} please" for text in rows.asked]
    kit.answers.update(zip(found, rows.expected, strict=True))
    return found


def _hits(kit: Filled, questions: list[str]) -> list[int]:
    """Nanoseconds of those calls that were served; audits go to the function."""
    taken = []
    for question in questions:
        began = time.perf_counter_ns()
        outcome = kit.ask.outcome(question)
        took = time.perf_counter_ns() - began
        taken += [took] if outcome.saving == "semantic" else []
    assert len(taken) > len(questions) / 2, "too few were served"
    return taken


def _watched(kit: Filled, encoder: Encoder, stack: contextlib.ExitStack) -> Parts:
    parts = Parts()
    pool = kit.pool
    for owner, method, name in (
        (encoder, "one", "recall"), (pool, "namespace", "namespace"), (pool._index, "search", "search"),
        (pool.profiler, "of", "profile"), (pool, "_neighbours", "neighbours"),
        (importlib.import_module("costkit.semantic.pool"), "choose", "choose"), (kit.tended, "decide", "gate"),
        (pool, "_get", "entry"),
    ):  # fmt: skip
        parts.watch(stack, owner, method, name)
    return parts


def _missed(kit: Filled, rows: Rows) -> dict[str, Any]:
    """Calls that nothing stored may stand for: another number, which is vetoed."""
    new = [f"{text} in room {number}" for number, text in enumerate(rows.stored[:MISSES], 7000)]
    kit.answers.update({text: rows.answers[number] for number, text in enumerate(new)})
    parts = Parts()
    with contextlib.ExitStack() as stack:
        ports = kit.kit._ports
        real = ports.perform

        def perform(effect: Any, session: Any) -> Any:
            began = time.perf_counter_ns()
            reply = real(effect, session)
            parts.taken.setdefault(type(effect).__name__.lower(), []).append(time.perf_counter_ns() - began)
            return reply

        stack.callback(delattr, ports, "perform")
        ports.perform = perform  # type: ignore[method-assign]
        parts.watch(stack, kit.pool, "admit", "admit")
        whole = timed(lambda i: kit.ask(new[i]), MISSES)
        told = {name: summary(taken) for name, taken in parts.taken.items()}
    steps = {name: told[name] for name in ("seek", "keep", "admit", "judge", "write")}
    return {"miss": {"whole": whole, **steps}, "exact_hit": timed(lambda i: kit.ask(new[-1]), ASKED)}


def searched(find: Callable[[Vectors], Any], asked: Vectors) -> dict[str, float]:
    """Microseconds for one question after the other."""
    find(asked[0])
    return timed(lambda i: find(asked[i]), len(asked))


def indexed(folder: Path, stored: Vectors, asked: Vectors) -> dict[str, Any]:
    """The index alone with these rows, and what it is compared with."""
    index = Index(folder)
    rows = [Row(f"{n:064x}", 0.0, answer=bytes(16), features=bytes(64)) for n in range(len(stored))]
    found: dict[str, Any] = {
        "add": timed(lambda i: index.add("s", "n", rows[i], stored[i]), len(stored)),
        "file_mb": (folder / "index" / "vectors-1.db").stat().st_size / 1e6,
    }
    index.close()
    index = Index(folder)
    began = time.perf_counter()
    index.search("s", "n", asked[0], now=1.0)
    found["open_s"] = time.perf_counter() - began
    found["search"] = searched(lambda q: index.search("s", "n", q, now=1.0, k=NEIGHBOURS), asked)
    found["matvec"] = searched(lambda q: stored @ q, asked)
    truth = [set(np.argsort(stored @ q)[-NEIGHBOURS:].tolist()) for q in asked]
    found["recall"] = recall(
        truth, [{int(k, 16) for k in index.search("s", "n", q, now=1.0).keys} for q in asked]
    )
    found["memory_mb"] = sum(space.bytes for space in index._spaces.values()) / 1e6
    if len(stored) >= GRAPH_FROM and importlib.util.find_spec("usearch") is not None:
        found["ann"] = with_graph(index, asked, truth)
    assert not any(index.troubles.values()), index.troubles
    index.close()
    return found


def with_graph(index: Index, asked: Vectors, truth: list[set[int]]) -> dict[str, Any]:
    """The same index once the graph of ``costkit[ann]`` is made."""
    (space,) = index._spaces.values()
    before, graph.LEAST = space.bytes, GRAPH_FROM
    try:
        began = time.perf_counter()
        index.search("s", "n", asked[0], now=1.0)
        space._growing.wait()
        build = time.perf_counter() - began
        near = [{int(k, 16) for k in index.search("s", "n", q, now=1.0).keys} for q in asked]
        return {
            "build_s": build,
            "memory_mb": (space.bytes - before) / 1e6,
            "recall": recall(truth, near),
            "search": searched(lambda q: index.search("s", "n", q, now=1.0, k=NEIGHBOURS), asked),
        }
    finally:
        graph.LEAST = sys.maxsize


def recall(truth: list[set[int]], found: list[set[int]]) -> float:
    """Share of the true nearest that were found; ties at the last place make it a little less than 1."""
    return sum(len(a & b) for a, b in zip(truth, found, strict=True)) / (NEIGHBOURS * len(truth))


def measured(size: int, encoder: Encoder) -> dict[str, Any]:
    """Everything at one number of stored questions, by one encoder."""
    rows = made(size, ASKED, encoder.encode)
    with tempfile.TemporaryDirectory() as folder:
        found = walked(Path(folder) / "kit", rows, encoder)
        return {**found, "index": indexed(Path(folder) / "bare", rows.vectors, rows.asked_vectors)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object (always done)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument(
        "--minilm", type=int, default=10_000, help="largest size embedded by MiniLM, 3 ms a text"
    )
    parser.add_argument("--calls", type=int, default=100, help="texts embedded of each length")
    parser.add_argument("--rounds", type=int, default=9, help="of the comparison with other caches; 0: none")
    options = parser.parse_args()
    graph.LEAST = sys.maxsize
    out: dict[str, Any] = {"embed": {}, "sizes": {}, "peers": {}}
    for name in ("minilm", "wordllama"):
        print(f"embedding by {name} ...", file=sys.stderr)
        out["embed"][name] = embedding(encoder_of(name), options.calls)
    with tempfile.TemporaryDirectory() as folder:
        out["floor"] = {"commit": committing(Path(folder))}
    for size in options.sizes:
        names = ["wordllama", *(["minilm"] if size <= options.minilm else [])]
        for name in names:
            print(f"{size} rows by {name} ...", file=sys.stderr)
            out["sizes"].setdefault(str(size), {})[name] = measured(size, encoder_of(name))
        if options.rounds:
            print(f"{size} rows in other caches ...", file=sys.stderr)
            rows = made(size, ASKED, encoder_of("wordllama").encode)
            out["peers"][str(size)] = compare(rows, options.rounds, 60)
    print(json.dumps(out))


if __name__ == "__main__":
    main()
