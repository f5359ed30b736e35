"""Samples as they come out of a decoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from audiograft.types import AudioError

Waveform = npt.NDArray[np.float32]
Block = tuple[float, Waveform]
"""(rate in Hz, mono samples at that rate)."""

BLOCK_SAMPLES = 1 << 20
"""Of all channels together: 22 s of mono at 48 kHz, so that most clips are one block."""


def to_mono(samples: npt.NDArray[Any]) -> Waveform:
    """Samples of any numeric type, (n, channels), as float32 (n,) at full scale 1.0."""
    if samples.dtype == np.float32 and samples.shape[1] == 1:
        return samples[:, 0]
    if samples.dtype.kind in "iu":
        half_range = 2.0 ** (8 * samples.dtype.itemsize - 1)
        samples = samples / half_range - (1.0 if samples.dtype.kind == "u" else 0.0)
    with np.errstate(over="ignore", invalid="ignore"):  # what doesn't fit becomes infinite and is refused as such
        return np.asarray(samples.mean(axis=1), dtype=np.float32)


def cut_off(name: str, stated_s: float | None) -> AudioError:
    """The error for a clip that is shorter than its header states, where that is known."""
    stated = "" if stated_s is None else f" before the end of its {stated_s:.2f} s"
    return AudioError(f"{name}: damaged or cut off{stated}: copy or record it again")
