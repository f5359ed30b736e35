"""Training examples -> one right-padded batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from audiograft.model import AudioGraftProcessor
from audiograft.model.modeling import IGNORE_INDEX


def _pad(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)


class Collator:
    """Callable for a DataLoader.

    The batch has `input_ids`, `attention_mask`, `labels` (rows, positions), `feature_lengths` (rows,), and `input_features`
    (rows, n_mels, frames) or, from cached features, `encoder_states` (rows, encoder frames, d_model); besides, for the trainer
    and not for the model, `ids` and `audio_s`.
    """

    def __init__(self, processor: AudioGraftProcessor) -> None:
        self.processor = processor

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        # Where a tokenizer has no pad token, any id will do: attention masks it and it carries no label.
        batch: dict[str, Any] = {
            "input_ids": _pad([item["input_ids"] for item in items], self.processor.tokenizer.pad_token_id or 0),
            "attention_mask": _pad([[1] * len(item["input_ids"]) for item in items], 0),
            "labels": _pad([item["labels"] for item in items], IGNORE_INDEX),
            "ids": [item["id"] for item in items],
            "audio_s": sum(item["audio_s"] for item in items),
        }
        if "features" in items[0]:
            return batch | self.processor.pad_features([item["features"] for item in items])
        states = [torch.from_numpy(item["states"]).float() for item in items]
        lengths = torch.tensor([item["mel_frames"] for item in items])
        return batch | {"encoder_states": pad_sequence(states, batch_first=True), "feature_lengths": lengths}
