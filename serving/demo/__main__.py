"""`make demo`: the main job in one command."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import costkit
from costkit.errors import CostkitError
from costkit.gold import GoldTest, load_gold, run_gold
from serving.assistant.documents import Question, load_questions
from serving.assistant.workflow import DEFAULT_MODEL, Assistant, connect
from serving.demo import arm, meaning, meaning_show, people, servers, show, summary
from serving.demo.traffic import Arrival, Traffic, repeats, stream
from serving.record import workload
from serving.simulated.recording import Recording, RecordingError, load_recording

ROOT = Path(__file__).parents[2]
ASSISTANT = ROOT / "serving" / "assistant"
# How busy the stream keeps the recorded machine between bursts; a busier one would flatter every saving.
UTILISATION = 0.55
USUAL = Traffic()
# Requests of part two: enough to open, to serve for a while, and to close.
PEOPLE = 2_100


class DemoError(Exception):
    """One line that says what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Who is asked, at what price, how fast; ``together``: both arms at once, each on a server of its own."""

    urls: tuple[str, str]
    model: str
    prices: costkit.Prices
    speed: float
    together: bool


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m serving.demo", description=__doc__)
    parser.add_argument("--docs", type=Path, default=ASSISTANT / "docs", help="folder of articles")
    parser.add_argument(
        "--questions", type=Path, default=ASSISTANT / "questions", help="folder or file of questions"
    )
    parser.add_argument("--gold", type=Path, help="folder or file of gold tests")
    parser.add_argument("--recording", type=Path, default=servers.RECORDING)
    parser.add_argument(
        "--live", action="store_true", help="ask a real model: vLLM here, or a provider (OPENAI_API_KEY)"
    )
    parser.add_argument("--count", type=int, help="questions in the stream (600; live 60)")
    parser.add_argument(
        "--rate",
        type=float,
        help="questions a second between bursts (what keeps the machine 55 %% busy; live 0.5)",
    )
    parser.add_argument(
        "--zipf", type=float, default=USUAL.zipf_intents, help="exponent of what is asked (0.7)"
    )
    parser.add_argument("--seed", type=int, default=USUAL.seed)
    parser.add_argument(
        "--speed", type=float, default=4.0, help="replay so many times faster than recorded (4)"
    )
    parser.add_argument(
        "--usd-per-hour",
        type=float,
        default=servers.USD_PER_HOUR,
        help="price of the machine that serves (0.10)",
    )
    parser.add_argument(
        "--people", type=int, help="invented requests of part two, the semantic tier (2,100; 0: leave it out)"
    )
    parser.add_argument("--picture", type=Path, default=Path("demo-out/demo.png"))
    parser.add_argument("--json", type=Path, default=Path("demo-out/demo.json"), help="the figures, as JSON")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both arms and report; 0 when every question was answered, 2 with one line when it cannot run."""
    opts = options(arguments)
    try:
        return _demo(opts)
    except (DemoError, CostkitError, RecordingError, ValueError, OSError) as exc:
        print(f"demo: {exc}", file=sys.stderr)
        return 2


def _demo(opts: argparse.Namespace) -> int:
    questions = load_questions(opts.questions)
    gold = _gold(opts)
    if opts.live:
        return _live(opts, _arrivals(opts, questions, 60, 0.5), gold)
    recording = load_recording(opts.recording)
    _fits(opts, recording)
    machine = servers.fit_machine(recording)
    arrivals = _arrivals(opts, questions, USUAL.count, machine.rate(UTILISATION))
    prices = costkit.Prices({recording.model: machine.price(opts.usd_per_hour)})
    meta: Any = recording.meta
    print(
        f"replaying {len(recording.answers)} answers that {recording.model} gave on {meta['engine']} "
        f"({meta['machine']['cores']} cores, {recording.date}), {opts.speed:g} times faster.\n"
        f"{servers.SLOTS} slots and a queue; an answer takes {machine.stretch:.2f} times its recorded time, as "
        f"measured with {servers.SLOTS} at once"
    )
    with (
        servers.replayed(opts.recording, opts.speed / machine.stretch) as one,
        servers.replayed(opts.recording, opts.speed / machine.stretch) as two,
    ):
        setting = Setting((one, two), recording.model, prices, opts.speed, together=True)
        results = _both(opts, arrivals, gold, setting)
        accuracy = _accuracy(opts, gold, connect(one), recording.model)
    source = (
        f"{len(arrivals)} questions; answers and service times recorded from {recording.model} on {meta['engine']}, "
        f"{recording.date}; machine at ${opts.usd_per_hour:.2f} an hour. make demo"
    )
    magnified = f"time spent in the client and in costkit counts {opts.speed:g}-fold, in both arms"
    code = _report(opts, arrivals, results, source, [accuracy, magnified])
    if opts.people is not None or (opts.docs, opts.questions) == (
        ASSISTANT / "docs",
        ASSISTANT / "questions",
    ):
        _people(opts, questions, recording, prices)
    return code


def _people(
    opts: argparse.Namespace, questions: Sequence[Question], recording: Recording, prices: costkit.Prices
) -> None:
    """Part two: the semantic tier on the same questions, worded anew by many invented people."""
    count = PEOPLE if opts.people is None else opts.people
    if count < 1:
        return
    print(
        f"\npart two: {count} requests of invented people who ask the same help desk in words of their own; two "
        "thirds through, half of the answers change"
    )
    asked = people.crowd(questions, count, seed=opts.seed)
    with _bars(count, "semantic tier") as (tick,):
        story = meaning.told(asked, prices, servers.usual_answer(recording), tick=tick)
    meaning_show.print_story(story)
    picture = opts.picture.with_name(f"{opts.picture.stem}-meaning.png")
    meaning_show.draw(picture, story)
    print(f"picture: {picture}")


def _live(opts: argparse.Namespace, arrivals: Sequence[Arrival], gold: Sequence[GoldTest]) -> int:
    model = os.environ.get("COSTKIT_MODEL")
    with contextlib.ExitStack() as stack:
        if os.environ.get("OPENAI_API_KEY"):
            if not model:
                raise DemoError(
                    "OPENAI_API_KEY is set: say which model to ask, COSTKIT_MODEL=gpt-5-mini make demo LIVE=1"
                )
            base_url, prices = (
                os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1"),
                costkit.Prices(),
            )
            prices.check(model)
        else:
            base_url, model = stack.enter_context(servers.live_vllm()), DEFAULT_MODEL
            machine = servers.fit_machine(load_recording(opts.recording))
            prices = costkit.Prices({model: machine.price(opts.usd_per_hour)})
            # The first arm would otherwise fill the prefix cache for the second.
            print("warming: every question once, unmeasured, so that both arms find the same prefix cache")
            arm.warm(arm.plain(opts.docs, connect(base_url), model, prices), arrivals)
        print(f"asking {model} live, one arm after the other: {len(arrivals)} questions each")
        results = _both(
            opts, arrivals, gold, Setting((base_url, base_url), model, prices, 1.0, together=False)
        )
    return _report(opts, arrivals, results, f"{len(arrivals)} questions, {model} live. make demo LIVE=1", [])


def _arrivals(
    opts: argparse.Namespace, questions: Sequence[Question], count: int, rate: float
) -> list[Arrival]:
    traffic = Traffic(
        count=opts.count or count, rate=opts.rate or rate, zipf_intents=opts.zipf, seed=opts.seed
    )
    return stream(questions, traffic)


def _gold(opts: argparse.Namespace) -> list[GoldTest]:
    if opts.gold is not None:
        return load_gold(opts.gold)
    return load_gold(ASSISTANT / "gold") if opts.docs == ASSISTANT / "docs" else []


def _fits(opts: argparse.Namespace, recording: Recording) -> None:
    """Refuse before the run what would be unrecorded in the middle of it."""
    wanted = workload(opts.docs, opts.questions)
    missing = len(wanted.keys() - recording.answers.keys())
    if missing:
        raise DemoError(
            f"{missing} of {len(wanted)} prompts are not in the recording of {recording.date}; answers are never "
            "invented: ask a real model with LIVE=1, or record anew with `make serve` and `make record`"
        )


def _both(
    opts: argparse.Namespace, arrivals: Sequence[Arrival], gold: Sequence[GoldTest], setting: Setting
) -> tuple[list[arm.Sample], list[arm.Sample]]:
    known = {(t.question, str(t.args.get("tenant", "default"))): t for t in gold}
    (one, two), model, prices = setting.urls, setting.model, setting.prices
    with (
        tempfile.TemporaryDirectory() as folder,
        costkit.Kit(folder + "/kit", prices=prices) as kit,
        ThreadPoolExecutor(2 if setting.together else 1) as pool,
        _bars(len(arrivals), "without costkit", "with costkit") as ticks,
    ):
        asks = (
            arm.plain(opts.docs, connect(one), model, prices),
            arm.with_costkit(opts.docs, connect(two), model, kit),
        )
        running = [
            pool.submit(arm.run, ask, arrivals, known, speed=setting.speed, tick=tick)
            for ask, tick in zip(asks, ticks, strict=True)
        ]
        return running[0].result(), running[1].result()


@contextlib.contextmanager
def _bars(total: int, *names: str) -> Iterator[tuple[Callable[[], None], ...]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:16}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        yield tuple(partial(bars.advance, bars.add_task(name, total=total)) for name in names)


def _accuracy(
    opts: argparse.Namespace, gold: Sequence[GoldTest], ask_model: Callable[..., Any], model: str
) -> str:
    if not gold:
        return "no gold tests: quality was not measured (GOLD=folder)"
    assistant = Assistant(opts.docs, ask_model, model=model)
    report = run_gold(gold, assistant.ask, workers=8)
    low, high = report.interval
    return (
        f"{model} by itself, on all {len(gold)} gold tests: {report.share:.1%} right [{low:.0%} – {high:.0%}]; "
        f"retrieval finds the article for {report.recall or 0:.0%} (recall@3)"
    )


def _report(
    opts: argparse.Namespace,
    arrivals: Sequence[Arrival],
    results: tuple[list[arm.Sample], list[arm.Sample]],
    source: str,
    notes: Sequence[str],
) -> int:
    without, with_ = results
    arms = summary.summarise(without), summary.summarise(with_)
    saved = summary.saved_by(without, with_)
    changes = summary.changes(without, with_)
    show.print_table(*arms, changes, saved)
    judged = sum(a.right is not None for a in without)
    same = sum(a.right == b.right for a, b in zip(without, with_, strict=True) if a.right is not None)
    print(
        f"{repeats(arrivals)} of {len(arrivals)} questions repeat an earlier one word for word (same tenant)"
    )
    print(
        f"judged answers alike in both arms: {same} of {judged} (an exact cache cannot change an answer; this checks "
        "that nothing else did)"
    )
    for note in notes:
        print(note)
    print(
        "intervals are 95 % and take queries as independent; in bursts they are not, so read them as too short"
    )
    title = "costkit demo: the same help-desk questions, without and with"
    show.draw(opts.picture, without, with_, arms, {"title": title, "source": source})
    opts.json.parent.mkdir(parents=True, exist_ok=True)
    figures = {
        "source": source,
        "repeats": repeats(arrivals),
        "without": arms[0].as_json(),
        "with": arms[1].as_json(),
        "change": {name: {"value": f.value, "interval_95": f.interval} for name, f in changes.items()},
        "saved_by": {s.kind: {"queries": s.queries, "usd": s.nano / 1e9} for s in saved},
        "notes": list(notes),
    }
    opts.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(f"picture: {opts.picture}   figures: {opts.json}")
    failed = [s.error for s in (*without, *with_) if s.error is not None]
    if failed:
        print(f"next: {len(failed)} questions failed, the first with {failed[0]}")
        return 1
    print(
        "next: put @kit.call(costkit.exact(ttl='1d'), scope=...) around your own function (README), "
        "or run this on your own documents: make demo DOCS=folder QUESTIONS=file LIVE=1"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
