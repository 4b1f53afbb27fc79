"""The normal form of texts, and refusals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costkit.texts import REFUSALS, plain, refuses, whole


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ("Five  days", "five days", True),
        ("five\u00a0days\n", "FIVE days", True),
        ("caf\u00e9", "cafe\u0301", True),
        ("\uff13\uff10 days", "30 days", True),
        ("\ufb01ve", "five", True),
        ("soft\u00adware\u200b", "software", True),
        ("10²", "102", False),
        ("1½", "11/2", False),
        ("H₂O", "H2O", True),
        ("pаypal", "paypal", False),  # a Cyrillic а
        ("naive", "naïve", False),
    ],
)
def test_spellings_of_one_text_are_one(one: str, two: str, same: bool) -> None:
    """Width, case, spaces and composition do not matter; powers, fractions and look-alikes do."""
    assert (plain(one) == plain(two)) is same


@given(st.text())
def test_the_form_is_stable(text: str) -> None:
    """The form of a form is itself, so that stored forms and fresh ones are equal."""
    assert plain(plain(text)) == plain(text)


@given(st.text(alphabet=st.characters(max_codepoint=127)))
def test_ascii_is_left_as_it_is_written(text: str) -> None:
    """Only what is not ASCII is rewritten before case and spaces are folded."""
    assert whole(text) == text


def test_every_phrase_of_refusal_is_one() -> None:
    """Each phrase is found in any case and with either apostrophe; an answer holds none."""
    for phrase in REFUSALS:
        assert refuses(f"Sorry, I {phrase.upper()} that.")
        assert refuses(f"Sorry, I {phrase.replace(chr(39), '’')} that.")
    for answer in ("It takes 5 days.", "", "Help is on its way.", "You cannot cancel after 30 days."):
        assert not refuses(answer)
