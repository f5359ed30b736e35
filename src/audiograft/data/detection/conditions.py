"""What a sound goes through before noise is added to it: a telephone, a filter, a room. The same for both classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import signal

from audiograft.data.augment.effects import TELEPHONE_HZ, reverberate, room_response
from audiograft.data.detection.grid import Slot
from audiograft.data.detection.mixing import rms
from audiograft.types import SAMPLE_RATE_HZ

Waveform = npt.NDArray[np.float32]

_LOW_HZ, _HIGH_HZ = TELEPHONE_HZ
_ORDER = 4
_FILTERS: Mapping[str, tuple[Literal["bandpass", "lowpass", "highpass"], float | Sequence[float]]] = {
    "telephone": ("bandpass", [_LOW_HZ, _HIGH_HZ]),
    "lowpass": ("lowpass", _HIGH_HZ),
    "highpass": ("highpass", _LOW_HZ),
}
"""Kinds of filter, and their corners in Hz."""
_DIRECT_TO_REVERBERANT_DB = (0.0, 10.0)
"""A talker across a table to one across a room."""
_LEAST_RMS = 1e-12


def apply_conditions(waveform: Waveform, slot: Slot, rng: np.random.Generator) -> Waveform:
    """Put a sound into the room of a slot, then through its band.

    Args:
        waveform: (n_samples,) at 16 kHz.
        slot: whose `t60_s` and `band` are taken.
        rng: of the room.

    Returns:
        (n_samples,) of the RMS that it had.
    """
    if slot.t60_s:
        direct_db = float(rng.uniform(*_DIRECT_TO_REVERBERANT_DB))
        waveform = reverberate(waveform, room_response(slot.t60_s, direct_db, rng))
    if slot.band == "none":
        return waveform
    limited = limit_band_zero_phase(waveform, slot.band)
    return np.asarray(limited * (rms(waveform) / max(rms(limited), _LEAST_RMS)), dtype=np.float32)


def limit_band_zero_phase(waveform: Waveform, band: str) -> Waveform:
    """Filter forwards and backwards by a Butterworth filter of order 4, so that nothing moves in time.

    Args:
        waveform: (n_samples,) at 16 kHz.
        band: telephone (300 to 3400 Hz), lowpass (up to 3400 Hz) or highpass (from 300 Hz).
    """
    kind, corners_hz = _FILTERS[band]
    sections = signal.butter(_ORDER, corners_hz, btype=kind, fs=SAMPLE_RATE_HZ, output="sos")
    return np.asarray(signal.sosfiltfilt(sections, waveform), dtype=np.float32)
