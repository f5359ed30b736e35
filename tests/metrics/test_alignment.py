"""Diffs by hand, and that they lose nothing."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiograft.metrics.alignment import WordEdit, align_words, diff_words

pieces = st.sampled_from(["the", "The", "cat,", "cat", "base", "ball", "baseball", "-", "...", "we're", "were", "well-known", "well", "known"])
spaced = st.lists(pieces, max_size=8).map(" ".join)
unspaced = st.text(alphabet=st.sampled_from("今天气好，a ที่\ud800"), max_size=12)


def kinds(edits: list[WordEdit]) -> list[tuple[str, str, str]]:
    return [(edit.kind, edit.reference, edit.hypothesis) for edit in edits]


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("The cat sat.", "the bat sat on", [("same", "The", "the"), ("substitute", "cat", "bat"), ("same", "sat.", "sat"), ("insert", "", "on")]),
        ("a cat", "cat", [("delete", "a", ""), ("equal", "cat", "cat")]),
        ("we're here", "were here", [("substitute", "we're", "were"), ("equal", "here", "here")]),
        ("we’re", "we're", [("same", "we’re", "we're")]),
        ("a base ball", "a baseball", [("equal", "a", "a"), ("same", "base ball", "baseball")]),
        ("a well-known man", "a well known man", [("equal", "a", "a"), ("same", "well-known", "well known"), ("equal", "man", "man")]),
        ("yes - no", "yes no", [("same", "yes -", "yes"), ("equal", "no", "no")]),
        ("- yes", "yes", [("same", "- yes", "yes")]),
        ("...", "", [("same", "...", "")]),
        ("...", "…", [("same", "...", "…")]),
        ("...", "yes", [("substitute", "...", "yes")]),
        ("", "", []),
        ("", "thank you", [("insert", "", "thank"), ("insert", "", "you")]),
        (
            "今天天气很好",
            "今天天汽很好吗",
            [("equal", "今天天", "今天天"), ("substitute", "气", "汽"), ("equal", "很好", "很好"), ("insert", "", "吗")],
        ),
        ("今天，好", "今天好", [("equal", "今", "今"), ("same", "天，", "天"), ("equal", "好", "好")]),
        ("今 天", "今 天", [("equal", "今", "今"), ("equal", "天", "天")]),
        ("我用iPhone拍", "我用Phone拍", [("equal", "我用", "我用"), ("substitute", "iPhone", "Phone"), ("equal", "拍", "拍")]),
    ],
)
def test_diffs_by_hand(reference: str, hypothesis: str, expected: list[tuple[str, str, str]]) -> None:
    assert kinds(diff_words(reference, hypothesis)) == expected


@settings(deadline=None)
@given(spaced, spaced)
def test_a_diff_holds_every_word_of_both_texts(reference: str, hypothesis: str) -> None:
    edits = diff_words(reference, hypothesis)
    assert " ".join(edit.reference for edit in edits).split() == reference.split()
    assert " ".join(edit.hypothesis for edit in edits).split() == hypothesis.split()


@settings(deadline=None)
@given(unspaced, unspaced)
def test_a_diff_holds_every_character_of_both_texts(reference: str, hypothesis: str) -> None:
    edits = diff_words(reference, hypothesis)
    assert "".join("".join(edit.reference for edit in edits).split()) == "".join(reference.split())
    assert "".join("".join(edit.hypothesis for edit in edits).split()) == "".join(hypothesis.split())


@settings(deadline=None)
@given(spaced | unspaced, spaced | unspaced)
def test_kinds_say_what_the_texts_are(reference: str, hypothesis: str) -> None:
    for edit in diff_words(reference, hypothesis):
        assert (edit.reference == edit.hypothesis) == (edit.kind == "equal")
        assert edit.reference if edit.kind in ("equal", "substitute", "delete") else True
        assert edit.hypothesis if edit.kind in ("equal", "substitute", "insert") else True
        assert not (edit.kind == "insert" and edit.reference)
        assert not (edit.kind == "delete" and edit.hypothesis)
    assert {edit.kind for edit in diff_words(reference, reference)} <= {"equal"}


words = st.lists(st.sampled_from(["a", "b", "ab", "ba"]), max_size=6)


@settings(deadline=None)
@given(words, words)
def test_an_alignment_holds_both_lists_in_order(reference: list[str], hypothesis: list[str]) -> None:
    groups = align_words(reference, hypothesis)
    assert [word for old, _ in groups for word in old] == reference
    assert [word for _, new in groups for word in new] == hypothesis
    assert all(len(old) <= 1 or len(new) == 1 for old, new in groups)
    assert all("".join(old) == "".join(new) for old, new in groups if len(old) + len(new) > 2)


def test_a_thousand_clips_are_quick() -> None:
    rng = random.Random(0)
    vocabulary = [f"Word{i}{mark}" for i in range(1000) for mark in ("", ",", ".")]
    references = [rng.choices(vocabulary, k=15) for _ in range(1000)]
    pairs = [(" ".join(words), " ".join(rng.choice(vocabulary) if rng.random() < 0.2 else word for word in words)) for words in references]
    start_s = time.process_time()
    for pair in pairs:
        diff_words(*pair)
    assert time.process_time() - start_s < 0.4  # 0.1 s on one idle core
