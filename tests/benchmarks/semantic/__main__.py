"""What the semantic cache saves on labelled questions inside its bound, beside rules that others use.

    python -m tests.benchmarks.semantic --data FILE.csv --max-error 0.02 --per hit --seeds 50 --json

FILE.csv has the columns text and category. Every seed asks its rows in an order of its own through the public
decorator, the category as the right answer; rows of the category oos are asked and never inserted, so that any hit on
one is wrong. One JSON object is printed, each figure the mean over seeds, with _low and _high the 5th and 95th
percentile of seeds, and the values of each seed under "seeds".

hit_rate                 served, or found and audited, of all questions; identical ones among them
net_hit_rate             served: an audited hit was paid for, so it is a miss (_last_third: of the last third asked)
exact_hit_rate           served as identical to one before
wrong_per_request        wrong answers served (wrong_exact, to identical questions, among them) of all questions
wrong_per_hit            wrong answers of those served by the semantic tier alone
held_share               share of seeds within the bound at the end
rows_until_open          questions before the first that the gate would serve, over the seeds that opened (opened_share)
audits, demotions        of the gate; false_demotions is the share of seeds with one, without --drift, and
                         false_closures the share in which it went off in the second half, demoted or not
detection_audits         with --drift, half of the classes change their answer half way: audited hits from there until
                         the gate was off, over the seeds where it was (detected_share); detection_wrong: wrong answers
best_static_hit_rate     best single cosine over all encoders (by_encoder) whose wrong answers are within the bound in
                         95% of seeds, in hindsight; a question is stored when it was not served
per_entry_hit_rate       a threshold of its own for each entry, its promise per request at max_error (best encoder)
oracle_hit_rate          served exactly when any stored answer is right; oracle_nearest_hit_rate: when the nearest is
with --gold FILE.csv     the gate is certified first from those rows; *_seeded: their answers are stored beforehand, too
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from costkit.embed import Encoder
from costkit.errors import CostkitError

from .figures import about, figures
from .picture import draw
from .rows import BadRows, read
from .seeds import Job, Seed, every
from .stream import Bound
from .vectors import embedded, encoders

_BASELINES = ("minilm", "wordllama")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit status is 2 where an argument or a file is not usable."""
    options = _parser().parse_args(arguments)
    started = time.perf_counter()
    try:
        _check(options)
        numbers: dict[str, int] = {}
        rows = read(options.data, numbers)
        gold = None if options.gold is None else read(options.gold, numbers)
        used, missing = encoders(
            options.encoder, [*_BASELINES, *([options.minilm] if options.minilm else [])]
        )
    except (BadRows, CostkitError) as exc:
        print(f"semantic: {exc}", file=sys.stderr)
        return 2
    bound = Bound(options.max_error, options.per, options.confidence)
    with tempfile.TemporaryDirectory() as folder, _progress() as progress:
        texts = rows.texts + (() if gold is None else gold.texts)
        vectors = _kept(used, texts, Path(folder), progress)
        job = Job(rows, gold, vectors, bound, options.rows, options.drift)
        seeds = _played(job, options, progress)
    found = {
        **about(job, [encoder.id for encoder in used], missing, options.seeds),
        **figures(seeds, job),
        "wall_s": round(time.perf_counter() - started, 1),
    }
    if options.plot is not None:
        draw(Path(options.plot), seeds, job, found)
    print(json.dumps(found, allow_nan=False) if options.json else _table(found))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.semantic", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--data", required=True, metavar="FILE.csv", help="columns text and category")
    parser.add_argument("--max-error", type=float, required=True, metavar="E", help="between 0 and 1")
    parser.add_argument("--per", choices=("hit", "request"), default="hit", help="default: hit")
    parser.add_argument("--gold", metavar="FILE.csv", help="certify the gate from these rows first")
    parser.add_argument(
        "--drift", action="store_true", help="half of the classes change their answer half way"
    )
    parser.add_argument("--seeds", type=int, default=20, metavar="N", help="default: 20")
    parser.add_argument("--first-seed", type=int, default=0, metavar="N", help="default: 0")
    parser.add_argument(
        "--rows", type=int, metavar="N", help="ask so many of the rows in each seed; default: all"
    )
    parser.add_argument("--confidence", type=float, default=0.95, help="of the gate; default: 0.95")
    parser.add_argument(
        "--encoder", default="default", help="the gate's: a name, or a folder with an ONNX model"
    )
    parser.add_argument("--minilm", metavar="FOLDER", help="an encoder more for the baselines (ONNX)")
    parser.add_argument("--jobs", type=int, default=2, help="processes; default: 2")
    parser.add_argument(
        "--plot", metavar="FILE.png", help="precision against hit rate, and hit rate over time"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    return parser


def _check(options: argparse.Namespace) -> None:
    for name in ("max_error", "confidence"):
        if not 0 < getattr(options, name) < 1:
            raise BadRows(f"--{name.replace('_', '-')}: {getattr(options, name)} is not between 0 and 1")
    for name in ("seeds", "rows", "jobs"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise BadRows(f"--{name}: {getattr(options, name)} is not 1 or more")


def _progress() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip


def _kept(
    used: Sequence[Encoder], texts: Sequence[str], folder: Path, progress: Progress
) -> dict[str, tuple[str, int]]:
    """Each encoder's vectors of all texts in a file, which every process reads."""
    kept = {}
    for number, encoder in enumerate(used):
        task = progress.add_task(f"embedding with {encoder.name}", total=len(texts))
        vectors = embedded(encoder, texts, lambda done, task=task: progress.update(task, completed=done))  # type: ignore[misc]
        vectors.tofile(path := folder / f"{number}.f32")
        kept[encoder.id] = (str(path), vectors.shape[1])
        progress.remove_task(task)
    return kept


def _played(job: Job, options: argparse.Namespace, progress: Progress) -> list[Seed]:
    numbers = range(options.first_seed, options.first_seed + options.seeds)
    task = progress.add_task("seeds", total=options.seeds)
    found = []
    for seed in every(job, numbers, min(options.jobs, options.seeds)):
        found.append(seed)
        progress.advance(task)
    return found


def _table(found: dict[str, Any]) -> str:
    """The figures that are numbers, one a line, with their range over seeds."""
    lines = []
    for name, value in found.items():
        if name.endswith(("_low", "_high")) or not isinstance(value, (int, float, str, type(None))):
            continue
        low, high = found.get(f"{name}_low"), found.get(f"{name}_high")
        lines.append(f"{name:32} {value!s:>12}" + ("" if low is None else f"   {low} to {high}"))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
