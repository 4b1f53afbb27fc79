"""What a replay says of a log: counted by hand, kept to its bounds, shown and drawn."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from costkit.bound import Bound
from costkit.cli import main
from costkit.embed import encoder_of
from costkit.errors import ConfigError
from costkit.judges import Judge
from costkit.replay import Columns, Replay, plot, read_log, replay, settings, to_table
from costkit.replay.table import next_steps
from costkit.semantic.pool import Meaning
from costkit.semantic.settings import semantic

from .rehearsals import made, tier, write

BOUNDS = (Bound(0.2), Bound(0.1, "request"))


def costs(number: int) -> dict[str, Any]:
    """Columns of money and time."""
    coins = random.Random(number)
    return {"cost": 0.001 + 0.001 * coins.random(), "latency": 1 + coins.random(), "time": 1.7e9 + number}


def told(tmp_path: Path, rows: int = 900, **how: Any) -> Replay:
    """A replay of a made log."""
    log = read_log(write(tmp_path / "log.jsonl", made(rows, seed=3), costs))
    return replay(log, tier(), how.pop("bounds", BOUNDS), **how)


def test_counts_are_those_of_the_rows(tmp_path: Path) -> None:
    """Identical calls, money and the p95 are what can be counted by hand from the log."""
    said = told(tmp_path)
    rows = made(900, seed=3)
    seen: set[str] = set()
    repeats = [row.question in seen or seen.add(row.question) for row in rows]  # type: ignore[func-returns-value]
    assert said.repeats == sum(bool(one) for one in repeats) > 90
    assert said.exact.value == said.repeats / 900
    nano = [round(costs(number)["cost"] * 1e9) for number in range(900)]
    assert said.spent == sum(nano)
    assert said.exact_saved is not None
    assert said.exact_saved.value == sum(cost for cost, one in zip(nano, repeats, strict=True) if one)
    latencies = sorted(costs(number)["latency"] for number in range(900))
    assert said.p95 is not None and said.p95.value == latencies[854]
    assert said.differ == 0 and said.unpriced == 0


def test_a_bound_is_kept_and_saves(tmp_path: Path) -> None:
    """Each gate opens, stays inside its bound, and hits save money and time on top of the exact cache."""
    said = told(tmp_path)
    for at in said.bounds:
        assert at.opened is not None and at.hits > 100
        assert at.wrong_share.value <= at.bound.max_error
        assert at.wrong_share.low is not None and at.wrong_share.low <= at.wrong_share.value
        assert at.net.value == at.hits / 900
        assert at.net.low is not None and at.net.high is not None and at.net.low < at.net.value < at.net.high
        assert (
            said.exact_saved is not None and at.saved is not None and at.saved.value > said.exact_saved.value
        )
        assert said.p95 is not None and at.p95 is not None


def test_a_lookup_is_paid_for_by_misses_too(tmp_path: Path) -> None:
    """Where a gate serves nothing, every call but the identical ones takes a lookup longer than before."""
    said = told(tmp_path, rows=300, bounds=(Bound(0.0001),))
    assert said.bounds[0].hits == 0 and said.lookup > 0
    assert said.bounds[0].p95 is not None and said.exact_p95 is not None
    assert said.bounds[0].p95.value == pytest.approx(said.exact_p95.value + said.lookup)


def test_the_seed_decides(tmp_path: Path) -> None:
    """The same seed gives the same replay."""
    one, two = (replace(told(tmp_path, rows=400, seed=5), lookup=0.0) for _ in range(2))
    assert [(at.hits, at.wrong, at.audits, at.saved) for at in one.bounds] == [
        (at.hits, at.wrong, at.audits, at.saved) for at in two.bounds
    ]


def test_what_is_unknown_stays_unknown(tmp_path: Path) -> None:
    """Without money and latency there is none; with some rows lacking it they are counted, not guessed."""
    bare = replay(read_log(write(tmp_path / "a.jsonl", made(200))), tier(), BOUNDS)
    assert (bare.spent, bare.exact_saved, bare.p95, bare.bounds[0].saved, bare.bounds[0].p95) == (None,) * 5
    assert any("--cost" in step for step in next_steps(bare)) and any(
        "--latency" in step for step in next_steps(bare)
    )
    partly = read_log(
        write(tmp_path / "b.jsonl", made(200), lambda number: costs(number) if number % 2 else {})
    )
    said = replay(partly, tier(), BOUNDS)
    assert said.unpriced == 100
    assert said.spent == sum(round(costs(number)["cost"] * 1e9) for number in range(1, 200, 2))


def test_answers_that_differ_by_themselves_are_told(tmp_path: Path) -> None:
    """Identical calls with other answers are the floor under every bound, and the next step says so."""
    log = read_log(
        write(tmp_path / "log.jsonl", made(600, seed=1), lambda number: {"label": f"l{number % 2}"})
    )
    said = replay(log, tier(), BOUNDS)
    assert said.differ is not None and said.repeats / 4 < said.differ < said.repeats
    assert any("identical calls have answers" in step for step in next_steps(said))
    assert not said.bounds[0].hits
    assert settings(said) == "@kit.call(costkit.exact(), scope='tenant')"


def test_a_judge_nobody_measured_is_refused(tmp_path: Path) -> None:
    """With a judge of unknown sensitivity no bound can be kept, which is said before any row is embedded."""
    judge = Judge("mine", "mine/1", says=lambda served, reference, question: True)
    with pytest.raises(ConfigError, match="measure it first"):
        replay(read_log(write(tmp_path / "log.jsonl", made(50))), tier(judge=judge), BOUNDS)


def test_a_ttl_needs_times(tmp_path: Path) -> None:
    """With a ttl identical calls far apart are no hits; a log without times is an error."""
    apart = read_log(write(tmp_path / "a.jsonl", made(300), lambda number: {"time": 1.7e9 + 1000.0 * number}))
    assert (
        replay(apart, tier(), BOUNDS, ttl=1.0).repeats == 0 < replay(apart, tier(), BOUNDS, ttl=1e9).repeats
    )
    with pytest.raises(ConfigError, match="--time COLUMN"):
        replay(read_log(write(tmp_path / "b.jsonl", made(50))), tier(), BOUNDS, ttl=1.0)


def test_the_settings_can_be_pasted(tmp_path: Path) -> None:
    """The decorator is Python, and names the bound with the most hits, the column and the scope."""
    said = told(tmp_path)
    text = settings(said)
    compile(f"{text}\ndef ask(question, tenant): ...", "settings", "exec")
    best = max(said.bounds, key=lambda at: at.net.value)
    assert f"max_error={best.bound.max_error:g}" in text and f'per="{best.bound.per}"' in text
    assert 'costkit.semantic("question", encoder=YOUR_ENCODER)' in text and "scope='tenant'" in text


def test_the_settings_are_those_that_were_replayed(tmp_path: Path) -> None:
    """A ttl, an encoder, columns that must be identical, a model's column and a provider are in the decorator."""
    rows = write(
        tmp_path / "log.jsonl",
        made(900, seed=3),
        lambda number: {**costs(number), "system": "s", "llm": "m"},
    )
    log = read_log(rows, Columns(same=("system",), provider="openai", model="llm"))
    named = Meaning(semantic("question", encoder="some/model"), Bound(0.02), tier().judge, tier().encoder)
    for meaning, encoder in ((tier(), "YOUR_ENCODER"), (named, "'some/model'")):
        text = settings(replay(log, meaning, BOUNDS, ttl=172_800.0))
        compile(f"{text}\ndef ask(question, tenant, llm, system): ...", "settings", "exec")
        assert text.startswith("# of one value for all who share an answer, as any other argument: system\n")
        assert (
            "costkit.exact(ttl='2d')" in text and f'costkit.semantic("question", encoder={encoder})' in text
        )
        assert "model='llm', provider='openai'" in text
    shut = settings(replay(log, tier(), [Bound(1e-6)], ttl=90.0))
    assert shut.endswith("@kit.call(costkit.exact(ttl=90.0), scope='tenant', model='llm', provider='openai')")


@pytest.mark.parametrize(("name", "said"), [("minilm", ""), (None, ""), ("wordllama", "wordllama")])
def test_encoders_that_come_along_are_named(tmp_path: Path, name: str | None, said: str) -> None:
    """The default encoder needs no name in the settings, the other one its own."""
    pytest.importorskip("wordllama")
    meaning = Meaning(semantic("question", encoder=name), Bound(0.02), tier().judge, encoder_of(name))
    log = read_log(write(tmp_path / "log.jsonl", made(40, seed=3), costs))
    assert replay(log, meaning, BOUNDS[:1]).named == said


def test_no_text_of_the_log_comes_out(tmp_path: Path) -> None:
    """Neither the data nor the table hold a question or an answer."""
    from rich.console import Console

    said = told(tmp_path, rows=300, curves=True)
    console = Console(width=120, record=True, quiet=True)
    console.print(to_table(said))
    for text in (json.dumps(said.to_dict()), console.export_text()):
        assert "refund" not in text and "takes a week" not in text and "visa" not in text


def test_the_picture(tmp_path: Path) -> None:
    """Precision against hit rate falls to that of all candidates, is drawn, and refuses what it cannot write."""
    pytest.importorskip("matplotlib")
    said = told(tmp_path, curves=True)
    score, cosine = said.curves
    assert (
        score.hit_rate[-1] == cosine.hit_rate[-1]
        and score.precision[-1] == cosine.precision[-1] < score.precision[50]
    )
    assert list(score.hit_rate) == sorted(score.hit_rate)
    for ending in ("png", "svg"):
        assert plot(said, tmp_path / f"drawn.{ending}").stat().st_size > 5000
    with pytest.raises(ConfigError, match="end the name in"):
        plot(said, tmp_path / "drawn.txt")
    with pytest.raises(ConfigError, match="make it first"):
        plot(said, tmp_path / "none" / "drawn.png")


ENCODER = "import sys\nsys.path.insert(0, {root!r})\nfrom costkit.judges import same_text as judge\n"


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`costkit replay LOG` prints the table, the settings and the next step; --json - prints data alone on stdout."""
    pytest.importorskip("wordllama")
    write(tmp_path / "log.jsonl", made(400, seed=3), costs)
    (tmp_path / "replay_app.py").write_text(ENCODER.format(root=str(Path(__file__).parent.parent)))
    monkeypatch.chdir(tmp_path)
    asked = ["replay", "log.jsonl", "--encoder", "wordllama", "--max-error", "0.2", "--per", "request"]
    assert main([*asked, "--judge", "replay_app:judge"]) == 0
    out = capsys.readouterr().out
    assert (
        "400 calls of log.jsonl" in out
        and "20 % per request" in out
        and "Next: " in out
        and "@kit.call(" in out
    )
    assert main([*asked, "--json", "-"]) == 0
    said, err = capsys.readouterr()
    assert json.loads(said)["rows"] == 400 and "400 calls" in err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "name a LOG"),
        (["log.jsonl", "--ledger", "x"], "one of the two"),
        (["log.jsonl", "--max-error", "2"], "is not between 0 and 1"),
        (["log.jsonl", "--name", "x"], "say --ledger FOLDER too"),
        (["none.jsonl"], "cannot be read"),
        (["log.jsonl", "--ttl", "soon"], "--ttl"),
        (["log.jsonl", "--judge", "nothing"], "MODULE:FUNCTION"),
        (["log.jsonl", "--plot", "x.txt"], "end the name in"),
        (["log.jsonl", "--question", "querstion"], "did you mean 'question'"),
        (["--ledger", "nowhere"], "no such folder"),
    ],
)
def test_bad_options_are_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    says: str,
) -> None:
    """A wrong option exits 2 with one line that names it and the mend."""
    write(tmp_path / "log.jsonl", made(20))
    monkeypatch.chdir(tmp_path)
    assert main(["replay", *options]) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1
