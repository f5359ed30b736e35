"""Fusion: audio embeddings into the places of their placeholders. Fails loudly where the counts differ."""

from __future__ import annotations

import torch
from torch import Tensor


def fuse(inputs_embeds: Tensor, is_audio: Tensor, audio_embeds: Tensor) -> Tensor:
    """Overwrite the embeddings at audio positions.

    Args:
        inputs_embeds: (batch, positions, width) text embeddings.
        is_audio: (batch, positions) True at placeholders.
        audio_embeds: (audio tokens, width) of all clips one behind the other, in order of their placeholders.

    Returns:
        (batch, positions, width).

    Raises:
        ValueError: as many placeholders as audio embeddings are needed; the message has both counts.
    """
    placeholders = int(is_audio.sum())
    if placeholders != len(audio_embeds):
        raise ValueError(
            f"{placeholders} audio placeholders in the prompt but {len(audio_embeds)} audio embeddings from the clips: "
            "use AudioGraftProcessor for both, with this model's frame_stack"
        )
    return inputs_embeds.masked_scatter(is_audio[..., None], audio_embeds.to(inputs_embeds.dtype))


def concatenate_real(tokens: Tensor, lengths: Tensor) -> Tensor:
    """(clips, longest, width) and (clips,) -> (sum of lengths, width): the clips one behind the other without their pads."""
    real = torch.arange(tokens.shape[1], device=tokens.device) < lengths.to(tokens.device)[:, None]
    return tokens[real]
