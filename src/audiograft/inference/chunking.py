"""Cut a long clip into windows at its quietest places, so that a cut falls between words where it can."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from audiograft.types import SAMPLE_RATE_HZ, WINDOW_SAMPLES

_FRAME_SAMPLES = SAMPLE_RATE_HZ // 50
"""Loudness is measured in frames of 20 ms."""
_PAUSE_FRAMES = 5
"""A pause is a stretch of 100 ms: shorter ones lie inside words, at stops such as p and t."""
_PAUSE_DB = 3.0
"""How far below the mean a stretch must be to count as a pause."""


@dataclass(frozen=True)
class Chunk:
    """A part of a clip.

    Attributes:
        start_sample: where it begins in the clip.
        waveform: float32 (n_samples,), a view into the clip.
    """

    start_sample: int
    waveform: npt.NDArray[np.float32]


def split_into_chunks(waveform: npt.NDArray[np.float32], max_samples: int = WINDOW_SAMPLES) -> list[Chunk]:
    """Split (n_samples,) into chunks of at most `max_samples`; joined together they are the waveform, sample for sample.

    Each cut is in the middle of the quietest 100 ms of the window's last third, or at the window's end where nothing there is a pause. A
    clip that fits is one chunk; a clip without samples has none.

    Raises:
        ValueError: `max_samples` is below 1.
    """
    if max_samples < 1:
        raise ValueError(f"max_samples must be 1 or more, not {max_samples}")
    chunks = []
    start = 0
    while start < len(waveform):
        window = waveform[start : start + max_samples]
        cut = _find_cut(window) if start + max_samples < len(waveform) else len(window)
        chunks.append(Chunk(start, window[:cut]))
        start += cut
    return chunks


def _find_cut(window: npt.NDArray[np.float32]) -> int:
    """Where to end a chunk, in samples from the start of the window: 1 to its length."""
    search_start = len(window) * 2 // 3
    n_frames = (len(window) - search_start) // _FRAME_SAMPLES
    if n_frames < _PAUSE_FRAMES:
        return len(window)
    frames = window[search_start : search_start + n_frames * _FRAME_SAMPLES].reshape(n_frames, _FRAME_SAMPLES)
    power = np.convolve(np.mean(frames.astype(np.float64) ** 2, axis=1), np.full(_PAUSE_FRAMES, 1 / _PAUSE_FRAMES), mode="valid")
    if power.min() >= power.mean() * 10 ** (-_PAUSE_DB / 10):
        return len(window)
    quietest = len(power) - 1 - int(np.argmin(power[::-1]))  # the last of equals, for longer chunks
    return search_start + quietest * _FRAME_SAMPLES + _PAUSE_FRAMES * _FRAME_SAMPLES // 2
