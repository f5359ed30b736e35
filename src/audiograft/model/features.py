"""Log-mel features of one chunk, with Whisper's own extractor."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from transformers import WhisperFeatureExtractor

from audiograft.model.lengths import mel_frames
from audiograft.types import HOP_SAMPLES, SAMPLE_RATE_HZ, WINDOW_SAMPLES

_TAIL_SAMPLES = 3 * HOP_SAMPLES
"""Zeros behind the clip: more than half an STFT window (200 samples), so that the last frame sees silence and not a reflection of the clip."""


def log_mel(extractor: WhisperFeatureExtractor, waveform: npt.NDArray[np.float32], pad_to_window: bool = False) -> npt.NDArray[np.float32]:
    """Features of a clip as if followed by silence, cut to its own length.

    The values are those that the stock extractor gives for the same clip padded to 30 s (the floor of its dynamic range is set by the loudest
    frame, which zeros never are), without computing 30 s. It also works for 1 to 200 samples, where the stock extractor fails.

    Args:
        extractor: 16 kHz, hop 160.
        waveform: (n_samples,), 1 to 480,000 samples.
        pad_to_window: keep all 3000 frames of the padded clip.

    Returns:
        (n_mels, frames).

    Raises:
        ValueError: an empty chunk or one of more than 30 s.
    """
    n_frames = mel_frames(len(waveform))
    padded_samples = WINDOW_SAMPLES if pad_to_window else n_frames * HOP_SAMPLES + _TAIL_SAMPLES
    padded = np.zeros(padded_samples, dtype=np.float32)
    padded[: len(waveform)] = waveform
    features = extractor(padded, sampling_rate=SAMPLE_RATE_HZ, padding="do_not_pad", truncation=False, return_tensors="np")
    mel: npt.NDArray[np.float32] = features["input_features"][0]
    return mel if pad_to_window else mel[:, :n_frames]
