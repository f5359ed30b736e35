"""The one length function: samples -> mel frames -> encoder frames -> audio tokens.

Processor, model, collator and export all count with these, so that they can't disagree. Pure integers, no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

from audiograft.types import HOP_SAMPLES, WINDOW_FRAMES, WINDOW_SAMPLES


def mel_frames(n_samples: int) -> int:
    """Mel frames (10 ms) of a clip: ceil(n_samples / 160).

    Raises:
        ValueError: fewer than 1 sample, or more than one window of 30 s (480,000 samples).
    """
    if not 1 <= n_samples <= WINDOW_SAMPLES:
        raise ValueError(f"a chunk has 1 to {WINDOW_SAMPLES} samples, not {n_samples}: cut longer clips into chunks")
    return -(-n_samples // HOP_SAMPLES)


def encoder_frames(n_mel_frames: int) -> int:
    """Encoder frames (20 ms) after the tower's second convolution, of stride 2."""
    return -(-n_mel_frames // 2)


def audio_tokens(n_mel_frames: int, frame_stack: int) -> int:
    """Positions that a clip takes in the language model: ceil(encoder frames / frame_stack), at least 1."""
    return -(-encoder_frames(n_mel_frames) // frame_stack)


def chunk_mel_frames(n_samples: int, pad_to_window: bool) -> int:
    """Mel frames that the tower is given: those of the clip, or always 3000 where clips are padded to 30 s."""
    frames = mel_frames(n_samples)
    return WINDOW_FRAMES if pad_to_window else frames


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
