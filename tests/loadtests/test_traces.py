"""Traces: both layouts, their shared blocks, and one clear error for a broken line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from loadtests.traces import Row, TraceError, prompt, read_trace

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


def mooncake(**changes: object) -> str:
    row = {"timestamp": 0, "input_length": 700, "output_length": 12, "hash_ids": [1, 2]}
    return json.dumps({**row, **changes}) + "\n"


def test_azure(tmp_path: Path) -> None:
    """Rows of an Azure trace keep their tokens, and times count from the first, across seven decimals and zones."""
    path = tmp_path / "a.csv"
    path.write_text(AZURE + "2024-01-01 10:00:00.5000000,374,44\n\n2024-01-01 10:00:02.2500009,12,1\n")
    assert read_trace(path) == [Row(0.0, 374, 44), Row(pytest.approx(1.75), 12, 1)]  # type: ignore[arg-type]
    zoned = "2024-05-10 00:59:59+00:00,1,2\n2024-05-10 03:00:00.5+02:00,3,4\n"
    path.write_text("ContextTokens,TIMESTAMP,GeneratedTokens\n" + "5,2024-05-10 00:59:58,6\n")
    assert read_trace(path) == [Row(0.0, 5, 6)]
    path.write_text(AZURE + zoned)
    assert [row.at for row in read_trace(path)] == [0.0, 1.5]


def test_mooncake(tmp_path: Path) -> None:
    """Rows of a Mooncake trace keep tokens and blocks; milliseconds become seconds; gzip is unpacked."""
    path = tmp_path / "m.jsonl.gz"
    path.write_bytes(
        gzip.compress((mooncake(timestamp=3000) + mooncake(timestamp=6000, hash_ids=[1, 3])).encode())
    )
    assert read_trace(path) == [Row(0.0, 700, 12, (1, 2)), Row(3.0, 700, 12, (1, 3))]
    assert len(read_trace(path, most=1)) == 1


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (AZURE + "2024-01-01 10:00:00,1,2\n2024-01-01 10:00:01,1\n", 3),
        (AZURE + "yesterday,1,2\n", 2),
        (AZURE + "2024-01-01 10:00:00,-1,2\n", 2),
        (AZURE + "2024-01-01 10:00:00,1,2.5\n", 2),
        (AZURE + "2024-01-01 10:00:01,1,2\n2024-01-01 10:00:00,1,2\n", 3),
        ("a,b,c\n1,2,3\n", 1),
        (mooncake() + "{\n", 2),
        (mooncake() + mooncake(input_length="7"), 2),
        (mooncake() + mooncake(hash_ids=5), 2),
        (mooncake() + mooncake(hash_ids=[1, None]), 2),
        (mooncake() + mooncake(output_length=True), 2),
        (mooncake() + '{"timestamp": 1}\n', 2),
        (mooncake() + mooncake(timestamp=float("nan")), 2),
        (mooncake() + mooncake(timestamp=-1), 2),
        (mooncake() + "[]\n", 2),
        (mooncake() + "[" * 20_000 + "\n", 2),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, text: str, line: int) -> None:
    """A broken line anywhere is one error of one line, with the file and the line's number."""
    path = tmp_path / "broken"
    path.write_text(text)
    with pytest.raises(TraceError, match=f"line {line}: ") as caught:
        read_trace(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    """No file, an empty one, a header alone, cut-off gzip and bytes that are no text are each told in one line."""
    for name, data in {"none": None, "empty": b"", "header": AZURE.encode(), "cut.gz": gzip.compress(b"{}" * 99)[:20],
                       "bytes": b"\xff\xfe\x00{"}.items():  # fmt: skip
        path = tmp_path / name
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(TraceError, match=name) as caught:
            read_trace(path)
        assert "\n" not in str(caught.value)


def shared(one: str, two: str) -> int:
    """How many leading words two prompts have in common."""
    return next((i for i, (a, b) in enumerate(zip(one.split(), two.split(), strict=False)) if a != b), 10**9)


@pytest.mark.parametrize("scale", [1.0, 0.125])
def test_prompts_share_exactly_their_blocks(scale: float) -> None:
    """Two prompts share the leading blocks that the trace says, to the word, and nothing after them."""
    size = round(512 * scale)
    rows = [Row(0, 2000, 1, blocks) for blocks in [(1, 2, 3, 4), (1, 2, 9, 4), (1, 2, 3, 8), (5, 2, 3, 4)]]
    made = [prompt(row, number, scale=scale) for number, row in enumerate(rows)]
    found = [[shared(a, b) for b in made] for a in made]
    assert found[0][1:] == [2 * size, 3 * size, 0] and found[1][2:] == [2 * size, 0]
    assert [len(text.split()) for text in made] == [round(2000 * scale)] * 4


def test_every_block_begins_otherwise() -> None:
    """Ten thousand block ids give ten thousand first words, and none is that of a request without blocks."""
    words = {prompt(Row(0, 3, 1, (block,)), 0).split()[0] for block in range(10_000)}
    words |= {prompt(Row(0, 3, 1), number).split()[0] for number in range(10_000)}
    assert len(words) == 20_000


def test_without_blocks_nothing_is_shared() -> None:
    """Rows of a trace without blocks share no prefix, and a prompt is the same each time it is made."""
    row = Row(0, 800, 1)
    assert shared(prompt(row, 1), prompt(row, 2)) == 0
    assert prompt(row, 1) == prompt(row, 1)


def test_rows_longer_than_their_blocks() -> None:
    """What no block stands for is filled up with the row's own text; blocks beyond the prompt's length are cut off."""
    long, short = Row(0, 700, 1, (4,)), Row(0, 100, 1, (4, 5))
    assert len(prompt(long, 1).split()) == 700 and len(prompt(short, 1).split()) == 100
    assert shared(prompt(long, 1), prompt(long, 2)) == 512


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_none(scale: float) -> None:
    """A scale that makes no prompt is refused by name."""
    with pytest.raises(ValueError, match="scale"):
        prompt(Row(0, 10, 1), 0, scale=scale)
