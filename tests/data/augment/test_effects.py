"""Effects on a waveform: what they change, and what they leave."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiograft.audio import load_audio
from audiograft.data.augment.activity import signal_to_noise_db
from audiograft.data.augment.codecs import CODECS, through_codec
from audiograft.data.augment.effects import (
    NOISE_COLOURS,
    add_noise,
    babble,
    change_gain,
    change_speed,
    coloured_noise,
    excerpt,
    limit_band,
    reverberate,
    room_response,
)

SPEECH = load_audio(sorted((Path(__file__).parents[3] / "examples").glob("*.wav"))[0]).waveform


def band_power(waveform: np.ndarray, low_hz: float, high_hz: float) -> float:
    spectrum = np.abs(np.fft.rfft(waveform)) ** 2
    frequency = np.fft.rfftfreq(len(waveform), 1 / 16_000)
    return float(spectrum[(frequency >= low_hz) & (frequency < high_hz)].sum())


@given(snr_db=st.floats(-10, 40), colour=st.sampled_from(sorted(NOISE_COLOURS)), level=st.floats(1e-3, 10))
@settings(max_examples=20, deadline=None)
def test_noise_comes_at_the_ratio_asked_for_whatever_its_level(snr_db: float, colour: str, level: float) -> None:
    noise = level * coloured_noise(len(SPEECH), NOISE_COLOURS[colour], np.random.default_rng(1))
    noisy, measured_db = add_noise(SPEECH, noise.astype(np.float32), snr_db)
    assert measured_db == pytest.approx(snr_db, abs=1e-3)
    assert signal_to_noise_db(SPEECH, noisy - SPEECH) == pytest.approx(snr_db, abs=0.1)


def test_without_speech_or_noise_nothing_is_added() -> None:
    silence = np.zeros(8000, np.float32)
    for clip, noise in ((silence, SPEECH[:8000]), (SPEECH[:8000], silence)):
        same, measured_db = add_noise(clip, noise, 10)
        assert np.isnan(measured_db)
        np.testing.assert_array_equal(same, clip)


def test_colours_fall_as_they_should() -> None:
    for colour, exponent in NOISE_COLOURS.items():
        noise = coloured_noise(160_000, exponent, np.random.default_rng(2))
        # Power in an octave, by frequency: e = 1 is equal in each octave.
        ratio_db = 10 * np.log10(band_power(noise, 2000, 4000) / band_power(noise, 1000, 2000))
        assert ratio_db == pytest.approx(3.01 * (1 - exponent), abs=0.5), colour


def test_babble_is_several_voices_at_equal_level() -> None:
    rng = np.random.default_rng(0)
    mixed = babble([SPEECH, 0.01 * SPEECH[::-1]], 16_000, rng)
    assert mixed.shape == (16_000,)
    assert np.sqrt(np.mean(mixed**2)) == pytest.approx(1, rel=1e-3)
    assert len(excerpt(SPEECH[:100], 16_000, rng)) == 16_000


def test_rooms_keep_length_level_and_place() -> None:
    rng = np.random.default_rng(0)
    wet = reverberate(SPEECH, room_response(0.4, 5.0, rng))
    assert wet.shape == SPEECH.shape
    assert np.sqrt(np.mean(wet**2)) == pytest.approx(np.sqrt(np.mean(SPEECH**2)), rel=1e-3)
    assert not np.allclose(wet, SPEECH, atol=1e-2)
    # A measured response has the way of the sound before its direct path; that must not shift the clip.
    late = np.concatenate([np.zeros(400, np.float32), np.ones(1, np.float32)])
    np.testing.assert_allclose(reverberate(SPEECH, late), SPEECH, atol=1e-5)
    energy = np.cumsum(room_response(0.5, 0.0, rng)[::-1] ** 2)[::-1]
    decay_db = 10 * np.log10(energy / energy[1])
    assert decay_db[4000] == pytest.approx(-30, abs=3)  # half of T60


def test_speed_gain_and_band() -> None:
    assert len(change_speed(SPEECH, 1.25)) == pytest.approx(len(SPEECH) / 1.25, abs=2)
    tone = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000).astype(np.float32)
    faster = change_speed(tone, 1.1)
    assert np.argmax(np.abs(np.fft.rfft(faster))) * 16_000 / len(faster) == pytest.approx(1100, abs=3)
    assert np.max(np.abs(change_gain(tone, 40))) < 0.991
    np.testing.assert_allclose(change_gain(tone, -20), tone / 10, atol=1e-6)
    noise = coloured_noise(16_000, 0.0, np.random.default_rng(0))
    assert band_power(limit_band(noise, 300, 3400), 5000, 8000) < 0.01 * band_power(noise, 5000, 8000)


@pytest.mark.parametrize("name", sorted(CODECS))
def test_codecs_keep_length_and_place_and_lose_something(name: str) -> None:
    heard = through_codec(SPEECH, name)
    assert heard.shape == SPEECH.shape
    assert heard.dtype == np.float32
    lags = np.fft.irfft(np.fft.rfft(heard, 1 << 17) * np.conj(np.fft.rfft(SPEECH, 1 << 17)))
    lag_samples = int(np.argmax(lags))
    assert min(lag_samples, (1 << 17) - lag_samples) < 80  # 5 ms
    assert not np.allclose(heard, SPEECH, atol=1e-4)
    if CODECS[name].rate_hz == 8000:
        assert band_power(heard, 4200, 8000) < 1e-3 * band_power(SPEECH, 4200, 8000)


@pytest.mark.parametrize("n_samples", [1, 15, 160, 1601])
def test_codecs_take_the_shortest_clips(n_samples: int) -> None:
    for name in CODECS:
        assert len(through_codec(SPEECH[5000 : 5000 + n_samples], name)) == n_samples
