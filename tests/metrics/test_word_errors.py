"""Error counts against counts by hand, and what must hold for any pair of texts."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import jiwer
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kaldialign import batch_error_rate

from audiograft.metrics.normalisers import NORMALISERS, get_normaliser
from audiograft.metrics.word_errors import ErrorCounts, character_errors, compound_errors, corpus, count_words, word_errors

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


N_PAIRS = 10_000
VOCABULARY = ["a", "b", "ab", "ba", "the", "white", "paper", "whitepaper", "naïve", "Ω", "天", "don't"]


def random_pairs(seed: int) -> tuple[list[str], list[str]]:
    """Texts of 0 to 12 words, one in ten empty; a hypothesis is its reference with words changed, or another text altogether."""
    rng = random.Random(seed)

    def text() -> list[str]:
        return [] if rng.random() < 0.1 else rng.choices(VOCABULARY, k=rng.randint(1, 12))

    def heard(words: list[str]) -> list[str]:
        changed = [rng.choice(VOCABULARY) if rng.random() < 0.2 else word for word in words if rng.random() > 0.1]
        return (
            text()
            if rng.random() < 0.2
            else [part for word in changed for part in ([word, rng.choice(VOCABULARY)] if rng.random() < 0.1 else [word])]
        )

    references = [text() for _ in range(N_PAIRS)]
    return [" ".join(words) for words in references], [" ".join(heard(words)) for words in references]


@pytest.mark.parametrize(("ours", "theirs", "rate"), [(word_errors, jiwer.process_words, "wer"), (character_errors, jiwer.process_characters, "cer")])
def test_counts_and_rates_equal_jiwer_on_random_pairs(ours: Callable[[str, str], ErrorCounts], theirs: Callable[..., Any], rate: str) -> None:
    references, hypotheses = random_pairs(seed=1)
    assert 500 < references.count("") < 2000
    assert any(not reference and not hypothesis for reference, hypothesis in zip(references, hypotheses, strict=True))
    counts = []
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        count, expected = ours(reference, hypothesis), theirs(reference, hypothesis)
        assert count == ErrorCounts(expected.hits, expected.substitutions, expected.insertions, expected.deletions)
        assert count.rate == getattr(expected, rate)  # of empty references too
        counts.append(count)
    total, expected = corpus(counts), theirs(references, hypotheses)
    assert total == ErrorCounts(expected.hits, expected.substitutions, expected.insertions, expected.deletions)
    assert total.rate == getattr(expected, rate)


def test_a_corpus_of_empty_references_has_the_number_of_insertions_as_rate() -> None:
    assert corpus([word_errors("", "a b"), word_errors("", "c")]).rate == jiwer.wer(["", ""], ["a b", "c"]) == 3


@pytest.mark.parametrize(
    ("reference", "hypothesis", "counts"),
    [
        ("white paper", "whitepaper", ErrorCounts(hits=2)),
        ("whitepaper", "white paper", ErrorCounts(hits=1)),
        ("a b c d", "abcd", ErrorCounts(hits=4)),
        ("a b c d", "ab cd", ErrorCounts(hits=4)),
        ("a bc", "ab c", ErrorCounts(substitutions=2)),  # only words that join to ONE word
        ("the white paper", "the whitepapers", ErrorCounts(1, 1, 0, 1)),
        ("ab c", "a b d c", ErrorCounts(hits=2, insertions=1)),
        ("", "a b", ErrorCounts(insertions=2)),
        ("a b", "", ErrorCounts(deletions=2)),
        ("", "", ErrorCounts()),
    ],
)
def test_compounds_counted_by_hand(reference: str, hypothesis: str, counts: ErrorCounts) -> None:
    assert compound_errors(reference, hypothesis) == counts


def test_compound_counts_sum_to_the_totals_of_the_leaderboards_scorer() -> None:
    references, hypotheses = random_pairs(seed=2)
    counts = [compound_errors(*pair) for pair in zip(references, hypotheses, strict=True)]
    total, expected = corpus(counts), batch_error_rate(map(str.split, references), map(str.split, hypotheses), merge_compounds=True)
    assert (total.substitutions, total.insertions, total.deletions) == (expected["sub"], expected["ins"], expected["del"])
    assert (total.errors, total.reference_length, total.rate) == (expected["total"], expected["ref_len"], expected["err_rate"])
    plain = corpus([word_errors(*pair) for pair in zip(references, hypotheses, strict=True)])
    assert total.errors < plain.errors
    assert total.reference_length == plain.reference_length


@settings(deadline=None)
@given(texts, texts)
def test_merging_compounds_never_adds_errors(reference: str, hypothesis: str) -> None:
    counts, plain = compound_errors(reference, hypothesis), word_errors(reference, hypothesis)
    assert counts.errors <= plain.errors
    assert counts.reference_length == plain.reference_length
    assert min(counts.hits, counts.substitutions, counts.insertions, counts.deletions) >= 0


def test_half_a_surrogate_pair_can_be_counted() -> None:
    assert compound_errors("a \ud800", "a \ud801") == word_errors("a \ud800", "a \ud801") == ErrorCounts(hits=1, substitutions=1)


@pytest.mark.parametrize(
    ("normaliser", "reference", "hypothesis", "errors"),
    [
        ("none", "The cat.", "the cat", 2),
        ("lower", "The cat.", "the cat", 1),
        ("whisper-basic", "The cat.", "the cat", 0),
        ("whisper-english", "base ball", "baseball", 2),
        ("leaderboard", "base ball", "baseball", 0),
        ("lower", "the A380 landed", "the A three hundred and eighty landed", 5),
        ("whisper-english", "the A380 landed", "the A three hundred and eighty landed", 0),  # both are a 380
        ("leaderboard", "the A380 landed", "the three hundred and eighty landed", 1),  # nobody wrote the A
        ("whisper-english", "at 3:30", "at three thirty", 2),  # 3 30 and 330
        ("leaderboard", "at 3:30", "at three thirty", 0),
        ("leaderboard", "1,500 people", "fifteen hundred people", 0),
        ("leaderboard", "100 people", "a hundred people", 1),  # a 100
        ("leaderboard", "the U.S.A. won", "the USA won", 0),  # u s a joins to usa
    ],
)
def test_words_are_counted_as_the_normaliser_wants(normaliser: str, reference: str, hypothesis: str, errors: int) -> None:
    assert count_words(get_normaliser(normaliser), reference, hypothesis).errors == errors


@pytest.mark.parametrize(
    ("reference", "hypothesis", "errors"),
    [
        (
            "The A380 took twenty-one minutes, Mr. Smith.",
            "the A three hundred and eighty took 21 minutes mister smith",
            {"none": (10, 7), "lower": (9, 7), "whisper-basic": (8, 8), "whisper-english": (0, 8), "leaderboard": (0, 8)},
        ),
        (
            "A base ball game.",
            "a baseball game",
            {"none": (4, 4), "lower": (3, 4), "whisper-basic": (2, 4), "whisper-english": (2, 4), "leaderboard": (0, 4)},
        ),
    ],
)
def test_the_examples_of_the_docs(reference: str, hypothesis: str, errors: dict[str, tuple[int, int]]) -> None:
    """The table of docs/evaluation.md: errors and words of the reference."""
    counts = {name: count_words(get_normaliser(name), reference, hypothesis) for name in NORMALISERS}
    assert {name: (count.errors, count.reference_length) for name, count in counts.items()} == errors
