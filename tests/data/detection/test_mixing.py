"""Sound and noise at a stated ratio; levels that tell nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiograft.data.detection.mixing import LEVEL_RANGE_DB, NOISES, PEAK, level_db, make_noise, mix, rms, set_level
from audiograft.types import DataError

talkers = [np.random.default_rng(seed).standard_normal(9000).astype(np.float32) for seed in range(3)]


def sound(seed: int, n_samples: int = 3200, scale: float = 0.1) -> np.ndarray:
    return (scale * np.random.default_rng(seed).standard_normal(n_samples)).astype(np.float32)


@given(st.integers(0, 999), st.sampled_from(NOISES), st.floats(-10, 30), st.integers(320, 16_000), st.floats(1e-4, 1))
def test_the_ratio_is_that_of_the_parts_over_the_whole_clip(seed, noise, target_db, n_samples, scale):
    clean = sound(seed, n_samples, scale)
    mixed = mix(clean, make_noise(noise, n_samples, talkers, np.random.default_rng(seed)), target_db)
    added = mixed.waveform.astype(np.float64) - clean
    assert 10 * np.log10(np.mean(clean.astype(np.float64) ** 2) / np.mean(added**2)) == pytest.approx(target_db, abs=0.05)
    assert mixed.snr_db == pytest.approx(target_db, abs=0.01)


@given(st.integers(0, 999), st.sampled_from(["rms-random", "peak", "none"]))
def test_a_gain_leaves_the_ratio_as_it_is(seed, normalisation):
    clip = sound(seed)
    scaled, gain_db, level = set_level(clip, normalisation, np.random.default_rng(seed))
    assert np.allclose(scaled, clip * 10 ** (gain_db / 20), rtol=1e-4, atol=1e-7)
    assert level == pytest.approx(level_db(scaled))


def test_the_peak_of_a_peak_normalised_clip_is_that_of_system_c():
    assert np.max(np.abs(set_level(sound(1), "peak", np.random.default_rng(0))[0])) == pytest.approx(PEAK, rel=1e-5)


@given(st.integers(0, 999), st.floats(1e-3, 30))
def test_a_random_level_is_in_its_range_whatever_the_peaks_are(seed, scale):
    """Clicks have crest factors of 30 dB and more: their peaks are limited, their RMS is not."""
    clip = sound(seed, scale=scale)
    clip[::1600] *= 400
    scaled, _, level = set_level(clip, "rms-random", np.random.default_rng(seed))
    assert np.max(np.abs(scaled)) <= 1
    assert LEVEL_RANGE_DB[0] - 0.1 <= level <= LEVEL_RANGE_DB[1] + 0.1


def test_levels_of_speech_and_clicks_have_one_distribution():
    smooth, spiky = sound(1), sound(2)
    spiky[::800] *= 100
    levels = [[set_level(clip, "rms-random", np.random.default_rng(seed))[2] for seed in range(300)] for clip in (smooth, spiky)]
    assert np.allclose(*levels, atol=0.2)


def test_noises_are_as_loud_as_each_other_and_are_not_the_same():
    noises = [make_noise(name, 16_000, talkers, np.random.default_rng(0)) for name in NOISES]
    assert [rms(noise) for noise in noises] == pytest.approx([1.0] * len(NOISES), rel=1e-3)
    low_share = [np.sum(np.abs(np.fft.rfft(noise))[:500] ** 2) / np.sum(np.abs(np.fft.rfft(noise)) ** 2) for noise in noises[:3]]
    assert low_share[0] < low_share[1] < low_share[2]


@pytest.mark.parametrize(("silent", "named"), [(0, "sound"), (1, "noise")])
def test_silence_has_no_ratio(silent, named):
    parts = [sound(0), sound(1)]
    parts[silent] = np.zeros(3200, np.float32)
    with pytest.raises(DataError, match=f"the {named} is silent"):
        mix(*parts, 5)
