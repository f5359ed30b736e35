"""Error counts against counts by hand, and what must hold for any pair of texts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiograft.metrics.word_errors import ErrorCounts, character_errors, corpus, word_errors

texts = st.lists(st.sampled_from(["a", "b", "bb", "ab"]), max_size=6).map(" ".join)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "counts"),
    [
        ("the cat sat", "the cat sat", ErrorCounts(3, 0, 0, 0)),
        ("the cat sat", "the bat sat", ErrorCounts(2, 1, 0, 0)),
        ("the cat sat", "the cat sat down now", ErrorCounts(3, 0, 2, 0)),
        ("the cat sat", "cat", ErrorCounts(1, 0, 0, 2)),
        ("one two three four", "zero one two free", ErrorCounts(2, 1, 1, 1)),
        ("the cat sat", "", ErrorCounts(0, 0, 0, 3)),
    ],
)
def test_words_counted_by_hand(reference: str, hypothesis: str, counts: ErrorCounts) -> None:
    assert word_errors(reference, hypothesis) == counts


@pytest.mark.parametrize(
    ("reference", "hypothesis", "counts"),
    [("cat", "cart", ErrorCounts(3, 0, 1, 0)), ("a cat", "acat", ErrorCounts(4, 0, 0, 1)), ("cat", "bat", ErrorCounts(2, 1, 0, 0))],
)
def test_characters_counted_by_hand(reference: str, hypothesis: str, counts: ErrorCounts) -> None:
    assert character_errors(reference, hypothesis) == counts


def test_any_white_space_parts_words_and_its_amount_is_no_error() -> None:
    assert word_errors(" the\tcat\n sat ", "the cat sat") == ErrorCounts(hits=3)
    assert character_errors(" the\tcat\n sat ", "the cat sat") == ErrorCounts(hits=11)


def test_rate_is_errors_per_reference_word_and_may_exceed_one() -> None:
    assert ErrorCounts(hits=2, substitutions=1, insertions=1, deletions=1).rate == 3 / 4
    assert word_errors("hello", "well hello to you").rate == 3.0


@pytest.mark.parametrize("errors", [word_errors, character_errors])
def test_empty_reference_and_empty_hypothesis_is_perfect(errors: Callable[[str, str], ErrorCounts]) -> None:
    counts = errors(" ", "")
    assert counts == ErrorCounts()
    assert counts.rate == 0.0


def test_empty_reference_with_insertions_has_their_number_as_rate() -> None:
    counts = word_errors("", "thank you")
    assert counts == ErrorCounts(insertions=2)
    assert counts.rate == 2.0


def test_in_a_corpus_an_empty_reference_adds_errors_and_no_length() -> None:
    total = corpus([word_errors("one two three four", "one two three four"), word_errors("", "thank you")])
    assert (total.errors, total.reference_length, total.rate) == (2, 4, 0.5)


def test_corpus_rate_weighs_words_not_utterances() -> None:
    assert corpus([word_errors("a", "b"), word_errors("a b c", "a b c")]).rate == 1 / 4


def test_corpus_of_nothing_is_zeros() -> None:
    assert corpus([]) == ErrorCounts()


@settings(deadline=None)
@given(texts, texts)
def test_counts_add_up_to_the_lengths(reference: str, hypothesis: str) -> None:
    counts = word_errors(reference, hypothesis)
    assert counts.hits + counts.substitutions + counts.deletions == counts.reference_length == len(reference.split())
    assert counts.hits + counts.substitutions + counts.insertions == len(hypothesis.split())
    assert character_errors(reference, hypothesis).reference_length == len(reference)


@settings(deadline=None)
@given(texts, texts)
def test_swapping_the_two_swaps_insertions_and_deletions(reference: str, hypothesis: str) -> None:
    assert word_errors(reference, hypothesis).errors == word_errors(hypothesis, reference).errors


@settings(deadline=None)
@given(st.lists(st.tuples(texts, texts), max_size=5))
def test_the_corpus_is_the_sum_of_its_utterances(pairs: list[tuple[str, str]]) -> None:
    counts = [word_errors(reference, hypothesis) for reference, hypothesis in pairs]
    total = corpus(counts)
    for kind in ("hits", "substitutions", "insertions", "deletions", "errors", "reference_length"):
        assert getattr(total, kind) == sum(getattr(count, kind) for count in counts)
