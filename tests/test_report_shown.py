"""costkit report as it is shown: steps to take, pictures, and names that reach no terminal raw."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from costkit.errors import ConfigError, MissingExtra
from costkit.report import daily, make_report, plot
from costkit.report.advice import Signs, advise
from costkit.report.plot import Days
from tests import reports
from tests.recorded import attempt, folder_of, query
from tests.reports import shown

folder = reports.folder


def test_a_share_of_nothing_is_not_shown(tmp_path: Path) -> None:
    """Where nothing was or would have been spent, the saving stands without a share in brackets."""
    free = folder_of(
        tmp_path / "kit", queries=[query("a", provider_cost=0, counterfactual_cost=0)], attempts=[]
    )
    said = shown(make_report(free))
    assert "saved $0" in said and "()" not in said


def test_names_from_outside_reach_no_terminal_raw(tmp_path: Path) -> None:
    """Escapes, right-to-left marks and rich markup in names, scopes, models and budgets are shown, not obeyed."""
    evil = "\x1b]0;owned\x07[red]\x9b31m\u202e$(rm -rf ~)"
    folder = folder_of(
        tmp_path / "kit",
        queries=[query("a", name=evil, scope=json.dumps({"tenant": evil}), provider_cost=10, saved_by=None)]
        + [query(f"b{n}", name=evil, scope=evil, saved_by=evil[:9], counterfactual_cost=5) for n in range(3)],
        attempts=[attempt("a", model=evil, cost=10), attempt("a", model=evil, cost=None, price_id=None)],
        budgets=[
            {
                "id": "x",
                "label": evil,
                "cap": 9,
                "starts": 0,
                "ends": None,
                "spent": 0,
                "held": 0,
                "lapsed": 0,
            }
        ],
    )
    for by in ("name", "scope", "model"):
        report = make_report(folder, by=by)
        plain = shown(report)
        assert not set(plain) & {"\x1b", "\x07", "\x9b", "\u202e"}
        assert "[red]" in plain and r"\x1b]0" in plain
        coloured = shown(report, color_system="truecolor", force_terminal=True)
        assert "\x1b]0" not in coloured and "\x9b" not in coloured


@pytest.mark.parametrize(
    ("signs", "part"),
    [
        ({"unpriced": (("my-7b", 3),)}, "Kit(prices={'my-7b': costkit.Rates(IN, OUT)})"),
        ({"unpriced": (("", 3),)}, "costkit.record(response, model=...)"),
        ({"missing": 50}, "costkit.record(response)"),
        ({"refused": 2}, "A budget refused 2 queries"),
        ({"estimated_share": 0.5, "estimated_streams": 9}, "include_usage"),
        ({"estimated_share": 0.5}, "estimated from text"),
        ({"cut": 20}, "raise max_tokens"),
        ({"failed": 20}, "raised an error"),
        (
            {"repeats": (("app.ask", 100, 40, False, 10**9),)},
            'put @kit.call(costkit.exact(ttl="1d"), ...) on it',
        ),
        ({"repeats": (("app.ask", 100, 40, True, 10**9),)}, "a longer ttl"),
        ({"unsaved": (("app.ask", 100),)}, "No saving is set on app.ask"),
        ({}, "Nothing stands out"),
    ],
)
def test_each_sign_has_its_step(signs: dict[str, Any], part: str) -> None:
    """A sign in the record leads to the step that mends it; no sign leads to none of them."""
    assert part in advise(Signs(**{"queries": 100, "attempts": 100, **signs}))[0]


def test_repeated_texts_show_where_exact_is_missing(tmp_path: Path) -> None:
    """Without a key, stored texts tell that identical calls ran again; answers that were cut are not among them."""
    rows = [query(f"{n}", request=f"q{n % 2}", provider_cost=1000) for n in range(6)]
    cut = [query(f"c{n}", name="app.cut", request="q", provider_cost=1000) for n in range(9)]
    folder = folder_of(
        tmp_path / "kit", queries=rows + cut, attempts=[attempt(f"c{n}", finish="length") for n in range(9)]
    )
    steps = make_report(folder).next_steps
    assert any("4 of 6 model calls of app.ask repeat one ($0.000004000)" in step for step in steps)
    assert not any("app.cut repeat" in step for step in steps)


def test_the_picture_shows_days_with_hits_apart(folder: Path, tmp_path: Path) -> None:
    """A day has what was paid, refreshes too, and quantiles of hits and misses; the file is a PNG of some size."""
    days = daily(folder)
    assert [(d.day, d.paid, d.saved) for d in days.days] == [
        ("2026-09-21", 3300, 1900),
        ("2026-09-22", 700, 300),
    ]
    assert days.days[1].hits == (0.2, 0.2) and days.days[1].misses is None
    path = plot(days, tmp_path / "report.png")
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and path.stat().st_size > 10_000


def test_a_picture_that_cannot_be_drawn_says_why(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No such ending, nothing to draw, no such folder, and a missing matplotlib are each one clear line."""
    with pytest.raises(ConfigError, match=r"end the name in \.png"):
        plot(daily(folder), tmp_path / "report.txt")
    with pytest.raises(ConfigError, match="no queries in this period"):
        plot(Days(()), tmp_path / "report.png")
    with pytest.raises(ConfigError, match="No such file or directory"):
        plot(daily(folder), tmp_path / "no" / "report.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtra, match=r"pip install 'costkit\[plot\]'"):
        plot(daily(folder), tmp_path / "report.png")
