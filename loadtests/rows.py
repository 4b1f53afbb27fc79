"""The figures of LLM traffic as rows of locust's own tables: console, CSV, web UI, HTML report, from all workers.

The end-to-end time is locust's request event, so its counts, rates and failures are those of requests. The others are
logged into rows of their own, past the aggregate, which therefore counts nothing twice and mixes no units.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loadtests.sample import Sample

__all__ = ["ROWS", "RequestFailed", "log", "three_digits", "use_three_digits"]

# A row's type in locust's tables: its unit, behind the request's name. Locust prints whole numbers of whatever it is
# given, so what is mostly below 100 ms is told in microseconds.
ROWS: Mapping[str, str] = {"TTFT": "ms", "TPOT": "us", "ITL": "us", "LAG": "us", "COST": "micro-USD"}


class RequestFailed(Exception):
    """What locust's table of failures counts: the short code of a sample's error."""


def three_digits(value: float) -> float:
    """A value for locust's histograms: three significant digits, at least a thousandth.

    Locust's own has two, in which a p95 of 1,049 ms is 1,000.

    >>> three_digits(1049), three_digits(49.96), three_digits(123456), three_digits(0.0004)
    (1050.0, 50.0, 123000.0, 0.0)
    """
    places = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    if value < 1000:
        return float(round(value, places))
    return float(round(value, 3 - len(str(int(value)))))


def use_three_digits() -> None:
    """Have locust keep three significant digits; workers send their histograms as they are."""
    import locust.stats

    locust.stats.bucket_response_time = three_digits  # type: ignore[assignment]


def log(environment: Any, one: Sample) -> None:
    """Enter one request into locust's tables; a failed one has a count and no times, so it never looks fast."""
    failed = one.error is not None
    environment.events.request.fire(
        request_type="E2E",
        name=one.name,
        response_time=None if failed or one.e2e is None else one.e2e * 1000,
        response_length=0,
        exception=RequestFailed(one.error) if failed else None,
        context={},
    )
    entries = environment.stats.entries

    def row(kind: str, value: float) -> None:
        entries[f"{one.name} [{ROWS[kind]}]", kind].log(value, 0)

    row("LAG", max(0.0, one.lag * 1e6))
    if one.cost_nano is not None:
        row("COST", one.cost_nano / 1000)
    if failed or one.ttft is None:
        return
    row("TTFT", one.ttft * 1000)
    if one.tpot is not None:
        row("TPOT", one.tpot * 1e6)
    for gap in one.gaps:
        row("ITL", gap * 1e6)
