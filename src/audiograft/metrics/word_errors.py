"""Word and character errors from the minimal edit distance (jiwer aligns; kaldialign where compounds merge)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import jiwer

from audiograft.metrics.alignment import cut_pieces
from audiograft.metrics.normalisers import Normaliser
from audiograft.metrics.words import encodable


@dataclass(frozen=True)
class ErrorCounts:
    """How the words (or characters) of a hypothesis differ from those of its reference.

    Counts add up: the sum over utterances gives the corpus, so its rate weighs each word alike, not each utterance.
    """

    hits: int = 0
    substitutions: int = 0
    insertions: int = 0
    deletions: int = 0

    @property
    def reference_length(self) -> int:
        """Words (characters) of the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def errors(self) -> int:
        """Substitutions, insertions and deletions."""
        return self.substitutions + self.insertions + self.deletions

    @property
    def rate(self) -> float:
        """Errors per word (character) of the reference: 0 is perfect, insertions can lift it above 1.

        Where the reference is empty the rate is the number of insertions, so 0 for an empty hypothesis. It is jiwer's convention, and
        unlike infinity it can be averaged and written as JSON. In a corpus such insertions count as errors and add no length.
        """
        return self.errors / max(self.reference_length, 1)

    def __add__(self, other: ErrorCounts) -> ErrorCounts:
        return ErrorCounts(
            self.hits + other.hits,
            self.substitutions + other.substitutions,
            self.insertions + other.insertions,
            self.deletions + other.deletions,
        )


def word_errors(reference: str, hypothesis: str) -> ErrorCounts:
    """Count word errors of one utterance. Words are what stands between white space of any kind; normalise before."""
    return _counts(jiwer.process_words(_single_spaced(reference), _single_spaced(hypothesis)))


def character_errors(reference: str, hypothesis: str) -> ErrorCounts:
    """Count character errors of one utterance. A run of white space is one space and counts as a character; at the ends it is dropped."""
    return _counts(jiwer.process_characters(_single_spaced(reference), _single_spaced(hypothesis)))


def compound_errors(reference: str, hypothesis: str) -> ErrorCounts:
    """Count word errors of one utterance, where words that join to one word of the other text are no error.

    `white paper` against `whitepaper` costs nothing, in either direction and for any number of words; the reference keeps its length of 2, and
    both its words are hits. So hits and substitutions and insertions no longer sum to the words of the hypothesis. It is the scorer of the Open
    ASR leaderboard: `kaldialign.batch_error_rate(..., merge_compounds=True)`, whose totals are the sums of these counts, but for texts of more than
    2,000 words, which are counted in pieces (see `cut_pieces`).
    """
    from kaldialign import edit_distance

    olds, news = encodable(reference).split(), encodable(hypothesis).split()
    found: Counter[str] = Counter()
    for i, i_end, j, j_end in cut_pieces(olds, news):
        errors = edit_distance(olds[i:i_end], news[j:j_end], merge_compounds=True)
        found.update({kind: int(errors[kind]) for kind in ("sub", "ins", "del")})
    return ErrorCounts(len(olds) - found["sub"] - found["del"], found["sub"], found["ins"], found["del"])


def count_words(normaliser: Normaliser, reference: str, hypothesis: str) -> ErrorCounts:
    """Normalise both texts and count word errors as the normaliser wants them counted."""
    count = compound_errors if normaliser.merge_compounds else word_errors
    return count(normaliser.apply(reference), normaliser.apply(hypothesis))


def corpus(counts: Iterable[ErrorCounts]) -> ErrorCounts:
    """Sum the counts of utterances; of none at all, zeros."""
    return sum(counts, ErrorCounts())


def _single_spaced(text: str) -> str:
    # jiwer splits at the space character alone, so a tab or a line feed would glue two words together.
    return " ".join(text.split())


def _counts(output: jiwer.WordOutput | jiwer.CharacterOutput) -> ErrorCounts:
    return ErrorCounts(output.hits, output.substitutions, output.insertions, output.deletions)
