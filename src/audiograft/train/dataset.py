"""Rows -> training examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from audiograft.data.augment.chain import Augmenter
from audiograft.inference.feature_cache import FeatureCache
from audiograft.model import AudioGraftProcessor
from audiograft.model.outputs import IGNORE_INDEX
from audiograft.train.batching import muted
from audiograft.train.pictures import NOTHING_SEEN, Pictures, changed_pictures, has_pictures, load_pictures
from audiograft.train.rows import Row, Waveform, load_clips, tokens
from audiograft.types import SAMPLE_RATE_HZ, DataError, ImageError, Rejection


def example(row: Row, clips: Sequence[Waveform], padded: bool, processor: AudioGraftProcessor, seen: Pictures = NOTHING_SEEN) -> dict[str, Any]:
    """A row's text with waveforms, its own or silence, and with its pictures.

    Returns:
        What `tokens` does, `features` (channels, feature_frames) of each clip, and `audio_s`, the clips' length in seconds.
    """
    features = [processor.features(clip, pad_to_window=padded) for clip in clips]
    audio_s = sum(map(len, clips)) / SAMPLE_RATE_HZ
    return tokens(row, [clip.shape[1] for clip in features], processor, seen) | {"features": features, "audio_s": audio_s}


def augmented_example(
    row: Row, clips: Sequence[Waveform], place: str, augmenter: Augmenter, processor: AudioGraftProcessor, seen: Pictures = NOTHING_SEEN
) -> dict[str, Any]:
    """A row's text with its clips as an augmenter leaves them.

    Args:
        row: of the training data.
        clips: its own.
        place: epoch and row; decides what is drawn.
        augmenter: what draws.
        processor: the model's.
        seen: its pictures, which stay as they are.

    Returns:
        What `example` does, and `augmentation`: what was done to each clip.
    """
    heard, done = augmenter.waveforms(clips, place)
    item = example(row, heard, row.padded, processor, seen)
    features = [augmenter.features(clip, f"{place}/{number}") for number, clip in enumerate(item["features"])]
    return item | {"features": features, "augmentation": done}


def silent_example(row: Row, error: DataError, processor: AudioGraftProcessor, seen: Pictures = NOTHING_SEEN) -> dict[str, Any]:
    """What stands in a batch for a row whose clips can't be read any more: as long, but silent, and nothing is learnt from it.

    So the batch keeps its shape and the run its order: where it is resumed after the clip was mended, all that comes is as it would have been.

    Returns:
        What `example` does, and `lost`: the row and the reason.
    """
    silence = [np.zeros(n_samples, np.float32) for n_samples in row.n_samples]
    return muted(example(row, silence, row.padded, processor, seen)) | {"lost": _lost(row, error)}


def blank_example(row: Row, error: DataError, processor: AudioGraftProcessor) -> dict[str, Any]:
    """What stands in a batch for a row whose pictures can't be read any more, or have another size: as many positions, without clips and pictures.

    What a picture of unknown size would become is not known, so that nothing but the length can be kept.

    Returns:
        What `silent_example` does, of no clips.
    """
    ids = [processor.tokenizer.pad_token_id or 0] * row.positions
    item: dict[str, Any] = {"id": row.sample.id, "input_ids": ids, "labels": [IGNORE_INDEX] * row.positions, "vision": {}, "label": row.label}
    return item | {"feature_frames": [], "features": [], "states": [], "audio_s": 0.0, "lost": _lost(row, error)}


def _lost(row: Row, error: DataError) -> Rejection:
    return Rejection(row.sample.id, row.sample.audio or row.sample.id, str(error), "lost")


class SpeechDataset(Dataset[dict[str, Any]]):
    """Training examples by row number: those of `example`, or from a cache, with `states` (encoder frames, width) of each clip and no `features`.

    Attributes:
        epoch: what is drawn for a row is drawn anew in each.
    """

    def __init__(
        self, rows: Sequence[Row], processor: AudioGraftProcessor, cache: FeatureCache | None = None, augmenter: Augmenter | None = None
    ) -> None:
        self.rows = rows
        self.processor = processor
        self.cache = cache
        self.augmenter = augmenter
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        try:
            seen = load_pictures(row.sample)
        except DataError as error:
            return self._blank(row, error)
        try:
            item = self._example(index, row, seen)
        except ImageError as error:  # the model's processor refuses some shapes
            return self._blank(row, changed_pictures(row.sample, f" ({error})"))
        if has_pictures(row.sample) and _positions(row, item, self.processor) != row.positions:
            return self._blank(row, changed_pictures(row.sample))
        return item

    def _blank(self, row: Row, error: DataError) -> dict[str, Any]:
        return blank_example(row, error, self.processor)

    def _example(self, index: int, row: Row, seen: Pictures) -> dict[str, Any]:
        """A row with its clips, or with silence where these are lost."""
        if self.cache is not None:
            return _cached_example(row, self.cache, self.processor, seen)
        try:
            clips = load_clips(row)
        except DataError as error:
            return silent_example(row, error, self.processor, seen)
        if self.augmenter is None:
            return example(row, clips, row.padded, self.processor, seen)
        return augmented_example(row, clips, self._place(index, row), self.augmenter, self.processor, seen)

    def _place(self, index: int, row: Row) -> str:
        # By weight, a row may come more than once in an epoch.
        return f"{self.epoch}/{index}/{row.sample.id}"


def _positions(row: Row, item: dict[str, Any], processor: AudioGraftProcessor) -> int:
    """Those of an example, had its clips the lengths that they had when the row was counted: augmentation changes them."""
    heard, counted = (sum(map(processor.front_end.audio_tokens, frames)) for frames in (item["feature_frames"], row.feature_frames))
    return len(item["input_ids"]) - heard + counted


def _cached_example(row: Row, cache: FeatureCache, processor: AudioGraftProcessor, seen: Pictures) -> dict[str, Any]:
    """A row with the `states` of its clips in place of `features`; of a row whose clips are lost, as `silent_example` does."""
    frames = [processor.front_end.encoder_frames(n_frames) for n_frames in row.feature_frames]
    item = tokens(row, row.feature_frames, processor, seen) | {"audio_s": row.duration_s}
    try:
        states = [cache.states(clip, row.padded) for clip in row.sample.clips]
        if list(map(len, states)) != frames:
            raise DataError(f"row {row.sample.id}: {row.sample.audio} has changed since the run began: start it again")
    except DataError as error:
        silence = [torch.zeros(n_frames, cache.width) for n_frames in frames]
        return muted(item | {"states": silence}) | {"lost": _lost(row, error)}
    return item | {"states": states}
