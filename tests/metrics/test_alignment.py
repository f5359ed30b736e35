"""Diffs by hand, and that they lose nothing."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kaldialign import edit_distance

from audiograft.metrics import alignment
from audiograft.metrics.alignment import WordEdit, align_words, cut_pieces, diff_words
from audiograft.metrics.word_errors import compound_errors, word_errors

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


def _misheard(rng: random.Random, words: list[str], rate: float) -> list[str]:
    """Words substituted, left out, inserted, and written together with the next one."""
    heard: list[str] = []
    place = 0
    while place < len(words):
        draw = rng.random()
        joined = draw > 0.98 and place + 1 < len(words)
        if joined:
            heard.append(words[place] + words[place + 1])
        elif draw >= rate:
            heard.append(words[place])
        elif draw >= rate / 3:
            heard += [rng.choice(words), words[place]][: rng.randint(1, 2)]
        place += 2 if joined else 1
    return heard


def _said(rng: random.Random, count: int) -> list[str]:
    return ["".join(rng.choices("abcdefgh", k=rng.randint(1, 5))) for _ in range(count)]


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.3])
def test_long_texts_are_counted_in_pieces_as_kaldialign_counts_them_whole(rate: float) -> None:
    rng = random.Random(0)
    old = _said(rng, 2600)
    new = _misheard(rng, old, rate)
    assert len(list(cut_pieces(old, new))) > 2
    found, whole = compound_errors(" ".join(old), " ".join(new)), edit_distance(old, new, merge_compounds=True)
    assert (found.errors, found.substitutions, found.insertions, found.deletions) == tuple(whole[key] for key in ("total", "sub", "ins", "del"))
    groups = align_words(old, new)
    assert sum(len(a) <= 1 and len(b) <= 1 and a != b for a, b in groups) == found.errors
    assert [word for a, _ in groups for word in a] == old
    assert [word for _, b in groups for word in b] == new


@settings(deadline=None, max_examples=200)
@given(st.lists(st.sampled_from(["a", "b", "ab", "ba", "c"]), max_size=40), st.lists(st.sampled_from(["a", "b", "ab", "ba", "c"]), max_size=40))
def test_pieces_cut_anywhere_never_lose_an_error_or_find_more_than_there_are_without_compounds(old: list[str], new: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alignment, "_WHOLE_CELLS", 20)
        patch.setattr(alignment, "_PIECE_WORDS", 3)
        patch.setattr(alignment, "_LONGEST_PIECE_WORDS", 5)
        spans = list(cut_pieces(old, new))
        found = compound_errors(" ".join(old), " ".join(new))
    assert [word for i, i_end, _, _ in spans for word in old[i:i_end]] == old
    assert [word for _, _, j, j_end in spans for word in new[j:j_end]] == new
    assert all(max(i_end - i, j_end - j) <= 5 for i, i_end, j, j_end in spans) or len(spans) == 1
    whole = edit_distance(old, new, merge_compounds=True)["total"]
    assert whole <= found.errors <= word_errors(" ".join(old), " ".join(new)).errors


def test_texts_of_two_thousand_words_are_one_piece() -> None:
    words = ["a"] * 2000
    assert list(cut_pieces(words, words)) == [(0, 2000, 0, 2000)]
    assert list(cut_pieces([], words)) == [(0, 0, 0, 2000)]


def test_an_hour_of_speech_is_quick() -> None:
    rng = random.Random(0)
    old = _said(rng, 10_000)
    start_s = time.process_time()
    compound_errors(" ".join(old), " ".join(_misheard(rng, old, 0.1)))
    assert time.process_time() - start_s < 4  # 0.6 s on one idle core; 11 s in one piece
