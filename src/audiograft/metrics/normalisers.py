"""What is done to references and hypotheses before they are compared. An error rate means nothing without the name of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version

from audiograft.types import ConfigError

_WHISPER = {
    "whisper-basic": ("whisper_normalizer.basic", "BasicTextNormalizer"),
    "whisper-english": ("whisper_normalizer.english", "EnglishTextNormalizer"),
}
NORMALISERS = ("none", "lower", *_WHISPER)
"""The names that `get_normaliser` knows."""


@dataclass(frozen=True)
class Normaliser:
    """A text normaliser.

    Attributes:
        name: one of `NORMALISERS`.
        version: of the rules; for Whisper's normalisers the version of the library.
        apply: text to normalised text.
    """

    name: str
    version: str
    apply: Callable[[str], str]


def get_normaliser(name: str) -> Normaliser:
    """Return the normaliser of that name.

    `none` changes nothing, `lower` lower-cases and makes each run of white space one space, `whisper-basic` and `whisper-english` are the
    two of Radford et al. 2022 (appendix C), as packaged in `whisper-normalizer`.

    Raises:
        ConfigError: there is none of that name.
    """
    if name == "none":
        return Normaliser(name, "1", str)
    if name == "lower":
        return Normaliser(name, "1", _lower)
    if name not in _WHISPER:
        raise ConfigError(f"unknown normaliser {name!r}: use {', '.join(NORMALISERS)}")
    module, kind = _WHISPER[name]
    return Normaliser(name, version("whisper-normalizer"), getattr(import_module(module), kind)())


def _lower(text: str) -> str:
    return " ".join(text.lower().split())
