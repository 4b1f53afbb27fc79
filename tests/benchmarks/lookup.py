"""What a semantic look-up costs, step by step: embed and search, at 1,000, 10,000 and 100,000 stored questions.

`python -m tests.benchmarks.lookup --json` prints one JSON object. ``embed``: one text of about 18 and of about 200
tokens, each time a new one. For each size: ``add_us`` (one row, committed), ``open_s`` (a new process's first search),
``search`` (costkit's, the whole of it), ``matvec`` (the bare numpy product it is up against) and, where it is
installed, ``usearch`` (an approximate index: its time, what building it took, and the share of the true eight nearest
that it finds). Stored and asked questions are made from templates and embedded by WordLlama, or read from
``--vectors FILE.npy`` (float32, one unit vector a row; 300 of them, drawn at random, are asked).
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from costkit.embed import Encoder, encoder_of
from costkit.index import Index, Row
from costkit.index.rows import Vectors

from .overhead import timed

ASKED = 300
NEIGHBOURS = 8
PARTS = (
    ("how long until", "when can I see", "why is there no", "who decides about", "what does it cost to change",
     "please explain", "is it normal to lose", "where do I find", "how do I cancel", "can my brother have"),
    ("my refund", "the delivery", "a second card", "the monthly invoice", "my new password", "the parental discount",
     "a receipt", "the exchange rate", "the spending limit", "an appointment", "the warranty", "my loyalty points"),
    ("for order", "from account", "on contract", "under ticket"),
    ("after a move", "before Christmas", "in Portugal", "for two people", "without a phone", "since the update",
     "on a Sunday", "with a student pass", "at the airport"),
    tuple(str(number) for number in range(1000, 1030)),
)  # fmt: skip


def questions(count: int) -> list[str]:
    """So many different questions, in random order."""
    every = [" ".join(words) for words in itertools.product(*PARTS)]
    random.Random(0).shuffle(every)
    return every[:count]


def embedding(encoder: Encoder, calls: int) -> dict[str, Any]:
    """Microseconds for a short and a long text, after the model is loaded; ``load_s`` says how long that took."""
    short = "how long does it take until my refund is back on the card please"
    began = time.perf_counter()
    encoder.one("hello")
    found: dict[str, Any] = {"load_s": time.perf_counter() - began, "dimension": encoder.dimension}
    for name, text in (("tokens_18", short), ("tokens_200", (short + " and what of the fee ") * 10)):
        found[name] = timed(lambda i, text=text: encoder.one(f"{text} {i}"), calls)  # type: ignore[misc]
    return found


def searched(find: Callable[[Vectors], Any], asked: Vectors) -> dict[str, float]:
    """Microseconds for one question after the other."""
    find(asked[0])
    return timed(lambda i: find(asked[i]), len(asked))


def measured(folder: Path, stored: Vectors, asked: Vectors) -> dict[str, Any]:
    """The index with these rows, and what it is compared with."""
    index = Index(folder)
    rows = [Row(f"{n:064x}", 0.0, answer=bytes(16), features=bytes(64)) for n in range(len(stored))]
    found: dict[str, Any] = {
        "add_us": timed(lambda i: index.add("s", "n", rows[i], stored[i]), len(stored)),
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
    assert not any(index.troubles.values()), index.troubles
    index.close()
    if importlib.util.find_spec("usearch") is not None:
        found["usearch"] = approximate(stored, asked, truth)
    return found


def approximate(stored: Vectors, asked: Vectors, truth: list[set[int]]) -> dict[str, Any]:
    """The same by usearch (HNSW, its defaults, float32, one thread)."""
    from usearch.index import Index as Approximate  # pyright: ignore[reportMissingImports]

    index = Approximate(ndim=stored.shape[1], metric="ip", dtype="f32")
    began = time.perf_counter()
    index.add(np.arange(len(stored)), stored, threads=1)
    build = time.perf_counter() - began
    near = [set(index.search(q, NEIGHBOURS).keys.tolist()) for q in asked]
    return {
        "build_s": build,
        "recall": recall(truth, near),
        "search": searched(lambda q: index.search(q, NEIGHBOURS), asked),
    }


def recall(truth: list[set[int]], found: list[set[int]]) -> float:
    """Share of the true nearest that were found; ties at the last place make it a little less than 1."""
    return sum(len(a & b) for a, b in zip(truth, found, strict=True)) / (NEIGHBOURS * len(truth))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object (always done)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--vectors", type=Path, help="a .npy file of unit vectors")
    parser.add_argument("--calls", type=int, default=100, help="texts embedded of each length")
    options = parser.parse_args()
    out: dict[str, Any] = {"embed": {}, "sizes": {}}
    for name in ("minilm", "wordllama"):
        print(f"embedding by {name} ...", file=sys.stderr)
        out["embed"][name] = embedding(encoder_of(name), options.calls)
    if options.vectors is None:
        every = encoder_of("wordllama").encode(questions(max(options.sizes) + ASKED))
    else:
        every = np.load(options.vectors, allow_pickle=False)
        every = np.ascontiguousarray(every[np.random.default_rng(0).permutation(len(every))], np.float32)
    asked = every[-ASKED:]
    for size in options.sizes:
        print(f"{size} rows ...", file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            stored = np.ascontiguousarray(every[:-ASKED][:size])
            out["sizes"][str(len(stored))] = measured(Path(folder), stored, asked)
    print(json.dumps(out))


if __name__ == "__main__":
    main()
