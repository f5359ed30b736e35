"""Augmentation in training: on training clips alone, anew in each epoch, within the budget, and drawn for the eye."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from audiograft.data.augment.chain import Augmenter, AugmentRecipe
from audiograft.train import run as run_module
from audiograft.train.batching import partition
from audiograft.train.collator import Collator
from audiograft.train.dataset import SpeechDataset
from audiograft.train.recipe import load_recipe
from audiograft.train.rows import index_rows, read_samples
from audiograft.types import ConfigError

SETTINGS = AugmentRecipe(speed=(0.5, 2.0), noise=("white",), noise_share=1.0, time_masks=1)


@pytest.fixture
def dataset(graft, clips: Path) -> SpeechDataset:
    rows, _ = index_rows(read_samples([str(clips)]), graft[1])
    return SpeechDataset(rows, graft[1], augmenter=Augmenter(SETTINGS, seed=0))


def test_a_row_is_the_same_within_an_epoch_and_another_in_the_next(dataset: SpeechDataset) -> None:
    def features() -> list[np.ndarray]:
        return [clip for index in range(len(dataset)) for clip in dataset[index]["features"]]

    first, again = features(), features()
    dataset.epoch = 1
    other = features()
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    assert not any(np.array_equal(one, two) for one, two in zip(first, other, strict=True))


def test_tokens_follow_the_clip_that_is_heard(graft, dataset: SpeechDataset) -> None:
    processor = graft[1]
    lengths = set()
    for index in range(len(dataset)):
        item = dataset[index]
        (frames,) = item["feature_frames"]
        assert item["features"][0].shape[1] == frames
        assert item["input_ids"].count(processor.audio_token_id) == processor.front_end.audio_tokens(frames)
        lengths.add(frames)
        (done,) = item["augmentation"]
        assert done["speed"] in SETTINGS.speed
        assert 5 <= done["snr_db"] <= 30
    assert len(lengths) == 2
    batch = Collator(processor)([dataset[index] for index in range(len(dataset))])
    assert "augmentation" not in batch


def test_slowed_clips_stay_within_the_budget(graft, dataset: SpeechDataset) -> None:
    assert SETTINGS.stretch == 2
    batches = partition([row.positions for row in dataset.rows], 120, 0, SETTINGS.stretch)
    assert len(batches) > len(partition([row.positions for row in dataset.rows], 120, 0))
    for epoch in range(3):
        dataset.epoch = epoch
        for batch in batches:
            assert Collator(graft[1])([dataset[index] for index in batch])["input_ids"].numel() <= 120


def test_only_training_clips_are_changed(recipe, run_quietly, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    waveform = Augmenter.waveform

    def recorded(self: Augmenter, clip: Any, place: str, longest_samples: int) -> Any:
        heard.append(place)
        return waveform(self, clip, place, longest_samples)

    monkeypatch.setattr(Augmenter, "waveform", recorded)
    recipe = replace(recipe, augment=AugmentRecipe(gain_db=(-6, 0)), data=replace(recipe.data, validation=recipe.data.train[0]), eval_steps=2)
    before = run_quietly(replace(recipe, augment=None), output_dir=f"{recipe.output_dir}-plain")
    assert heard == []
    after = run_quietly(recipe)
    # Six steps of two rows, in batches of an epoch of eight; nothing else.
    assert len(heard) == 12
    assert {place.partition("/")[0] for place in heard} == {"0", "1"}
    losses = [[line["loss"] for line in result["log"] if "loss" in line] for result in (before, after)]
    assert losses[0] != losses[1]


def test_the_dry_run_says_what_was_done(recipe) -> None:
    page = run_module.dry_run(replace(recipe, augment=SETTINGS, tokens_per_batch=200))
    lines = [line for line in page.splitlines() if "augmented:" in line]
    assert lines
    assert all("speed" in line and "snr_db" in line for line in lines)


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        ({"noise": ["pinkish"]}, "augment.noise: pinkish is no folder"),
        ({"snr_db": [10]}, "augment.snr_db must be a lowest and a highest value"),
        ({"loudness": 3}, "unknown key augment.loudness"),
    ],
)
def test_a_recipe_with_what_can_not_be_is_refused_in_a_line(recipe, tmp_path: Path, augment: dict[str, Any], message: str) -> None:
    path = tmp_path / "recipe.yaml"
    tree = {"stage": "align", "model": recipe.model, "output_dir": recipe.output_dir, "data": {"train": list(recipe.data.train)}, "augment": augment}
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        run_module.dry_run(load_recipe(path))


def test_a_cache_and_augmentation_exclude_each_other(recipe, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    tree: dict[str, Any] = {"stage": "align", "model": recipe.model, "output_dir": "run", "data": {"train": list(recipe.data.train)}}
    path.write_text(yaml.safe_dump(tree | {"augment": {"gain_db": [-6, 0]}, "feature_cache": "cache"}), encoding="utf-8")
    with pytest.raises(ConfigError, match="augment changes clips that feature_cache keeps"):
        load_recipe(path)
