"""Which words of a hypothesis stand for which words of its reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rapidfuzz.distance import Levenshtein

from audiograft.metrics.words import encodable, split_glued, word_key

EditKind = Literal["equal", "same", "substitute", "insert", "delete"]
Span = tuple[int, int, int, int]
"""Where something begins and ends in the reference, then in the hypothesis."""

_WHOLE_CELLS = 4_000_000
"""Words times words that are aligned at once: 0.3 s and 70 MB. An hour of speech would take 11 s and 1.9 GB."""
_PIECE_WORDS = 500
_LONGEST_PIECE_WORDS = 1000
_SURE_WORDS = 4
"""Equal words before and behind a cut."""


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
    `baseball`, `well known` and `well-known`. Characters of scripts without spaces are aligned one by one; neighbours of one kind become one edit.
    White space apart, the references of all edits joined are the reference, and the hypotheses the hypothesis.
    """
    olds, news = _words(reference), _words(hypothesis)
    edits: list[WordEdit] = []
    for i, i_end, j, j_end in _spans([word.key or word.text for word in olds], [word.key or word.text for word in news]):
        old, new = olds[i:i_end], news[j:j_end]
        edit = WordEdit(_kind(old, new), _text(old), _text(new))
        if edits and edits[-1].kind == edit.kind and all(word.glued for word in (*old[:1], *new[:1])):
            before = edits.pop()
            edit = WordEdit(edit.kind, before.reference + edit.reference, before.hypothesis + edit.hypothesis)
        edits.append(edit)
    return edits


def align_words(reference: Sequence[str], hypothesis: Sequence[str]) -> list[tuple[list[str], list[str]]]:
    """Align two lists of words with the fewest edits, where words that join to one word of the other list are no edit (kaldialign).

    Args:
        reference: words, none of which is empty or holds a space.
        hypothesis: likewise.

    Returns:
        The words of the reference and those of the hypothesis at each place: one and one, none and one (an insertion), one and none (a deletion),
        or several and one where they join.
    """
    return [(list(reference[i:i_end]), list(hypothesis[j:j_end])) for i, i_end, j, j_end in _spans(reference, hypothesis)]


def cut_pieces(reference: Sequence[str], hypothesis: Sequence[str]) -> Iterator[Span]:
    """Pieces of two lists of words that can be aligned by themselves, since kaldialign's time and memory grow with the product of their lengths.

    Two lists of up to 2,000 words each are one piece. Longer ones are cut, every 500 words or later, amid nine words or more that are equal in an
    alignment without compounds, or where 1,000 words have none, wherever that alignment stands: there a compound can be missed, so that errors are
    never too few, and never more than without compounds.
    """
    if len(reference) * len(hypothesis) <= _WHOLE_CELLS:
        yield 0, len(reference), 0, len(hypothesis)
        return
    i0 = j0 = 0
    for i, j, is_sure in _plain_path(reference, hypothesis):
        words = max(i - i0, j - j0)
        if words >= _LONGEST_PIECE_WORDS or (is_sure and words >= _PIECE_WORDS):
            yield i0, i, j0, j
            i0, j0 = i, j
    yield i0, len(reference), j0, len(hypothesis)


def _plain_path(reference: Sequence[str], hypothesis: Sequence[str]) -> Iterator[tuple[int, int, bool]]:
    """Words of both lists up to each step of the alignment without compounds, and whether equal words surround the place."""
    for edit in Levenshtein.opcodes(reference, hypothesis):
        n_old, n_new = edit.src_end - edit.src_start, edit.dest_end - edit.dest_start
        for step in range(1, max(n_old, n_new) + 1):
            is_sure = edit.tag == "equal" and _SURE_WORDS <= step < n_old - _SURE_WORDS
            yield edit.src_start + min(step, n_old), edit.dest_start + min(step, n_new), is_sure


def _spans(reference: Sequence[str], hypothesis: Sequence[str]) -> Iterator[Span]:
    """Each place of the alignment."""
    from kaldialign import align

    olds, news = [encodable(word) for word in reference], [encodable(word) for word in hypothesis]
    for i, i_stop, j, j_stop in cut_pieces(olds, news):
        for old, new in align(olds[i:i_stop], news[j:j_stop], "", merge_compounds=True):
            # Joined words stand with spaces between them; nothing is what our sign for nothing says.
            i_end, j_end = i + (old.count(" ") + 1 if old else 0), j + (new.count(" ") + 1 if new else 0)
            yield i, i_end, j, j_end
            i, j = i_end, j_end


def _words(text: str) -> list[_Word]:
    """The words of a text; what is punctuation alone is written with the word before it, or with the first one."""
    words: list[_Word] = []
    for written, glued in split_glued(text):
        key = word_key(written)
        if words and not (key and words[-1].key):
            last = words[-1]
            words[-1] = _Word(f"{last.text}{'' if glued else ' '}{written}", last.key + key, last.glued)
        else:
            words.append(_Word(written, key, glued))
    return words


def _text(words: Sequence[_Word]) -> str:
    text = words[0].text if words else ""
    for word in words[1:]:
        text += word.text if word.glued else f" {word.text}"
    return text


def _kind(old: Sequence[_Word], new: Sequence[_Word]) -> EditKind:
    if _key(old) == _key(new):
        return "equal" if _text(old) == _text(new) else "same"
    if not old:
        return "insert"
    return "substitute" if new else "delete"


def _key(words: Sequence[_Word]) -> str:
    return words[0].key if len(words) == 1 else "".join([word.key for word in words])
