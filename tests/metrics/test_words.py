"""Words of many scripts, and what of them is compared."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiograft.metrics.words import encodable, split_glued, split_words, word_key


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (" It's\ta  well-known\ncat. ", ["It's", "a", "well-known", "cat."]),
        ("今天，天气好。", ["今", "天，", "天", "气", "好。"]),
        ("我爱Apple手机 吧", ["我", "爱", "Apple", "手", "机", "吧"]),
        ("東京タワー", ["東", "京", "タ", "ワ", "ー"]),
        ("ที่นี่", ["ที่", "นี่"]),  # vowel signs and tones stay with their consonant
        ("안녕하세요 여러분", ["안녕하세요", "여러분"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert split_words(text) == words


def test_glued_words_follow_each_other_without_a_space() -> None:
    assert split_glued("我爱 Apple手") == [("我", False), ("爱", True), ("Apple", False), ("手", True)]


@given(st.text(alphabet=st.sampled_from("ab 今天，ทีａ.\t'Ω\u0301")))
def test_words_hold_the_whole_text_and_its_spaces(text: str) -> None:
    rebuilt = "".join(f"{'' if glued else ' '}{word}" for word, glued in split_glued(text))
    assert rebuilt.split() == text.split()


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("Cat,", "cat"),
        ("“Cat”", "cat"),
        ("well-known", "wellknown"),
        ("we’re", "we're"),
        ("we're", "we're"),
        ("'tis", "tis"),
        ("1,000", "1000"),
        ("3.5.", "3.5"),
        ("5%", "5%"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("cafe\u0301", "café"),
        ("Ａ", "a"),
        ("...", ""),
        ("—", ""),
    ],
)
def test_keys(word: str, key: str) -> None:
    assert word_key(word) == key


@given(st.text())
def test_a_key_is_its_own_key_in_another_case(text: str) -> None:
    assert " " not in word_key(text)
    if text.isascii():
        assert word_key(text.upper()) == word_key(text.lower())


@given(st.text(alphabet=st.characters(codec=None)))
def test_every_text_can_be_written(text: str) -> None:
    encodable(text).encode()
    assert encodable("Ω \ud800") == "Ω \\ud800"
