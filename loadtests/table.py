"""The report in a terminal: a table where there is one, plain lines in a pipe."""

from __future__ import annotations

from typing import IO

from loadtests.report import Report
from loadtests.words import answer_lines, cost_lines, heading, notes, rows

__all__ = ["show"]

_PIPE_WIDTH = 118


def show(report: Report, file: IO[str] | None = None) -> None:
    """Print the report, what to do next last; to standard output unless said."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=file, highlight=False)
    piped = not console.is_terminal
    if piped:
        console = Console(file=file, highlight=False, width=_PIPE_WIDTH)
    console.print(Text(heading(report), style="bold"), soft_wrap=piped)
    table = Table(box=None if piped else SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    heads, *body = rows(report)
    for place, head in enumerate(heads):
        table.add_column(head, justify="left" if place == 0 else "right", no_wrap=True)
    for row in body:
        table.add_row(*row)
    console.print(table)
    for line in [*notes(report), *answer_lines(report), *cost_lines(report)]:
        console.print(Text(line), soft_wrap=piped)
    console.print(Text("next:", style="bold"))
    for line in report.next_steps:
        console.print(Text(f"- {line}"), soft_wrap=piped)
