"""The one definition of where speech is, and of a signal-to-noise ratio."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiograft.audio import load_audio
from audiograft.data.augment.activity import active_samples, signal_to_noise_db

SPEECH = load_audio(sorted((Path(__file__).parents[3] / "examples").glob("*.wav"))[0]).waveform


def noise(n_samples: int, seed: int = 0) -> np.ndarray:
    return (0.01 * np.random.default_rng(seed).standard_normal(n_samples)).astype(np.float32)


@given(before=st.integers(0, 40_000), behind=st.integers(0, 40_000))
@settings(max_examples=15, deadline=None)
def test_padded_silence_changes_neither_place_nor_ratio(before: int, behind: int) -> None:
    padded = np.pad(SPEECH, (before, behind))
    clip_db = signal_to_noise_db(SPEECH, noise(len(SPEECH)))
    assert signal_to_noise_db(padded, np.pad(noise(len(SPEECH)), (before, behind))) == pytest.approx(clip_db, abs=0.1)
    # Noise over the whole clip counts no more than noise over the speech: system C's three conventions differed by up to 20 dB here.
    assert signal_to_noise_db(padded, noise(len(padded))) == pytest.approx(clip_db, abs=0.5)


def test_a_pause_within_is_no_speech() -> None:
    pause = np.zeros(32_000, np.float32)
    active = active_samples(np.concatenate([SPEECH, pause, SPEECH]))
    inside = active[len(SPEECH) : len(SPEECH) + len(pause)]
    assert inside.mean() < 0.2  # the hangover, and what rings on in the envelope
    assert active[: len(SPEECH)].mean() > 0.8


@given(gain_db=st.floats(-40, 20))
@settings(max_examples=15, deadline=None)
def test_level_does_not_move_the_speech(gain_db: float) -> None:
    louder = SPEECH * np.float32(10 ** (gain_db / 20))
    assert np.mean(active_samples(louder) != active_samples(SPEECH)) < 0.01


def test_a_steady_tone_is_active_throughout_and_measured_exactly() -> None:
    tone = np.sin(np.arange(32_000) * 0.2).astype(np.float32) * 0.1
    assert active_samples(tone)[2000:].all()
    assert signal_to_noise_db(tone, tone / 10) == pytest.approx(20, abs=1e-3)


def test_silence_has_no_ratio() -> None:
    silence = np.zeros(8000, np.float32)
    assert not active_samples(silence).any()
    assert math.isnan(signal_to_noise_db(silence, noise(8000)))
    assert signal_to_noise_db(SPEECH, np.zeros_like(SPEECH)) == math.inf


def test_the_level_is_that_of_the_recommendation() -> None:
    """P.56's two conditions at the threshold c: what is active has the level L, and L lies 15.9 dB above c; so half as loud, half the threshold."""
    active = active_samples(SPEECH)
    level_db = 10 * math.log10(np.sum(np.square(SPEECH, dtype=np.float64)) / active.sum())
    whole_db = 10 * math.log10(np.mean(np.square(SPEECH, dtype=np.float64)))
    assert 0 < level_db - whole_db < 2  # speech with short pauses: a little louder than the whole clip
