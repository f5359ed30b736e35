"""Which words of a hypothesis stand for which words of its reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from audiograft.metrics.words import split_glued, word_key

EditKind = Literal["equal", "same", "substitute", "insert", "delete"]


@dataclass(frozen=True, slots=True)
class WordEdit:
    """A place in the alignment of two texts.

    Attributes:
        kind: `equal`, `same` (differs in case, punctuation or spacing alone), `substitute`, `insert` or `delete`.
        reference: what stands in the reference; empty for an insertion.
        hypothesis: what stands in the hypothesis; empty for a deletion.
    """

    kind: EditKind
    reference: str
    hypothesis: str


@dataclass(slots=True)
class _Word:
    """A word as it is written, what of it is compared, and whether it follows the word before without white space."""

    text: str
    key: str
    glued: bool


def diff_words(reference: str, hypothesis: str) -> list[WordEdit]:
    """Align two raw texts word by word, by what of each word is neither case nor punctuation.

    Punctuation between spaces belongs to the word before it. Words that join to one word of the other text are one edit, `same`: `base ball` and
    `baseball`, `well-known` and `well known`. Characters of scripts without spaces are aligned one by one, and neighbours of one kind written as
    one. The references of the edits, joined with spaces, are the reference; so are the hypotheses: white space apart, and in scripts without
    spaces that between edits.
    """
    left, right = _words(reference), _words(hypothesis)
    edits: list[WordEdit] = []
    taken, given = iter(left), iter(right)
    for old, new in align_words([word.key for word in left], [word.key for word in right]):
        olds, news = list(islice(taken, len(old))), list(islice(given, len(new)))
        edit = WordEdit(_kind(olds, news), _text(olds), _text(news))
        if edits and edits[-1].kind == edit.kind and all(word.glued for word in (*olds[:1], *news[:1])):
            edit = WordEdit(edit.kind, edits.pop().reference + edit.reference, edits_hypothesis + edit.hypothesis)
        edits.append(edit)
    return edits
