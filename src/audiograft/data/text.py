"""The texts of rows: what is wrong with them, and their case."""

from __future__ import annotations

import re
from typing import Literal

TextCase = Literal["as-is", "lower", "sentence", "upper"]

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_MISREAD = re.compile(r"[ÂÃ][\x80-\xbf]|â€")
"""What UTF-8 looks like that was read as Latin-1 or Windows-1252: letters with accents, and quotation marks."""
_SENTENCE_START = re.compile(r"""(?:^|(?<!\.\w)[.!?]["'”’)\]]*\s)\W*\w""")
_ENGLISH_CAPITALS = re.compile(r"\bi\b(?!\.\w)|\bo\b(?!['’.])")
"""I, also in I'm, though not in i.e.; and the O of an address, though not that of o'clock."""


def name_key(name: str) -> str:
    """What two spellings of one speaker's or recording's name have in common: neither case nor spaces tell people apart."""
    return " ".join(name.split()).casefold()


def text_fault(text: str) -> str | None:
    """Why a text can't be what was said, in words that follow its name; None where nothing shows.

    Control characters come from binary data, U+FFFD and half surrogate pairs from bytes that were no UTF-8, and `Ã©` from UTF-8 that was read
    as something else.
    """
    if found := _CONTROL.search(text):
        return f"holds the control character U+{ord(found[0]):04X}: it is binary, or damaged"
    if "\ufffd" in text or _SURROGATE.search(text):
        return "was not UTF-8 where it was read: convert its file, or name its encoding"
    if found := _MISREAD.search(text):
        return f"holds {found[0]!r}: it is UTF-8 that was read as Latin-1, so read it again as UTF-8"
    return None


def with_case(text: str, case: TextCase, language: str | None = None) -> str:
    """A text in another case.

    Args:
        text: the text.
        case: `sentence` capitalises beginnings of sentences and, in English, I and O. It leaves texts of both cases alone: they have a case of
            their own. Names can't be known, so they become small too.
        language: as an ISO 639-1 code; one that isn't known is taken for English, where other languages have their own words i and o.
    """
    if case == "lower":
        return text.lower()
    if case == "upper":
        return text.upper()
    if case == "as-is" or (text != text.upper() and text != text.lower()):
        return text
    small = text.lower()
    if language in (None, "en"):
        small = _ENGLISH_CAPITALS.sub(lambda word: word[0].upper(), small)
    return _SENTENCE_START.sub(lambda start: start[0].title(), small)
