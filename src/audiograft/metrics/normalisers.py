"""What is done to references and hypotheses before they are compared. An error rate means nothing without the name of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import import_module
from importlib.metadata import version

from audiograft.types import ConfigError

NORMALISERS = ("none", "lower", "whisper-basic", "whisper-english", "leaderboard")
"""The names that `get_normaliser` knows."""
_KEPT_TEXTS = 1 << 16
"""Texts that a normaliser remembers: the English rules take 0.15 ms a text, and a reference is asked for by every count and every run."""


@dataclass(frozen=True)
class Normaliser:
    """A text normaliser, and how its words are counted.

    Attributes:
        name: one of `NORMALISERS`.
        version: of the rules; where libraries do the work, theirs.
        apply: text to normalised text.
        merge_compounds: whether `white paper` and `whitepaper` are no error; `audiograft.metrics.word_errors.count_words` follows it.
    """

    name: str
    version: str
    apply: Callable[[str], str]
    merge_compounds: bool = False


@cache
def get_normaliser(name: str) -> Normaliser:
    """Return the normaliser of that name.

    - `none` changes nothing, `lower` lower-cases and makes each run of white space one space.
    - `whisper-basic` and `whisper-english` are the two of Radford et al. 2022 (appendix C), as packaged in `whisper-normalizer`. Both
      drop combining marks, and with them vowels of Hindi or Thai; the English one writes numbers in digits and contractions in full.
    - `leaderboard` counts as the scorer of the Open ASR leaderboard does since 2026: the words of `whisper-english`, with kaldialign's compound
      merging. The leaderboard's own text rules have grown beyond the packaged ones (a longer list of fillers, acronyms, dots of omission,
      names), which are not here: they were reported to move a rate by 0.1 points. So figures are like the leaderboard's, not equal to them.

    Raises:
        ConfigError: there is none of that name.
    """
    match name:
        case "none":
            return Normaliser(name, "1", str)
        case "lower":
            return Normaliser(name, "1", _lower)
        case "whisper-basic" | "whisper-english":
            return Normaliser(name, _versions("whisper-normalizer"), _whisper(name))
        case "leaderboard":
            return Normaliser(name, _versions("whisper-normalizer", "kaldialign"), _whisper("whisper-english"), merge_compounds=True)
    raise ConfigError(f"unknown normaliser {name!r}: use {', '.join(NORMALISERS)}")


def _versions(*libraries: str) -> str:
    return ", ".join(f"{library} {version(library)}" for library in libraries)


def _lower(text: str) -> str:
    return " ".join(text.lower().split())


@cache
def _whisper(name: str) -> Callable[[str], str]:
    module, kind = {
        "whisper-basic": ("whisper_normalizer.basic", "BasicTextNormalizer"),
        "whisper-english": ("whisper_normalizer.english", "EnglishTextNormalizer"),
    }[name]
    rules: Callable[[str], str] = getattr(import_module(module), kind)()

    @lru_cache(_KEPT_TEXTS)
    def apply(text: str) -> str:
        return rules(text).strip()  # a full stop at the end becomes a space, and "yes." would not be "yes"

    return apply
