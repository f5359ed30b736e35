"""The audio tower: Whisper's encoder on clips of any length.

Stock `WhisperEncoder` takes exactly 3000 mel frames. `AudioTower` is that class, with its weights and names, and a forward pass of its own that
runs the layers on the real length. Pads inside a batch change nothing: they are zeroed after the first convolution (which would otherwise give
them its bias, and the second would mix that into the last real frame) and masked in attention.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from audiograft.model.lengths import WHISPER_CONVOLUTIONS


class AudioTower(WhisperEncoder):
    """Whisper's encoder for variable lengths. With 3000 frames and no pads it equals the stock encoder bit for bit."""

    convolutions = WHISPER_CONVOLUTIONS

    @property
    def width(self) -> int:
        """Of what `forward` returns."""
        width: int = self.config.d_model
        return width

    @property
    def channels(self) -> int:
        """Rows of `input_features`: mel bins."""
        channels: int = self.config.num_mel_bins
        return channels

    @property
    def output_norm(self) -> nn.LayerNorm:
        """The LayerNorm that the states left last."""
        norm: nn.LayerNorm = self.layer_norm
        return norm

    def norm_pooled(self, states: Tensor) -> Tensor:
        """The last LayerNorm, on pooled states: (..., width)."""
        normed: Tensor = self.layer_norm(states)
        return normed

    def forward(self, input_features: Tensor, feature_lengths: Tensor | None = None, final_norm: bool = True, **kwargs: Any) -> Tensor:
        """Encode a batch of clips.

        Args:
            input_features: (clips, n_mels, frames), zero behind each clip's end.
            feature_lengths: (clips,) mel frames of each clip; None where all fill the batch.
            final_norm: apply the last LayerNorm; projectors that pool do so after pooling.

        Returns:
            (clips, ceil(frames / 2), d_model). What stands at pads means nothing.

        Raises:
            ValueError: more frames than the encoder has positions for.
        """
        frames = input_features.shape[-1]
        positions = -(-frames // 2)
        if positions > self.max_source_positions:
            raise ValueError(f"{frames} mel frames are too many: the encoder takes {2 * self.max_source_positions} at most")
        hidden = nn.functional.gelu(self.conv1(input_features))
        attention_mask: Any = None
        if feature_lengths is not None and bool((feature_lengths < frames).any()):
            real = torch.arange(frames, device=hidden.device) < feature_lengths.to(hidden.device)[:, None]
            hidden = hidden * real[:, None, :].to(hidden.dtype)
            # Frame j of the second convolution is centred on frame 2j of the first.
            attention_mask = real[:, ::2]
        hidden = nn.functional.gelu(self.conv2(hidden)).permute(0, 2, 1)
        hidden = hidden + self.embed_positions(torch.arange(positions, device=hidden.device))
        hidden = nn.functional.dropout(hidden, p=self.dropout, training=self.training)
        if attention_mask is not None:
            attention_mask = create_bidirectional_mask(config=self.config, inputs_embeds=hidden, attention_mask=attention_mask)
        for layer in self.layers:
            hidden = layer(hidden, attention_mask)
        return self.layer_norm(hidden) if final_norm else hidden
