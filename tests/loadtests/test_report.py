"""The report: exit codes, what to do next, the folder it leaves, its table, page and pictures."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from costkit.errors import ConfigError
from loadtests.arrivals import Plan, Stage
from loadtests.cost import cost_of, per_1000_good
from loadtests.page import page, section
from loadtests.plot import draw
from loadtests.report import Report, make_report, write_report
from loadtests.sample import Sample, read_samples
from loadtests.slo import parse_objectives
from loadtests.table import show
from loadtests.words import money, seconds
from tests.loadtests.generated import clean, dropped, failed, sample

PLAN = Plan((Stage(20, 20),), seed=1)
SECONDS = 30.0
ROOT = Path(__file__).parents[2]


def run(fails: int = 0, cost: int | None = 2000) -> list[Sample]:
    """A clean run with a little noise, of which some requests fail; a third saved by the exact cache."""
    rows = []
    for one in clean(PLAN, SECONDS):
        noise = one.lag * 3
        kind = "exact" if one.id % 3 == 0 else None
        price = None if cost is None else 0 if kind else cost
        made = sample(one.id, one.intended, one.lag, 0.05 + noise, 0.5 + noise, cost_nano=price, saving=kind,
                      output_tokens=20, gaps=(0.02, 0.03), in_flight=10 + one.id % 5)  # fmt: skip
        rows.append(failed(one.id, one.intended) if one.id % 50 == 7 and one.id < fails * 50 else made)
    return rows


def report(rows: list[Sample], slo: str = "", **more: object) -> Report:
    return make_report(rows, seconds=SECONDS, plan=PLAN, objectives=parse_objectives(slo), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "slo", "code"),
    [
        (run(), "", 0),
        (run(), "ttft.p95<200ms", 0),
        (run(fails=3), "ttft.p95<200ms", 1),
        (run(fails=3), "ttft.p95<200ms,errors<10%", 0),
        (run(fails=3), "ttft.p95<20ms", 3),
        (run(), "ttft.p99<70ms", 4),
        (dropped(run(), 0.2), "ttft.p95<20ms", 5),
        ([], "ttft.p95<20ms", 5),
    ],
)
def test_exit_codes(rows: list[Sample], slo: str, code: int) -> None:
    """The worst that is true decides: invalid, breach, inconclusive, failed requests, all is well."""
    made = report(rows, slo)
    assert made.exit_code == code, made.next_steps
    assert made.next_steps and made.as_json()["exit_code"] == code


@pytest.mark.parametrize(
    ("rows", "slo", "said"),
    [
        (run(fails=3), "", "3 are status_503"),
        (run(), "", "--slo"),
        (run(cost=None), "ttft.p95<200ms", "--price-in"),
        (run(), "ttft.p95<20ms", "loadtests.capacity"),
        (run(), "ttft.p99<70ms", "inconclusive"),
        (run(), "ttft.p95<200ms", "highest rate"),
        (dropped(run(), 0.2), "", "Do not use these figures"),
    ],
)
def test_it_ends_with_what_to_do(rows: list[Sample], slo: str, said: str) -> None:
    """Every report ends with a next step that fits what happened."""
    assert any(said in line for line in report(rows, slo).next_steps)


def test_the_folder(tmp_path: Path) -> None:
    """A run leaves its report, every request, a page and a picture; the requests read back as they were."""
    rows = run(fails=2)
    made = report(rows, "ttft.p95<200ms", settings={"rate": 20})
    write_report(tmp_path / "new" / "run", made, rows)
    folder = tmp_path / "new" / "run"
    assert sorted(one.name for one in folder.iterdir()) == [
        "report.html",
        "requests.jsonl",
        "run.json",
        "run.png",
    ]
    told = json.loads((folder / "run.json").read_text())
    assert told["verdict"]["valid"] and told["settings"] == {"rate": 20} and told["failed"] == 2
    assert list(read_samples(folder / "requests.jsonl")) == sorted(rows, key=lambda one: one.intended)


def test_a_run_without_success(tmp_path: Path) -> None:
    """Where every request failed, the report is made all the same, without figures and without a picture."""
    rows = [failed(one.id, one.intended) for one in clean(PLAN, SECONDS)]
    made = report(rows, "ttft.p95<200ms")
    write_report(tmp_path, made, rows)
    assert made.exit_code == 3 and not (tmp_path / "run.png").exists() and "ttft" not in made.figures
    assert "No request succeeded" in (tmp_path / "report.html").read_text()


def test_a_pipe_gets_plain_lines() -> None:
    """In a pipe there is no colour and no line drawing, each statement is one line, and the next step comes last."""
    out = io.StringIO()
    show(report(run(fails=2), "ttft.p95<200ms,ttft.p99<70ms"), out)
    lines = out.getvalue().splitlines()
    assert all(ord(one) < 128 for one in out.getvalue())
    assert re.match(r"\d+ requests in 30 s, asked .*: valid", lines[0])
    assert any(re.match(r" *time to first token +\d+ +[\d.]+ ms", line) for line in lines)
    assert any(line.startswith("ttft.p95<200ms: PASS") for line in lines)
    assert lines[-1].startswith("- ") and "next:" in lines


class Outline(HTMLParser):
    """What a page asks a browser to fetch or run, and whether its elements close."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.scripts = 0
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [v or "" for k, v in attrs if k in {"src", "href", "xlink:href", "action", "data"}]
        self.scripts += tag == "script"
        if tag not in {"meta", "br", "link"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_stands_by_itself() -> None:
    """The page fetches nothing, runs nothing, closes what it opens, has well-formed drawings, and knows the dark."""
    rows = run(fails=3)
    made = page(report(rows, "ttft.p95<200ms,e2e.p95<400ms"), rows)
    outline = Outline()
    outline.feed(made)
    assert (outline.fetched, outline.scripts, outline.open) == ([], 0, []) and "url(" not in made
    drawings = re.findall(r"<svg.*?</svg>", made, re.DOTALL)
    assert len(drawings) == 3 and all(len(ElementTree.fromstring(one)) > 3 for one in drawings)
    assert (
        "prefers-color-scheme:dark" in made and "nan" not in made and "inf" not in made.replace("infra", "")
    )
    assert 'class="pass"' in made and 'class="breach"' in made


def test_hostile_names_are_escaped() -> None:
    """Names of runs, errors and kinds of saving come from outside and are escaped."""
    evil = "<script>alert(1)</script>"
    rows = [replace(one, saving=evil, error=evil if one.id % 9 == 0 else None) for one in run()]
    made = section(report(rows, name=evil), rows)
    assert "<script" not in made and made.count("&lt;script&gt;") >= 3


def test_long_runs_make_small_pages() -> None:
    """A page of 40,000 requests stays under half a megabyte."""
    plan = Plan((Stage(400, 400),), seed=1)
    rows = clean(plan, 100.0)
    made = make_report(rows, seconds=100.0, plan=plan)
    assert len(rows) > 39_000 and len(page(made, rows)) < 500_000


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".png", ".svg"])
def test_pictures(tmp_path: Path, ending: str) -> None:
    """A picture is drawn with and without costs and objectives; an ending that is none is refused."""
    for rows, slo in ((run(fails=2), "ttft.p95<200ms,e2e.p95<400ms"), (run(cost=None), "")):
        path = draw(report(rows, slo), rows, tmp_path / f"run{ending}")
        assert path.stat().st_size > 20_000
    with pytest.raises(ConfigError, match="end the name"):
        draw(report(run()), run(), tmp_path / "run.txt")
    with pytest.raises(ConfigError, match="name a file"):
        draw(report(run()), run(), tmp_path / "none" / "run.png")


def test_cost_by_endpoint_and_by_hour() -> None:
    """Cost per query is that of what succeeded, 1,000 good ones carry the failed ones' too, an hour is shared out."""
    rows = [sample(n, n / 10, cost_nano=1_000_000) for n in range(100)]
    rows += [replace(failed(100 + n, 10 + n / 10), cost_nano=1_000_000) for n in range(25)]
    paid = cost_of(rows, seconds=12.5)
    assert paid.mean == pytest.approx(0.001) and paid.total == pytest.approx(0.125)
    assert paid.per_1000_good == pytest.approx(1.25) and paid.source == "endpoint or tokens"
    hour = cost_of(rows, seconds=12.5, usd_per_hour=3.6)
    assert hour.mean == pytest.approx(0.000125) and hour.per_1000_good == pytest.approx(
        per_1000_good(3.6, 8.0)
    )
    unknown = cost_of([replace(one, cost_nano=None) for one in rows], seconds=12.5)
    assert (unknown.source, unknown.mean) == ("unknown", None)
    some = cost_of([replace(one, cost_nano=None) if one.id == 3 else one for one in rows], seconds=12.5)
    assert some.unpriced == 1 and some.total is None and some.per_1000_good is None


def test_words() -> None:
    """Amounts have three digits in a unit that suits, and money is never written in powers of ten."""
    assert [seconds(one) for one in (0.0, 0.00123, 0.1, 0.9999, 1.0, 123.4)] == [
        "0 ms",
        "1.23 ms",
        "100 ms",
        "1 s",
        "1 s",
        "123 s",
    ]
    assert [money(one) for one in (0.0, 1e-7, 0.123456, 1234.5)] == ["$0", "$0.0000001", "$0.123", "$1,234"]


def test_statistics_know_no_locust() -> None:
    """What reads samples imports neither locust nor gevent, nor matplotlib or rich before they are needed."""
    names = (
        "arrivals capacity compare cost metrics page paired plot process report runs sample search slo table"
    )
    every = [f"loadtests.{name}" for name in (*names.split(), "traces", "verdict", "words")]
    code = (
        f"import importlib, sys\nfor name in {every!r}: importlib.import_module(name)\n"
        "print(*({'locust', 'gevent', 'matplotlib', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


@pytest.mark.parametrize(
    "rows",
    [
        [sample(0, 0.0)],
        [sample(0, 0.0), sample(1, 0.0)],
        [sample(0, 5.0, lag=-0.5, ttft=0.1)],
        [sample(0, 0.1, ttft=0.0, e2e=0.0)],
        [replace(sample(0, 0.1), first=None, first_output=None, last=None)],
        [sample(0, 0.1, ttft=1e-9, e2e=1e5), failed(1, 0.2)],
        [sample(0, 0.1, output_tokens=0, cost_nano=0, gaps=(0.0,))],
    ],
    ids=["one", "twice", "early", "instant", "silent", "far", "free"],
)
def test_odd_runs_are_reported(tmp_path: Path, rows: list[Sample]) -> None:
    """One request, clocks that ran backwards, answers without content or in no time: a report comes of each."""
    made = report(rows, "ttft.p95<200ms,errors<1%,cost.mean<1USD")
    write_report(tmp_path, made, rows)
    out = io.StringIO()
    show(made, out)
    assert out.getvalue() and json.loads((tmp_path / "run.json").read_text())["requests"] == len(rows)
    page_text = (tmp_path / "report.html").read_text()
    assert all(len(ElementTree.fromstring(one)) for one in re.findall(r"<svg.*?</svg>", page_text, re.DOTALL))
    assert not re.search(r"[ML ](nan|inf|-inf)", page_text)
