"""Audio towers: the encoders that can be grafted, behind one interface, with their stock weights and names.

A tower is a stock model of transformers with a forward pass of its own, `tower(input_features, feature_lengths, final_norm)`, that gives
(clips, encoder frames, width) and in which pads change nothing. Besides that it has

- `convolutions`: those at its entrance, by which `audiograft.model.lengths` counts its frames,
- `channels`: rows of `input_features`,
- `width`: of what it returns,
- `output_norm`: the LayerNorm that its states left last, from which the scale of a new projector follows,
- `norm_pooled`: what is left to do where the projector pools before the last LayerNorm.

Masking augmentation and layer drop of the raw-waveform models never fire: `configuration.tower_config` turns them off.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import HubertModel, Wav2Vec2BertModel, Wav2Vec2Model, WavLMModel
from transformers.models.wavlm.modeling_wavlm import WavLMAttention

from audiograft.model.audio_tower import AudioTower
from audiograft.model.configuration import tower_config
from audiograft.model.lengths import Convolution, encoder_frames


class _SpeechTower(nn.Module):
    """What the towers without a deferred LayerNorm share. Comes before the stock class, which brings the modules."""

    config: Any
    encoder: Any
    feature_projection: Any

    def __init__(self, config: Any) -> None:
        super().__init__(tower_config(config))

    @property
    def width(self) -> int:
        """Of what `forward` returns."""
        width: int = self.config.hidden_size
        return width

    @property
    def output_norm(self) -> nn.LayerNorm:
        """The LayerNorm that the states left last."""
        layers = self.encoder.layers
        norm: nn.LayerNorm = self.encoder.layer_norm if getattr(self.config, "do_stable_layer_norm", False) else layers[-1].final_layer_norm
        return norm

    def norm_pooled(self, states: Tensor) -> Tensor:
        """The states: (..., width); `forward` has normalised them already."""
        return states

    def _encode(self, frames: Tensor, real: Tensor | None) -> Tensor:
        """(clips, frames, features) -> (clips, frames, width); `real` (clips, frames) is False at pads, None where there are none."""
        projected = self.feature_projection(frames)
        # All but HuBERT return what went into the projection too.
        hidden = projected[0] if isinstance(projected, tuple) else projected
        states: Tensor = self.encoder(hidden, attention_mask=real).last_hidden_state
        return states


def _real_frames(lengths: Tensor, frames: int, device: torch.device) -> Tensor | None:
    """(clips, frames), False at pads; None where there are none."""
    real = torch.arange(frames) < lengths.cpu()[:, None]
    return None if bool(real.all()) else real.to(device)


class WaveformTower(_SpeechTower):
    """Encoders of raw waveforms: convolutions, then a transformer.

    The convolutions have no padding, so no real frame reads behind its clip's end. Where the first one's norm runs over time
    (`feat_extract_norm: group`), it is given each clip by itself. The positional convolution reads zeros behind a clip's end, as it does for a
    single clip, and attention is masked.
    """

    channels = 1
    feature_extractor: Any

    @property
    def convolutions(self) -> tuple[Convolution, ...]:
        """Those of the feature extractor, without padding."""
        return waveform_convolutions(self.config)

    def forward(self, input_features: Tensor, feature_lengths: Tensor | None = None, final_norm: bool = True, **kwargs: Any) -> Tensor:
        """Encode a batch of clips.

        Args:
            input_features: (clips, 1, samples), normalised as the model's feature extractor does.
            feature_lengths: (clips,) samples of each clip; None where all fill the batch.
            final_norm: there is none to leave out; `norm_pooled` knows.

        Returns:
            (clips, encoder frames, width). What stands at pads means nothing.
        """
        samples = input_features.shape[-1]
        lengths = None if feature_lengths is None or bool((feature_lengths == samples).all()) else feature_lengths
        first, *others = self.feature_extractor.conv_layers
        if lengths is None or self.config.feat_extract_norm != "group":
            hidden = first(input_features)
        else:
            alone = [first(clip[None, :, :length])[0].T for clip, length in zip(input_features, lengths.tolist(), strict=True)]
            hidden = pad_sequence(alone, batch_first=True).transpose(1, 2)
        for convolution in others:
            hidden = convolution(hidden)
        real = None
        if lengths is not None:
            frames = torch.tensor([encoder_frames(length, self.convolutions) for length in lengths.tolist()])
            real = _real_frames(frames, hidden.shape[-1], hidden.device)
        return self._encode(hidden.transpose(1, 2), real)


def waveform_convolutions(audio_config: Any) -> tuple[Convolution, ...]:
    """Kernels and strides of an encoder of raw waveforms."""
    return tuple(Convolution(kernel, stride) for kernel, stride in zip(audio_config.conv_kernel, audio_config.conv_stride, strict=True))


class _WavLMAttention(WavLMAttention):
    """WavLM's attention with pads masked in its bias of positions: stock WavLM hands PyTorch a boolean mask beside it, which is deprecated."""

    def torch_multi_head_self_attention(self, hidden_states: Any, attention_mask: Any, gated_position_bias: Any) -> Any:
        if attention_mask is not None:
            pads = ~attention_mask.repeat_interleave(self.num_heads, dim=0)[:, None, :]  # (clips * heads, 1, frames)
            gated_position_bias = gated_position_bias.masked_fill(pads, float("-inf"))
        return super().torch_multi_head_self_attention(hidden_states, None, gated_position_bias)  # type: ignore[arg-type]


class WavLMTower(WaveformTower, WavLMModel):
    """WavLM (Chen et al. 2021, arXiv:2110.13900)."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        for layer in self.encoder.layers:
            layer.attention.__class__ = _WavLMAttention


class HubertTower(WaveformTower, HubertModel):
    """HuBERT (Hsu et al. 2021, arXiv:2106.07447)."""


class Wav2Vec2Tower(WaveformTower, Wav2Vec2Model):
    """wav2vec 2.0 (Baevski et al. 2020, arXiv:2006.11477), also XLS-R and MMS."""


class Wav2Vec2BertTower(_SpeechTower, Wav2Vec2BertModel):
    """Wav2Vec2-BERT (Seamless Communication 2023, arXiv:2312.05187): two mel frames a step, no convolution at the entrance.

    Its convolution modules read backwards only, so that pads behind a clip never reach it.
    """

    convolutions: tuple[Convolution, ...] = ()

    @property
    def channels(self) -> int:
        """Rows of `input_features`."""
        channels: int = self.config.feature_projection_input_dim
        return channels

    def forward(self, input_features: Tensor, feature_lengths: Tensor | None = None, final_norm: bool = True, **kwargs: Any) -> Tensor:
        """Encode a batch of clips.

        Args:
            input_features: (clips, channels, frames) of 20 ms.
            feature_lengths: (clips,) frames of each clip; None where all fill the batch.
            final_norm: there is none to leave out; `norm_pooled` knows.

        Returns:
            (clips, frames, width). What stands at pads means nothing.
        """
        real = None if feature_lengths is None else _real_frames(feature_lengths, input_features.shape[-1], input_features.device)
        return self._encode(input_features.transpose(1, 2), real)


TOWERS: dict[str, type[nn.Module]] = {
    "whisper": AudioTower,
    "wavlm": WavLMTower,
    "hubert": HubertTower,
    "wav2vec2": Wav2Vec2Tower,
    "wav2vec2-bert": Wav2Vec2BertTower,
}
"""Tower of each encoder's `model_type`."""


def build_tower(audio_config: Any) -> Any:
    """The tower for an encoder's configuration, with random weights."""
    return TOWERS[audio_config.model_type](audio_config)
