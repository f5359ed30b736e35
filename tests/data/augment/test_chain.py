"""The drawing of effects: by row and epoch alone, within the ranges asked for, and nothing that was not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from audiograft.audio import load_audio
from audiograft.data.augment.activity import signal_to_noise_db
from audiograft.data.augment.chain import Augmenter, AugmentRecipe, read_augment
from audiograft.types import WINDOW_SAMPLES, ConfigError

SPEECH = load_audio(sorted((Path(__file__).parents[3] / "examples").glob("*.wav"))[0]).waveform


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, str]:
    rng = np.random.default_rng(0)
    for name in ("noise", "rooms", "speech"):
        (tmp_path / name).mkdir()
    for number in range(3):
        soundfile.write(tmp_path / "noise" / f"{number}.wav", 0.1 * rng.standard_normal(4000 * (number + 1)), 16_000)
        soundfile.write(tmp_path / "rooms" / f"{number}.wav", np.eye(1, 800, 40 * number)[0] + 0.02 * rng.standard_normal(800), 16_000)
        soundfile.write(tmp_path / "speech" / f"{number}.wav", np.roll(SPEECH, 3000 * number), 16_000)
    return {name: str(tmp_path / name) for name in ("noise", "rooms", "speech")}


def everything(folders: dict[str, str]) -> AugmentRecipe:
    return AugmentRecipe(
        speed=(0.9, 1.0, 1.1), reverb=("synthetic", folders["rooms"]), reverb_share=0.5, noise=("pink", folders["noise"]), babble=folders["speech"],
        babble_share=0.5, codecs=("mp3", "gsm", "telephone-band"), codec_share=0.5, gain_db=(-20, 3), time_masks=2, frequency_masks=2,
    )  # fmt: skip


def test_the_same_place_hears_the_same_and_another_epoch_something_else(folders: dict[str, str]) -> None:
    first, second = (Augmenter(everything(folders), seed=3) for _ in range(2))
    order = [f"{epoch}/row-{row}" for epoch in range(2) for row in range(6)]
    heard = {place: first.waveform(SPEECH, place, WINDOW_SAMPLES) for place in order}
    for place in reversed(order):
        waveform, done = second.waveform(SPEECH, place, WINDOW_SAMPLES)
        np.testing.assert_array_equal(waveform, heard[place][0])
        assert done == heard[place][1]
    assert all(heard[f"0/row-{row}"][1] != heard[f"1/row-{row}"][1] for row in range(6))
    other, _ = Augmenter(everything(folders), seed=4).waveform(SPEECH, order[0], WINDOW_SAMPLES)
    assert not np.array_equal(other, heard[order[0]][0])
    assert all(np.abs(waveform).max() <= 0.991 for waveform, _ in heard.values())


def test_without_settings_a_clip_stays_as_it_is() -> None:
    augmenter = Augmenter(AugmentRecipe(), seed=0)
    waveform, done = augmenter.waveform(0.5 * SPEECH, "0/row", WINDOW_SAMPLES)
    np.testing.assert_array_equal(waveform, 0.5 * SPEECH)
    assert done == {}
    features = np.random.default_rng(0).standard_normal((80, 100)).astype(np.float32)
    np.testing.assert_array_equal(augmenter.features(features, "0/row"), features)


def test_the_ratio_in_the_metadata_is_the_one_in_the_clip(folders: dict[str, str]) -> None:
    quiet = 0.2 * SPEECH
    for noise in ("white", folders["noise"]):
        augmenter = Augmenter(AugmentRecipe(noise=(noise,), noise_share=1.0, snr_db=(3, 12)), seed=0)
        for row in range(5):
            noisy, done = augmenter.waveform(quiet, f"0/{row}", WINDOW_SAMPLES)
            assert 3 <= done["snr_db"] <= 12
            assert signal_to_noise_db(quiet, noisy - quiet) == pytest.approx(done["snr_db"], abs=0.05)


def test_shares_are_met(folders: dict[str, str]) -> None:
    augmenter = Augmenter(AugmentRecipe(noise=("white",), noise_share=0.25, babble=folders["speech"], babble_share=0.5), seed=0)
    drawn = [augmenter.waveform(SPEECH[:3200], f"0/{row}", WINDOW_SAMPLES)[1].get("noise") for row in range(400)]
    assert drawn.count("white") / 400 == pytest.approx(0.25, abs=0.07)
    assert sum(str(name).startswith("babble") for name in drawn) / 400 == pytest.approx(0.375, abs=0.07)


def test_a_clip_never_grows_past_the_window() -> None:
    augmenter = Augmenter(AugmentRecipe(speed=(0.5,)), seed=0)
    waveform, done = augmenter.waveform(SPEECH, "0/row", longest_samples=len(SPEECH) + 10)
    assert len(waveform) == len(SPEECH)
    assert done == {}
    longer, done = augmenter.waveform(SPEECH, "0/row", WINDOW_SAMPLES)
    assert len(longer) == 2 * len(SPEECH)
    assert done == {"speed": 0.5}


def test_masks_hide_spans_of_features_and_nothing_else() -> None:
    features = np.random.default_rng(0).standard_normal((80, 400)).astype(np.float32)
    augmenter = Augmenter(AugmentRecipe(time_masks=1, time_mask_frames=50, frequency_masks=1), seed=0)
    hidden = 0
    for row in range(20):
        changed = augmenter.features(features, str(row)) != features
        rows, columns = changed.all(axis=1), changed.all(axis=0)
        assert columns.sum() <= 50
        assert rows.sum() <= 15
        assert not changed[~rows][:, ~columns].any()
        hidden += int(changed.sum())
    assert hidden


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"snr_db": (20.0, 5.0)}, "augment.snr_db"),
        ({"speed": (0.1,)}, "augment.speed"),
        ({"codecs": ("flac",)}, "augment.codecs"),
        ({"noise_share": 1.5}, "augment.noise_share"),
        ({"t60_s": (0.0, 1.0)}, "augment.t60_s"),
        ({"talkers": (0, 3)}, "augment.talkers"),
        ({"time_masks": -1}, "augment.time_masks"),
    ],
)
def test_what_can_not_be_is_refused_by_name(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        AugmentRecipe(**wrong)


def test_a_folder_that_is_missing_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="augment.noise"):
        Augmenter(AugmentRecipe(noise=(str(tmp_path / "none"),)), seed=0)


def test_settings_that_are_missing_are_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: no such file: correct the path"):
        read_augment(tmp_path / "none.yaml")
