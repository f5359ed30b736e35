"""Clips are cut from where there is speech, and go through rooms and bands of which the power is known."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from audiograft.data.detection.conditions import apply_conditions, limit_band_zero_phase
from audiograft.data.detection.grid import Slot
from audiograft.data.detection.mixing import rms
from audiograft.data.detection.speech import find_cuts, is_dev_voice, sound_weight, speech_frames, speech_weight, utterances
from audiograft.data.synthetic.voices import HELD_OUT

SLOT = Slot("test", "SPEECH", 500, 0.0, "white", "none", 0.0, 0)


def voiced(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """A buzz at the level of speech."""
    time = np.arange(round(16000 * seconds)) / 16000
    return np.asarray(0.1 * np.sign(np.sin(2 * np.pi * 120 * time)) * (1 + 0.1 * rng.standard_normal(len(time))), dtype=np.float32)


def recording(rng: np.random.Generator) -> np.ndarray:
    """Half a second of room, one of voice with a stop of 60 ms in it, one of room."""
    room = 1e-3 * rng.standard_normal(40000).astype(np.float32)
    room[8000:24000] += voiced(1.0, rng)
    room[16000:16960] = 1e-3
    return room


def test_frames_of_speech_end_where_it_ends_and_closures_belong_to_it() -> None:
    speech = speech_frames(recording(np.random.default_rng(0)))
    assert speech.tolist() == [25 <= frame < 75 for frame in range(125)]


def test_a_long_pause_is_none_of_the_speech() -> None:
    waveform = recording(np.random.default_rng(0))
    waveform[14400:17600] = 1e-3
    speech = speech_frames(waveform)
    assert not speech[45:55].any()
    assert speech[44]
    assert speech[55]


def test_every_cut_holds_speech_for_four_fifths_of_its_length() -> None:
    waveform = recording(np.random.default_rng(0))
    starts = find_cuts(*speech_weight(waveform), 3200, 200, np.random.default_rng(1))
    assert 50 < len(starts) < 120
    assert all(8000 - 640 <= start <= 24000 - 3200 + 640 for start in starts)
    assert find_cuts(*speech_weight(waveform), 24000, 200, np.random.default_rng(1)) == []
    assert find_cuts(*speech_weight(waveform), 50000, 200, np.random.default_rng(1)) == []


@pytest.mark.parametrize("waveform", [np.zeros(8000, np.float32), np.zeros(100, np.float32)])
def test_silence_has_no_speech(waveform: np.ndarray) -> None:
    assert not speech_frames(waveform).any()
    assert find_cuts(*speech_weight(waveform), 80, 50, np.random.default_rng(1)) == []
    assert find_cuts(*sound_weight(waveform), 80, 50, np.random.default_rng(1)) == []


def test_a_cut_of_a_sound_has_some_of_it() -> None:
    waveform = np.zeros(32000, np.float32)
    waveform[16000:17600] = 0.5
    starts = find_cuts(*sound_weight(waveform), 3200, 200, np.random.default_rng(1))
    assert starts
    assert all(np.sum(waveform[start : start + 3200] ** 2) >= 0.1 * np.mean(waveform**2) * 3200 for start in starts)
    assert find_cuts(*sound_weight(np.full(3200, 0.1, np.float32)), 3200, 5, np.random.default_rng(1)) == [0] * 5


def test_voices_and_sentences_of_splits_are_their_own() -> None:
    drawn = {split: list(islice(utterances(split, 3), 300)) for split in ("train", "dev", "test")}
    voices = {split: {voice for _, voice, _ in found} for split, found in drawn.items()}
    texts = {split: {text for text, _, _ in found} for split, found in drawn.items()}
    assert voices["test"] == set(HELD_OUT)
    assert all(is_dev_voice(voice) for voice in voices["dev"])
    assert not any(is_dev_voice(voice) or voice in HELD_OUT for voice in voices["train"])
    assert {voice.engine for voice in voices["dev"]} == {"flite", "espeak-ng"}
    for kind in (voices, texts):
        assert not kind["train"] & kind["dev"] | kind["train"] & kind["test"] | kind["dev"] & kind["test"]


@pytest.mark.parametrize(
    ("band", "kept_hz", "lost_hz"), [("telephone", 1000, 100), ("telephone", 2500, 5000), ("lowpass", 500, 5000), ("highpass", 5000, 100)]
)
def test_bands_pass_what_they_should_and_move_nothing(band: str, kept_hz: int, lost_hz: int) -> None:
    time = np.arange(8000) / 16000
    kept, lost = (np.sin(2 * np.pi * frequency * time).astype(np.float32) for frequency in (kept_hz, lost_hz))
    np.testing.assert_allclose(limit_band_zero_phase(kept, band)[1000:-1000], kept[1000:-1000], atol=0.02)
    assert rms(limit_band_zero_phase(lost, band)[1000:-1000]) < 0.03 * rms(lost)


@pytest.mark.parametrize(("band", "t60_s"), [("none", 0.0), ("telephone", 0.0), ("none", 0.5), ("highpass", 0.5)])
def test_conditions_keep_the_power(band: str, t60_s: float) -> None:
    waveform = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    done = apply_conditions(waveform, replace(SLOT, band=band, t60_s=t60_s), np.random.default_rng(1))
    assert len(done) == len(waveform)
    assert rms(done) == pytest.approx(rms(waveform), rel=1e-3)
    assert np.array_equal(done, waveform) is (band == "none" and not t60_s)


def test_a_room_smears_a_click() -> None:
    click = np.zeros(8000, np.float32)
    click[1000] = 1.0
    done = apply_conditions(click, replace(SLOT, t60_s=0.5), np.random.default_rng(1))
    assert np.argmax(np.abs(done)) == 1000
    early, late = rms(done[1001:2600]), rms(done[5000:6600])
    # The tail of T60 0.5 s falls by 60 dB in 8000 samples: by 30 dB in 4000.
    assert 20 * np.log10(early / late) == pytest.approx(30, abs=4)
