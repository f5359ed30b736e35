"""Texts: what shows that they are damaged, and their case."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiograft.data.text import text_fault, with_case


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("HELLO WORLD", "Hello world"),
        ("hello world", "Hello world"),
        ("I'M SURE I SAID SO", "I'm sure I said so"),
        ("WHO IS IT? IT IS I. GO!", "Who is it? It is I. Go!"),
        ('"NO" SHE SAID', '"No" she said'),
        ("WI-FI, I.E. RADIO", "Wi-fi, i.e. radio"),
        ("ÉTÉ À PARIS", "Été à paris"),
        ("Hello from Paris", "Hello from Paris"),  # it has a case of its own
        ("3 X 3", "3 x 3"),
        ("", ""),
        ("北京", "北京"),
    ],
)
def test_sentences_begin_with_a_capital(text: str, expected: str) -> None:
    assert with_case(text, "sentence") == expected


@given(st.text(alphabet="aAbBiIéÉßжЖ3 .!?'-\n"))
def test_case_done_twice_is_case_done_once(text: str) -> None:
    once = with_case(text, "sentence")
    assert with_case(once, "sentence") == once
    assert with_case(text, "as-is") == text


def test_lower_and_upper() -> None:
    assert with_case("Hello World", "lower") == "hello world"
    assert with_case("Hello World", "upper") == "HELLO WORLD"


@pytest.mark.parametrize(
    "text",
    ["", "plain", "two\nlines\tand a tab", "déjà vu…", "Spaß…", "AMANHÃ", "“quoted” – ‘too’", "naïve café", "Привет", "🙂", "été »"],
)
def test_sound_texts_have_no_fault(text: str) -> None:
    assert text_fault(text) is None


@given(st.text(alphabet="abcéàüñç’“”…", min_size=1))
def test_utf8_that_was_read_in_another_encoding_is_found(text: str) -> None:
    for encoding in ("latin-1", "cp1252"):
        misread = text.encode().decode(encoding, errors="ignore")
        # Where nothing but ASCII came through, nothing is wrong.
        assert text.isascii() or text_fault(misread) is not None, misread
    assert text_fault(text) is None
