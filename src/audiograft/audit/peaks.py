"""The outline of a clip, for drawing its waveform."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from audiograft.audio import load_audio

N_PEAKS = 400
_QUIETEST = 1 / 256
"""A clip quieter than this, at full scale 1.0, is drawn as quiet as it is; noise below 8 bits is no outline."""
_CLIPS_KEPT = 2048


@dataclass(frozen=True)
class Peaks:
    """The outline of a clip.

    Attributes:
        peaks: 400 numbers from 0 to 255: the largest absolute sample of each 400th of the clip, of the loudest in the clip.
        duration_s: its length in seconds.
    """

    peaks: tuple[int, ...]
    duration_s: float

    def as_row(self) -> dict[str, Any]:
        """For JSON."""
        return {"peaks": list(self.peaks), "duration_s": self.duration_s}


@lru_cache(maxsize=_CLIPS_KEPT)
def clip_peaks(path: Path) -> Peaks:
    """Decode a clip and find its outline; the last clips are kept.

    Raises:
        AudioError: it can't be decoded.
    """
    clip = load_audio(path)
    starts = np.linspace(0, len(clip.waveform), N_PEAKS, endpoint=False).astype(np.int64)  # a short clip's samples stand for several parts
    peaks = np.maximum.reduceat(np.abs(clip.waveform), starts)
    scaled = np.round(255 * peaks / max(float(peaks.max()), _QUIETEST))
    return Peaks(tuple(int(peak) for peak in scaled), clip.duration_s)
