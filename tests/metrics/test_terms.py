"""Recall of terms by hand, and the two error rates that it splits the WER into."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiograft.metrics.normalisers import get_normaliser
from audiograft.metrics.terms import TermCount, term_recall
from audiograft.metrics.word_errors import ErrorCounts, corpus, word_errors
from audiograft.types import DataError

lower = get_normaliser("lower").apply


def test_recall_by_hand() -> None:
    result = term_recall(
        ["New York", "Ödön", "Yorkshire"],
        ["we flew to New York and New York flew", "ödön came", "a new yorker"],
        ["we flew to new york and newark flew", "eden came to Yorkshire", "a new yorker"],
        lower,
    )
    assert result.terms == {"New York": TermCount(1, 2, 0), "Ödön": TermCount(0, 1, 0), "Yorkshire": TermCount(0, 0, 1)}
    assert (result.found, result.occurrences, result.false_insertions) == (1, 3, 1)
    assert result.recall == pytest.approx(1 / 3)
    assert result.precision == 0.5
    assert result.listed == ErrorCounts(hits=2, substitutions=2, insertions=1, deletions=1)
    assert result.unlisted == ErrorCounts(hits=9, insertions=1)


def test_terms_are_normalised_and_counted_once_in_each_spelling() -> None:
    result = term_recall(["Mr. Smith", "mister smith"], ["Mister Smith's"], ["mr smith is"], get_normaliser("whisper-english").apply)
    assert result.terms == {"Mr. Smith": TermCount(1, 1, 0)}


def test_terms_may_lie_within_each_other_but_not_within_themselves() -> None:
    result = term_recall(["york", "new york", "a a"], ["new york a a a"], ["new york a a a"], lower)
    assert result.terms == {"york": TermCount(1, 1), "new york": TermCount(1, 1), "a a": TermCount(1, 1)}


def test_terms_in_scripts_without_spaces() -> None:
    result = term_recall(["北京"], ["我在北京大学，北京"], ["我在北平大学，北京"], get_normaliser("whisper-basic").apply)
    assert result.terms == {"北京": TermCount(1, 2, 0)}


def test_a_list_whose_terms_nobody_says_has_no_recall() -> None:
    result = term_recall(["zebra"], ["a cat"], ["a cat"], lower)
    assert (result.recall, result.precision, result.listed) == (None, None, ErrorCounts())
    assert term_recall([], ["a cat"], ["a bat"], lower).unlisted == ErrorCounts(hits=1, substitutions=1)


def test_a_term_that_normalises_to_nothing_is_named() -> None:
    with pytest.raises(DataError, match=r"^term '\(laughs\)' normalises to nothing: take it off the list, or choose another normaliser$"):
        term_recall(["cat", "(laughs)"], ["a cat"], ["a cat"], get_normaliser("whisper-basic").apply)


def test_references_without_hypotheses_are_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        term_recall(["cat"], ["a cat", "a dog"], ["a cat"], lower)


texts = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=8).map(" ".join)


@settings(deadline=None)
@given(st.lists(texts.filter(bool), max_size=4), st.lists(st.tuples(texts, texts), max_size=4))
def test_counts_hold_together(terms: list[str], pairs: list[tuple[str, str]]) -> None:
    references, hypotheses = [old for old, _ in pairs], [new for _, new in pairs]
    result = term_recall(terms, references, hypotheses, str)
    assert result.listed + result.unlisted == corpus(word_errors(old, new) for old, new in pairs)
    assert result.occurrences == sum(count.occurrences for count in result.terms.values())
    assert all(0 <= count.found <= count.occurrences and count.false_insertions >= 0 for count in result.terms.values())
    assert term_recall(terms, references, references, str).found == result.occurrences
    swapped = term_recall(terms, hypotheses, references, str)
    assert swapped.found == result.found
    assert swapped.occurrences == result.found + result.false_insertions
