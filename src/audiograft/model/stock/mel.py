"""Log-mel spectrograms of a batch of waveforms, computed on the device where the model is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

from audiograft.types import HOP_SAMPLES, SAMPLE_RATE_HZ, WINDOW_FRAMES, WINDOW_SAMPLES, ConfigError

_FLOOR = 1e-10
"""Power below which all is silence."""


@dataclass(frozen=True)
class MelSpec:
    """A spectrogram with a hop of 160 samples at 16 kHz.

    Attributes:
        n_fft: length of the Fourier transform in samples.
        window_samples: length of the Hann window.
        n_mels: mel bins.
        scale: "slaney" as Whisper's extractor has it (bands of equal area), "htk" as torchaudio has it (bands of equal height).
    """

    n_fft: int
    window_samples: int
    n_mels: int
    scale: Literal["slaney", "htk"]

    @classmethod
    def read(cls, preprocessor: dict[str, Any], scale: Literal["slaney", "htk"]) -> MelSpec:
        """From the content of preprocessor_config.json.

        Raises:
            ConfigError: another sampling rate or hop, or no number of mel bins.
        """
        values = {**preprocessor, **preprocessor.get("melspec_kwargs", {})}
        for key, needed in (("sampling_rate", SAMPLE_RATE_HZ), ("hop_length", HOP_SAMPLES)):
            if values.get(key, needed) != needed:
                raise ConfigError(f"preprocessor_config.json: {key} is {values[key]}, only {needed} is supported: use the model's own file")
        n_fft = values.get("n_fft", 512 if scale == "htk" else 400)
        n_mels = values.get("n_mels", values.get("feature_size"))
        if n_mels is None:
            raise ConfigError("preprocessor_config.json: feature_size is missing: use the model's own file")
        return cls(n_fft, values.get("win_length", 400), n_mels, scale)


@lru_cache(maxsize=8)
def _filters(spec: MelSpec, device: torch.device) -> tuple[Tensor, Tensor]:
    """(n_mels, frequencies) filters and the (window_samples,) window."""
    norm = "slaney" if spec.scale == "slaney" else None
    filters = mel_filter_bank(1 + spec.n_fft // 2, spec.n_mels, 0.0, SAMPLE_RATE_HZ / 2, SAMPLE_RATE_HZ, norm=norm, mel_scale=spec.scale)
    return torch.from_numpy(filters).to(device, torch.float32).T, torch.hann_window(spec.window_samples, device=device)


def _power(waveforms: Tensor, spec: MelSpec) -> Tensor:
    """(clips, samples) -> (clips, n_mels, 1 + samples // 160) mel power, in float32 whatever is computed around it."""
    filters, window = _filters(spec, waveforms.device)
    with torch.autocast(waveforms.device.type, enabled=False):
        spectrum = torch.stft(waveforms.float(), spec.n_fft, HOP_SAMPLES, spec.window_samples, window=window, return_complex=True)
        return filters @ (spectrum.abs() ** 2)


def _compress(power: Tensor) -> Tensor:
    """Whisper's scale: logarithm, 8 decades below the loudest of the clip, about -1 to 1."""
    log = torch.clamp(power, min=_FLOOR).log10()
    return (torch.maximum(log, log.amax(dim=(1, 2), keepdim=True) - 8.0) + 4.0) / 4.0


def window_log_mel(waveforms: Tensor, spec: MelSpec) -> Tensor:
    """What Whisper's stock extractor gives for clips padded to 30 s. Silence behind the longest clip is filled in, not computed.

    Args:
        waveforms: (clips, samples), zero behind each clip's end, at most 480,000 samples.
        spec: of Whisper's kind.

    Returns:
        (clips, n_mels, 3000).
    """
    # Zeros for one transform behind the clip, so that what the transform reflects at the end is silence too.
    samples = min(waveforms.shape[1] + spec.n_fft + HOP_SAMPLES, WINDOW_SAMPLES)
    power = _power(torch.nn.functional.pad(waveforms, (0, samples - waveforms.shape[1])), spec)[..., :-1]
    return _compress(torch.nn.functional.pad(power, (0, WINDOW_FRAMES - power.shape[-1]), value=_FLOOR))


def stacked_log_mel(waveforms: Tensor, spec: MelSpec) -> Tensor:
    """What Granite Speech's stock extractor gives: two mel frames side by side, an odd last one left out.

    Args:
        waveforms: (clips, samples) of clips of one length, more than n_fft / 2.
        spec: of torchaudio's kind.

    Returns:
        (clips, frames of 20 ms, 2 * n_mels).
    """
    mel = _compress(_power(waveforms, spec)).transpose(1, 2)
    even = mel.shape[1] // 2 * 2
    return mel[:, :even].reshape(len(mel), even // 2, -1)
