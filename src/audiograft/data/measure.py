"""What can be said of a clip from its samples alone: level, clipping, silence, and how far up its spectrum reaches."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from audiograft.audio import Waveform, is_silent
from audiograft.types import SAMPLE_RATE_HZ

_CLIPPED = 0.98
"""Resampling and lossy coding ripple the flat tops of a clipped wave by some percent."""
_QUIETEST_DBFS = -120.0

_FRAME_SAMPLES = 512
_BIN_HZ = SAMPLE_RATE_HZ / _FRAME_SAMPLES
_MAX_FRAMES = 600
"""Spread over the whole clip, these are enough for a mean, and hours cost as little as half a minute."""
_MIN_FRAMES = 16
_SMOOTH_BINS = 4
_BELOW_BINS = 12
_GAP_BINS = 12
"""A resampler's transition from pass to stop is some 300 Hz wide at these rates."""
_LOWEST_CLIFF_HZ = 2000.0
"""No speech was ever recorded with less than this, but a hum or a tone ends below it."""
_CLIFF_DB = 20.0
_HIGHEST_CLIFF_SHARE = 0.8
"""Of the band that the rate allows. Above it there is only what anti-aliasing filters take off anyway."""
_UPSAMPLED_SHARE = 2 / 3
"""Of that band: 11,025 Hz and less in a file of 16 kHz. MP3s of 24 kbit/s end above it, at 5.6 kHz and more, though they were never upsampled."""


@dataclass(frozen=True)
class Measured:
    """What was measured of one clip at 16 kHz.

    Attributes:
        duration_s: length, exact: samples / 16,000.
        peak: the largest absolute sample; 1.0 is full scale.
        rms_dbfs: root mean square against full scale in dB; -120 at the least.
        clipped_share: samples at 98 % of full scale or above, as a share of all.
        silent: no sample reaches half a step of 16-bit audio.
        bandwidth_hz: where the long-term spectrum falls off a cliff and stays down; half the rate where it never does.
        native_rate_hz: the rate at which it was stored.
    """

    duration_s: float
    peak: float
    rms_dbfs: float
    clipped_share: float
    silent: bool
    bandwidth_hz: float
    native_rate_hz: float

    @property
    def upsampled(self) -> bool:
        """Whether it was probably recorded at a lower rate than it is stored at: telephone speech in a file of 16 kHz, for instance."""
        return self.bandwidth_hz < _UPSAMPLED_SHARE * _band_hz(self.native_rate_hz)


def measure(waveform: Waveform, native_rate_hz: float | None = None) -> Measured:
    """Measure a clip.

    Args:
        waveform: float32 (n_samples,) at 16 kHz, at least one sample, as `load_audio` gives it.
        native_rate_hz: the rate at which it was stored; None means 16 kHz.
    """
    rate_hz = native_rate_hz or float(SAMPLE_RATE_HZ)
    peak = max(float(waveform.max()), -float(waveform.min()))
    power = float(np.dot(waveform, waveform)) / len(waveform)
    # Most clips never come near full scale, so most are not counted.
    n_clipped = int(np.count_nonzero(np.abs(waveform) >= _CLIPPED)) if peak >= _CLIPPED else 0
    return Measured(
        duration_s=len(waveform) / SAMPLE_RATE_HZ,
        peak=peak,
        rms_dbfs=max(_QUIETEST_DBFS, 10 * math.log10(power)) if power > 0 else _QUIETEST_DBFS,
        clipped_share=n_clipped / len(waveform),
        silent=is_silent(waveform),
        bandwidth_hz=_bandwidth_hz(waveform, rate_hz),
        native_rate_hz=rate_hz,
    )


def _band_hz(native_rate_hz: float) -> float:
    """The highest frequency that can be in a clip after it was brought to 16 kHz."""
    return min(native_rate_hz, SAMPLE_RATE_HZ) / 2


def _bandwidth_hz(waveform: Waveform, native_rate_hz: float) -> float:
    """The frequency of the deepest cliff in the spectrum, which is where a resampler or encoder cut it; else half the rate.

    A cliff is a place above which all is at least 20 dB below what there is just beneath it. Speech that merely has little high energy
    falls slowly, and noise of a room or microphone reaches to the end of the band, so neither has one.
    """
    band_hz = _band_hz(native_rate_hz)
    level_db = _spectrum_db(waveform)
    first, end = math.ceil(_LOWEST_CLIFF_HZ / _BIN_HZ), math.floor(_HIGHEST_CLIFF_SHARE * band_hz / _BIN_HZ)
    if level_db is None or first >= end:
        return band_hz
    edges = np.arange(first, end)
    beneath = np.lib.stride_tricks.sliding_window_view(level_db, _BELOW_BINS)[edges - _BELOW_BINS].mean(axis=1)
    above = np.maximum.accumulate(level_db[: math.ceil(band_hz / _BIN_HZ)][::-1])[::-1]
    drops_db = beneath - above[np.minimum(edges + _GAP_BINS, len(above) - 1)]
    deepest = int(np.argmax(drops_db))
    return float(edges[deepest] * _BIN_HZ) if drops_db[deepest] >= _CLIFF_DB else band_hz


def _spectrum_db(waveform: Waveform) -> npt.NDArray[np.float64] | None:
    """Long-term power spectrum (257,) in dB, smoothed over 125 Hz; None where the clip is silent or too short to tell."""
    n_frames = len(waveform) // _FRAME_SAMPLES
    if n_frames < _MIN_FRAMES or is_silent(waveform):
        return None
    frames = waveform[: n_frames * _FRAME_SAMPLES].reshape(n_frames, _FRAME_SAMPLES)[:: math.ceil(n_frames / _MAX_FRAMES)]
    spectra = np.fft.rfft(frames * np.hanning(_FRAME_SAMPLES).astype(np.float32))
    power = (spectra.real**2 + spectra.imag**2).mean(axis=0, dtype=np.float64)
    smooth = np.convolve(power, np.full(_SMOOTH_BINS, 1 / _SMOOTH_BINS), mode="same")
    return np.asarray(10 * np.log10(smooth + 1e-20), dtype=np.float64)
