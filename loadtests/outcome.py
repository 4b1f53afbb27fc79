"""What a run leaves: its folder, its report on the terminal, its section in a page."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loadtests.options import OPTIONS, Option, Settings
from loadtests.report import Report, make_report, write_report
from loadtests.sample import Sample
from loadtests.traffic import Traffic

__all__ = ["conclude", "leave", "section", "told_settings"]


def told_settings(options: Any, more: Sequence[Option], host: str, model: str) -> dict[str, Any]:
    """The settings that are kept with a run: no key is among them, and of a header only its name."""
    said = {one.key: getattr(options, one.key, one.default) for one in (*OPTIONS, *more)}
    said["header"] = str(said["header"]).partition(":")[0]
    return {**said, "host": host, "model": model}


def conclude(
    samples: Sequence[Sample],
    settings: Settings,
    traffic: Traffic,
    *,
    seconds: float,
    told: Mapping[str, Any],
    overloaded: str | None,
) -> Report:
    """The report of a run that sent for so many seconds."""
    plan = None if traffic.times is not None else settings.plan
    return make_report(
        samples,
        seconds=round(seconds, 3),
        plan=plan,
        times=traffic.times if plan is None else None,
        objectives=settings.objectives,
        usd_per_hour=settings.machine_hour,
        name=settings.run_name or traffic.name,
        settings=told,
        overloaded=overloaded,
    )


def leave(report: Report, samples: Sequence[Sample], settings: Settings, traffic: Traffic) -> Path:
    """Write the run's folder and return it."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder = settings.out / (settings.run_name or f"{traffic.name}-{stamp}")
    write_report(folder, report, samples)
    return folder


def section(report: Report, samples: Sequence[Sample]) -> str:
    """The HTML section of a report; empty, and logged, where it cannot be made."""
    try:
        from loadtests.page import section as made

        return made(report, samples)
    except Exception:  # the figures are safe on disk: a picture that fails must not take locust's page along
        logging.getLogger(__name__).exception("the section of LLM figures could not be made")
        return ""
