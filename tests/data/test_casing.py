"""Sentence case: nothing but the case changes, and what is right stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiograft.data.text import with_case


@pytest.mark.parametrize(
    ("capitals", "sentence"),
    [
        ("HE HOPED THERE WOULD BE STEW", "He hoped there would be stew"),
        ("I'M SURE I'VE SAID WHAT I'D DO AND SO DID I", "I'm sure I've said what I'd do and so did I"),
        ("SO DO I. AND YOU", "So do I. And you"),
        ("I’LL WAIT", "I’ll wait"),
        ("'TIS HIS", "'Tis his"),
        ("IS IT? IT IS! GOOD", "Is it? It is! Good"),
        ('HE SAID "STOP." THEN HE WENT', 'He said "stop." Then he went'),
        ("SOMETHING ELSE, I.E. THIS", "Something else, i.e. this"),
        ("AT TEN O'CLOCK O KING", "At ten o'clock O king"),
        ("THE PI IS IN THE SKI", "The pi is in the ski"),
        ("all in small letters, as i said", "All in small letters, as I said"),
        ("ÉTÉ", "Été"),
        ("A", "A"),
        ("I", "I"),
        ("", ""),
        ("42 MEN", "42 men"),
        ("你好", "你好"),
    ],
)
def test_sentence_case(capitals, sentence):
    assert with_case(capitals, "sentence") == sentence


@pytest.mark.parametrize(("language", "sentence"), [("pl", "Chleb i wino"), ("en", "Chleb I wino"), (None, "Chleb I wino")])
def test_only_in_english_is_i_a_capital(language, sentence):
    assert with_case("CHLEB I WINO", "sentence", language) == sentence


def test_a_text_with_a_case_of_its_own_keeps_it():
    assert with_case("Dr Smith of NASA said i", "sentence") == "Dr Smith of NASA said i"


ENGLISH = st.text("ABCDEFGHIO '’.,!?\"-\n", max_size=60)


@given(ENGLISH)
def test_nothing_but_the_case_changes(text):
    for case in ("sentence", "lower", "upper"):
        assert with_case(text, case).casefold() == text.casefold()
    assert with_case(text, "as-is") == text


@given(ENGLISH)
def test_sentence_case_is_final(text):
    once = with_case(text, "sentence")

    assert with_case(once, "sentence") == once


@given(st.lists(st.sampled_from(["I", "I'M", "I'LL", "HI", "IT", "SKI", "O", "O'CLOCK"]), min_size=1))
def test_every_i_is_a_capital_and_no_letter_within_a_word_is(words):
    for number, word in enumerate(with_case(" ".join(words), "sentence").split()):
        assert word[0].isupper() == (number == 0 or word in ("I", "I'm", "I'll", "O"))
        assert word[1:] == word[1:].lower()
