"""The rules that costkit is measured beside do what their descriptions say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.semantic import baselines
from tests.benchmarks.semantic.entry import Entry
from tests.benchmarks.semantic.figures import best_static
from tests.benchmarks.semantic.near import Floats, near
from tests.benchmarks.semantic.rows import OUT_OF_SCOPE, BadRows, Rows, Stream, after, joined, read, stream
from tests.benchmarks.semantic.seeds import Job, Ruled
from tests.benchmarks.semantic.stream import Bound
from tests.benchmarks.semantic.tally import Tally
from tests.benchmarks.semantic_rows import made


def plain(vectors: Floats, texts: list[str], asked: Stream, threshold: float) -> Tally:
    """A cache with one threshold, written as simply as it can be."""
    stored: list[int] = []
    known: dict[str, int] = {}
    exact = hits = wrong = wrong_exact = 0
    for t in range(len(asked)):
        truth = int(asked.answers[t])
        if t >= asked.known:
            if texts[t] in known:
                exact += 1
                wrong_exact += known[texts[t]] != truth
                continue
            scores = [float(vectors[t] @ vectors[j]) for j in stored]
            if scores and max(scores) >= threshold:
                hits += 1
                wrong += int(asked.answers[stored[int(np.argmax(scores))]]) != truth
                continue
        if truth != OUT_OF_SCOPE:
            stored.append(t)
            known[texts[t]] = truth
    return Tally(asked.asked, exact, hits, wrong, wrong_exact)


@pytest.mark.parametrize("k", [1, 5, 64])
def test_neighbours_are_the_nearest_before(k: int) -> None:
    """The neighbours of each question are those before it with the highest cosine, and walking goes on to the last."""
    _, vectors = made(300, repeats=0.0)
    found = near(vectors, k=k)
    for t in (0, 1, 4, 100, 299):
        scores = vectors[:t] @ vectors[t]
        best = np.argsort(-scores, kind="stable")[:k]
        assert found.order[t][: len(best)].tolist() == best.tolist()
        assert (found.order[t][len(best) :] == -1).all()
        assert sorted(j for j, _ in found.walk(t)) == list(range(t))


@pytest.mark.parametrize("k", [1, 64])
@pytest.mark.parametrize("drift", [False, True])
def test_all_thresholds_at_once_are_each_one_alone(k: int, drift: bool) -> None:
    """The walk under all thresholds counts what a plain cache with one does, with gold rows before it or without."""
    rows, vectors = made(200, spread=0.8)
    gold, gold_vectors = made(40, spread=0.8, seed=2)
    everything, table = joined(rows, gold), np.concatenate([vectors, gold_vectors])
    bare = stream(rows, 3, drift=drift)
    for asked in (bare, after(len(gold), everything.classes, bare)):
        texts = [everything.texts[i] for i in asked.rows]
        found = baselines.static(near(table[asked.rows], k=k), asked, baselines.same_texts(texts))
        for i in (0, 20, 40, 60, 80, 95, 100):
            expected = plain(table[asked.rows], texts, asked, float(baselines.THRESHOLDS[i]))
            assert found[i] == expected, baselines.THRESHOLDS[i]
        assert found[-1].hits == 0 < found[0].hits


def test_any_hit_on_a_question_off_topic_is_wrong() -> None:
    """A question off topic is never stored, and whoever answers it from the store has answered wrong."""
    rows = Rows(("a", "off", "off", "b"), np.array([0, OUT_OF_SCOPE, OUT_OF_SCOPE, OUT_OF_SCOPE]))
    asked, vectors = Stream(np.arange(4), rows.classes), np.ones((4, 1), np.float32)
    found = baselines.static(near(vectors), asked, baselines.same_texts(list(rows.texts)))
    assert found[0] == Tally(asked=4, exact=0, hits=3, wrong=3)
    assert found[-1] == Tally(asked=4)


def test_the_ceiling_misses_each_answer_once() -> None:
    """Where a right answer is always found, only the first question of a class and those off topic are misses."""
    rows, vectors = made(400)
    asked = stream(rows, 1)
    same = baselines.same_texts([rows.texts[i] for i in asked.rows])
    ceiling = baselines.any_right(asked, same)
    off = int((rows.classes == OUT_OF_SCOPE).sum())
    assert ceiling.hits + ceiling.exact == 400 - 8 - off
    assert ceiling.wrong == 0
    nearest = baselines.nearest_right(near(vectors[asked.rows], k=4), asked, same)
    assert nearest.wrong == 0 and 0 < nearest.hit_rate <= ceiling.hit_rate
    thresholds = baselines.static(near(vectors[asked.rows]), asked, same)
    assert max(t.exact + t.hits - t.wrong - t.wrong_exact for t in thresholds) <= ceiling.hits + ceiling.exact


def test_an_entry_serves_nothing_on_three_labels() -> None:
    """An entry needs four labels; then it doubts a similarity below its labels more than one above them."""
    entry = Entry()
    for similarity in (0.95, 0.93, 0.97):
        entry.learn(similarity, True)
    assert entry.doubt(1.0, 0.05) == 1.0
    for similarity in (0.96, 0.94, 0.92, 0.98) * 4:
        entry.learn(similarity, True)
    for similarity in (0.5, 0.6, 0.55):
        entry.learn(similarity, False)
    doubts = [entry.doubt(similarity, 0.05) for similarity in (0.5, 0.7, 0.9, 0.99)]
    assert doubts == sorted(doubts, reverse=True)
    assert doubts[0] > 0.9 and doubts[-1] < 0.2


@pytest.mark.parametrize("max_error", [0.02, 0.05])
def test_an_entry_errs_within_its_share(max_error: float) -> None:
    """Where labels follow the curve it assumes, at most max_error of the calls to an entry are answered wrong."""
    rng = np.random.default_rng(5)
    calls = wrong = served = 0
    for _ in range(120):
        threshold, slope, entry = rng.uniform(0.4, 0.9), rng.choice([10.0, 30.0, 90.0]), Entry()
        for similarity in rng.uniform(0.2, 1.0, 150):
            right = rng.random() < 1 / (1 + np.exp(-slope * (similarity - threshold)))
            calls += 1
            if rng.random() >= entry.doubt(float(similarity), max_error):
                served += 1
                wrong += not right
            else:
                entry.learn(float(similarity), bool(right))
    assert served > 0.05 * calls
    assert wrong <= max_error * calls


def test_the_rule_for_each_entry_learns() -> None:
    """Where each class is asked over and over, its entries come to serve, and mostly right."""
    rows, vectors = made(900, classes=5, spread=0.3, repeats=0.0)
    asked = stream(rows, 2)
    same = baselines.same_texts([rows.texts[i] for i in asked.rows])
    tally = baselines.per_entry(near(vectors[asked.rows]), asked, same, 0.05, seed=2)
    assert tally.hits > 100
    assert tally.wrong_per_request <= 0.05


def ruled(*tallies: Tally) -> Mapping[str, Ruled]:
    """One seed with these tallies at the highest thresholds, and above them one that serves nothing."""
    size = len(baselines.THRESHOLDS)
    bad = [Tally(asked=100, hits=100, wrong=100)] * (size - len(tallies) - 1)
    return {"some": Ruled([*bad, *tallies, Tally(asked=100)], Tally(asked=100), Tally(asked=100))}


def test_the_best_threshold_holds_in_95_of_100_seeds() -> None:
    """A threshold with more hits that fails the bound in 6% of seeds is passed over, one that fails in 5% is not."""
    rows = Rows(("a",), np.array([0]))
    job = Job(rows, None, {}, Bound(0.02, "request"), None, False)
    fine, fails, less = (Tally(100, hits=h, wrong=w) for h, w in ((60, 2), (60, 3), (30, 0)))
    kept = [ruled(fails, less)] * 5 + [ruled(fine, less)] * 95
    lost = [ruled(fails, less)] * 6 + [ruled(fine, less)] * 94
    best, second = best_static(kept, job), best_static(lost, job)
    assert best is not None and second is not None
    assert best[0] == pytest.approx(0.6)
    assert second[0] == pytest.approx(0.3)


def test_drift_moves_half_of_the_classes_half_way() -> None:
    """From the middle on half of the classes have a new answer, before it and for the other half nothing changes."""
    rows, _ = made(400)
    asked, before = stream(rows, 4, drift=True), stream(rows, 4)
    assert asked.change == 200 and len(asked.moved) == 4
    classes = rows.classes[asked.rows]
    assert (asked.rows == before.rows).all()
    assert (asked.answers[:200] == classes[:200]).all()
    differs = set(classes[200:][asked.answers[200:] != classes[200:]].tolist())
    assert differs == set(asked.moved)
    assert OUT_OF_SCOPE not in differs


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("question,category\na,b\n", "no column text"),
        ("text,category\n", "no rows"),
        ("text,category\na,b\n,b\n", "line 3"),
        ("text,category\na\n", "line 2"),
        ("", "no column category and no column text"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, text: str, says: str) -> None:
    """A file without questions and classes is refused with its name and what is amiss."""
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(BadRows, match=says) as caught:
        read(path, {})
    assert "rows.csv" in str(caught.value)


def test_two_files_share_their_classes(tmp_path: Path) -> None:
    """A class has one number in both files, in whatever order they name it; ``oos`` has none."""
    (tmp_path / "a.csv").write_text("text,category\nx,one\ny,two\nz,oos\n")
    (tmp_path / "b.csv").write_text('text,category\n"p, q",two\nr,three\n')
    numbers: dict[str, int] = {}
    first, second = read(tmp_path / "a.csv", numbers), read(tmp_path / "b.csv", numbers)
    assert first.classes.tolist() == [0, 1, OUT_OF_SCOPE]
    assert (second.texts[0], second.classes.tolist()) == ("p, q", [1, 2])
