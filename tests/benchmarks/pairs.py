"""Labelled pairs of questions: how many true pairs are served when at most 1 % and 5 % of the traps pass.

    python -m tests.benchmarks.pairs [--encoder minilm] [--json]

The pairs are fow-cache's (PyPI, CC BY 4.0, Mabon ap Gwyn): 600, written by a model to be hard; they are read from
the installed package and never copied. One question is stored, the other asked; nothing else is in the pool, so the
score has no neighbours to go by. "fitted" scores each pair by a model fitted on the others (five folds): in
distribution, so optimistic. The veto is on numbers, ids, dates and quoted spans.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from costkit.bound.score import Score
from costkit.embed import encoder_of
from costkit.marks import VETO
from costkit.semantic.features import PRIOR, Choice, Neighbour, Profiler, choose

TRAPS = (0.01, 0.05)
FOLDS = 5


def load() -> list[dict[str, Any]]:
    """The pairs of the installed package; exits with one line where it is not installed."""
    spec = importlib.util.find_spec("fow_cache")
    if spec is None or spec.origin is None:
        raise SystemExit("pairs: pip install --no-deps fow-cache (600 labelled pairs, CC BY 4.0)")
    text = (Path(spec.origin).parent / "data" / "pairs.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def choices(pairs: Sequence[dict[str, Any]], encoder: str | None) -> list[Choice]:
    """What the semantic tier sees of each pair, the first question stored and the second asked."""
    loaded, profiler = encoder_of(encoder), Profiler(b"pairs")
    stored, asked = (loaded.encode([pair[side] for pair in pairs]) for side in ("a", "b"))
    found = []
    for pair, one, two in zip(pairs, stored, asked, strict=True):
        near = Neighbour("stored", float(one @ two), profiler.of(pair["a"]), "answer")
        choice = choose(profiler.of(pair["b"]), [near], VETO)
        assert choice is not None
        found.append(choice)
    return found


def fitted(seen: Sequence[Choice], right: Sequence[bool]) -> list[float]:
    """The probability to be right of each pair, by a score fitted on the other folds."""
    found = [0.0] * len(seen)
    for fold in range(FOLDS):
        score = Score(PRIOR)
        for number, (choice, good) in enumerate(zip(seen, right, strict=True)):
            if number % FOLDS != fold:
                score.learn(choice.features, not good)
        for number in range(fold, len(seen), FOLDS):
            found[number] = 1 - score.wrong(seen[number].features)
    return found


def served(scores: Sequence[float], right: Sequence[bool], traps: float) -> float:
    """The largest share of true pairs at or above a threshold that at most a share ``traps`` of the traps pass."""
    values, good = np.array(scores), np.array(right)
    best = 0.0
    for threshold in np.unique(values):
        if float((values[~good] >= threshold).mean()) <= traps:
            best = max(best, float((values[good] >= threshold).mean()))
    return best


def auc(scores: Sequence[float], right: Sequence[bool]) -> float:
    """How often a true pair scores above a trap; ties count half."""
    values, good = np.array(scores), np.array(right)
    above = values[good][:, None] > values[~good][None, :]
    ties = values[good][:, None] == values[~good][None, :]
    return float((above + ties / 2).mean())


def measure(encoder: str | None) -> dict[str, Any]:
    """All figures."""
    pairs = load()
    right = [bool(pair["same_answer"]) for pair in pairs]
    seen = choices(pairs, encoder)
    cosine = [choice.features[1] / 10 + 0.8 for choice in seen]
    prior, fit = Score(PRIOR), fitted(seen, right)
    veto = [choice.veto for choice in seen]
    kinds = {
        "cosine": cosine,
        "cosine, veto": [-1.0 if v else c for c, v in zip(cosine, veto, strict=True)],
        "score before any label, veto": [-1.0 if c.veto else 1 - prior.wrong(c.features) for c in seen],
        "score fitted, veto": [-1.0 if v else s for s, v in zip(fit, veto, strict=True)],
    }
    return {
        "pairs": len(pairs),
        "true": sum(right),
        "encoder": encoder_of(encoder).id,
        "vetoed": {
            "traps": sum(v and not r for v, r in zip(veto, right, strict=True))
            / max(1, len(right) - sum(right)),
            "true": sum(v and r for v, r in zip(veto, right, strict=True)) / max(1, sum(right)),
        },
        "scores": {
            name: {
                "auc": auc(s, right),
                **{f"served_at_{share:g}": served(s, right, share) for share in TRAPS},
            }
            for name, s in kinds.items()
        },
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures: JSON on stdout, or a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.pairs", description=__doc__)
    parser.add_argument("--encoder", help="as costkit.embed.encoder_of takes it")
    parser.add_argument("--json", action="store_true")
    opts = parser.parse_args(arguments)
    found = measure(opts.encoder)
    if opts.json:
        print(json.dumps(found, indent=2))
        return 0
    print(f"{found['pairs']} pairs, {found['true']} true; {found['encoder']}")
    print(
        f"vetoed: {found['vetoed']['traps']:.0%} of the traps, {found['vetoed']['true']:.0%} of the true pairs"
    )
    print(f"{'score':30} {'AUC':>6} {'served at 1 %':>14} {'at 5 % of traps':>16}")
    for name, row in found["scores"].items():
        print(f"{name:30} {row['auc']:6.3f} {row['served_at_0.01']:14.1%} {row['served_at_0.05']:16.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
