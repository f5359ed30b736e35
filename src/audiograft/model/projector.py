"""Projectors: encoder frames -> audio tokens in the language model's embedding space.

Legend: C clips, E encoder frames, k frame_stack, T = ceil(E / k) audio tokens, d encoder width, h projector width, D language-model width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from audiograft.model.configuration import AudioGraftConfig

_NORM_EPS = 1e-6


def stack_frames(states: Tensor, k: int) -> Tensor:
    """(C, E, d) -> (C, T, k * d): k neighbouring frames side by side, the last token filled up with zeros."""
    states = nn.functional.pad(states, (0, 0, 0, -states.shape[1] % k))
    stacked: Tensor = states.reshape(states.shape[0], -1, k * states.shape[2])
    return stacked


def pool_frames(states: Tensor, real: Tensor, k: int) -> Tensor:
    """(C, E, d) -> (C, T, d): mean of the real ones among k neighbouring frames; equals AvgPool1d(k) where all are real."""
    weight = real.to(states.dtype)[..., None]
    grouped = stack_frames(states * weight, k).unflatten(-1, (k, -1)).sum(2)
    count = stack_frames(weight, k).sum(-1, keepdim=True)
    pooled: Tensor = grouped / count.clamp(min=1)
    return pooled


class Projector(nn.Module, ABC):
    """Base of all projectors.

    Attributes:
        pools: mean pooling instead of stacking; the tower's last LayerNorm is then applied after it, as Qwen2-Audio and Audio Flamingo 3 do.
    """

    pools = False

    def __init__(self, config: AudioGraftConfig) -> None:
        super().__init__()
        self.frame_stack = config.frame_stack
        self.input_size = config.audio_config.hidden_size * (1 if self.pools else config.frame_stack)
        self.output_size: int = config.get_text_config().hidden_size

    @property
    @abstractmethod
    def last(self) -> nn.Linear | nn.LayerNorm:
        """The layer whose scale sets the output's RMS."""


class SwiGLUProjector(Projector):
    """RMSNorm -> linear_1 -> SwiGLU (the second half is the gate) -> RMSNorm -> linear_2, no biases: Ultravox's topology (ln_mid)."""

    def __init__(self, config: AudioGraftConfig) -> None:
        super().__init__(config)
        h = config.projector_hidden_size
        self.ln_pre = nn.RMSNorm(self.input_size, eps=_NORM_EPS)
        self.linear_1 = nn.Linear(self.input_size, h, bias=False)
        self.ln_mid = nn.RMSNorm(h // 2, eps=_NORM_EPS)
        self.linear_2 = nn.Linear(h // 2, self.output_size, bias=False)

    @property
    def last(self) -> nn.Linear:
        return self.linear_2

    def forward(self, tokens: Tensor) -> Tensor:
        """(C, T, k * d) -> (C, T, D)."""
        value, gate = self.linear_1(self.ln_pre(tokens)).chunk(2, dim=-1)  # (C, T, h / 2) each
        projected: Tensor = self.linear_2(self.ln_mid(nn.functional.silu(gate) * value))
        return projected


class LinearProjector(Projector):
    """One Linear without bias (system A)."""

    def __init__(self, config: AudioGraftConfig) -> None:
        super().__init__(config)
        self.linear = nn.Linear(self.input_size, self.output_size, bias=False)

    @property
    def last(self) -> nn.Linear:
        return self.linear

    def forward(self, tokens: Tensor) -> Tensor:
        """(C, T, k * d) -> (C, T, D)."""
        projected: Tensor = self.linear(tokens)
        return projected


class MLPProjector(Projector):
    """Linear -> GELU -> Linear -> LayerNorm, with the mean of input and output width between (system B)."""

    def __init__(self, config: AudioGraftConfig) -> None:
        super().__init__(config)
        middle = (self.input_size + self.output_size) // 2
        self.linear_1 = nn.Linear(self.input_size, middle)
        self.linear_2 = nn.Linear(middle, self.output_size)
        self.layer_norm = nn.LayerNorm(self.output_size)

    @property
    def last(self) -> nn.LayerNorm:
        return self.layer_norm

    def forward(self, tokens: Tensor) -> Tensor:
        """(C, T, k * d) -> (C, T, D)."""
        projected: Tensor = self.layer_norm(self.linear_2(nn.functional.gelu(self.linear_1(tokens))))
        return projected


class PoolMLPProjector(Projector):
    """Mean pooling, then Linear -> GELU -> Linear (Audio Flamingo 3)."""

    pools = True

    def __init__(self, config: AudioGraftConfig) -> None:
        super().__init__(config)
        self.linear_1 = nn.Linear(self.input_size, config.projector_hidden_size)
        self.linear_2 = nn.Linear(config.projector_hidden_size, self.output_size)

    @property
    def last(self) -> nn.Linear:
        return self.linear_2

    def forward(self, tokens: Tensor) -> Tensor:
        """(C, T, d) -> (C, T, D)."""
        projected: Tensor = self.linear_2(nn.functional.gelu(self.linear_1(tokens)))
        return projected


class PoolLinearProjector(LinearProjector):
    """Mean pooling, then one Linear with bias (Qwen2-Audio)."""

    pools = True

    def __init__(self, config: AudioGraftConfig) -> None:
        super().__init__(config)
        self.linear = nn.Linear(self.input_size, self.output_size)


_CLASSES: dict[str, type[Projector]] = {
    "swiglu": SwiGLUProjector,
    "linear": LinearProjector,
    "mlp": MLPProjector,
    "pool-mlp": PoolMLPProjector,
    "pool-linear": PoolLinearProjector,
}


def build_projector(config: AudioGraftConfig) -> Projector:
    """The projector that a configuration names, with PyTorch's default initialisation."""
    return _CLASSES[config.projector_type](config)


@torch.no_grad()
def match_output_rms(projector: Projector, output_norm: nn.LayerNorm, target_rms: float, seed: int = 0) -> None:
    """Scale the last layer so that the projector's output has the RMS of the language model's embeddings.

    A projector whose output is far louder or softer than text embeddings makes the first hundreds of steps an undoing of that. The scale is found on
    Gaussian frames with the mean and spread that the tower's last LayerNorm gives.

    Args:
        projector: changed in place.
        output_norm: the tower's last LayerNorm.
        target_rms: root mean square of the embedding table's entries.
        seed: of the Gaussian frames.
    """
    generator = torch.Generator().manual_seed(seed)
    weight, bias = output_norm.weight.float().cpu(), output_norm.bias.float().cpu()
    frames = torch.randn(1, 64 * projector.frame_stack, weight.shape[0], generator=generator) * weight + bias
    k = projector.frame_stack
    tokens = pool_frames(frames, torch.ones(frames.shape[:2]), k) if projector.pools else stack_frames(frames, k)
    output = projector(tokens.to(projector.last.weight)).float()
    scale = target_rms / float(output.pow(2).mean().sqrt())
    projector.last.weight.mul_(scale)
    if projector.last.bias is not None:
        projector.last.bias.mul_(scale)
