"""Chunks lose nothing, fit the window, and are cut in pauses."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiograft.inference.chunking import split_into_chunks
from audiograft.types import SAMPLE_RATE_HZ, WINDOW_SAMPLES


def speech_like(n_samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, n_samples).astype(np.float32)


@given(n_samples=st.integers(0, 60_000), max_samples=st.integers(1, 20_000), seed=st.integers(0, 9), quiet_share=st.floats(0, 1))
def test_chunks_join_to_the_waveform_and_none_is_empty_or_too_long(n_samples: int, max_samples: int, seed: int, quiet_share: float) -> None:
    max_samples = max(max_samples, n_samples // 500)  # keeps the number of chunks, and the test, small
    waveform = speech_like(n_samples, seed)
    waveform[np.repeat(np.random.default_rng(seed).random(n_samples // 1000 + 1) < quiet_share, 1000)[:n_samples]] = 0
    chunks = split_into_chunks(waveform, max_samples)
    np.testing.assert_array_equal(np.concatenate([np.empty(0, np.float32), *(chunk.waveform for chunk in chunks)]), waveform)
    assert all(1 <= len(chunk.waveform) <= max_samples for chunk in chunks)
    lengths = [len(chunk.waveform) for chunk in chunks]
    assert [chunk.start_sample for chunk in chunks] == np.cumsum([0, *lengths])[:-1].tolist()


def test_a_clip_of_exactly_one_window_is_one_chunk() -> None:
    assert len(split_into_chunks(np.zeros(WINDOW_SAMPLES, np.float32))) == 1
    assert len(split_into_chunks(np.zeros(WINDOW_SAMPLES + 1, np.float32))) == 2


@pytest.mark.parametrize("pause_s", [20.5, 24.0, 29.5])
def test_the_cut_is_in_the_pause_of_the_last_third(pause_s: float) -> None:
    waveform = speech_like(45 * SAMPLE_RATE_HZ)
    start = round(pause_s * SAMPLE_RATE_HZ)
    waveform[start : start + 3200] *= 0.01
    assert start <= split_into_chunks(waveform)[1].start_sample <= start + 3200


def test_the_cut_is_in_the_centre_of_a_short_pause() -> None:
    waveform = speech_like(45 * SAMPLE_RATE_HZ)
    centre = 25 * SAMPLE_RATE_HZ
    waveform[centre - 800 : centre + 800] = 0
    assert abs(split_into_chunks(waveform)[1].start_sample - centre) <= 320


def test_the_quietest_of_two_pauses_wins() -> None:
    waveform = speech_like(45 * SAMPLE_RATE_HZ)
    waveform[22 * SAMPLE_RATE_HZ :][:1600] *= 0.01
    waveform[28 * SAMPLE_RATE_HZ :][:1600] *= 0.1
    assert split_into_chunks(waveform)[1].start_sample == pytest.approx(22 * SAMPLE_RATE_HZ + 800, abs=320)


def test_a_gap_of_20_ms_inside_a_word_is_no_pause() -> None:
    waveform = speech_like(45 * SAMPLE_RATE_HZ)
    waveform[25 * SAMPLE_RATE_HZ :][:320] = 0
    assert split_into_chunks(waveform)[1].start_sample == WINDOW_SAMPLES


def test_a_pause_before_the_last_third_is_not_used() -> None:
    waveform = speech_like(45 * SAMPLE_RATE_HZ)
    waveform[10 * SAMPLE_RATE_HZ : 12 * SAMPLE_RATE_HZ] = 0
    assert split_into_chunks(waveform)[1].start_sample == WINDOW_SAMPLES


@pytest.mark.parametrize("level", [0.0, 0.3])
def test_equally_loud_audio_is_cut_at_the_windows_end(level: float) -> None:
    waveform = np.full(70 * SAMPLE_RATE_HZ, level, np.float32)
    assert [chunk.start_sample for chunk in split_into_chunks(waveform)] == [0, WINDOW_SAMPLES, 2 * WINDOW_SAMPLES]


def test_three_hours_are_cut_quickly_into_views() -> None:
    waveform = np.zeros(3 * 3600 * SAMPLE_RATE_HZ, np.float32)
    started_s = time.perf_counter()
    chunks = split_into_chunks(waveform)
    assert time.perf_counter() - started_s < 10
    assert len(chunks) == 360
    assert all(chunk.waveform.base is waveform for chunk in chunks)


def test_a_window_of_no_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="max_samples"):
        split_into_chunks(np.zeros(3, np.float32), 0)
