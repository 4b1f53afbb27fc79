"""Means and ranges over seeds, as one JSON object."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .baselines import THRESHOLDS
from .rows import OUT_OF_SCOPE
from .seeds import Job, Ruled, Seed
from .stream import Run
from .tally import Tally

__all__ = ["about", "best_static", "curve", "figures"]

_HOLD = 0.95
_DIGITS = 5


def figures(seeds: Sequence[Seed], job: Job) -> dict[str, Any]:
    """All figures, of which :mod:`tests.benchmarks.semantic.__main__` says what each one is."""
    seeds = sorted(seeds, key=lambda seed: seed.seed)
    cold = _costkit([seed.cold for seed in seeds], job)
    beside = _beside([seed.any_right for seed in seeds], job, [seed.ruled for seed in seeds])
    found = {**cold, **beside, **_ratios(cold, beside)}
    if job.gold is not None:
        runs = [seed.seeded for seed in seeds if seed.seeded is not None]
        seeded = _costkit(runs, job)
        above = [seed.any_right_seeded for seed in seeds if seed.any_right_seeded is not None]
        against = _beside(above, job, [seed.ruled_seeded for seed in seeds])
        part = {**seeded, **against, **_ratios(seeded, against)}
        found |= {f"{name}_seeded": value for name, value in part.items() if name != "seeds"}
        found["seeds"] |= {f"{name}_seeded": values for name, values in seeded["seeds"].items()}
    return _rounded(found)  # type: ignore[no-any-return]


def best_static(ruled: Sequence[Mapping[str, Ruled]], job: Job) -> tuple[float, str, float] | None:
    """Mean hit rate, encoder and threshold of the best single threshold that holds the bound in 95% of the seeds."""
    least = math.ceil(_HOLD * len(ruled) - 1e-9)
    found = []
    for name in ruled[0]:
        for i, threshold in enumerate(THRESHOLDS):
            tallies = [of[name].static[i] for of in ruled]
            if sum(_holds(tally, job) for tally in tallies) >= least:
                found.append((_mean([tally.hit_rate for tally in tallies]) or 0.0, name, float(threshold)))
    return max(found, default=None)


def curve(ruled: Sequence[Mapping[str, Ruled]], name: str) -> tuple[list[float], list[float]]:
    """For each threshold the mean hit rate, and the share of right answers among all that it served."""
    rates, precisions = [], []
    for i in range(len(THRESHOLDS)):
        tallies = [of[name].static[i] for of in ruled]
        served = sum(tally.hits for tally in tallies)
        if served:
            rates.append(_mean([tally.hit_rate for tally in tallies]) or 0.0)
            precisions.append(1 - sum(tally.wrong for tally in tallies) / served)
    return rates, precisions


def _costkit(runs: Sequence[Run], job: Job) -> dict[str, Any]:
    """The figures of costkit itself."""
    asked: dict[str, Callable[[Run], Any]] = {
        "hit_rate": lambda run: run.hit_rate,
        "net_hit_rate": lambda run: run.net_hit_rate(),
        "net_hit_rate_last_third": lambda run: run.net_hit_rate(2 / 3),
        "exact_hit_rate": lambda run: run.tally.exact / max(1, run.tally.asked),
        "wrong_per_request": lambda run: run.tally.wrong_per_request,
        "wrong_per_hit": lambda run: run.tally.wrong_per_hit,
        "wrong_exact": lambda run: run.tally.wrong_exact,
        "rows_until_open": lambda run: run.opened,
        "audits": lambda run: run.audits,
        "demotions": lambda run: run.demotions,
        "held": lambda run: _holds(run.tally, job),
    }
    if job.drift:
        asked |= {
            "detected": lambda run: run.detected,
            "detection_audits": lambda run: run.late_audits if run.detected else None,
            "detection_wrong": lambda run: run.late_wrong if run.detected else None,
        }
    values = {name: [of(run) for run in runs] for name, of in asked.items()}
    found: dict[str, Any] = {}
    for name, column in values.items():
        found |= _summary(name, column)
    found["held_share"] = found.pop("held")
    found["opened_share"] = _mean([run.opened is not None for run in runs])
    found["false_closures"] = None if job.drift else _mean([run.closed for run in runs])
    found["detected_share"] = found.pop("detected", None)
    found.setdefault("detection_audits", None)
    found["false_demotions"] = None if job.drift else _mean([run.demotions > 0 for run in runs])
    found["warnings"] = sorted({text for run in runs for text in run.warned})
    found["seeds"] = values
    return found


def _beside(ceiling: Sequence[Tally], job: Job, ruled: Sequence[Mapping[str, Ruled]]) -> dict[str, Any]:
    """The figures of what else could have decided."""
    best = best_static(ruled, job)
    by_encoder = {}
    for name in ruled[0]:
        own = best_static([{name: of[name]} for of in ruled], job)
        entry = [of[name].per_entry for of in ruled]
        by_encoder[name] = {
            "best_static_hit_rate": None if own is None else own[0],
            "best_static_threshold": None if own is None else own[2],
            "per_entry_hit_rate": _mean([tally.hit_rate for tally in entry]),
            "per_entry_wrong_per_request": _mean([tally.wrong_per_request for tally in entry]),
            "per_entry_wrong_per_hit": _mean([tally.wrong_per_hit for tally in entry]),
            "per_entry_held_share": _mean([_holds(tally, job) for tally in entry]),
            "nearest_right_hit_rate": _mean([of[name].nearest_right.hit_rate for of in ruled]),
        }
    entry_of = max(by_encoder, key=lambda name: by_encoder[name]["per_entry_hit_rate"] or 0.0)
    return {
        "best_static_hit_rate": None if best is None else best[0],
        "best_static": None if best is None else {"encoder": best[1], "threshold": best[2]},
        "per_entry_hit_rate": by_encoder[entry_of]["per_entry_hit_rate"],
        "per_entry_held_share": by_encoder[entry_of]["per_entry_held_share"],
        "oracle_hit_rate": _mean([tally.hit_rate for tally in ceiling]),
        "oracle_nearest_hit_rate": max(of["nearest_right_hit_rate"] or 0.0 for of in by_encoder.values()),
        "by_encoder": by_encoder,
    }


def _ratios(own: Mapping[str, Any], beside: Mapping[str, Any]) -> dict[str, float | None]:
    net = own["net_hit_rate"]
    return {
        f"net_over_{name}": net / beside[f"{name}_hit_rate"] if beside[f"{name}_hit_rate"] else None
        for name in ("best_static", "per_entry")
    }


def about(job: Job, encoders: Sequence[str], missing: Mapping[str, str], seeds: int) -> dict[str, Any]:
    """What was measured, and on what."""
    rows = job.rows
    gold_texts = set() if job.gold is None else set(job.gold.texts)
    return {
        "rows": len(rows) if job.size is None else min(job.size, len(rows)),
        "rows_in_file": len(rows),
        "classes": len(set(rows.classes.tolist()) - {OUT_OF_SCOPE}),
        "out_of_scope_share": float((rows.classes == OUT_OF_SCOPE).mean()),
        "gold_rows": None if job.gold is None else len(job.gold),
        "gold_overlap": None if job.gold is None else sum(text in gold_texts for text in rows.texts),
        "max_error": job.bound.max_error,
        "per": job.bound.per,
        "confidence": job.bound.confidence,
        "drift": job.drift,
        "seed_count": seeds,
        "encoder": encoders[0],
        "encoders": list(encoders),
        "encoders_not_tried": dict(missing),
    }


def _holds(tally: Tally, job: Job) -> bool:
    return tally.holds(job.bound.max_error, job.bound.per)


def _mean(values: Sequence[float | bool | None]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _summary(name: str, values: Sequence[float | bool | None]) -> dict[str, float | None]:
    """The mean, and the 5th and 95th percentile of seeds, over those that have a value."""
    known = [float(value) for value in values if value is not None]
    if not known or any(isinstance(value, bool) for value in values):
        return {name: _mean(values)}
    low, high = np.quantile(known, [0.05, 0.95])
    return {name: _mean(values), f"{name}_low": float(low), f"{name}_high": float(high)}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, Mapping):
        return {name: _rounded(held) for name, held in value.items()}
    return [_rounded(held) for held in value] if isinstance(value, list) else value
