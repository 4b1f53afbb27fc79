"""What a gold run shows: how many answers were right, and where the others went wrong."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from ..call import NANO
from ..stats import quantile, wilson
from .judge import Kind, Verdict
from .load import GoldTest
from .text import short

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

__all__ = ["GoldReport", "GoldRow"]

MEND = {
    "retrieval_missed": "mend retrieval: chunks, titles, synonyms, k",
    "wrong_answer": "the sources were at hand: mend the prompt, or try a stronger model",
    "format": "mend the answer's form: a stricter schema, an example, more output tokens",
    "refusal": "answered by the documents, yet refused: soften the refusal rule",
    "error": "the function raised: mend it first, the other figures hide behind it",
}
LABELS = {"retrieval_missed": "retrieval missed", "wrong_answer": "wrong answer"}
SHOWN = 20
SHOWN_TAGS = 12


@dataclass(frozen=True, slots=True)
class GoldRow:
    """One test with its verdict; ``cost`` in nano-dollars (None: unknown), ``latency`` in seconds.

    ``ranks`` holds for each wanted source its rank among what was retrieved, from 1, or None where it is
    missing; it is None as a whole where nothing was to be retrieved or the function does not tell.
    """

    test: GoldTest
    verdict: Verdict
    text: str | None
    cost: int | None
    latency: float
    ranks: tuple[int | None, ...] | None


@dataclass(frozen=True, slots=True)
class GoldReport:
    """The rows of a run and their summary; ``k`` is recall's rank, ``seconds`` the whole run."""

    rows: tuple[GoldRow, ...]
    k: int = 3
    seconds: float = 0.0

    @property
    def right(self) -> int:
        """How many answers were right."""
        return sum(row.verdict.kind == "right" for row in self.rows)

    @property
    def share(self) -> float:
        """The share of right answers; 0 where there are no rows."""
        return self.right / len(self.rows) if self.rows else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of that share."""
        return wilson(self.right, len(self.rows))

    @property
    def scored(self) -> int:
        """How many rows have a retrieval score."""
        return sum(row.ranks is not None for row in self.rows)

    @property
    def recall(self) -> float | None:
        """Mean share of a test's sources among the first ``k`` retrieved; None if no test is scored."""
        return _mean(
            sum(r is not None and r <= self.k for r in row.ranks) / len(row.ranks)
            for row in self.rows
            if row.ranks
        )

    @property
    def mrr(self) -> float | None:
        """Mean reciprocal rank of the first wanted source retrieved, at any rank; None if none is scored."""
        return _mean(max((1 / r for r in row.ranks if r), default=0.0) for row in self.rows if row.ranks)

    @property
    def cost(self) -> int | None:
        """Mean cost of a question in nano-dollars, over those whose cost is known; None if none is."""
        return _mean_cost(self.rows)

    @property
    def cost_unknown(self) -> int:
        """How many questions have no known cost."""
        return sum(row.cost is None for row in self.rows)

    def latency(self, q: float) -> float | None:
        """The ``q`` quantile of the latencies in seconds, 0.5 for p50; None where there are no rows."""
        return quantile([row.latency for row in self.rows], q) if self.rows else None

    def by_kind(self) -> dict[Kind, tuple[GoldRow, ...]]:
        """The rows of each verdict that occurs."""
        kinds: tuple[Kind, ...] = get_args(Kind)
        parts: dict[Kind, tuple[GoldRow, ...]] = {
            kind: tuple(r for r in self.rows if r.verdict.kind == kind) for kind in kinds
        }
        return {kind: rows for kind, rows in parts.items() if rows}

    def by_tag(self) -> dict[str, GoldReport]:
        """A report for each tag, in the order of the alphabet."""
        tags = sorted({tag for row in self.rows for tag in row.test.tags})
        return {t: GoldReport(tuple(r for r in self.rows if t in r.test.tags), self.k) for t in tags}

    def advice(self) -> str:
        """What to do next: the kind of failure that dominates, and its mend."""
        failures: dict[Kind, int] = {
            kind: len(rows) for kind, rows in self.by_kind().items() if kind != "right"
        }
        if not failures:
            return "Every answer is right. Add the questions your users asked last week."
        worst: Kind = "error" if "error" in failures else max(failures, key=lambda kind: failures[kind])
        many = f"{failures[worst]} of {sum(failures.values())} failures are of the kind {_label(worst)!r}"
        return f"Next: {many}; {MEND[worst]}."

    def to_json(self) -> str:
        """The report as JSON: costs in nano-dollars, latencies in seconds."""
        low, high = self.interval
        summary = {
            **_summary(self),
            "interval": [round(low, 4), round(high, 4)],
            "recall_at_k": self.recall,
            "mrr": self.mrr,
            "k": self.k,
            "retrieval_scored": self.scored,
            "cost_unknown": self.cost_unknown,
            "p50_s": self.latency(0.5),
            "p95_s": self.latency(0.95),
            "seconds": round(self.seconds, 3),
            "kinds": {kind: len(rows) for kind, rows in self.by_kind().items()},
            "tags": {tag: _summary(part) for tag, part in self.by_tag().items()},
            "advice": self.advice(),
            "rows": [_row_json(row) for row in self.rows],
        }
        return json.dumps(summary, ensure_ascii=False, indent=1, default=str)

    def table(self) -> Group:
        """The failure analysis for a rich Console: in colour on a terminal, plain in a pipe."""
        from rich.console import Group
        from rich.text import Text

        low, high = self.interval
        share = f"{self.share:.1%} (95 % interval {low:.1%} to {high:.1%})"
        head = f"{self.right} of {len(self.rows)} right: {share}"
        parts: list[Any] = [Text(head, style="bold"), _kinds_table(self)]
        if self.recall is not None and self.mrr is not None:
            found = f"recall@{self.k} {self.recall:.3f}, MRR {self.mrr:.3f}"
            parts.append(
                Text(f"Retrieval, apart from the answer: {found} over {self.scored} tests with sources")
            )
        if tags := self.by_tag():
            parts.append(_tags_table(tags))
        if len(tags) > SHOWN_TAGS:
            parts.append(Text(f"... and {len(tags) - SHOWN_TAGS} more tags; --json FILE holds them all"))
        failed = [row for row in self.rows if row.verdict.kind != "right"]
        if failed:
            parts.append(_failures_table(failed))
        if len(failed) > SHOWN:
            parts.append(Text(f"... and {len(failed) - SHOWN} more failures; --json FILE holds them all"))
        parts.append(Text(self.advice(), style="bold"))
        return Group(*parts)

    def __str__(self) -> str:
        """The table as plain text, 120 columns wide."""
        from io import StringIO

        from rich.console import Console

        out = StringIO()
        Console(file=out, width=120, color_system=None).print(self.table())
        return out.getvalue()


def _kinds_table(report: GoldReport) -> Table:
    from rich.table import Table

    table = Table("verdict", "tests", "share", "cost each", "p50", "p95", "what to mend")
    for kind, rows in report.by_kind().items():
        part = GoldReport(rows)
        share = f"{len(rows) / len(report.rows):.0%}"
        table.add_row(_label(kind), str(len(rows)), share, *_figures(part), MEND.get(kind, ""))
    table.add_section()
    table.add_row("all", str(len(report.rows)), "", *_figures(report), "")
    return table


def _figures(report: GoldReport) -> tuple[str, str, str]:
    return _usd(report.cost), _time(report.latency(0.5)), _time(report.latency(0.95))


def _tags_table(tags: dict[str, GoldReport]) -> Table:
    from rich.table import Table

    table = Table("tag", "right", "of", "share", "95 % interval", "most failures")
    # The tags with most failures first: they are what a reader looks for.
    worst_first = sorted(tags.items(), key=lambda item: item[1].right - len(item[1].rows))
    for tag, part in worst_first[:SHOWN_TAGS]:
        low, high = part.interval
        kinds = {kind: len(rows) for kind, rows in part.by_kind().items() if kind != "right"}
        worst = _label(max(kinds, key=lambda kind: kinds[kind])) if kinds else ""
        counts = (str(part.right), str(len(part.rows)), f"{part.share:.0%}")
        table.add_row(tag, *counts, f"{low:.0%} to {high:.0%}", worst)
    return table


def _failures_table(failed: Sequence[GoldRow]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("test", "question", "verdict", "why")
    for row in failed[:SHOWN]:
        # Text, because a question such as "[b]old?" would be read as markup.
        cells = (
            row.test.where,
            short(row.test.question, 50),
            _label(row.verdict.kind),
            short(row.verdict.reason, 60),
        )
        table.add_row(*map(Text, cells))
    return table


def _label(kind: str) -> str:
    return LABELS.get(kind, kind)


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return sum(known) / len(known) if known else None


def _mean_cost(rows: Sequence[GoldRow]) -> int | None:
    known = [row.cost for row in rows if row.cost is not None]
    return round(sum(known) / len(known)) if known else None


def _usd(nano: int | None) -> str:
    return "unknown" if nano is None else f"${nano / NANO:.6f}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def _summary(report: GoldReport) -> dict[str, Any]:
    return {
        "tests": len(report.rows),
        "right": report.right,
        "share": round(report.share, 4),
        "cost_nano_usd": report.cost,
    }


def _row_json(row: GoldRow) -> dict[str, Any]:
    return {
        "where": row.test.where,
        "question": row.test.question,
        "args": dict(row.test.args),
        "tags": list(row.test.tags),
        "kind": row.verdict.kind,
        "reason": row.verdict.reason,
        "answer": row.text,
        "cost_nano_usd": row.cost,
        "latency_s": row.latency,
        "ranks": row.ranks,
    }
