"""Where in a clip there is speech, and how loud it is there: the one definition behind every signal-to-noise ratio of this package.

ITU-T Recommendation P.56 (2011), method B: a smoothed envelope is compared with a threshold that lies 15.9 dB below the level of what it
selects, and what follows within 200 ms still counts. Pauses at both ends, or zeros that were padded on, change neither level nor ratio.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import signal

from audiograft.types import SAMPLE_RATE_HZ

Waveform = npt.NDArray[np.float32]

_TIME_CONSTANT_S = 0.03
_HANGOVER_S = 0.2
_MARGIN_DB = 15.9
_STEP_SAMPLES = 16
"""The envelope is looked at each millisecond; it can't change in less."""
_THRESHOLDS = 2.0 ** np.arange(-15, 1)
"""One for each bit of a 16-bit sample."""


def active_samples(waveform: Waveform) -> npt.NDArray[np.bool_]:
    """Which samples of (n_samples,) at 16 kHz count as speech; none of digital silence, or of what is quieter than one bit of 16."""
    envelope = _envelope(waveform)[::_STEP_SAMPLES]
    threshold = _threshold(envelope, float(np.sum(np.square(waveform, dtype=np.float64))) / _STEP_SAMPLES)
    if threshold is None:
        return np.zeros(len(waveform), dtype=np.bool_)
    return np.repeat(_held(envelope, threshold), _STEP_SAMPLES)[: len(waveform)]


def signal_to_noise_db(speech: Waveform, noise: Waveform) -> float:
    """Mean power of speech over mean power of noise, both over the samples in which there is speech.

    Args:
        speech: (n_samples,) without the noise.
        noise: (n_samples,) as it is added to it.

    Returns:
        Decibels; NaN where there is no speech, infinity where there is no noise.
    """
    active = active_samples(speech)
    if not active.any():
        return math.nan
    noise_power = _power(noise[active])
    return math.inf if noise_power == 0 else 10 * math.log10(_power(speech[active]) / noise_power)


def _power(samples: Waveform) -> float:
    return float(np.mean(np.square(samples, dtype=np.float64)))


def _envelope(waveform: Waveform) -> npt.NDArray[np.float64]:
    """P.56's q: the rectified signal, smoothed twice by the same exponential average."""
    keep = math.exp(-1 / (SAMPLE_RATE_HZ * _TIME_CONSTANT_S))
    smoothed = np.abs(waveform).astype(np.float64)
    for _ in range(2):
        smoothed = np.asarray(signal.lfilter([1 - keep], [1, -keep], smoothed))
    return smoothed


def _held(envelope: npt.NDArray[np.float64], threshold: float) -> npt.NDArray[np.bool_]:
    """Whether the envelope is at the threshold, or was within the hangover."""
    steps = np.arange(len(envelope))
    last = np.maximum.accumulate(np.where(envelope >= threshold, steps, -len(envelope) - SAMPLE_RATE_HZ))
    return np.asarray(steps - last <= _HANGOVER_S * SAMPLE_RATE_HZ / _STEP_SAMPLES)


def _threshold(envelope: npt.NDArray[np.float64], energy: float) -> float | None:
    """The threshold that lies the margin below the level of what it selects, between two powers of two by linear interpolation."""
    above: tuple[float, float] | None = None
    for threshold in _THRESHOLDS:
        n_active = int(_held(envelope, threshold).sum())
        if not n_active or not energy:
            break
        threshold_db = 20 * math.log10(threshold)
        excess_db = 10 * math.log10(energy / n_active) - threshold_db - _MARGIN_DB
        if excess_db <= 0:
            if above is None:
                return float(threshold)
            before_db, before_excess_db = above
            share = before_excess_db / (before_excess_db - excess_db)
            return float(10 ** ((before_db + share * (threshold_db - before_db)) / 20))
        above = (threshold_db, excess_db)
    return None if above is None else float(10 ** (above[0] / 20))
