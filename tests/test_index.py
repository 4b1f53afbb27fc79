"""The index: exactly the nearest, of the right scope, namespace and epoch, and at once for everybody."""

from __future__ import annotations

import os
import random
import stat
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import costkit.index.space
from costkit.index import Index, Row
from costkit.index.rows import Vectors
from costkit.index.sieve import Sieve, dots
from tests.indexes import NOW, SECRET, database, filled, is_true, key, nearest, vectors


def test_a_row_comes_back_whole(tmp_path: Path) -> None:
    """All fields of a row, from this index and from one that is opened later."""
    (vector,) = vectors(1)
    row = Row(key(1), NOW, NOW + 60.5, "kb=é2", b"\x00answer", b"\xff features", 3)
    index = Index(tmp_path, secret=SECRET)
    assert index.search("s", "n", vector, now=NOW).rows == ()
    assert index.add("s", "n", row, vector)
    for reader in (index, Index(tmp_path, secret=SECRET)):
        found = reader.search("s", "n", vector, now=NOW, epoch="kb=é2")
        assert found.rows == (row,) and found.keys == (key(1),)
        assert found.similarities == pytest.approx([1.0], abs=1e-6)
        assert reader.count("s", "n", 8) == 1 and not any(reader.troubles.values())


@pytest.mark.parametrize("clusters", [0, 12])
@pytest.mark.parametrize("sieved", [100, 1 << 30])
def test_exactly_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sieved: int, clusters: int
) -> None:
    """With the sieve and without, on scattered and on clustered vectors, while the index grows, for every k."""
    monkeypatch.setattr(costkit.index.space, "_SIEVED", sieved)
    made, index, truth = vectors(1500, 40, 3, clusters), Index(tmp_path), dict[str, Vectors]()
    asked = vectors(60, 40, 4, clusters)
    for number, vector in enumerate(made):
        index.add("s", "n", Row(key(number), NOW), vector)
        truth[key(number)] = vector
        if number % 25 == 0:
            query = made[number // 2] if number % 2 else asked[number // 25]
            for k in (1, 8, 100):
                found = index.search("s", "n", query, now=NOW, k=k)
                assert np.allclose(found.similarities, nearest(query, truth, k), atol=1e-5)
                assert is_true(found, query, truth) and len(set(found.keys)) == len(found.keys)
    assert not any(index.troubles.values())


def test_the_sieve_sieves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On clustered vectors most searches compare less than an eighth of the rows in full."""
    monkeypatch.setattr(costkit.index.space, "_SIEVED", 100)
    space = costkit.index.space.Space(40)
    made = vectors(3000, 40, 3, 30)
    space.put(range(1, 3001), [Row(key(n), NOW) for n in range(3000)], made)
    space.count()
    seen = space.snapshot("")
    assert seen is not None and seen.sieve is not None
    gone = np.zeros(3000, np.bool_)
    sieved = [seen._sieved(seen.sieve, query, 8, gone) for query in made[::60]]
    assert sum(places is not None for places in sieved) >= 45


def test_scopes_and_namespaces_are_walls(tmp_path: Path) -> None:
    """The same question in another scope, namespace or dimension is never found, however names are cut."""
    (vector,) = vectors(1)
    names = [("a", "bc"), ("ab", "c"), ("abc", ""), ("", "abc"), ("2:a", "b"), ("a", "b"), ("b", "a")]
    index = Index(tmp_path)
    for number, (scope, namespace) in enumerate(names):
        index.add(scope, namespace, Row(key(number), NOW), vector)
    for number, (scope, namespace) in enumerate(names):
        assert index.search(scope, namespace, vector, now=NOW).keys == (key(number),)
    (longer,) = vectors(1, 9)
    assert index.search("a", "b", longer, now=NOW).rows == ()
    assert index.search("a", "nothing", vector, now=NOW).rows == ()


@pytest.mark.parametrize("sieved", [100, 1 << 30])
def test_expiry_and_epochs_hide_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sieved: int) -> None:
    """A row is found before its time is up and in its own epoch only, even where thousands nearer ones are not."""
    monkeypatch.setattr(costkit.index.space, "_SIEVED", sieved)
    every, index = vectors(390, 40, 0, 12), Index(tmp_path)
    made = every[:300]
    for number, vector in enumerate(made):
        index.add("s", "n", Row(key(number), NOW, NOW + 10, "old"), vector)
    for number, vector in enumerate(every[300:]):
        index.add("s", "n", Row(f"other {number}", NOW, NOW + 5, "other"), vector)
    index.add("s", "n", Row("kept", NOW, NOW + 20, "new"), -made[0])
    assert index.search("s", "n", made[0], now=NOW, epoch="new").keys == ("kept",)
    assert len(index.search("s", "n", made[0], now=NOW + 9.9, epoch="old").rows) == 8
    assert index.search("s", "n", made[0], now=NOW + 10, epoch="old").rows == ()
    assert index.search("s", "n", made[0], now=NOW, epoch="").rows == ()
    assert {row.epoch for row in index.search("s", "n", made[0], now=NOW, epoch="other", k=80).rows} == {
        "other"
    }
    assert index.search("s", "n", made[0], now=NOW + 5, epoch="other", k=80).rows == ()


def test_a_key_has_one_row(tmp_path: Path) -> None:
    """Adding a key again replaces its row, with the same vector or another one."""
    one, other = vectors(2)
    index = Index(tmp_path)
    for number, vector in enumerate([one, one, other, one]):
        index.add("s", "n", Row(key(1), NOW, features=bytes([number])), vector)
        (row,) = index.search("s", "n", vector, now=NOW).rows
        assert row.features == bytes([number])
    assert index.count("s", "n", 8) == 1 == Index(tmp_path).count("s", "n", 8)


def test_confirmations_count(tmp_path: Path) -> None:
    """Each confirmation counts once, whoever made it; a row that is not there has none."""
    index, made = filled(tmp_path, 3)
    other = Index(tmp_path)
    assert [index.confirm("s", "n", key(1)), other.confirm("s", "n", key(1))] == [1, 2]
    assert index.search("s", "n", made[1], now=NOW).rows[0].trust == 2
    assert index.confirm("s", "n", "none") is None and index.confirm("t", "n", key(1)) is None
    index.remove("s", "n", key(1))
    assert index.confirm("s", "n", key(1)) is None
    with_most = Row(key(2), NOW, trust=(1 << 32) - 1)
    index.add("s", "n", with_most, made[2])
    assert index.confirm("s", "n", key(2)) == with_most.trust and not index.troubles["damaged"]


@pytest.mark.parametrize("seed", range(4))
def test_three_readers_and_a_model_agree(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random changes by any of three indexes on one folder: after each, any of them finds what a plain dict would."""
    monkeypatch.setattr(costkit.index.space, "_SIEVED", 150)
    rng, made = random.Random(seed), vectors(200, 16, seed, 9)
    indexes = [Index(tmp_path, secret=SECRET) for _ in range(3)]
    truth: dict[tuple[str, str], dict[str, Vectors]] = {(s, n): {} for s in "ab" for n in "xy"}
    for step in range(900):
        one, place, number = rng.choice(indexes), rng.choice(sorted(truth)), rng.randrange(150)
        what = rng.random()
        if what < 0.8:
            vector = made[number if rng.random() < 0.9 else number + 50]
            assert one.add(*place, Row(key(number), NOW), vector)
            truth[place][key(number)] = vector
        elif what < 0.97:
            assert one.remove(*place, key(number)) == (truth[place].pop(key(number), None) is not None)
        elif what < 0.99:
            there = sum(len(rows) for at, rows in truth.items() if at[0] == place[0])
            assert one.forget(place[0]) == there
            truth.update({at: {} for at in truth if at[0] == place[0]})
        else:
            indexes[rng.randrange(3)].close()
        query, asked = made[rng.randrange(200)], rng.choice(sorted(truth))
        found = rng.choice(indexes).search(*asked, query, now=NOW, k=5)
        assert np.allclose(found.similarities, nearest(query, truth[asked], 5), atol=1e-5), step
        assert is_true(found, query, truth[asked])
    assert not any(any(index.troubles.values()) for index in indexes)


def test_the_file_stays_within_its_limit(tmp_path: Path) -> None:
    """The rows written longest ago go, expired ones first, and other readers no longer find them."""
    index, reader, made = Index(tmp_path, size_limit=1 << 20), Index(tmp_path), vectors(3000, 64)
    for number, vector in enumerate(made):
        index.add("s", "n", Row(key(number), NOW + number, NOW + number + 50 if number % 2 else None), vector)
        if number == 1000:
            assert reader.search("s", "n", made[0], now=NOW).keys[0] == key(0)
    size = (tmp_path / "index" / "vectors-1.db").stat().st_size
    held = reader.count("s", "n", 64)
    assert size < 1.2 * (1 << 20) and 1000 < held < 2500
    assert reader.search("s", "n", made[0], now=NOW).keys[0] != key(0)
    assert reader.search("s", "n", made[2998], now=NOW).keys[0] == key(2998)
    (expired,) = (
        database(tmp_path).execute("SELECT count(*) FROM entries WHERE expires < ?", (NOW + 2900,)).fetchone()
    )
    assert expired == 0


def test_memory_stays_within_its_limit(tmp_path: Path) -> None:
    """Of a hundred namespaces only so many are held as fit, and each is still found when it is asked for."""
    made, index = vectors(100, 64), Index(tmp_path, memory_limit=500_000)
    for number, vector in enumerate(made):
        index.add("s", f"n{number}", Row(key(number), NOW), vector)
    for number, vector in [*enumerate(made), *enumerate(made)]:
        assert index.search("s", f"n{number}", vector, now=NOW).keys == (key(number),)
        assert sum(space.bytes for space in index._spaces.values()) <= 500_000
    assert len(index._spaces) > 5


def test_namespaces_that_hold_nothing_cost_nothing(tmp_path: Path) -> None:
    """Ten thousand namespaces that are searched once each, in vain, leave nothing in memory; those that then get a row,
    as in conversations that never repeat, take no more than the limit."""
    index, (vector,) = Index(tmp_path, memory_limit=200_000), vectors(1, 384)
    tracemalloc.start()
    for number in range(10_000):
        assert not index.search("s", f"n{number}", vector, now=NOW).rows
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1_000_000 and not index._spaces
    for number in range(60):
        name = f"turn {number}"
        index.search("s", name, vector, now=NOW)
        index.add("s", name, Row(key(number), NOW), vector)
        assert index.search("s", name, vector, now=NOW).keys == (key(number),)
        assert index._held == sum(space.bytes for space in index._spaces.values()) <= 200_000
    assert 5 < len(index._spaces) < 60


def test_vectors_that_are_none_are_refused(tmp_path: Path) -> None:
    """A vector of another type, length or shape, or with NaN, is refused before anything is written or searched."""
    index, (good,) = Index(tmp_path), vectors(1)
    bad = [good * 2, good * 0, good.astype(np.float64), good[None, :], good * np.float32("nan"), good[:0]]
    for vector in bad:
        with pytest.raises(ValueError, match="length 1"):
            index.add("s", "n", Row(key(1), NOW), vector)
    for vector in (good * 2, good * np.float32("nan"), good[None, :]):
        with pytest.raises(ValueError, match="length 1"):
            index.search("s", "n", vector, now=NOW)
    for row in (Row("", NOW), Row(key(1), NOW, features=b"x" * (1 << 20)), Row("k" * 1001, NOW)):
        with pytest.raises(ValueError, match="at most"):
            index.add("s", "n", row, good)
    for row in (Row(key(1), float("nan")), Row(key(1), NOW, float("nan")), Row(key(1), NOW, trust=-1)):
        with pytest.raises(ValueError, match="finite"):
            index.add("s", "n", row, good)
    assert index.count("s", "n", 8) == 0 and not any(index.troubles.values())


def test_files_are_private(tmp_path: Path) -> None:
    """Whatever the umask, only the owner can read the folder and its files."""
    before = os.umask(0)
    try:
        index, _ = filled(tmp_path, 3)
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "index").iterdir()}
        assert modes and set(modes.values()) == {0o600}
        assert stat.S_IMODE((tmp_path / "index").stat().st_mode) == 0o700
        index.close()
    finally:
        os.umask(before)


def test_forgetting_leaves_nothing_on_the_disk(tmp_path: Path) -> None:
    """No byte of a forgotten scope's vectors or features is left in any file, set aside ones included; others stay."""
    index, made = filled(tmp_path, 50)
    index.add("t", "n", Row(key(1), NOW, features=b"somebody else's"), made[1])
    index.add("s", "n", Row(key(99), NOW, features=b"a canary"), made[0])
    aside = tmp_path / "index.damaged-1"
    aside.mkdir()
    (aside / "vectors-1.db").write_bytes(made[3].tobytes())
    assert index.forget("s") == 51 and index.forget("s") == 0
    left = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert not any(vector.tobytes() in left for vector in (made[0], *made[2:])) and b"canary" not in left
    assert b"somebody else's" in left and index.search("t", "n", made[1], now=NOW).keys == (key(1),)
    assert index.search("s", "n", made[0], now=NOW).rows == ()
    index.add("s", "n", Row(key(5), NOW), made[5])
    assert index.search("s", "n", made[5], now=NOW).keys == (key(5),)


def test_threads_search_while_others_change(tmp_path: Path) -> None:
    """Under 4 searching and 2 changing threads every row found has the similarity of its own vector."""
    made, index = vectors(400, 16), Index(tmp_path)
    truth = {key(n): vector for n, vector in enumerate(made)}
    wrong: list[str] = []
    done = threading.Event()

    def search(seed: int) -> None:
        rng = random.Random(seed)
        while not done.is_set():
            query = made[rng.randrange(400)]
            if not is_true(index.search("s", "n", query, now=NOW), query, truth):
                wrong.append("crossed")

    def change(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(1500):
            number = rng.randrange(400)
            if rng.random() < 0.7:
                index.add("s", "n", Row(key(number), NOW), made[number])
            else:
                index.remove("s", "n", key(number))

    searching = [threading.Thread(target=search, args=(n,)) for n in range(4)]
    changing = [threading.Thread(target=change, args=(n,)) for n in range(2)]
    for thread in (*searching, *changing):
        thread.start()
    for thread in changing:
        thread.join()
    done.set()
    for thread in searching:
        thread.join()
    assert not wrong and not any(index.troubles.values())


@pytest.mark.parametrize("kind", ["plane", "same", "axes", "clustered", "scattered"])
def test_the_sieves_limit_holds(kind: str) -> None:
    """No cosine exceeds what the sieve says it is at most: in a plane, all alike, along axes, in clusters."""
    made = vectors(5000, 48, 5, 40 if kind == "clustered" else 0)
    if kind == "plane":
        made[:, 2:] = 0
    elif kind == "same":
        made[:] = made[0]
    elif kind == "axes":
        made[:] = np.eye(48, dtype=np.float32)[np.arange(5000) % 48]
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    sieve = Sieve.over(made, 4000)
    sieve.fill(slice(4000, 5000), made[4000:])
    for query in (*made[::500], *vectors(20, 48, 6)):
        assert (sieve.until(5000).at_most(query) >= made @ query).all()


def test_products_in_blocks_are_products() -> None:
    """Whatever the number of rows, what is added up in blocks is the product."""
    for size, dimension in ((0, 8), (1, 8), (23, 384), (24, 384), (1000, 384), (77, 20_000)):
        made = vectors(size, dimension)
        assert np.allclose(dots(made, np.ones(dimension, np.float32)), made.sum(axis=1), atol=1e-3)
