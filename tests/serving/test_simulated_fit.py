"""Profiles: what is fitted to a run is what its server was, and the simulated server takes it."""

from __future__ import annotations

import asyncio
import functools
import json
import random
from pathlib import Path
from typing import Any

import pytest

from loadtests.sample import Sample, write_samples
from serving.simulated import fit
from serving.simulated.profile import profile_arguments
from tests.serving.simulators import RawClient, Server, body, post, refused, serving

ROOT = Path(__file__).parents[2]
SPEED = 12
TRUE = {
    "slots": 4, "prefill_base_ms": 60.0, "prefill_ms_per_token": 0.5, "tpot_ms": 16.0, "load_factor": 1.5,
    "output_tokens_mean": 20.0, "output_tokens_sigma": 0.4,
}  # fmt: skip


async def various(server: Server, rate: float, count: int) -> None:
    """Poisson arrivals with prompts of 10 to 400 words."""
    loop, rng = asyncio.get_running_loop(), random.Random(3)
    due, waiting = loop.time() + 0.05, list[asyncio.Future[RawClient]]()
    for _ in range(count):
        due += rng.expovariate(rate)
        await asyncio.sleep(max(0.0, due - loop.time()))
        words = "word " * rng.randint(10, 400)
        payload = post(json.dumps(body(words, stream=True)).encode())
        done: asyncio.Future[RawClient] = loop.create_future()
        waiting.append(done)
        await loop.create_connection(functools.partial(RawClient, payload, done), server.host, server.port)
    await asyncio.wait_for(asyncio.gather(*waiting), 60)


def samples(rows: list[dict[str, Any]]) -> list[Sample]:
    """The server's own log as a generator without any lateness would have stamped it."""
    return [
        Sample(
            id=number, name="chat", intended=row["arrival"], sent=row["arrival"], ended=row["last_token"],
            first=row["first_token"], first_output=row["first_token"], last=row["last_token"],
            prompt_tokens=row["prompt_tokens"], cached_tokens=0, output_tokens=row["completion_tokens"],
            finish="stop",
        )
        for number, row in enumerate(rows)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A load run's folder: 260 requests that keep a known server about two thirds busy."""
    folder = tmp_path_factory.mktemp("run")
    options = [f"--{name.replace('_', '-')}={value}" for name, value in TRUE.items()]
    with serving(folder, *options, "--speed", str(SPEED)) as server:
        asyncio.run(various(server, 5.0 * SPEED, 260))
        write_samples(folder / "requests.jsonl", samples(server.truth()))
    return folder


def test_the_fit_finds_what_the_server_was(run: Path, tmp_path: Path) -> None:
    """Slots exactly, speeds within 5 %, the load factor within 10 %, lengths within their own spread."""
    assert fit.main([str(run), "--out", str(tmp_path / "p.json")]) == 0
    whole = json.loads((tmp_path / "p.json").read_text())
    found = whole["settings"]
    assert found["slots"] == TRUE["slots"] and whole["fitted"]["slots_known"] is True
    for name, off in (("prefill_base_ms", 0.05), ("prefill_ms_per_token", 0.05), ("tpot_ms", 0.05)):
        assert found[name] == pytest.approx(TRUE[name], rel=off), name
    assert found["load_factor"] == pytest.approx(TRUE["load_factor"], rel=0.1)
    # 260 draws: standard errors of 0.5 tokens and 0.018.
    assert found["output_tokens_mean"] == pytest.approx(20.0, abs=2.0)
    assert found["output_tokens_sigma"] == pytest.approx(0.4, abs=0.07)


def test_the_simulated_server_takes_a_profile(run: Path, tmp_path: Path) -> None:
    """Its first line comes, its answers are as fast as the profile says, and an argument beside it wins."""
    path = tmp_path / "p.json"
    assert fit.main([str(run), "--out", str(path)]) == 0
    with serving(tmp_path, "--profile", str(path), "--output-tokens-sigma", "0", "--speed", "10") as server:
        count = json.loads(path.read_text())["settings"]["output_tokens_mean"]
        answer = server.sdk().chat.completions.create(**body())
        (row,) = server.truth()
    assert answer.usage and answer.usage.completion_tokens == round(count)
    assert row["first_token"] - row["start"] == pytest.approx(
        0.0605 + 0.0005 * row["prompt_tokens"], rel=0.06
    )
    assert (row["last_token"] - row["first_token"]) / (round(count) - 1) == pytest.approx(0.016, rel=0.05)


def test_a_quiet_run_knows_only_a_lower_bound_of_slots(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where no request waited the profile says so, and the number known from elsewhere may be given."""
    points = [Sample(id=i, name="c", intended=i, sent=i, ended=i + 1.5, first=i + 0.1, last=i + 1.5,
                     prompt_tokens=10, output_tokens=15, finish="stop") for i in range(30)]  # fmt: skip
    write_samples(tmp_path / "requests.jsonl", points)
    assert fit.main([str(tmp_path), "--out", str(tmp_path / "p.json")]) == 0
    assert "lower bound" in capsys.readouterr().out
    whole = json.loads((tmp_path / "p.json").read_text())
    assert whole["settings"]["slots"] == 2 and whole["fitted"]["slots_known"] is False
    assert fit.main([str(tmp_path), "--slots", "8", "--out", str(tmp_path / "p.json")]) == 0
    assert "--slots=8" in profile_arguments(tmp_path / "p.json")


def test_a_recording_is_fitted_too() -> None:
    """The shipped recording gives its measured slots and slowing, a prefill and decode that fit its medians, and the
    shipped profile."""
    fitted = fit.fit_recording(ROOT / "serving" / "recording")
    shipped = json.loads((ROOT / "serving" / "simulated" / "smollm2-cpu.json").read_text())
    assert shipped["settings"] == fitted.settings()
    meta = json.loads((ROOT / "serving" / "recording" / "meta.json").read_text())
    assert (fitted.slots, fitted.load_factor) == (
        meta["loaded"]["concurrency"],
        meta["loaded"]["stretch"],
    )
    service = fitted.prefill_base + fitted.prefill_per_token * meta["medians"]["prompt_tokens"]
    assert service + fitted.tpot * (meta["medians"]["completion_tokens"] - 1) == pytest.approx(
        meta["medians"]["e2e_s"], rel=0.25
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "0 answered"), ("{}\n", "line 1"), ("[1]\n", "line 1"), ('{"id": 1}\n', "line 1")],
)
def test_a_run_that_cannot_be_fitted(
    tmp_path: Path, text: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is one clear line and code 2, and no profile is written."""
    (tmp_path / "requests.jsonl").write_text(text)
    assert fit.main([str(tmp_path), "--out", str(tmp_path / "p.json")]) == 2
    told = capsys.readouterr().err
    assert words in told and told.count("\n") == 1 and not (tmp_path / "p.json").exists()


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"settings": {"port": 1}}', '{"settings": {"slots": "4"}}', "{}"]
)
def test_a_broken_profile_is_refused(tmp_path: Path, text: str) -> None:
    """One line that names the file, code 2, nothing served."""
    path = tmp_path / "profile.json"
    path.write_text(text)
    ended = refused("--profile", str(path))
    assert ended.returncode == 2 and ended.stdout == "" and str(path) in ended.stderr
    assert ended.stderr.count("\n") == 1
