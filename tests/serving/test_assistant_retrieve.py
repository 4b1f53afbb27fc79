"""Passages, their ranking, and question files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.assistant.documents import (
    MAX_WORDS,
    Article,
    ContentError,
    Passage,
    load_questions,
    passages_of,
    split_sentences,
)
from serving.assistant.retrieve import PER_ARTICLE, Index, terms


@given(st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=12), min_size=1, max_size=6))
def test_passages_share_no_sentence_and_lose_none(sections: list[list[int]]) -> None:
    """Whatever the lengths, passages hold all sentences once, in order, and keep to the word limit."""
    wanted: list[str] = []
    body = ""
    for number, lengths in enumerate(sections):
        sentences = [f"S{number}x{i}" + " word" * (n - 1) + "." for i, n in enumerate(lengths)]
        wanted += sentences
        body += f"## Part {number}\n\n" + " ".join(sentences) + "\n\n"
    passages = passages_of(Article("a", "A", body))
    assert [s for p in passages for s in p.sentences] == wanted
    assert [p.id for p in passages] == [f"a#{i}" for i in range(1, len(passages) + 1)]
    assert all(len(p.text.split()) <= MAX_WORDS for p in passages)


def test_sentences_end_at_full_stops_and_not_in_numbers_or_short_forms() -> None:
    """Numbers, "e.g." and closing quotes do not cut a sentence in two."""
    text = 'Version 7.4 costs $9.50, e.g. Team. It says "Stop." Then (see kb-1) go. Larkspur Ltd. Berlin.'
    assert split_sentences(text) == [
        "Version 7.4 costs $9.50, e.g. Team.",
        'It says "Stop."',
        "Then (see kb-1) go.",
        "Larkspur Ltd. Berlin.",
    ]


def test_search_terms_fold_what_users_write_differently() -> None:
    """Endings, thousands separators, units without a space and e-mail match however they are written."""
    assert terms("refunding 1,200 e-mails at 50GB") == terms("refunds 1200 emails 50 GB")


def test_equal_scores_keep_the_order_of_the_passages() -> None:
    """Twins are ranked as they were given, so one folder always gives one ranking."""
    twins = [Passage(f"t{i}#1", f"t{i}", "Twin", "", ("Refunds take five days.",)) for i in range(5)]
    assert [h.passage.id for h in Index(twins).search("how long do refunds take", 3)] == [
        "t0#1",
        "t1#1",
        "t2#1",
    ]
    assert [h.passage.id for h in Index(twins[::-1]).search("refunds", 2)] == ["t4#1", "t3#1"]


def test_titles_and_headings_are_searched_and_typos_read_as_the_nearest_word() -> None:
    """A word that stands only in a title or a heading finds the passage, and so does a misspelt one."""
    passages = [Passage("a#1", "a", "Invoices", "Deadlines", ("It is day five.",)),
                Passage("b#1", "b", "Parcels", "", ("It is day six.",))]  # fmt: skip
    for question in ("invoices", "deadline?", "invocies", "invoce"):
        hits = Index(passages).search(question, 2)
        assert [h.passage.id for h in hits] == ["a#1"], question
    assert Index(passages).search("zebra", 2) == ()


def test_one_article_takes_at_most_its_share_of_the_passages() -> None:
    """A long article on the topic does not push the others out."""
    passages = [Passage(f"a#{i}", "a", "Refunds", "", (f"Refund rule {i} here.",)) for i in range(1, 6)]
    passages.append(
        Passage("b#1", "b", "Other", "", ("Something about a refund at length, in passing, it seems.",))
    )
    found = [h.passage.article for h in Index(passages).search("refund", 4)]
    assert found == ["a"] * PER_ARTICLE + ["b"]


def test_narrowing_keeps_the_nearest_sentences_in_their_order() -> None:
    """The sentences left are those that share rare words with the question, unchanged and in order."""
    passage = Passage(
        "a#1", "a", "Restore drive", "Price", ("Call us.", "It costs $99.", "The drive holds 8 TB.", "Bye.")
    )
    other = Passage("b#1", "b", "Birds", "", ("Birds sing.",))
    index = Index([passage, other])
    (cut,) = index.narrow("what does the drive cost", [passage], 2)
    assert cut.sentences == ("It costs $99.", "The drive holds 8 TB.") and cut.id == "a#1"
    (titled,) = index.narrow("restore price", [other, passage], 1)
    assert titled.sentences == ("Call us.",)


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "must be a JSON object"),
        ('{"question": " "}', "question is empty"),
        ('{"question": "a", "tennant": "x"}', "unknown key 'tennant'; known are tenant"),
        ('{"question": 3}', "question must be text, not int"),
        ('{"question": "a", "kind": "odd"}', "kind 'odd' must be one of"),
        ('{"question": "a", "sources": "kb-1"}', "sources must be a list"),
        ('{"id": "q-1", "question": "a"}', "'q-1' is taken"),
    ],
)
def test_a_broken_question_file_names_the_line(tmp_path: Path, line: str, part: str) -> None:
    """Each mistake is a ContentError with the file and the line."""
    (tmp_path / "q.jsonl").write_text('{"question": "how long?"}\n' + line + "\n", "utf-8")
    with pytest.raises(ContentError) as caught:
        load_questions(tmp_path)
    assert "q.jsonl line 2" in str(caught.value) and part in str(caught.value)


def test_questions_need_nothing_but_a_question(tmp_path: Path) -> None:
    """A user's own file may hold only questions; ids are the file's name and line, the tenant "default"."""
    (tmp_path / "mine.jsonl").write_text('{"question": "how long?"}\n\n{"question": "how much?"}\n', "utf-8")
    first, second = load_questions(tmp_path / "mine.jsonl")
    assert (first.id, first.tenant, second.id) == ("mine-1", "default", "mine-3")
    with pytest.raises(ContentError, match="no question file"):
        load_questions(tmp_path / "none.jsonl")
