"""Names in the instruction."""

from __future__ import annotations

from pathlib import Path

import pytest

from audiograft.inference.context import read_terms, with_context
from audiograft.types import DataError


def test_terms_are_read_one_a_line(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_bytes("\ufeff# people\nPaisley Kowalczyk-Nwosu\r\n\n  Łódź,  Poland \nC# 12\nŁódź, Poland\nreading\nReading\n".encode())
    assert read_terms(file) == ["Paisley Kowalczyk-Nwosu", "Łódź, Poland", "C# 12", "reading", "Reading"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, r"can't be read \(No such file or directory\): name a file of terms"),
        (b"\xff\xfe\x00", r"can't be read \(not UTF-8 text\)"),
        (b"", "no terms: write one a line"),
        (b"# none\n\n", "no terms: write one a line"),
        (b"one\ntwo <audio> three\n", r":2: the term 'two <audio> three' contains <audio>, .*: take it out"),
        (b"<audio></audio>", ":1: the term"),
    ],
)
def test_a_file_that_is_none_is_one_line(tmp_path: Path, content: bytes | None, expected: str) -> None:
    file = tmp_path / "names.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=expected) as error:
        read_terms(file)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_the_instruction_tells_the_spelling() -> None:
    told = with_context("Transcribe <audio> now.", ["Łódź, Poland", "Nwosu"])
    assert told == "Transcribe <audio> now.\nThese names and words may come up; where one does, spell it like this: Łódź, Poland; Nwosu."
    assert with_context("", ["Nwosu"]).startswith("These names")


def test_without_terms_nothing_changes() -> None:
    assert with_context("Transcribe.", []) == "Transcribe."


def test_a_marker_in_a_term_is_refused() -> None:
    with pytest.raises(DataError, match="the term 'a <audio>' contains <audio>"):
        with_context("x", ["b", "a <audio>"])


def test_braces_stay_what_they_are() -> None:
    assert with_context("x", ["{terms}"]).endswith(": {terms}.")
