"""What each normaliser does, and what it is called."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiograft.metrics.normalisers import NORMALISERS, get_normaliser
from audiograft.types import ConfigError

TEXT = " It's  twenty-one\tCOLOURS,\nMr. Smith [noise]! "


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("none", TEXT),
        ("lower", "it's twenty-one colours, mr. smith [noise]!"),
        ("whisper-basic", "it s twenty one colours mr smith"),
        ("whisper-english", "it is 21 colors mister smith"),
        ("leaderboard", "it is 21 colors mister smith"),
    ],
)
def test_rules(name: str, expected: str) -> None:
    assert get_normaliser(name).apply(TEXT) == expected


def test_each_carries_its_name_and_the_version_of_its_rules() -> None:
    whisper = f"whisper-normalizer {version('whisper-normalizer')}"
    versions = {name: get_normaliser(name).version for name in NORMALISERS}
    assert versions == {
        "none": "1",
        "lower": "1",
        "whisper-basic": whisper,
        "whisper-english": whisper,
        "leaderboard": f"{whisper}, kaldialign {version('kaldialign')}",
    }
    assert all(get_normaliser(name).name == name for name in NORMALISERS)


def test_only_the_leaderboard_merges_compounds() -> None:
    assert [name for name in NORMALISERS if get_normaliser(name).merge_compounds] == ["leaderboard"]


@pytest.mark.parametrize(
    ("spoken", "written"),
    [
        ("three hundred and eighty", "380"),
        ("nineteen eighty four", "1984"),
        ("twenty-first", "21st"),
        ("ten thousand dollars", "$10000"),
        ("five percent", "5%"),
        ("one", "one"),
    ],
)
def test_english_numbers_become_digits(spoken: str, written: str) -> None:
    assert get_normaliser("leaderboard").apply(spoken) == written


@pytest.mark.parametrize("name", ["whisper-basic", "whisper-english", "leaderboard"])
def test_an_answer_with_a_full_stop_is_the_same_answer(name: str) -> None:
    assert get_normaliser(name).apply(" Yes. ") == get_normaliser(name).apply("yes")


def test_rules_are_set_up_once_and_texts_are_remembered() -> None:
    assert get_normaliser("leaderboard") is get_normaliser("leaderboard")
    apply = get_normaliser("whisper-english").apply
    assert apply is get_normaliser("leaderboard").apply
    assert apply("Twenty-two, said I") is apply("Twenty-two, said I")


def test_an_unknown_name_lists_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match=r"^unknown normaliser 'whisper': use none, lower, whisper-basic, whisper-english, leaderboard$"):
        get_normaliser("whisper")


@given(st.text(alphabet=st.characters(codec=None)))
def test_no_text_stops_a_normaliser(text: str) -> None:
    for name in NORMALISERS:
        assert isinstance(get_normaliser(name).apply(text), str)


def test_the_whisper_library_is_loaded_only_when_asked_for() -> None:
    code = (
        "import sys; from audiograft.metrics.normalisers import get_normaliser; get_normaliser('lower'); "
        "assert 'whisper_normalizer' not in sys.modules; get_normaliser('whisper-basic'); assert 'whisper_normalizer' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
