"""The tab of LLM figures in locust's web UI, and the section in its HTML report.

The tab's rows ride on the figures that the page asks for anyway (``/stats/requests``).
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from loadtests.metrics import METRICS, series
from loadtests.report import Report
from loadtests.sample import Sample
from loadtests.words import rows as report_rows
from loadtests.words import value

__all__ = ["Live", "add_tab", "into_page"]

_KEY = "llm"
_FRESH_S = 2.0
_MOST = 20_000  # of the latest requests, while a run is on
_COLUMNS = {
    "metric": "LLM figure",
    "count": "Count",
    "mean": "Mean",
    "p50": "p50",
    "p95": "p95 [95 % interval at the end]",
    "p99": "p99",
}


class Live:
    """The rows of the tab: of the requests so far while a run is on, of its report afterwards."""

    def __init__(self) -> None:
        self.samples: Sequence[Sample] = ()
        self.report: Report | None = None
        self._made = -_FRESH_S
        self._rows: list[dict[str, str]] = []

    def begin(self, samples: Sequence[Sample]) -> None:
        """A run has begun; these will be its samples."""
        self.samples, self.report, self._rows, self._made = samples, None, [], -_FRESH_S

    def rows(self) -> list[dict[str, str]]:
        """One a metric, made anew every two seconds at most."""
        now = time.monotonic()
        if now - self._made >= _FRESH_S or self.report is not None:
            self._made = now
            self._rows = _final(self.report) if self.report else _so_far(self.samples[-_MOST:])
        return self._rows


def _final(report: Report) -> list[dict[str, str]]:
    _, *body = report_rows(report)
    word = "valid" if report.verdict.valid else f"INVALID: {report.verdict.reason}"
    top = [("verdict", f"{report.requests:,}", word, report.answer or "", "", "")]
    return [dict(zip(_COLUMNS, row, strict=True)) for row in [*top, *body]]


def _so_far(samples: Sequence[Sample]) -> list[dict[str, str]]:
    found = []
    for name, metric in METRICS.items():
        values = series(samples, name)
        if values.size:
            p50, p95, p99 = (value(float(one), metric.unit) for one in np.quantile(values, (0.5, 0.95, 0.99)))
            mean = value(float(values.mean()), metric.unit)
            row = (metric.title, f"{values.size:,}", mean, p50, p95, p99)
            found.append(dict(zip(_COLUMNS, row, strict=True)))
    return found


def add_tab(web_ui: Any, live: Live, section: Callable[[], str]) -> None:
    """Put the tab into locust's page, and ``section``'s HTML into the report that it offers for download."""
    structure = [{"key": key, "title": title} for key, title in _COLUMNS.items()]
    web_ui.template_args["extended_tabs"] = [{"title": "LLM", "key": _KEY}]
    web_ui.template_args["extended_tables"] = [{"key": _KEY, "structure": structure}]

    @web_ui.app.after_request  # type: ignore[untyped-decorator, unused-ignore]
    def extend(response: Any) -> Any:
        from flask import request

        try:
            if request.path.endswith("/stats/requests") and response.is_json:
                told = {**response.get_json(), "extended_stats": [{"key": _KEY, "data": live.rows()}]}
                response.set_data(json.dumps(told))
            elif request.path.endswith("/stats/report") and response.status_code == 200:
                # Whether it is shown or downloaded is said in its headers, which stay.
                response.direct_passthrough = False
                response.set_data(into_page(response.get_data(as_text=True), section()))
        except Exception:  # the page must come, with our part or without it
            logging.getLogger(__name__).exception("the LLM figures could not be added to %s", request.path)
        return response


def into_page(page: str, section: str) -> str:
    """The page with a section at the end of its body.

    >>> into_page("<body>locust</body></html>", "<section/>")
    '<body>locust<section/></body></html>'
    """
    head, tag, tail = page.rpartition("</body>")
    return f"{head}{section}{tag}{tail}" if tag else page + section
