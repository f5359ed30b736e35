"""Training examples -> one right-padded batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from audiograft.model import AudioGraftProcessor


class Collator:
    """Callable for a DataLoader.

    The batch has `input_ids`, `attention_mask` and `labels` (rows, positions); of all clips of all rows, one behind the other, `feature_lengths`
    (clips,) and `input_features` (clips, channels, frames) or, from cached features, `encoder_states` (clips, encoder frames, width), all of which
    a batch without clips lacks; of the pictures of all rows, what `AudioGraftProcessor.collate_vision` gives, such as `pixel_values`; besides, for
    the trainer and not for the model, `ids` and `audio_s`; `classes` (the label of each row, or None) where there are rows to be classified; and
    `lost` where there are rows of which nothing can be read any more.
    """

    def __init__(self, processor: AudioGraftProcessor) -> None:
        self.processor = processor

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        padded = self.processor.pad_tokens([item["input_ids"] for item in items], [item["labels"] for item in items])
        batch: dict[str, Any] = {
            **padded,
            **self.processor.collate_vision([item["vision"] for item in items], padded["input_ids"].shape[1], padding_side="right"),
            "ids": [item["id"] for item in items],
            "audio_s": sum(item["audio_s"] for item in items),
        }
        if any(classes := [item.get("label") for item in items]):
            batch["classes"] = classes
        if lost := [item["lost"] for item in items if "lost" in item]:
            batch["lost"] = lost
        lengths = [frames for item in items for frames in item["feature_frames"]]
        if not lengths:
            return batch
        if "features" in next(item for item in items if item["feature_frames"]):
            return batch | self.processor.pad_features([clip for item in items for clip in item["features"]])
        states = [clip.float() for item in items for clip in item["states"]]
        return batch | {"encoder_states": pad_sequence(states, batch_first=True), "feature_lengths": torch.tensor(lengths)}
