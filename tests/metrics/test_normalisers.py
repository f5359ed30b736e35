"""What each normaliser does, and what it is called."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

from audiograft.metrics.normalisers import NORMALISERS, get_normaliser
from audiograft.types import ConfigError

TEXT = " It's  twenty-one\tCOLOURS,\nMr. Smith [noise]! "


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("none", TEXT),
        ("lower", "it's twenty-one colours, mr. smith [noise]!"),
        ("whisper-basic", " it s twenty one colours mr smith "),
        ("whisper-english", "it is 21 colors mister smith"),
    ],
)
def test_rules(name: str, expected: str) -> None:
    assert get_normaliser(name).apply(TEXT) == expected


@pytest.mark.parametrize("name", NORMALISERS)
def test_each_carries_its_name_and_version(name: str) -> None:
    normaliser = get_normaliser(name)
    assert normaliser.name == name
    assert normaliser.version == (version("whisper-normalizer") if name.startswith("whisper") else "1")


def test_an_unknown_name_lists_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match=r"^unknown normaliser 'whisper': use none, lower, whisper-basic, whisper-english$"):
        get_normaliser("whisper")


def test_the_whisper_library_is_loaded_only_when_asked_for() -> None:
    code = (
        "import sys; from audiograft.metrics.normalisers import get_normaliser; get_normaliser('lower'); "
        "assert 'whisper_normalizer' not in sys.modules; get_normaliser('whisper-basic'); assert 'whisper_normalizer' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
