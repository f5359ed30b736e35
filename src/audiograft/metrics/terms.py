"""How many rare words and names of a list are heard, and how many are heard that nobody said."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein

from audiograft.metrics.word_errors import ErrorCounts
from audiograft.metrics.words import split_words
from audiograft.types import DataError


@dataclass(frozen=True)
class TermCount:
    """One term.

    Attributes:
        found: occurrences in references that the hypothesis of the same clip holds too.
        occurrences: in the references.
        false_insertions: occurrences in hypotheses beyond those in the reference of the same clip.
    """

    found: int = 0
    occurrences: int = 0
    false_insertions: int = 0


@dataclass(frozen=True)
class TermRecall:
    """A list of terms over a corpus.

    Attributes:
        terms: the counts of each term, as the list writes it.
        found: of all terms together.
        occurrences: of all terms together.
        false_insertions: of all terms together: what biasing costs.
        listed: errors on words within a term, of the reference or, where inserted, of the hypothesis; its rate is the B-WER.
        unlisted: errors on all other words; its rate is the U-WER.
    """

    terms: Mapping[str, TermCount]
    found: int
    occurrences: int
    false_insertions: int
    listed: ErrorCounts
    unlisted: ErrorCounts

    @property
    def recall(self) -> float | None:
        """Share of the occurrences that were found; None where no term occurs."""
        return self.found / self.occurrences if self.occurrences else None

    @property
    def precision(self) -> float | None:
        """Share of what the hypotheses hold of terms that was said; None where they hold none."""
        held = self.found + self.false_insertions
        return self.found / held if held else None


def term_recall(terms: Sequence[str], references: Sequence[str], hypotheses: Sequence[str], normalise: Callable[[str], str]) -> TermRecall:
    """Count the terms of a list, of one word or several, in references and hypotheses.

    A term is found as often as both texts of a clip hold it, wherever it stands: min(reference, hypothesis). Occurrences are of whole words, and
    of characters in scripts without spaces; those of one term do not overlap, those of different terms may. Beside the recall stand the error
    rates of Le et al. 2021 ("Contextualized streaming end-to-end speech recognition with trie-based deep biasing and shallow fusion") on words in
    the list (B-WER) and not in it (U-WER), which an alignment of the words gives: there a word counts as listed where it is part of a whole term.

    Args:
        terms: as a user writes them; those that normalise to the same are counted once, under the first spelling.
        references: raw texts.
        hypotheses: raw texts of the same clips.
        normalise: done to terms, references and hypotheses alike.

    Raises:
        DataError: a term normalises to nothing.
        ValueError: not as many hypotheses as references.
    """
    index = _Index(terms, normalise)
    counts = {spelling: [0, 0, 0] for spelling in index.spellings}
    listed: Counter[str] = Counter()
    unlisted: Counter[str] = Counter()
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        old, new = split_words(normalise(reference)), split_words(normalise(hypothesis))
        said, old_listed = index.find(old)
        heard, new_listed = index.find(new)
        for spelling in said | heard:
            count = counts[spelling]
            count[0] += min(said[spelling], heard[spelling])
            count[1] += said[spelling]
            count[2] += max(heard[spelling] - said[spelling], 0)
        for tag, is_listed in _words_by_edit(old, new, old_listed, new_listed):
            (listed if is_listed else unlisted)[tag] += 1
    found, occurrences, false_insertions = map(sum, zip(*counts.values(), strict=True)) if counts else (0, 0, 0)
    by_term = {spelling: TermCount(*count) for spelling, count in counts.items()}
    return TermRecall(by_term, found, occurrences, false_insertions, _errors(listed), _errors(unlisted))


class _Index:
    """The terms by their first word, so that a text is scanned once however long the list is."""

    def __init__(self, terms: Sequence[str], normalise: Callable[[str], str]) -> None:
        self.spellings: dict[str, tuple[str, ...]] = {}
        self.by_first_word: dict[str, list[tuple[str, tuple[str, ...]]]] = defaultdict(list)
        known = set()
        for term in terms:
            words = tuple(split_words(normalise(term)))
            if not words:
                raise DataError(f"term {term!r} normalises to nothing: take it off the list, or choose another normaliser")
            if words not in known:
                known.add(words)
                self.spellings[term] = words
                self.by_first_word[words[0]].append((term, words))

    def find(self, words: Sequence[str]) -> tuple[Counter[str], set[int]]:
        """How often each term occurs, and the places of the words that belong to one."""
        found: Counter[str] = Counter()
        places: set[int] = set()
        free_from: dict[str, int] = {}
        for start, word in enumerate(words):
            for spelling, term in self.by_first_word.get(word, ()):
                end = start + len(term)
                if start >= free_from.get(spelling, 0) and tuple(words[start:end]) == term:
                    found[spelling] += 1
                    free_from[spelling] = end
                    places.update(range(start, end))
        return found, places


def _words_by_edit(old: Sequence[str], new: Sequence[str], old_listed: set[int], new_listed: set[int]) -> Iterator[tuple[str, bool]]:
    """Each word of the alignment with its edit, and whether it is listed."""
    for edit in Levenshtein.opcodes(old, new):
        if edit.tag == "insert":
            yield from ((edit.tag, place in new_listed) for place in range(edit.dest_start, edit.dest_end))
        else:
            yield from ((edit.tag, place in old_listed) for place in range(edit.src_start, edit.src_end))


def _errors(tags: Counter[str]) -> ErrorCounts:
    return ErrorCounts(tags["equal"], tags["replace"], tags["insert"], tags["delete"])
