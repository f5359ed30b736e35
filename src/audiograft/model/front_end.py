"""Front ends: what turns a clip into an encoder's features and counts its lengths, one class per kind of encoder input."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2FeatureExtractor, WhisperFeatureExtractor

from audiograft.model.configuration import ENCODERS
from audiograft.model.features import log_mel
from audiograft.model.lengths import WHISPER_CONVOLUTIONS, Convolution, audio_tokens, check_samples, encoder_frames, mel_frames, receptive_field
from audiograft.types import HOP_SAMPLES, SAMPLE_RATE_HZ, WINDOW_FRAMES, ConfigError

Waveform = npt.NDArray[np.float32]
Features = npt.NDArray[np.float32]


class FrontEnd(ABC):
    """Features and lengths of clips of at most 30 s at 16 kHz. Features of a clip never depend on the others in its batch.

    Attributes:
        extractor: the encoder's own feature extractor.
        frame_stack: encoder frames in one audio token.
        convolutions: those at the encoder's entrance, by which frames are counted.
    """

    def __init__(self, extractor: Any, frame_stack: int, convolutions: Sequence[Convolution]) -> None:
        self.extractor = extractor
        self.frame_stack = frame_stack
        self.convolutions = convolutions

    @property
    @abstractmethod
    def channels(self) -> int:
        """Rows of `features`."""

    @abstractmethod
    def features(self, waveform: Waveform, pad_to_window: bool = False) -> Features:
        """(n_samples,) -> (channels, feature frames).

        Raises:
            ValueError: an empty chunk or one of more than 30 s.
            ConfigError: `pad_to_window`, and the encoder is not Whisper's.
        """

    @abstractmethod
    def feature_frames(self, n_samples: int, pad_to_window: bool = False) -> int:
        """Frames that `features` gives for so many samples, without computing them. Raises what `features` raises."""

    def encoder_frames(self, feature_frames: int) -> int:
        """Frames (20 ms) that leave the tower."""
        return encoder_frames(feature_frames, self.convolutions)

    def audio_tokens(self, feature_frames: int) -> int:
        """Positions in the language model, at least 1."""
        return audio_tokens(feature_frames, self.frame_stack, self.convolutions)


class WhisperFrontEnd(FrontEnd):
    """Whisper: log-mel frames of 10 ms, (n_mels, frames)."""

    def __init__(self, extractor: Any, frame_stack: int) -> None:
        super().__init__(extractor, frame_stack, WHISPER_CONVOLUTIONS)

    @property
    def channels(self) -> int:
        channels: int = self.extractor.feature_size
        return channels

    def features(self, waveform: Waveform, pad_to_window: bool = False) -> Features:
        return log_mel(self.extractor, waveform, pad_to_window)

    def feature_frames(self, n_samples: int, pad_to_window: bool = False) -> int:
        frames = mel_frames(n_samples)
        return WINDOW_FRAMES if pad_to_window else frames


def _refuse_window(pad_to_window: bool) -> None:
    if pad_to_window:
        raise ConfigError("pad_to_window: only Whisper's encoder is trained on clips padded to 30 s: leave it off, and pad_to_window_share at 0")


class WaveformFrontEnd(FrontEnd):
    """WavLM, HuBERT, wav2vec 2.0: the samples themselves, (1, samples), with zero mean and unit variance where the extractor says so.

    A clip that is too short for the encoder's convolutions is followed by zeros, after its mean and variance are taken.
    """

    channels = 1

    def features(self, waveform: Waveform, pad_to_window: bool = False) -> Features:
        features = np.zeros((1, self.feature_frames(len(waveform), pad_to_window)), dtype=np.float32)
        features[0, : len(waveform)] = self.extractor(waveform, sampling_rate=SAMPLE_RATE_HZ, return_tensors="np")["input_values"][0]
        return features

    def feature_frames(self, n_samples: int, pad_to_window: bool = False) -> int:
        check_samples(n_samples)
        _refuse_window(pad_to_window)
        return max(n_samples, receptive_field(self.convolutions))


_FBANK_SAMPLES = 400
"""One Kaldi frame: 25 ms."""
_FBANK_STACK = 2
"""Kaldi frames of 10 ms in one feature frame; also the fewest for which the variance per mel bin exists."""


class FbankFrontEnd(FrontEnd):
    """Wav2Vec2-BERT: two Kaldi mel frames side by side, (160, frames of 20 ms), normalised per mel bin over the clip. The encoder keeps their number.

    A clip of less than 560 samples is followed by zeros. An odd last Kaldi frame is left out: the stock extractor masks it.
    """

    def __init__(self, extractor: Any, frame_stack: int) -> None:
        super().__init__(extractor, frame_stack, ())

    @property
    def channels(self) -> int:
        channels: int = self.extractor.num_mel_bins * self.extractor.stride
        return channels

    def features(self, waveform: Waveform, pad_to_window: bool = False) -> Features:
        n_frames = self.feature_frames(len(waveform), pad_to_window)
        padded = np.zeros(max(len(waveform), _FBANK_SAMPLES + HOP_SAMPLES), dtype=np.float32)
        padded[: len(waveform)] = waveform
        features: Features = self.extractor(padded, sampling_rate=SAMPLE_RATE_HZ, return_tensors="np")["input_features"][0]
        return np.ascontiguousarray(features[:n_frames].T, dtype=np.float32)

    def feature_frames(self, n_samples: int, pad_to_window: bool = False) -> int:
        check_samples(n_samples)
        _refuse_window(pad_to_window)
        kaldi_frames = 1 + (max(n_samples, _FBANK_SAMPLES + HOP_SAMPLES) - _FBANK_SAMPLES) // HOP_SAMPLES
        return kaldi_frames // _FBANK_STACK


def build_front_end(extractor: Any, frame_stack: int, convolutions: Sequence[Sequence[int]] | None = None) -> FrontEnd:
    """The front end that belongs to a feature extractor.

    Args:
        extractor: of Whisper, wav2vec 2.0 (WavLM and HuBERT use it too), or SeamlessM4T (Wav2Vec2-BERT).
        frame_stack: encoder frames in one audio token.
        convolutions: (kernel, stride) of those at the encoder's entrance, for encoders of raw waveforms.

    Raises:
        ConfigError: a feature extractor of another kind, for another sampling rate, or without its encoder's convolutions.
    """
    if getattr(extractor, "sampling_rate", SAMPLE_RATE_HZ) != SAMPLE_RATE_HZ:
        raise ConfigError(f"the feature extractor is for {extractor.sampling_rate} Hz: only encoders of {SAMPLE_RATE_HZ} Hz can be grafted")
    if isinstance(extractor, WhisperFeatureExtractor):
        return WhisperFrontEnd(extractor, frame_stack)
    if isinstance(extractor, SeamlessM4TFeatureExtractor):
        return FbankFrontEnd(extractor, frame_stack)
    if not isinstance(extractor, Wav2Vec2FeatureExtractor):
        raise ConfigError(f"{type(extractor).__name__} is no front end that is supported: use an encoder of {', '.join(ENCODERS.values())}")
    if convolutions is None:
        raise ConfigError("a raw-waveform encoder needs encoder_convolutions in processor_config.json: graft it again")
    return WaveformFrontEnd(extractor, frame_stack, tuple(Convolution(*convolution) for convolution in convolutions))
