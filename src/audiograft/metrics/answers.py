"""Free answers against their references: exact match, token F1, ROUGE-L, chrF."""

from __future__ import annotations

import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

from rapidfuzz.distance import LCSseq

from audiograft.metrics.words import split_words

_ARTICLES = frozenset({"a", "an", "the"})


class _Without(dict[int, str | None]):
    """A table for `str.translate` that replaces characters of some Unicode categories, and those of ASCII that Python calls punctuation."""

    def __init__(self, categories: str, replacement: str) -> None:
        super().__init__({ord(character): replacement for character in string.punctuation})
        self.categories, self.replacement = categories, replacement

    def __missing__(self, code: int) -> str:
        character = chr(code)
        self[code] = value = self.replacement if unicodedata.category(character)[0] in self.categories else character
        return value


_DROPPED = _Without("P", "")
_PARTED = _Without("PS", " ")


def exact_match(reference: str, hypothesis: str) -> bool:
    """Whether two answers are equal without case, punctuation, articles and white space (SQuAD, Rajpurkar et al. 2016)."""
    return _answer_words(reference) == _answer_words(hypothesis)


def token_f1(reference: str, hypothesis: str) -> float:
    """Harmonic mean of precision and recall of the words, counted as a bag (SQuAD, Rajpurkar et al. 2016).

    Words are lower-cased, without punctuation and articles; in scripts without spaces each character is one. Two answers without a word are
    equal and have 1, one without has 0.
    """
    old, new = _answer_words(reference), _answer_words(hypothesis)
    return _f1((Counter(old) & Counter(new)).total(), len(old), len(new))


def rouge_l(reference: str, hypothesis: str) -> float:
    """F-measure of the longest common subsequence of words (Lin 2004, "ROUGE: a package for automatic evaluation of summaries").

    Words are lower-cased and parted at everything that is neither letter nor digit, as `rouge-score` does without its stemmer; it knows only
    letters from a to z, here those of all scripts count, and in scripts without spaces each character is a word. Empty texts as in `token_f1`.
    """
    old, new = split_words(reference.lower().translate(_PARTED)), split_words(hypothesis.lower().translate(_PARTED))
    return _f1(LCSseq.similarity(old, new), len(old), len(new))


def corpus_chrf(references: Sequence[str], hypotheses: Sequence[str]) -> tuple[float, str]:
    """Character n-gram F-score of a corpus, from 0 to 100, and sacrebleu's signature of how it was computed (Popović 2015).

    Raises:
        ValueError: no text, or not as many hypotheses as references.
    """
    from sacrebleu.metrics.chrf import CHRF

    if not references or len(references) != len(hypotheses):
        raise ValueError(f"as many hypotheses as references and one at least: got {len(references)} and {len(hypotheses)}")
    metric = CHRF()
    score = metric.corpus_score(list(hypotheses), [list(references)])
    return float(score.score), str(metric.get_signature())


def _answer_words(text: str) -> list[str]:
    return [word for word in split_words(text.lower().translate(_DROPPED)) if word not in _ARTICLES]


def _f1(common: int, n_reference: int, n_hypothesis: int) -> float:
    """2 PR / (P + R), where precision is common / n_hypothesis and recall common / n_reference."""
    if not n_reference or not n_hypothesis:
        return float(n_reference == n_hypothesis)
    return 2 * common / (n_reference + n_hypothesis)
