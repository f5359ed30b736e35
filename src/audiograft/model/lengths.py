"""The one length function: samples -> feature frames -> encoder frames -> audio tokens.

Processor, model, collator and export all count with these, so that they can't disagree. Pure integers, no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from audiograft.types import HOP_SAMPLES, WINDOW_SAMPLES


class Convolution(NamedTuple):
    """One convolution over time at an encoder's entrance: what it reads at once, its step, and its zeros at each end, in frames of its input."""

    kernel: int
    stride: int
    padding: int = 0


WHISPER_CONVOLUTIONS = (Convolution(3, 1, 1), Convolution(3, 2, 1))
"""Mel frames (10 ms) -> encoder frames (20 ms): ceil(frames / 2)."""


def check_samples(n_samples: int) -> None:
    """Raise `ValueError` for fewer than 1 sample, or more than one window of 30 s (480,000 samples)."""
    if not 1 <= n_samples <= WINDOW_SAMPLES:
        raise ValueError(f"a chunk has 1 to {WINDOW_SAMPLES} samples, not {n_samples}: cut longer clips into chunks")


def mel_frames(n_samples: int) -> int:
    """Mel frames (10 ms) of a clip: ceil(n_samples / 160).

    Raises:
        ValueError: fewer than 1 sample, or more than one window of 30 s (480,000 samples).
    """
    check_samples(n_samples)
    return -(-n_samples // HOP_SAMPLES)


def encoder_frames(n_feature_frames: int, convolutions: Sequence[Convolution] = WHISPER_CONVOLUTIONS) -> int:
    """Frames that leave an encoder with these convolutions at its entrance; Whisper's by default."""
    frames = n_feature_frames
    for kernel, stride, padding in convolutions:
        frames = (frames + 2 * padding - kernel) // stride + 1
    return frames


def audio_tokens(n_feature_frames: int, frame_stack: int, convolutions: Sequence[Convolution] = WHISPER_CONVOLUTIONS) -> int:
    """Positions that a clip takes in the language model: ceil(encoder frames / frame_stack), at least 1."""
    return -(-encoder_frames(n_feature_frames, convolutions) // frame_stack)


def receptive_field(convolutions: Sequence[Convolution]) -> int:
    """The fewest feature frames from which convolutions without padding give one encoder frame."""
    frames = 1
    for kernel, stride, _ in reversed(convolutions):
        frames = (frames - 1) * stride + kernel
    return frames


_SIMILAR = 1.15
"""Clips whose lengths differ by no more than this factor are encoded together: at most an eighth of the work is on pads."""


def similar_lengths(lengths: Sequence[int]) -> list[list[int]]:
    """Indices grouped so that the longest in a group is at most 1.15 times the shortest, shortest group first."""
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        if groups and lengths[index] <= _SIMILAR * lengths[groups[-1][0]]:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups
