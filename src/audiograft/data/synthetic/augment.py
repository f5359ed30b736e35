"""Augmentation of a waveform: voice (formant and pitch shift by resampling), reverberation, band limit, noise and gain.

Each effect is a function of (waveform, generator); `augment` draws which of them a clip gets. Reverberation uses an exponentially decaying
noise tail, exp(-3 ln(10) t / T60), the usual synthetic impulse response.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import signal

from audiograft.types import SAMPLE_RATE_HZ

Waveform = npt.NDArray[np.float32]

_SHIFT_RANGE = (0.82, 1.25)
_SNR_RANGE_DB = (5.0, 30.0)
_GAIN_RANGE_DB = (-25.0, 3.0)
_T60_RANGE_S = (0.1, 0.7)
_DIRECT_TO_REVERBERANT_DB = (0.0, 15.0)
_PEAK = 0.99
"""Largest magnitude left after augmentation, so that nothing clips."""


def shift_voice(waveform: Waveform, factor: float) -> Waveform:
    """Play the clip `factor` times faster: formants and pitch rise by it, the clip gets shorter. Another throat from the same voice."""
    import soxr

    return np.asarray(soxr.resample(waveform, SAMPLE_RATE_HZ * factor, SAMPLE_RATE_HZ), dtype=np.float32)


def reverberate(waveform: Waveform, t60_s: float, direct_to_reverberant_db: float, rng: np.random.Generator) -> Waveform:
    """Convolve with a synthetic room response; length and RMS are kept."""
    length = max(1, round(t60_s * SAMPLE_RATE_HZ))
    seconds = np.arange(length) / SAMPLE_RATE_HZ
    tail = rng.standard_normal(length) * np.exp(-3 * np.log(10) * seconds / t60_s)
    tail *= 10 ** (-direct_to_reverberant_db / 20) / np.sqrt(np.sum(tail**2))
    tail[0] += 1.0
    wet = signal.fftconvolve(waveform, tail)[: len(waveform)]
    scale = np.sqrt(np.mean(waveform**2)) / max(float(np.sqrt(np.mean(wet**2))), 1e-9)
    return np.asarray(wet * scale, dtype=np.float32)


def limit_band(waveform: Waveform, low_hz: float, high_hz: float) -> Waveform:
    """Butterworth band-pass of order 4, as a telephone or a cheap microphone would."""
    sections = signal.butter(4, [low_hz, high_hz], btype="bandpass", fs=SAMPLE_RATE_HZ, output="sos")
    return np.asarray(signal.sosfilt(sections, waveform), dtype=np.float32)


def coloured_noise(n_samples: int, exponent: float, rng: np.random.Generator) -> Waveform:
    """Noise of unit RMS whose power falls as 1/f^exponent: 0 white, 1 pink, 2 brown."""
    spectrum = rng.standard_normal(n_samples // 2 + 1) + 1j * rng.standard_normal(n_samples // 2 + 1)
    frequency = np.maximum(np.arange(n_samples // 2 + 1, dtype=np.float64), 1.0)
    noise = np.fft.irfft(spectrum / frequency ** (exponent / 2), n=n_samples)
    return np.asarray(noise / max(float(np.sqrt(np.mean(noise**2))), 1e-9), dtype=np.float32)


def add_noise(waveform: Waveform, snr_db: float, exponent: float, rng: np.random.Generator) -> Waveform:
    """Add coloured noise at a signal-to-noise ratio over the whole clip."""
    rms = float(np.sqrt(np.mean(waveform**2)))
    return np.asarray(waveform + coloured_noise(len(waveform), exponent, rng) * rms * 10 ** (-snr_db / 20), dtype=np.float32)


def change_gain(waveform: Waveform, gain_db: float) -> Waveform:
    """Scale, then hold the peak below full scale."""
    scaled = waveform * 10 ** (gain_db / 20)
    return np.asarray(scaled * min(1.0, _PEAK / max(float(np.max(np.abs(scaled))), 1e-9)), dtype=np.float32)


def augment(waveform: Waveform, rng: np.random.Generator) -> tuple[Waveform, dict[str, float]]:
    """A random chain of effects.

    Returns:
        The new waveform and the parameters of what was done to it, for the manifest.
    """
    done: dict[str, float] = {}
    if rng.random() < 0.7:
        done["voice_shift"] = round(float(rng.uniform(*_SHIFT_RANGE)), 4)
        waveform = shift_voice(waveform, done["voice_shift"])
    if rng.random() < 0.4:
        done["t60_s"] = round(float(rng.uniform(*_T60_RANGE_S)), 4)
        done["direct_to_reverberant_db"] = round(float(rng.uniform(*_DIRECT_TO_REVERBERANT_DB)), 2)
        waveform = reverberate(waveform, done["t60_s"], done["direct_to_reverberant_db"], rng)
    if rng.random() < 0.3:
        done["low_hz"] = round(float(rng.uniform(50, 350)), 1)
        done["high_hz"] = round(float(rng.uniform(3000, 7500)), 1)
        waveform = limit_band(waveform, done["low_hz"], done["high_hz"])
    if rng.random() < 0.5:
        done["snr_db"] = round(float(rng.uniform(*_SNR_RANGE_DB)), 2)
        done["noise_exponent"] = round(float(rng.uniform(0, 2)), 2)
        waveform = add_noise(waveform, done["snr_db"], done["noise_exponent"], rng)
    done["gain_db"] = round(float(rng.uniform(*_GAIN_RANGE_DB)), 2)
    return change_gain(waveform, done["gain_db"]), done
