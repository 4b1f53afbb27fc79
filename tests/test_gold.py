"""Gold files and how an answer is judged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costkit.errors import GoldError
from costkit.gold import GoldTest, judge, load_gold
from costkit.gold.text import fold, holds


@dataclass(frozen=True)
class Said:
    """An answer of the richer kind."""

    text: str
    citations: tuple[str, ...] = ()
    quote_ok: bool | None = None
    refused: bool = False
    retrieved: tuple[str, ...] = ()


def write(tmp_path: Path, text: str, name: str = "gold.toml") -> Path:
    file = tmp_path / name
    file.write_text(text, "utf-8")
    return file


GOOD = """
[[test]]
question = "How long?"
tenant = "acme"
contains = ["30 days"]
contains_any = [["refund", "money back"]]
cite = ["kb-1"]
sources = ["kb-1"]
tags = ["billing"]

[[test]]
question = "Who won the cup?"
refuse = true
args = { tag = "x" }
"""


def test_a_gold_file_is_read_as_written(tmp_path: Path) -> None:
    """Every key of a test arrives, unknown keys and the args table become arguments of the function."""
    first, second = load_gold(write(tmp_path, GOOD))
    assert first == GoldTest(
        "How long?",
        contains=("30 days",),
        contains_any=(("refund", "money back"),),
        cite=("kb-1",),
        sources=("kb-1",),
        tags=("billing",),
        args={"tenant": "acme"},
        where="gold.toml test 1",
    )
    assert second.refuse and second.args == {"tag": "x"}


def test_a_folder_is_read_in_the_order_of_its_file_names(tmp_path: Path) -> None:
    """A folder gives the tests of all its .toml files, sorted by file name."""
    for name in ("b.toml", "a.toml", "notes.txt"):
        write(tmp_path, f'[[test]]\nquestion = "{name}"\ncontains = ["x"]\n', name)
    assert [t.question for t in load_gold(tmp_path)] == ["a.toml", "b.toml"]


Q = '[[test]]\nquestion = "How long?"\n'


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (Q + 'contain = ["x"]', ["gold.toml test 1 (How long?)", "did you mean 'contains'", "args"]),
        (Q + 'cites = ["x"]', ["did you mean 'cite'"]),
        (Q + 'tenant = "acme"', ["nothing to check", "refuse = true"]),
        (Q + 'sources = ["kb-1"]', ["nothing to check"]),
        (Q + 'refuse = true\ncontains = ["x"]', ["refuse = true together with contains"]),
        (Q + 'refuse = true\nsources = ["kb-1"]', ["refuse = true together with sources"]),
        (Q + 'refuse = "yes"', ["refuse must be true or false, not 'yes'"]),
        (Q + 'contains = "x"', ["contains must be a list of texts"]),
        (Q + 'contains = [" "]', ["none empty"]),
        (Q + 'contains_any = ["x"]', ["contains_any must be a list of lists"]),
        (Q + 'contains_any = [[]]', ["contains_any must be a list of lists"]),
        (Q + "equals = 3", ["equals must be a text, not 3"]),
        (Q + 'contains = ["x"]\nargs = 3', ["args must be a table"]),
        ('[[test]]\nquestion = "  "\ncontains = ["x"]', ["gold.toml test 1", "question is missing or empty"]),
        (Q + 'contains = ["x"]\n[[test]]\nquestion = "how  LONG?"\ncontains = ["y"]',
         ["gold.toml test 2", "asks the same as gold.toml test 1"]),
        ('[test]\nquestion = "a"', ["two brackets"]),
        ('[[tests]]\nquestion = "a"', ["unknown top-level key 'tests'"]),
        ("", ["holds no test"]),
        (Q + "contains = [oops", ["not TOML", "line 3"]),
    ],
)  # fmt: skip
def test_a_broken_gold_file_says_where_and_what_to_mend(tmp_path: Path, text: str, parts: list[str]) -> None:
    """Each mistake is a GoldError that names the file, the test and the mend."""
    with pytest.raises(GoldError) as caught:
        load_gold(write(tmp_path, text))
    for part in ["gold.toml", *parts]:
        assert part in str(caught.value)


def test_unreadable_gold_paths_are_named(tmp_path: Path) -> None:
    """A missing file, an empty folder and bytes that are not UTF-8 are GoldErrors."""
    with pytest.raises(GoldError, match="cannot be read"):
        load_gold(tmp_path / "no.toml")
    with pytest.raises(GoldError, match=r"holds no \.toml file"):
        load_gold(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9")
    with pytest.raises(GoldError, match="not UTF-8"):
        load_gold(tmp_path)


def test_the_same_question_with_other_arguments_is_another_test(tmp_path: Path) -> None:
    """Two tenants may ask the same question and expect different answers."""
    text = "".join(f'{Q}tenant = "{t}"\ncontains = ["{t}"]\n' for t in ("a", "b"))
    assert len(load_gold(write(tmp_path, text))) == 2


@pytest.mark.parametrize(
    ("answer", "wanted", "held"),
    [
        ("It takes 30 days.", "30", True),
        ("It takes 300 days.", "30", False),
        ("It takes 1,300 days.", "300", False),
        ("It takes 1,300 days.", "1300", True),
        ("It takes 1300 days.", "1,300 days", True),
        ("It costs $30.50.", "30", False),
        ("Version 7.30 is out.", "30", False),
        ("It costs $30.50.", "$30.5", False),
        ("It costs $9.", "$9", True),
        ("It costs $99.", "$9", False),
        ("Version 7.4 is out.", "version 7", False),
        ("We use TLS 1.3.", "TLS 1.3", True),
        ("An SLA of 99.9 %", "99.9%", True),
        ("An SLA of 99.95 %", "99.9 %", False),
        ("NOT\u00a0 Refunded", "not refunded", True),
        ("\uff13\uff10 days", "30 days", True),
        ("Refunds are made.", "refund", True),
    ],
)
def test_numbers_match_whole_and_texts_match_folded(answer: str, wanted: str, held: bool) -> None:
    """A number never matches inside another one; case, spaces and Unicode width do not matter."""
    assert holds(answer, wanted) is held


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_an_integer_is_found_only_as_itself(wanted: int, said: int) -> None:
    """For any two integers, with or without separators, one holds the other only when they are equal."""
    assert holds(f"It is {said:,} a day.", str(wanted)) is (wanted == said)


@given(st.text())
def test_folding_twice_changes_nothing_for_ascii(text: str) -> None:
    """Folding is stable, so that a gold text copied from a folded answer still matches."""
    once = fold(text.encode("ascii", "ignore").decode())
    assert fold(once) == once


CITED = GoldTest("q", contains=("30 days",), cite=("kb-1",), sources=("kb-1",))


@pytest.mark.parametrize(
    ("test", "answer", "kind"),
    [
        (CITED, Said("30 days", ("kb-1",), True, retrieved=("kb-1",)), "right"),
        (CITED, Said("30 days", ("kb-1",), True, retrieved=("kb-2",)), "right"),
        (CITED, Said("9 days", ("kb-2",), True, retrieved=("kb-2",)), "retrieval_missed"),
        (CITED, Said("no idea", refused=True, retrieved=("kb-2",)), "retrieval_missed"),
        (CITED, Said("9 days", ("kb-1",), True, retrieved=("kb-2", "kb-1#4")), "wrong_answer"),
        (CITED, Said("30 days", ("kb-2",), True, retrieved=("kb-1",)), "wrong_answer"),
        (CITED, Said("30 days", (), None, retrieved=("kb-1",)), "format"),
        (CITED, Said("30 days", ("kb-1",), False, retrieved=("kb-1",)), "format"),
        (CITED, Said("no idea", refused=True, retrieved=("kb-1",)), "refusal"),
        (CITED, "Within 30 days [kb-1].", "right"),
        (CITED, "Within 30 days [kb-12].", "format"),
        (CITED, "The documents don\u2019t say; I don\u2019t know.", "refusal"),
        (GoldTest("q", refuse=True), Said("no", refused=True), "right"),
        (GoldTest("q", refuse=True), Said("42"), "wrong_answer"),
        (GoldTest("q", refuse=True), Said("gibberish", quote_ok=False), "format"),
        (GoldTest("q", refuse=True), "The articles do not answer this.", "right"),
        (GoldTest("q", equals="Yes, 5  days"), "yes, 5 days", "right"),
        (GoldTest("q", equals="Yes"), "Yes, always", "wrong_answer"),
        (GoldTest("q", contains_any=(("a b", "c"), ("d",))), "C and D", "right"),
        (GoldTest("q", contains_any=(("a b", "c"), ("d",))), "only c", "wrong_answer"),
    ],
)
def test_the_first_cause_of_a_failure_is_named(test: GoldTest, answer: Any, kind: str) -> None:
    """Each answer gets the one verdict that tells which part of the workflow to mend."""
    assert judge(test, answer).kind == kind
