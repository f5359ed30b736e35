"""Every clip lands in the slice it belongs to, or is counted among those that don't say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiograft.evaluate.clips import ScoredClip, score_clips
from audiograft.evaluate.predictions import Prediction
from audiograft.evaluate.slices import count_without, group_clips, score_answers, score_transcripts
from audiograft.metrics.normalisers import get_normaliser
from audiograft.types import DataError


def clips(values: Sequence[Any], key: str = "level", **keys: Any) -> list[ScoredClip]:
    """A clip a value, which stands under a known key or under one of its own."""
    known = key in Prediction.__dataclass_fields__
    rows = [
        Prediction(str(i), "one two", "one", **keys, **({key: value} if known else {}), extra={} if known or value is None else {key: value})
        for i, value in enumerate(values)
    ]
    return score_clips(rows, get_normaliser("lower"))


def ids(groups: dict[str, list[ScoredClip]]) -> dict[str, list[int]]:
    return {name: [int(clip.prediction.id) for clip in members] for name, members in groups.items()}


def test_durations_lie_in_the_bin_that_begins_with_them() -> None:
    groups = group_clips(clips([0.0, 1.99, 2, 5.0, 10, 20, 29.9, 30, 4000.0, None], "duration_s"))
    assert ids(groups["duration"]) == {"0-2": [0, 1], "2-5": [2], "5-10": [3], "10-20": [4], "20-30": [5, 6], "30+": [7, 8]}
    assert count_without(clips([1.0] * 10), groups) == {"duration": 1}


def test_noise_is_sliced_where_it_is_stated() -> None:
    groups = group_clips(clips([-3.0, 0, 4.9, 12, 19, 20, 60], "snr_db"))
    assert ids(groups["snr"]) == {"<0": [0], "0-5": [1, 2], "10-15": [3], "15-20": [4], "20+": [5, 6]}
    assert "snr" not in group_clips(clips([None, None], "snr_db"))


def test_numbers_of_a_key_are_cut_into_quartiles_and_equal_ones_stay_together() -> None:
    assert ids(group_clips(clips(range(8)), ["level"])["level"]) == {"0 to 1": [0, 1], "2 to 3": [2, 3], "4 to 5": [4, 5], "6 to 7": [6, 7]}
    assert ids(group_clips(clips([1, 1, 1, 1, 1, 2, 3, 4, 9.5]), ["level"])["level"]) == {"1 to 2": [0, 1, 2, 3, 4, 5], "3 to 9.5": [6, 7, 8]}


def test_quartiles_that_look_alike_are_told_apart() -> None:
    values = [1e6 + i / 100 for i in range(8)]
    assert sum(map(len, group_clips(clips(values), ["level"])["level"].values())) == 8


def test_few_numbers_and_all_else_are_slices_by_themselves() -> None:
    assert ids(group_clips(clips([2, 1, 2, None]), ["level"])["level"]) == {"1": [1], "2": [0, 2]}
    mixed = group_clips(clips([True, "high", ["a", 1], 3, 5.5, float("nan"), 7]), ["level"])["level"]
    assert mixed.keys() == {"true", "high", '["a", 1]', "3", "5.5", "NaN", "7"}


def test_levels_of_a_bench_are_slices_by_themselves_in_their_order() -> None:
    levels = [1000, 200, 400, 800, 600]
    found = group_clips(clips(levels * 10), ["level"])["level"]
    assert {name: len(part) for name, part in found.items()} == dict.fromkeys(["200", "400", "600", "800", "1000"], 10)
    assert [*found] == ["200", "400", "600", "800", "1000"]
    assert len(group_clips(clips(levels * 9), ["level"])["level"]) == 4


def test_a_key_that_no_row_has_is_named() -> None:
    with pytest.raises(DataError, match="no row has the key 'accent' to slice by: correct the key, or add it to the manifest"):
        group_clips(clips([1, 2]), ["accent"])


@given(st.lists(st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=3), st.booleans()), min_size=1, max_size=30))
def test_no_clip_is_lost_whatever_the_values(values: list[Any]) -> None:
    given_clips = clips(values)
    if all(value is None for value in values):
        return
    groups = group_clips(given_clips, ["level"])
    found = sorted(number for members in ids(groups["level"]).values() for number in members)
    assert found == [i for i, value in enumerate(values) if value is not None]
    assert count_without(given_clips, groups)["level"] == values.count(None)


def test_small_slices_are_marked_and_not_hidden() -> None:
    groups = group_clips(clips(["ann"] * 50 + ["bob"], "speaker"))
    words = score_transcripts(groups)["speaker"]
    assert (words["ann"]["reference_length"], words["ann"]["small"], words["bob"]["small"]) == (100, False, True)
    assert (words["bob"]["wer"], words["bob"]["interval"]) == (0.5, None)
    assert score_answers(groups) == {}
    asked = score_answers(group_clips(clips(["ann"] * 20 + ["bob"] * 19, "speaker", task="answer")))["speaker"]
    assert [(part["answers"], part["small"]) for part in asked.values()] == [(20, False), (19, True)]
    assert asked["bob"]["interval"]["low"] == 0.0
