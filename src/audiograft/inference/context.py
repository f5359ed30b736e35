"""Context biasing: names and rare words that are likely to come up are put into the instruction, with their spelling."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from audiograft.messages import AUDIO_MARKER
from audiograft.types import DataError

_HINT = "These names and words may come up; where one does, spell it like this: {terms}."
"""What the model is told. A hint, so that a term which nobody says is not asked for."""
_SEPARATOR = "; "
"""Between terms, which may hold commas."""


def read_terms(path: str | Path) -> list[str]:
    """Names and words, one a line; blank lines and lines that begin with # are left out, and a term that comes again is taken once.

    Args:
        path: of a UTF-8 text file.

    Raises:
        DataError: the file is missing, no text, without terms, or one of them can't stand in an instruction.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8 text"
        raise DataError(f"{path}: can't be read ({why}): name a file of terms, one a line, as UTF-8") from error
    terms: dict[str, None] = {}
    for number, line in enumerate(lines, start=1):
        term = " ".join(line.split())
        if term and not term.startswith("#"):
            _check(term, f"{path}:{number}: ")
            terms[term] = None
    if not terms:
        raise DataError(f"{path}: no terms: write one a line")
    return list(terms)


def with_context(prompt: str, terms: Sequence[str]) -> str:
    """The instruction, and behind it on a line of its own which spellings are likely.

    Nothing but the words changes, so any model can be given it; how far one heeds it is to be measured (recall of the terms, with and without).

    Args:
        prompt: the instruction.
        terms: as they are to be written; without any, the instruction stays as it is.

    Raises:
        DataError: a term holds an audio marker. The model's own placeholder is refused where its prompt is built.
    """
    for term in terms:
        _check(term)
    hint = _HINT.format(terms=_SEPARATOR.join(terms))
    return "\n".join(filter(None, (prompt, hint))) if terms else prompt


def _check(term: str, place: str = "") -> None:
    if AUDIO_MARKER in term:
        raise DataError(f"{place}the term {term!r} contains {AUDIO_MARKER}, which marks the place of a clip: take it out")
