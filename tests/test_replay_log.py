"""Reading logs: formats, columns, and what is done with rows that are of no use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import costkit
from costkit import Kit
from costkit.errors import ConfigError
from costkit.replay import Columns, Log, read_ledger, read_log


def written(path: Path, *rows: Any) -> Path:
    """Rows as JSONL; a text is a line as it is."""
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8"
    )
    return path


ROW = {"question": "how long?", "answer": "A week."}


def test_usual_names_are_found(tmp_path: Path) -> None:
    """Columns with usual names need not be named, nested ones among them."""
    row = {
        "prompt": "how long?", "response": "A week.", "tenant_id": "acme", "ts": "2026-11-01T00:00:00Z",
        "model": "gpt-4o-mini", "usage": {"prompt_tokens": 1000, "completion_tokens": 100}, "duration": 1.5,
    }  # fmt: skip
    log = read_log(written(tmp_path / "log.jsonl", row))
    (line,) = log.lines
    assert (line.text, line.truth, line.tenant, line.at, line.latency) == (
        "how long?",
        "A week.",
        "acme",
        1793491200.0,
        1.5,
    )
    assert line.cost == 1000 * 150 + 100 * 600, "gpt-4o-mini: 0.15 and 0.60 USD per million tokens"
    assert log.columns.named()["input_tokens"] == "usage.prompt_tokens"


def test_csv_is_read_as_jsonl_is(tmp_path: Path) -> None:
    """The same rows as CSV, with quoted commas and line ends, give the same lines."""
    (tmp_path / "log.csv").write_text('question,answer,cost\n"how, long?","A\nweek.",0.01\n', "utf-8-sig")
    log = read_log(tmp_path / "log.csv")
    as_json = read_log(
        written(tmp_path / "log.jsonl", {"question": "how, long?", "answer": "A\nweek.", "cost": 0.01})
    )
    assert log.lines == as_json.lines
    assert log.lines[0].cost == 10_000_000


def test_columns_can_be_named(tmp_path: Path) -> None:
    """Named columns win over usual names, also with dots into lists."""
    row = {
        "question": "no",
        "answer": "no",
        "body": {"messages": [{"content": "how long?"}]},
        "out": "A week.",
    }
    path = written(tmp_path / "log.jsonl", row)
    line = read_log(path, Columns(question="body.messages.0.content", answer="out")).lines[0]
    assert (line.text, line.truth) == ("how long?", "A week.")


def test_a_label_is_the_truth(tmp_path: Path) -> None:
    """Where there is a label it says what is right; an answer is then not needed."""
    assert read_log(written(tmp_path / "a.jsonl", {**ROW, "label": "time"})).lines[0].truth == "time"
    assert (
        read_log(written(tmp_path / "b.jsonl", {"text": "how long?", "category": "time"})).lines[0].truth
        == "time"
    )


def test_messages_keep_their_context_apart(tmp_path: Path) -> None:
    """Of chat messages the last one is asked; another system prompt is another namespace, as is another model."""
    chats = [
        [{"role": "system", "content": brief}, {"role": "user", "content": "how long?"}]
        for brief in ("Be brief", "Be long")
    ]
    rows: list[dict[str, Any]] = [{"messages": chat, "answer": "A week.", "model": "m"} for chat in chats]
    rows.append({**rows[0], "model": "other"})
    rows.append({**rows[0], "messages": json.dumps(chats[0])})
    one, two, three, four = read_log(written(tmp_path / "log.jsonl", *rows)).lines
    assert {line.text for line in (one, two, three, four)} == {"how long?"}
    assert len({one.same, two.same, three.same}) == 3 and one.same == four.same


def test_broken_lines_are_counted_and_named(tmp_path: Path) -> None:
    """Broken lines, rows without question or answer, and rows that are no objects cost themselves only."""
    rows = [
        "{broken",
        ROW,
        "",
        "[1]",
        {"question": "", "answer": "x"},
        {"question": "x"},
        {"question": 7, "answer": "x"},
        ROW,
    ]
    log = read_log(written(tmp_path / "log.jsonl", *rows))
    assert len(log.lines) == 2
    assert log.left_out == {"broken line": 2, "no question": 2, "no answer": 1}
    assert log.first_bad == "line 1: broken line"
    (tmp_path / "log.csv").write_text("question,answer\nhow?,week\nonly one\na,b,c\n")
    assert read_log(tmp_path / "log.csv").left_out == {"broken line": 2}


@pytest.mark.parametrize(
    ("name", "content", "columns", "says"),
    [
        ("log.jsonl", b"", Columns(), "no line of it can be read"),
        ("log.jsonl", b"{broken\n[]\n", Columns(), "no line of it can be read"),
        ("log.jsonl", b"\x1f\x8b\x00\x01", Columns(), "is no text; unpack it"),
        (
            "log.jsonl",
            b'{"q": 1, "answer": "x"}',
            Columns(),
            r"say --question COLUMN \(columns: 'q', 'answer'\)",
        ),
        ("log.jsonl", b'{"question": "x"}', Columns(), "say --answer COLUMN"),
        ("log.jsonl", b'{"question": "x", "answer": "y"}', Columns(answer="anser"), "did you mean 'answer'"),
        ("log.jsonl", b'{"question": "x", "answer": "y"}', Columns(same=("zzz",)), "no such column"),
        (
            "log.jsonl",
            b'{"question": "x", "answer": ""}',
            Columns(),
            r"no row of it can be used \(1 x no answer\)",
        ),
        ("log.csv", b"question,answer\n", Columns(), "no line of it can be read"),
    ],
)
def test_a_log_of_no_use_is_one_clear_error(
    tmp_path: Path, name: str, content: bytes, columns: Columns, says: str
) -> None:
    """What is wrong with a file, and the mend, in one line."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=says) as raised:
        read_log(tmp_path / name, columns)
    assert name in str(raised.value) and "\n" not in str(raised.value)


def test_a_missing_file_and_a_folder_are_errors(tmp_path: Path) -> None:
    """A path that is no file says so."""
    with pytest.raises(ConfigError, match="cannot be read"):
        read_log(tmp_path / "none.jsonl")
    with pytest.raises(ConfigError, match="--ledger"):
        read_log(tmp_path)


def test_hostile_values_are_unknown_not_wrong(tmp_path: Path) -> None:
    """Negative, infinite, absent or absurd numbers and times count as not known."""
    odd = [-1, "inf", "nan", True, None, [], "1e999", 10**400]
    log = read_log(
        written(
            tmp_path / "log.jsonl",
            *({**ROW, "cost": value, "latency": value, "time": value} for value in odd),
        )
    )
    assert [(line.cost, line.latency, line.at) for line in log.lines] == [(None, None, None)] * len(odd)
    deep = '{"question": ' + "[" * 100_000 + "]" * 100_000 + "}"
    assert read_log(written(tmp_path / "deep.jsonl", ROW, deep)).left_out == {"broken line": 1}


def test_rows_are_taken_in_order_of_time(tmp_path: Path) -> None:
    """Milliseconds, seconds and ISO dates order the rows, where every row has a time."""
    times = [1793491203000, 1793491202.0, "2026-11-01T00:00:01Z"]
    rows = [{"question": f"q{at}", "answer": "x", "time": time} for at, time in enumerate(times)]
    assert [line.text for line in read_log(written(tmp_path / "a.jsonl", *rows)).lines] == ["q2", "q1", "q0"]
    rows[0]["time"] = "soon"
    assert [line.text for line in read_log(written(tmp_path / "b.jsonl", *rows)).lines] == ["q0", "q1", "q2"]


def test_an_unknown_price_stays_unknown(tmp_path: Path) -> None:
    """Tokens of a model without a price are no money, and the reason is kept."""
    row = {**ROW, "model": "nobody/knows-this", "input_tokens": 5, "output_tokens": 5}
    log = read_log(written(tmp_path / "log.jsonl", row))
    assert log.lines[0].cost is None and log.unpriced is not None and "knows-this" in log.unpriced


def recorded(folder: Path, **kit: Any) -> Path:
    """A kit's folder with ten calls of two tenants."""
    with Kit(folder, **kit) as made:

        @made.call(costkit.exact(), scope="tenant", name="desk.ask")
        def ask(question: str, tenant: str, tone: str = "kind") -> str:
            return f"A week, {tone}."

        for number in range(10):
            ask(f"how long {number % 4}?", tenant=f"t{number % 2}")
    return folder


def test_the_ledger_is_a_log(tmp_path: Path) -> None:
    """What a kit with store_text recorded comes back with scope, time, latency and the other arguments."""
    log: Log = read_ledger(recorded(tmp_path / "kit", store_text=True))
    assert log.name == "desk.ask" and len(log.lines) == 10
    assert {line.tenant for line in log.lines} == {'{"tenant": "t0"}', '{"tenant": "t1"}'}
    assert {line.truth for line in log.lines} == {"A week, kind."}
    assert all(line.at is not None and "kind" in line.same for line in log.lines)
    assert sum(line.latency is None for line in log.lines) == 6, (
        "a hit says nothing about the model's latency"
    )


def test_a_ledger_without_texts_says_so(tmp_path: Path) -> None:
    """Without stored texts, or with a name that is not there, the mend is named."""
    with pytest.raises(ConfigError, match="store_text=True"):
        read_ledger(recorded(tmp_path / "kit"))
    with pytest.raises(ConfigError, match=r"no such call.*desk\.ask"):
        read_ledger(recorded(tmp_path / "texts", store_text=True), name="other")
    with Kit(tmp_path / "texts", store_text=True) as kit:
        kit.call(scope=None, name="second")(lambda question: "x")(question="y")
    with pytest.raises(ConfigError, match=r"several functions.*desk\.ask, second"):
        read_ledger(tmp_path / "texts")
