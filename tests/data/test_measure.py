"""Levels, clipping and silence of clips that are known to the sample; and the cliff of what was upsampled, which true recordings don't have."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given
from hypothesis import strategies as st

from audiograft.audio import load_audio
from audiograft.data.measure import measure

ROOT = Path(__file__).resolve().parents[2]
VOICES = sorted([*(ROOT / "examples").glob("*.wav"), *(ROOT / "tests/data/clips/audio").glob("*.wav")])
TELEPHONE = {"000013.wav"}
"""Spoken by flite's kal, which is a voice of 8 kHz, and so the one clip that is rightly suspected."""


def noise(n_samples: int = 48_000, scale: float = 0.1) -> np.ndarray:
    return np.random.default_rng(0).normal(0, scale, n_samples).astype(np.float32)


def sixteen_bit(waveform: np.ndarray) -> np.ndarray:
    return (np.clip(np.round(waveform * 32768), -32768, 32767) / 32768).astype(np.float32)


def test_a_square_wave_is_measured_exactly() -> None:
    got = measure(np.tile(np.array([0.5, -0.5], np.float32), 8_000))
    assert (got.duration_s, got.peak, got.clipped_share, got.silent, got.native_rate_hz) == (1.0, 0.5, 0.0, False, 16_000.0)
    assert got.rms_dbfs == pytest.approx(-6.0206, abs=1e-3)


def test_the_duration_is_exact() -> None:
    assert measure(np.zeros(12_345, np.float32)).duration_s == 12_345 / 16_000


def test_clipping_is_counted_on_both_sides_and_after_resampling() -> None:
    waveform = noise(10_000)
    waveform[:300], waveform[300:500] = 1.0, -1.0
    assert measure(waveform).clipped_share == pytest.approx(0.05)
    voice = load_audio(VOICES[0]).waveform
    loud = np.clip(20 * soxr.resample(voice, 16_000, 44_100), -1, 1)
    clip = load_audio((loud, 44_100))
    assert measure(clip.waveform, clip.native_rate_hz).clipped_share > 0.5 * np.mean(np.abs(loud) == 1)
    assert measure(0.9 * voice / np.abs(voice).max()).clipped_share == 0


@given(st.floats(-1, 1, width=32), st.integers(1, 30_000))
def test_any_clip_can_be_measured(value: float, n_samples: int) -> None:
    got = measure(np.full(n_samples, value, np.float32))
    assert got.peak == abs(value)
    assert -120 <= got.rms_dbfs <= 0.001
    assert got.silent == (abs(value) < 2**-16)
    assert not got.upsampled


@pytest.mark.parametrize("voice", VOICES, ids=lambda path: path.name)
def test_true_voices_are_not_suspected_and_the_same_voices_by_way_of_8_khz_are(voice: Path) -> None:
    waveform = load_audio(voice).waveform
    assert measure(waveform).upsampled == (voice.name in TELEPHONE)
    for rate_hz in (8_000, 11_025):
        for quality in ("VHQ", "HQ", "LQ"):
            there_and_back = sixteen_bit(soxr.resample(soxr.resample(waveform, 16_000, rate_hz, quality), rate_hz, 16_000, quality))
            got = measure(there_and_back)
            true_hz = min(rate_hz, 8_000) / 2 if voice.name in TELEPHONE else rate_hz / 2
            assert got.upsampled
            assert 0.75 * true_hz < got.bandwidth_hz < 1.01 * true_hz


@pytest.mark.parametrize("gain", [1e-3, 0.05, 1.0])
def test_noise_to_the_end_of_the_band_has_no_cliff_at_any_level(gain: float) -> None:
    assert measure(sixteen_bit(gain * noise())).bandwidth_hz == 8_000


def test_a_voice_that_falls_slowly_has_no_cliff() -> None:
    """Speech of little bandwidth: 12 dB an octave from 500 Hz on, and another 12 from 2 kHz on."""
    spectrum = np.fft.rfft(noise())
    frequency_hz = np.fft.rfftfreq(48_000, 1 / 16_000)
    spectrum /= (1 + (frequency_hz / 500) ** 2) * (1 + (frequency_hz / 2_000) ** 2)
    assert measure(sixteen_bit(np.fft.irfft(spectrum).astype(np.float32))).bandwidth_hz == 8_000


def test_an_honest_8_khz_file_is_not_suspected_and_a_16_khz_file_of_the_same_is(tmp_path: Path) -> None:
    narrow = soxr.resample(load_audio(VOICES[0]).waveform, 16_000, 8_000)
    soundfile.write(tmp_path / "8.wav", narrow, 8_000)
    soundfile.write(tmp_path / "16.wav", soxr.resample(narrow, 8_000, 16_000), 16_000)
    soundfile.write(tmp_path / "48.wav", soxr.resample(narrow, 8_000, 48_000), 48_000)
    clips = {name: load_audio(tmp_path / f"{name}.wav") for name in ("8", "16", "48")}
    measured = {name: measure(clip.waveform, clip.native_rate_hz) for name, clip in clips.items()}
    assert {name: got.upsampled for name, got in measured.items()} == {"8": False, "16": True, "48": True}
    assert [got.native_rate_hz for got in measured.values()] == [8_000, 16_000, 48_000]


def test_a_hum_and_a_short_click_are_not_suspected() -> None:
    hum = np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000).astype(np.float32)
    assert not measure(hum).upsampled
    assert measure(noise(1_000)).bandwidth_hz == 8_000


def test_ten_seconds_take_milliseconds() -> None:
    clip, times = noise(160_000), []
    for _ in range(10):
        start = time.perf_counter()
        measure(clip)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.010  # 1.4 ms on a quiet core
