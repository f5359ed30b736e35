"""Words, also of scripts that are written without spaces, and what of a word is neither case nor punctuation."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff"  # Thai and Lao, Tibetan, Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u3100-\u312f\u31f0-\u31ff\uff66-\uff9f"  # kana, bopomofo
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"  # Han
)
"""Characters of scripts that put no spaces between words. Korean puts them."""
_SPOKEN = re.compile(r"(?<=[^\W\d_])'(?=[^\W\d_])|(?<=\d)\.(?=\d)|[%&@#]")
"""Punctuation that is heard: we're is not were, 3.5 is not 35, and 5% is not 5."""


def split_words(text: str) -> list[str]:
    """The words of a text: what stands between white space, and in scripts without spaces each character.

    Such a character keeps the combining marks and the punctuation that follow it. Runs of other characters, such as a Latin name in a Chinese
    sentence, stay whole: these are the units of the mixed error rate of code-switched speech.
    """
    return [word for word, _ in split_glued(text)]


def split_glued(text: str) -> list[tuple[str, bool]]:
    """The words of `split_words`, each with whether it follows the one before without white space."""
    if not _UNSPACED.search(text):
        return [(word, False) for word in text.split()]
    return [(word, i > 0) for piece in text.split() for i, word in enumerate(_parts(piece))]


def _parts(piece: str) -> Iterator[str]:
    """Cut before and after each character of a script without spaces."""
    start = 0
    for i in range(1, len(piece)):
        attached = unicodedata.category(piece[i])[0] in "MP"
        if not attached and (_UNSPACED.match(piece[i]) or _UNSPACED.match(piece[start])):
            yield piece[start:i]
            start = i
    yield piece[start:]


@lru_cache(1 << 16)
def word_key(word: str) -> str:
    """A word without case and punctuation, in compatibility form; empty where it is punctuation alone.

    What is heard stays: apostrophes between letters, points between digits, and the signs % & @ #.
    """
    if word.isascii() and word.isalnum():
        return word.lower()
    plain = unicodedata.normalize("NFKC", word).casefold().replace("’", "'")
    kept = {found.start() for found in _SPOKEN.finditer(plain)}
    return "".join(character for i, character in enumerate(plain) if i in kept or unicodedata.category(character)[0] not in "PZC")


def encodable(text: str) -> str:
    """A text that can be written as UTF-8: half surrogate pairs, which JSON can hold, become escapes."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")
