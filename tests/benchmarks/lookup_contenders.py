"""A hit in one semantic cache: `python -m tests.benchmarks.lookup_contenders NAME FOLDER ROWS`, a process of its own.

Run by :mod:`tests.benchmarks.lookup_peers` with the interpreter of that cache's own environment, so nothing but the
standard library and numpy is imported up here. The protocol is that of :mod:`tests.benchmarks.contenders`: one JSON
line once the cache is filled and warm, then one line of timings for every number read. Every cache has the same rows
and the same encoder, a dictionary of vectors made before; a timing is one whole look-up as its users call it, and only
those that brought the stored answer count.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .contenders import _offline
from .lookup_rows import Rows, load

Ask = Callable[[str], "str | None"]
"""The stored answer to a question; None: it was not served."""


class Vectors:
    """The encoder: each text's vector, made before."""

    def __init__(self, rows: Rows) -> None:
        self._of = dict(zip(rows.stored + rows.asked, [*rows.vectors, *rows.asked_vectors], strict=True))

    def one(self, text: str, **_: Any) -> Any:
        return self._of[text]

    def many(self, texts: list[str]) -> list[Any]:
        return [self._of[text] for text in texts]


@contextlib.contextmanager
def costkit(folder: Path, rows: Rows) -> Iterator[Ask]:
    """The public decorator under an open gate: scope, sealed store, evidence and a ledger row a call.

    An audited question goes to the function and is no hit.
    """
    lookup_kit = importlib.import_module("tests.benchmarks.lookup_kit")
    embed = importlib.import_module("costkit.embed")
    many = Vectors(rows).many
    # Texts that the function does not store are asked for its certificate: they are embedded for real.
    real = embed.encoder_of("wordllama")
    known = set(rows.stored) | set(rows.asked)

    def encode(texts: list[str]) -> Any:
        return many(texts) if known.issuperset(texts) else real.encode(texts)

    with lookup_kit.filled(folder, rows, embed.encoder_of(encode, name="dictionary/1")) as made:

        def ask(question: str) -> str | None:
            before = len(made.reached)
            answer: str = made.ask(question)
            return answer if len(made.reached) == before else None

        yield ask


@contextlib.contextmanager
def gptcache(folder: Path, rows: Rows) -> Iterator[Ask]:
    """GPTCache's ``get`` over its SQLite and Faiss managers, with its distance evaluation."""
    cache = importlib.import_module("gptcache").Cache()
    manager = _gptcache(cache, folder, rows)
    _fill(manager, rows, rows.answers)
    get = importlib.import_module("gptcache.adapter.api").get
    yield lambda question: get(question, cache_obj=cache)


@contextlib.contextmanager
def langchain_gptcache(folder: Path, rows: Rows) -> Iterator[Ask]:
    """``lookup`` of LangChain's one semantic cache that needs no server: GPTCache below its own interface."""
    outputs = importlib.import_module("langchain_core.outputs")
    module = importlib.import_module("langchain_community.cache")
    managers: list[Any] = []
    cache = module.GPTCache(lambda made, _: managers.append(_gptcache(made, folder, rows)))
    cache._get_gptcache("model")
    _fill(managers[0], rows, [module._dumps_generations([outputs.Generation(text=a)]) for a in rows.answers])

    def ask(question: str) -> str | None:
        found = cache.lookup(question, "model")
        return None if found is None else str(found[0].text)

    yield ask


def _gptcache(cache: Any, folder: Path, rows: Rows) -> Any:
    """Make the cache ready; its data manager."""
    factory = importlib.import_module("gptcache.manager")
    manager = factory.get_data_manager(
        factory.CacheBase("sqlite", sql_url=f"sqlite:///{folder}/scalars.db"),
        factory.VectorBase("faiss", dimension=rows.vectors.shape[1], index_path=f"{folder}/faiss.index"),
        max_size=10 * len(rows.stored),
    )
    similarity = importlib.import_module("gptcache.similarity_evaluation").SearchDistanceEvaluation()
    prompt = importlib.import_module("gptcache.processor.pre").get_prompt
    cache.init(
        pre_embedding_func=prompt, embedding_func=Vectors(rows).one, data_manager=manager,
        similarity_evaluation=similarity,
    )  # fmt: skip
    return manager


def _fill(manager: Any, rows: Rows, answers: list[str]) -> None:
    for start in range(0, len(answers), 1000):
        part = slice(start, start + 1000)
        count = len(answers[part])
        manager.import_data(rows.stored[part], answers[part], list(rows.vectors[part]), [None] * count)


ASKS: dict[str, Callable[[Path, Rows], Any]] = {
    made.__name__: made for made in (costkit, gptcache, langchain_gptcache)
}


def main() -> None:
    """Fill, warm up, then serve timings until standard input ends."""
    name, folder, home = sys.argv[1:]
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a cache prints is not a reply
    _offline()
    Path(folder).mkdir(parents=True, exist_ok=True)
    rows = load(Path(home))
    turn = itertools.cycle(zip(rows.asked, rows.expected, strict=True))
    with ASKS[name](Path(folder), rows) as ask:

        def batch(calls: int) -> list[int]:
            taken: list[int] = []
            for question, expected in itertools.islice(turn, calls):
                start = time.perf_counter_ns()
                answer = ask(question)
                took = time.perf_counter_ns() - start
                assert answer in (expected, None), "another answer came back"
                taken += [took] if answer is not None else []
            assert taken, "nothing was served"
            return taken

        batch(20)
        print(json.dumps({"ready": name}), file=replies, flush=True)
        for line in sys.stdin:
            print(json.dumps({"taken": batch(int(line)), "upstream": 0}), file=replies, flush=True)


if __name__ == "__main__":
    main()
