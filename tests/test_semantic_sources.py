"""Retrieved passages beside a stored answer: what they share, and what has changed."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import pytest

from costkit import Kit
from costkit.semantic.features import Neighbour, Profile, Profiler, choose
from costkit.semantic.sources import legible, sources_of
from tests.meanings import SURE, evidence, kit, meaning, opened

__all__ = ["kit"]

ONE, OTHER = "how do I get a refund", "how do I get my refund"
OLD, NEW = {"id": "kb-1", "text": "refunds take 30 days"}, {"id": "kb-1", "text": "refunds take 14 days"}


@dataclass
class Document:
    page_content: str
    metadata: dict[str, Any]


def ids(passages: Any) -> set[int]:
    return {id for id, _ in sources_of(passages, b"k")}


def test_the_shapes_of_passages() -> None:
    """A mapping, a pair and an object with the same id and text are the same passage, and a text is its own id."""
    assert sources_of([OLD], b"k") == sources_of([("kb-1", "refunds take 30 days")], b"k")
    assert sources_of(["a", "b"], b"k") == sources_of(("b", "a"), b"k") != sources_of(["a"], b"k")
    chunk = Document("refunds", {"source": "kb-1", "start_index": 40})
    assert len(sources_of([chunk, Document("parcels", {"source": "kb-1", "start_index": 90})], b"k")) == 2
    assert sources_of([OLD], b"k") != sources_of([OLD], b"other key")


def test_parts_of_one_document_are_no_change() -> None:
    """Of two parts that carry the document's id alone nothing is said to have changed: it is the same document."""
    one = Profiler(b"k")
    first = one.of(ONE, [Document("refunds", {"source": "kb-1"})])
    second = one.of(OTHER, [Document("parcels", {"source": "kb-1"})])
    assert first.sources == second.sources and not second.outdates(first)


@pytest.mark.parametrize(
    "odd", [None, 3, [], [None, 3.5, object()], {}, [("a", "b", "c")], iter(["a"]), [""]]
)
def test_what_is_no_passage_says_nothing(odd: Any) -> None:
    """Things without a text or an id are left out, and an iterator is not used up."""
    assert sources_of(odd, b"k") == frozenset()
    if hasattr(odd, "__next__"):
        assert next(odd) == "a"


def test_a_score_beside_a_passage_is_left_aside() -> None:
    """Passages as similarity searches return them, each with its score, are the same as without."""
    plain = [{"id": "kb-1", "text": "30 days"}, Document("parcels", {"source": "kb-2", "start_index": 1})]
    assert sources_of([(one, 0.83) for one in plain], b"k") == sources_of(plain, b"k") != frozenset()


@pytest.mark.parametrize(
    ("passages", "reads"),
    [(None, True), ([], True), (["", None], True), ([OLD], True), ("a text", True), ({"documents": [["x"]]}, False),
     ([OLD, 3.5], False), (iter(["a"]), False), (["x"] * 257, False)],
)  # fmt: skip
def test_what_cannot_be_read_is_told(passages: Any, reads: bool) -> None:
    """Only where every passage can be read may calls with other passages answer for each other."""
    assert legible(passages) is reads


def test_passages_that_cannot_be_read_must_be_identical(kit: Kit) -> None:
    """Where nobody could tell that a passage changed, answers made from other passages are not candidates."""

    @kit.call(meaning(sources="found"), **SURE, scope=None)
    def ask(question: str, found: Any) -> str:
        return str(found)

    with pytest.warns(RuntimeWarning, match="reads as passages"):
        ask(ONE, found={"documents": [["30 days"]]})
    opened(kit, ask)
    assert ask.outcome(OTHER, found={"documents": [["14 days"]]}).saving is None
    assert ask.outcome(OTHER + " please", found={"documents": [["14 days"]]}).saving == "semantic"


def test_a_profile_comes_back_whole_and_damage_is_refused() -> None:
    """Packed and unpacked it is the same; bytes cut short, or with a count too large, are no profile."""
    profile = Profiler(b"k").of("Send 2 cards to Bonn", [OLD, "another", ("kb-2", "text")])
    body = profile.pack()
    assert Profile.unpack(body) == profile and len(profile.sources) == 3
    for broken in (b"", body[:8], body[:-1], body[:28] + b"\xff\xff\xff\xff" + body[32:]):
        try:
            found = Profile.unpack(broken)
        except struct.error:
            continue
        assert found != profile


def test_what_is_shared_counts_and_what_changed_may_not_be_served() -> None:
    """The feature goes from -1 to 1 with what is shared; a changed passage is a veto, a missing one is not."""
    profiler = Profiler(b"k")

    def chosen(now: Any, then: Any) -> tuple[float, bool]:
        near = Neighbour("key", 0.95, profiler.of(ONE, then), "group")
        choice = choose(profiler.of(OTHER, now), [near], ())
        assert choice is not None
        return choice.features[8], choice.veto

    assert chosen(None, None) == (0.0, False)
    assert chosen([OLD, "b"], [OLD, "b"]) == (1.0, False)
    assert chosen([OLD, "b", "c", "d"], [OLD]) == (-0.5, False)
    assert chosen(["b"], [OLD]) == (-1.0, False)
    changed = chosen([NEW, "b"], [OLD, "b"])
    assert changed[0] == pytest.approx(-1 / 3) and changed[1]


def test_an_answer_made_from_what_has_changed_is_not_served(kit: Kit) -> None:
    """With the passage as it was the answer is served; with another text under the same id the call is made."""

    @kit.call(meaning(sources="passages"), **SURE, scope=None)
    def ask(question: str, passages: list[dict[str, str]]) -> str:
        return passages[0]["text"]

    assert ask(ONE, [OLD]) == OLD["text"]
    opened(kit, ask)
    assert ask.outcome(OTHER, [OLD]).saving == "semantic"
    out = ask.outcome("how do I get one refund", [NEW])
    assert (out.value, out.saving) == (NEW["text"], None)
    assert ask.outcome("how do I get the refund", [NEW]).value == NEW["text"]
    assert evidence(kit)[-1]["kind"] in ("served", "audit", "declined")


def test_certify_takes_the_passages_of_a_log(kit: Kit) -> None:
    """One question with other passages is another row, and a candidate whose passage changed is beyond any rung."""

    @kit.call(meaning(sources="passages"), **SURE, scope=None)
    def ask(question: str, passages: list[dict[str, str]]) -> str:
        return passages[0]["text"]

    rows = [
        {"question": question, "passages": [passage], "answer": passage["text"], "at": float(number)}
        for number, (question, passage) in enumerate([(ONE, OLD), (ONE, OLD), (ONE, NEW), (OTHER, OLD)])
    ]
    (part,) = kit.certify(ask, rows).gates
    assert (part.rows, part.repeats) == (4, 1)
    rungs = [row["rung"] for row in evidence(kit) if row["kind"] == "rehearsed"]
    assert len(rungs) == 3 and rungs[1] == 6, "the changed passage is beyond the last rung"
