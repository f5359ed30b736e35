"""Errors that recur, with the clips they stand in."""

from __future__ import annotations

import json
from dataclasses import asdict

from hypothesis import given, settings
from hypothesis import strategies as st

from audiograft.metrics.patterns import Pattern, Patterns, error_patterns
from audiograft.metrics.word_errors import compound_errors, corpus

PAIRS = [
    ("1", "the cat sat", "the bat sat"),
    ("2", "a cat", "a bat"),
    ("3", "a cat and a cat", "a bat and a bat"),
    ("4", "uh yes", "yes"),
    ("5", "base ball is fun", "baseball is so fun"),
    ("6", "whitepaper", "white paper"),
    ("7", "same", "same"),
]


def test_patterns_by_hand() -> None:
    assert error_patterns(PAIRS) == Patterns(
        substitutions=(Pattern("cat", "bat", 4, ("1", "2", "3")),),
        deletions=(Pattern("uh", "", 1, ("4",)),),
        insertions=(Pattern("", "so", 1, ("5",)),),
        compounds=(Pattern("base ball", "baseball", 1, ("5",)), Pattern("whitepaper", "white paper", 1, ("6",))),
        totals={"substitutions": 4, "deletions": 1, "insertions": 1, "compounds": 2},
    )


def test_only_the_commonest_are_listed_and_all_are_counted() -> None:
    pairs = [(f"{word}{i}", word, "x") for i, word in enumerate(["b", "a", "c", "c"] + ["d"] * 9)]
    patterns = error_patterns(pairs, top=3)
    assert [(pattern.reference, pattern.count) for pattern in patterns.substitutions] == [("d", 9), ("c", 2), ("a", 1)]
    assert patterns.substitutions[0].ids == ("d4", "d5", "d6", "d7", "d8")
    assert patterns.totals["substitutions"] == 13


def test_patterns_of_a_script_without_spaces_are_characters() -> None:
    assert error_patterns([("1", "今天天气好", "今天天汽好")]).substitutions == (Pattern("气", "汽", 1, ("1",)),)


def test_patterns_can_be_written_as_json() -> None:
    assert json.loads(json.dumps(asdict(error_patterns(PAIRS))))["deletions"] == [{"reference": "uh", "hypothesis": "", "count": 1, "ids": ["4"]}]


texts = st.lists(st.sampled_from(["a", "b", "ab", "ba"]), max_size=6).map(" ".join)


@settings(deadline=None)
@given(st.lists(st.tuples(texts, texts), max_size=4))
def test_totals_are_the_counts_where_compounds_merge(pairs: list[tuple[str, str]]) -> None:
    totals = error_patterns((str(i), *pair) for i, pair in enumerate(pairs)).totals
    expected = corpus(compound_errors(*pair) for pair in pairs)
    assert (totals["substitutions"], totals["insertions"], totals["deletions"]) == (expected.substitutions, expected.insertions, expected.deletions)
