"""Blind judging: the order tells nothing, and a choice means the right category."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged import audit_run

from audiograft.audit.blind import blind_choice, blind_order, blind_payload, category_of
from audiograft.audit.rows import clip_rows, run_row, verdict_row
from audiograft.audit.suggestions import suggest
from audiograft.audit.verdicts import CATEGORIES, CHOICES, Verdict
from audiograft.metrics.normalisers import get_normaliser

WORDS = st.lists(st.sampled_from(["a", "b", "B", "c,", "ab", "d"]), max_size=6).map(" ".join)


def test_the_order_is_a_fair_coin_of_its_own_for_each_rater_and_clip() -> None:
    orders = {rater: [blind_order("f" * 16, rater, f"clip {i}") for i in range(4000)] for rater in ("ann", "bob")}
    assert all(1850 < sum(order) < 2150 for order in orders.values())  # 2000 expected, standard deviation 32
    assert 1850 < sum(a == b for a, b in zip(*orders.values(), strict=True)) < 2150
    assert orders["ann"] == [blind_order("f" * 16, "ann", f"clip {i}") for i in range(4000)]
    assert isinstance(blind_order("f", "ann", "half a pair \ud800"), bool)


@pytest.mark.parametrize(
    ("choice", "x_is_reference", "category"),
    [
        ("x", True, "model_error"),
        ("x", False, "label_noise"),
        ("y", True, "label_noise"),
        ("y", False, "model_error"),
        ("neither", True, "ambiguous"),
        ("normalisation", False, "normalisation"),
        ("same", True, "perfect"),
    ],
)
def test_a_choice_means_a_category(choice: str, x_is_reference: bool, category: str) -> None:
    assert category_of(choice, x_is_reference) == category


def test_every_choice_means_a_category_and_every_category_can_be_chosen() -> None:
    assert {category_of(choice, order) for choice in CHOICES for order in (True, False)} == set(CATEGORIES)


@given(reference=WORDS, hypothesis=WORDS)
def test_what_is_told_is_the_same_whichever_text_is_the_label(reference: str, hypothesis: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Two runs with the texts changed round, where the coin falls differently, can't be told apart by any value."""
    folder = tmp_path_factory.mktemp("runs")
    one = audit_run(folder / "one", ("a", reference, hypothesis)).clips[0]
    two = audit_run(folder / "two", ("a", hypothesis, reference)).clips[0]
    first, second = (next(rater for rater in map(str, range(99)) if blind_order("f", rater, "a") is order) for order in (True, False))
    assert blind_payload("f", first, one) == blind_payload("f", second, two)


def test_the_rows_of_a_blind_session_name_nothing_that_tells(tmp_path: Path) -> None:
    row = {"id": "a", "reference": "one two", "hypothesis": "one too", "token_logprobs": [-0.1], "speaker": "s", "source": "talks", "duration_s": 2}
    run = audit_run(tmp_path, row, {"id": "b", "reference": "one", "hypothesis": "", "error": "no file"})
    found = suggest(run)
    assert found
    rows = clip_rows(run, blind=True, rater="ann", suggestions=found)
    assert [sorted(row) for row in rows] == [["diff", "dur", "i", "id", "parts", "source", "speaker", "wer", "x", "y"]]
    assert rows[0]["wer"] == 0.5
    told = json.dumps([rows, run_row(run, blind=True, rater="ann", has_suggestions=True)]).lower()
    for word in ("reference", "hypothesis", "conf", "suspicion", "reasons", "label", "model"):
        # The name of a button is no hint.
        assert f'"{word}' not in told.replace('"label": ', ""), word
    assert run_row(run, blind=True, rater="ann", has_suggestions=True)["has_suggestions"] is False
    assert [one["key"] for one in run_row(run, blind=True, rater="", has_suggestions=False)["categories"]] == list(CHOICES)


def test_normalised_texts_hint_at_nothing_by_their_form(tmp_path: Path) -> None:
    rows = [{"id": str(row), "reference": "Well, Mr. Smith", "hypothesis": "well mr  jones"} for row in range(40)]
    run = replace(audit_run(tmp_path, *rows), normaliser=get_normaliser("whisper-english"))
    shown = clip_rows(run, blind=True, rater="ann", normalised=True)
    assert {frozenset((row["x"], row["y"])) for row in shown} == {frozenset(("well mister smith", "well mister jones"))}
    assert all([kind for kind, _, _ in row["diff"]] == ["equal", "equal", "substitute"] for row in shown)
    assert 8 <= sum(row["x"].endswith("smith") for row in shown) <= 32
    assert shown[0]["wer"] == clip_rows(run, blind=True, rater="ann")[0]["wer"]
    assert clip_rows(run, blind=False, rater="ann", normalised=True)[0]["ref"] == "Well, Mr. Smith"


@pytest.mark.parametrize("category", CATEGORIES)
def test_an_open_verdict_tells_nothing_in_a_blind_session(category: str) -> None:
    openly = Verdict("a", category, "ann")
    assert verdict_row(openly, blind=True)["verdict"] is None
    assert (blind_choice(openly) is None) == (category in ("label_noise", "model_error"))
    assert blind_choice(Verdict("a", category, "ann", blind=True, choice="y")) == "y"
    assert verdict_row(openly, blind=False)["verdict"] == category
