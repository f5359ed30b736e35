"""Rows -> training examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.utils.data import Dataset

from audiograft.model import AudioGraftProcessor
from audiograft.train.feature_cache import FeatureCache
from audiograft.train.rows import Row, Waveform, load_waveform, tokens
from audiograft.types import SAMPLE_RATE_HZ


def example(row: Row, waveform: Waveform, padded: bool, processor: AudioGraftProcessor) -> dict[str, Any]:
    """A row's text with a waveform: its own in training, another clip's or silence in the deafness check.

    Returns:
        `id`, `input_ids`, `labels`, `mel_frames`, `features` (n_mels, mel_frames) and `audio_s`, the waveform's length in seconds.
    """
    features = processor.log_mel(waveform, pad_to_window=padded)
    return tokens(row, features.shape[1], processor) | {"features": features, "audio_s": len(waveform) / SAMPLE_RATE_HZ}


class SpeechDataset(Dataset[dict[str, Any]]):
    """Training examples by row number: those of `example`, or from a cache, with `states` (encoder frames, d_model) and no `features`."""

    def __init__(self, rows: Sequence[Row], processor: AudioGraftProcessor, cache: FeatureCache | None = None) -> None:
        self.rows = rows
        self.processor = processor
        self.cache = cache

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        if self.cache is None:
            return example(row, load_waveform(row), row.padded, self.processor)
        return tokens(row, row.mel_frames, self.processor) | {"states": self.cache.states(index), "audio_s": row.duration_s}
