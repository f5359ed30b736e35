"""Scores of answers against the libraries and papers that define them."""

from __future__ import annotations

import random
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.chrf import CHRF

from audiograft.metrics.answers import corpus_chrf, exact_match, rouge_l, token_f1

WORDS = ["a", "the", "cat", "Cat,", "it's", "well-known", "12%", "sat.", "an", "3.5", "theatre", "“", "-"]


def random_texts(seed: int, n_texts: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(0, 9))) for _ in range(n_texts)]


def squad_words(text: str) -> list[str]:
    """As the paper puts it: lower-case, then without punctuation, articles and white space."""
    without = "".join(character for character in text.lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", without).split()


def test_match_and_f1_equal_squads_definition_on_random_answers() -> None:
    shared = 0
    for reference, hypothesis in zip(random_texts(1, 2000), random_texts(2, 2000), strict=True):
        if "“" in reference + hypothesis:
            continue  # not ASCII: SQuAD keeps it
        old, new = squad_words(reference), squad_words(hypothesis)
        assert exact_match(reference, hypothesis) == (old == new)
        common = sum(min(old.count(word), new.count(word)) for word in set(old))
        if common:
            shared += 1
            precision, recall = common / len(new), common / len(old)
            assert token_f1(reference, hypothesis) == pytest.approx(2 * precision * recall / (precision + recall))
        else:
            assert token_f1(reference, hypothesis) == float(not old and not new)
    assert shared > 200


def test_rouge_equals_rouge_score_on_random_english_texts() -> None:
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    tried = 0
    for reference, hypothesis in zip(random_texts(3, 1000), random_texts(4, 1000), strict=True):
        if any(character.isalnum() for character in reference) and any(character.isalnum() for character in hypothesis):
            tried += 1
            assert rouge_l(reference, hypothesis) == pytest.approx(scorer.score(reference, hypothesis)["rougeL"].fmeasure)
    assert tried > 500


@pytest.mark.parametrize(
    ("reference", "hypothesis", "same", "f1"),
    [
        ("The Eiffel Tower.", "eiffel tower", True, 1.0),
        ("two dogs", "two big dogs", False, 0.8),
        ("“dogs”", "dogs", True, 1.0),
        ("yes", "", False, 0.0),
        ("", "", True, 1.0),
        ("the", "a", True, 1.0),
        ("北京大学", "北京", False, 2 / 3),
        ("Москва!", "москва", True, 1.0),
    ],
)
def test_answers_by_hand(reference: str, hypothesis: str, same: bool, f1: float) -> None:
    assert exact_match(reference, hypothesis) is same
    assert token_f1(reference, hypothesis) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "score"),
    [
        ("a b c d", "a c d e", 0.75),
        ("кошка спит дома", "кошка дома", 0.8),
        ("今天很好", "今天好", 6 / 7),
        ("नमस्ते दुनिया", "नमस्ते", 2 / 3),
        ("", "", 1.0),
        ("", "a", 0.0),
    ],
)
def test_rouge_by_hand(reference: str, hypothesis: str, score: float) -> None:
    assert rouge_l(reference, hypothesis) == pytest.approx(score)


@given(st.text(), st.text())
def test_scores_are_shares_and_a_text_has_all_of_itself(reference: str, hypothesis: str) -> None:
    for score in (token_f1, rouge_l):
        assert 0 <= score(reference, hypothesis) <= 1
        assert score(reference, hypothesis) == pytest.approx(score(hypothesis, reference))
        assert score(reference, reference) == 1
    assert not exact_match(reference, hypothesis) or token_f1(reference, hypothesis) == 1


def test_chrf_is_sacrebleus_with_its_signature() -> None:
    references, hypotheses = ["the cat sat on the mat", "今天很好"], ["the cat sits on a mat", "今天好"]
    score, signature = corpus_chrf(references, hypotheses)
    assert score == CHRF().corpus_score(hypotheses, [references]).score
    assert 0 < score < 100
    assert signature.startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")
    assert corpus_chrf(["abc"], ["abc"])[0] == pytest.approx(100)
    assert corpus_chrf(["abc"], [""])[0] == 0


@pytest.mark.parametrize(("references", "hypotheses"), [([], []), (["a"], ["a", "b"])])
def test_chrf_of_texts_that_do_not_match_up(references: list[str], hypotheses: list[str]) -> None:
    with pytest.raises(ValueError, match="as many hypotheses as references and one at least"):
        corpus_chrf(references, hypotheses)
