"""The graph over very many rows: near the exact search, never against it, and made beside the searches."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from costkit.index import Index, Row, graph
from costkit.index.graph import Growing, grown
from costkit.index.rows import Vectors
from costkit.index.space import Space
from tests.indexes import NOW, SECRET, is_true, key, nearest, vectors

MANY = 3000
K = 8


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand rows are very many here."""
    monkeypatch.setattr(graph, "LEAST", 1000)
    monkeypatch.setattr(graph, "_TAIL", 100)


def put(space: Space, made: Vectors, first: int = 0, **more: object) -> None:
    """Rows with these vectors, numbered on from the first."""
    rows = [Row(key(first + at), NOW, **more) for at in range(len(made))]  # type: ignore[arg-type]
    space.put(range(first + 1, first + len(made) + 1), rows, made)


def held(made: Vectors) -> Space:
    """A space with these rows and its graph."""
    space = Space(made.shape[1])
    put(space, made)
    space.count()
    space._growing.wait()
    found = space.snapshot("")
    assert found is not None and found.graph is not None and found.graph.size == len(made)
    return space


def search(
    space: Space, vector: Vectors, k: int = K, now: float = NOW
) -> tuple[tuple[str, ...], list[float]]:
    snapshot = space.snapshot("")
    assert snapshot is not None
    found = snapshot.nearest(vector, k, now)
    return found.keys, found.similarities.tolist()


def recall(space: Space, asked: Vectors, truth: dict[str, Vectors]) -> float:
    """Share of the true nearest, by similarity, that are found."""
    hits = 0
    for vector in asked:
        _, similarities = search(space, vector)
        best = nearest(vector, truth, K)
        hits += sum(one >= best[-1] - 1e-6 for one in similarities)
    return hits / (K * len(asked))


@pytest.mark.parametrize("dimension", [16, 256])
def test_nearly_all_of_the_nearest(dimension: int) -> None:
    """Of the eight nearest at least 98 % are found, each with its true similarity."""
    made, asked = np.split(vectors(MANY + 200, dimension, 1, 60), [MANY])
    space, truth = held(made), {key(at): vector for at, vector in enumerate(made)}
    assert recall(space, asked, truth) >= 0.98
    for vector in asked[:50]:
        found, similarities = search(space, vector)
        assert similarities == sorted(similarities, reverse=True)
        assert np.allclose(similarities, [float(truth[one] @ vector) for one in found], atol=1e-6)


def test_rows_come_in_order_of_age_where_they_are_equal() -> None:
    """Of rows with one vector the oldest comes first, as by the exact search."""
    made = vectors(MANY, 16, 1)
    made[2000:2005] = made[100]
    found, _ = search(held(made), made[100], 6)
    assert found[:6] == tuple(key(at) for at in (100, 2000, 2001, 2002, 2003, 2004))


def test_what_is_gone_does_not_come_back() -> None:
    """Removed, expired, cut and replaced rows are no neighbours, though the graph still holds them."""
    made = vectors(MANY, 16, 1, 20)
    space = held(made)
    space.drop(key(5))
    assert key(5) not in search(space, made[5])[0]
    put(space, made[6:7], 6, expires=NOW + 1)
    assert search(space, made[6])[0][0] == key(6)
    assert key(6) not in search(space, made[6], now=NOW + 2)[0]
    put(space, made[9:10], 7)  # another vector for the key
    assert (
        search(space, made[9], 20)[0][:2] == (key(9), key(7)) and key(7) not in search(space, made[7], 20)[0]
    )
    space.drop_until(2900)
    for at in (10, 2899):
        assert all(int(one, 16) >= 2900 or one in {key(6), key(7)} for one in search(space, made[at])[0])


def test_another_epoch_is_searched_exactly() -> None:
    """Where nearly all that the graph names is of a past epoch, the few of this one are all found."""
    made = vectors(MANY, 16, 1, 20)
    space = held(made)
    for at in range(0, 200, 10):
        space.put([MANY + at + 1], [Row(key(MANY + at), NOW, epoch="kb=2")], made[at : at + 1])
    snapshot = space.snapshot("kb=2")
    assert snapshot is not None and snapshot.graph is not None
    for at in range(0, 200, 10):
        found = snapshot.nearest(made[at], K, NOW)
        assert len(found.rows) == K and found.keys[0] == key(MANY + at)


def test_new_rows_are_found_at_once() -> None:
    """Rows that the graph does not hold yet are compared one by one; when they are many it takes them in."""
    made = vectors(MANY, 16, 1)
    space = held(made[:2000])
    for at in range(2000, MANY):
        put(space, made[at : at + 1], at)
        assert search(space, made[at])[0][0] == key(at)
        space.count()
    space._growing.wait()
    grown_to = space._growing.now(MANY)
    assert grown_to is not None and MANY - 1000 < grown_to.size <= MANY
    truth = {key(at): vector for at, vector in enumerate(made)}
    assert recall(space, vectors(100, 16, 3), truth) >= 0.95


def test_other_numbers_make_another_graph() -> None:
    """When dead rows are left behind places are numbered anew: the old graph is not asked, the new one is right."""
    made = vectors(MANY, 16, 1, 20)
    space = held(made)
    for at in range(0, MANY, 2):
        space.drop(key(at))
    more = vectors(MANY, 16, 4, 20)
    put(space, more, MANY)
    truth = {key(at): made[at] for at in range(1, MANY, 2)} | {key(MANY + at): more[at] for at in range(MANY)}
    snapshot = space.snapshot("")
    assert snapshot is not None and snapshot.graph is None, "the numbers changed"
    assert recall(space, more[:50], truth) == 1.0
    space.count()
    space._growing.wait()
    assert space._growing.now(len(truth)) is not None and recall(space, more[:100], truth) >= 0.98


def test_a_graph_of_old_numbers_that_comes_late() -> None:
    """One that was begun before the numbers changed is thrown away when it is done."""
    growing, made = Growing(), vectors(1200, 8)
    growing.tend(made, len(made))
    growing.renumber()
    growing.wait()
    assert growing.now(len(made)) is None
    growing.tend(made, len(made))
    growing.wait()
    assert growing.now(len(made)) is not None and growing.now(len(made) - 1) is None


def test_searches_go_on_while_it_grows(tmp_path: Path) -> None:
    """Threads that add and search at once find every row that was added before, and nothing else."""
    made, index = vectors(2500, 16, 1, 30), Index(tmp_path, secret=SECRET)
    truth = {key(at): vector for at, vector in enumerate(made)}
    done, wrong = [0], list[int]()

    def look() -> None:
        rng = np.random.default_rng()
        while done[0] < len(made):
            last = done[0]
            if last:
                at = int(rng.integers(last))
                found = index.search("s", "n", made[at], now=NOW, k=K)
                if key(at) not in found.keys or not is_true(found, made[at], truth):
                    wrong.append(at)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for at, vector in enumerate(made):
        assert index.add("s", "n", Row(key(at), NOW), vector)
        done[0] = at + 1
    for thread in threads:
        thread.join()
    (space,) = index._spaces.values()
    space._growing.wait()
    assert space._growing.now(len(made)) is not None and len(wrong) <= 3, "the graph may miss one in hundreds"
    assert index.troubles == {"damaged": 0, "failed": 0, "unwritten": 0}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_child_grows_its_own(tmp_path: Path) -> None:
    """A child forked while the graph is being made searches, and makes one for itself."""
    made, index = vectors(1500, 16, 1, 30), Index(tmp_path, secret=SECRET)
    for at, vector in enumerate(made):
        index.add("s", "n", Row(key(at), NOW), vector)
    index.search("s", "n", made[0], now=NOW)
    child = os.fork()
    if not child:
        index.after_fork()
        found = index.search("s", "n", made[7], now=NOW).keys[0] == key(7)
        (space,) = index._spaces.values()
        space._growing.wait(30)
        index.search("s", "n", made[7], now=NOW)
        space._growing.wait(30)
        os._exit(0 if found and space._growing.now(len(made)) is not None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("fault", ["missing", "broken"])
def test_without_the_library_the_search_is_exact(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """Where usearch is not installed, or fails, everything is found as before."""

    class Broken:
        def Index(self, **_: object) -> object:
            raise MemoryError

    monkeypatch.setattr(graph, "_usearch", lambda: None if fault == "missing" else Broken())
    made = vectors(1500, 16, 1)
    assert fault != "missing" or grown(None, made, 1500) is None
    space = Space(16)
    put(space, made)
    for _ in range(3):
        space.count()
        space._growing.wait()
    assert space._growing.now(1500) is None
    assert recall(space, vectors(30, 16, 5), {key(at): vector for at, vector in enumerate(made)}) == 1.0


def test_its_memory_is_counted() -> None:
    """What the graph takes is in the space's bytes."""
    space = Space(64)
    put(space, vectors(MANY, 64))
    before = space.count()
    space._growing.wait()
    assert space.count() - before >= space._growing.bytes > MANY * 64
