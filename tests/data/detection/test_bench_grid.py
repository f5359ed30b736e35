"""The design of a bench: every cell is there, both classes alike, and what can't be is one line."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiograft.data.detection.grid import Design, make_slots
from audiograft.types import ConfigError

TINY = {"durations_ms": (20, 200), "snrs_db": (0.0, 10.0)}


@given(st.integers(10, 40), st.booleans(), st.integers(0, 5))
def test_every_cell_has_the_same_number_of_clips_of_both_classes(clips: int, cross: bool, seed: int) -> None:
    design = Design(**TINY, clips_per_cell=clips, cross=cross, t60s_s=(0.0, 0.5), noises=("white", "pink"), seed=seed)
    slots = make_slots(design)
    cells = Counter((slot.duration_ms, slot.target_snr_db, slot.label, *((slot.noise, slot.t60_s) if cross else ())) for slot in slots)
    assert len(cells) == (32 if cross else 8)
    assert set(cells.values()) == {clips}
    assert len({slot.id for slot in slots}) == len(slots)
    of_split = Counter((slot.split, slot.cell) for slot in slots)
    for split, count in design.counts.items():
        assert {n for (name, _), n in of_split.items() if name == split} == {count}


def test_conditions_are_the_same_for_both_classes_and_are_all_drawn() -> None:
    design = Design(**TINY, clips_per_cell=50, bands=("none", "telephone"), t60s_s=(0.0, 0.5))
    slots = make_slots(design)
    by_label = {label: [(slot.noise, slot.band, slot.t60_s) for slot in slots if slot.label == label] for label in ("SPEECH", "NONSPEECH")}
    assert by_label["SPEECH"] == by_label["NONSPEECH"]
    assert len(set(by_label["SPEECH"])) == 12
    assert slots != make_slots(Design(**TINY, clips_per_cell=50, bands=("none", "telephone"), t60s_s=(0.0, 0.5), seed=1))


@pytest.mark.parametrize(
    ("splits", "clips", "counts"),
    [
        ("80/10/10", 10, {"train": 8, "dev": 1, "test": 1}),
        ("80/10/10", 25, {"train": 20, "dev": 2, "test": 3}),
        ("0/0/100", 3, {"test": 3}),
        ("train=0.5,test=0.5", 4, {"train": 2, "test": 2}),
    ],
)
def test_splits_have_their_shares_of_each_cell(splits: str, clips: int, counts: dict[str, int]) -> None:
    assert Design(splits=splits, clips_per_cell=clips).counts == counts


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"durations_ms": (19,)}, "--durations-ms 19: give 20 to 30000"),
        ({"durations_ms": ()}, "--durations-ms : give at least one value"),
        ({"snrs_db": (5.0, 5.0)}, "--snrs-db 5.0,5.0: give each value once"),
        ({"snrs_db": (float("nan"),)}, "--snrs-db nan: give -60 to 100"),
        ({"noises": ("whit",)}, "--noises whit: choose among white, pink, brown, babble"),
        ({"bands": ("phone",)}, "--bands phone: choose among none, telephone, lowpass, highpass"),
        ({"t60s_s": (-1.0,)}, "--t60-s -1: give 0 to 3"),
        ({"normalisation": "lufs"}, "--normalisation lufs: choose among rms-random, peak, none"),
        ({"clips_per_cell": 0}, "--clips-per-cell 0: give 1 or more"),
        ({"clips_per_cell": 4}, "--clips-per-cell 4: none is left for test: give 10 or more, or other --splits"),
        ({"splits": "80/10"}, "--splits 80/10: the shares come to 90: make them 1 or 100 together"),
        ({"splits": "80/10/5/5"}, "--splits 80/10/5/5: give shares as 80/10/10 of train, dev, test, or by name, as train=0.8,test=0.2"),
        ({"splits": "train=1,test=x"}, "--splits train=1,test=x: give shares as 80/10/10 of train, dev, test, or by name, as train=0.8,test=0.2"),
        ({"splits": "eval=1"}, "--splits eval=1: give shares as 80/10/10 of train, dev, test, or by name, as train=0.8,test=0.2"),
    ],
)
def test_designs_that_can_not_be_are_one_line(chosen: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Design(**chosen)
    assert str(refused.value) == message
