"""Single effects on a waveform. All randomness comes from the generator that is handed in; lengths stay, unless said otherwise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import soxr
from scipy import signal

from audiograft.data.augment.activity import signal_to_noise_db
from audiograft.types import SAMPLE_RATE_HZ

Waveform = npt.NDArray[np.float32]

NOISE_COLOURS = {"white": 0.0, "pink": 1.0, "brown": 2.0, "blue": -1.0, "violet": -2.0}
"""Exponent e of each colour: power falls as 1 / f^e."""
TELEPHONE_HZ = (300.0, 3400.0)
"""Band of a telephone line, ITU-T G.712."""
_PEAK = 0.99
"""Largest magnitude left, so that nothing clips."""


def change_speed(waveform: Waveform, factor: float) -> Waveform:
    """Play a clip `factor` times faster: pitch and formants rise by it, and the clip gets shorter.

    Ko et al., "Audio augmentation for speech recognition" (Interspeech 2015), use 0.9, 1.0 and 1.1.
    """
    return np.asarray(soxr.resample(waveform, SAMPLE_RATE_HZ * factor, SAMPLE_RATE_HZ), dtype=np.float32)


def change_gain(waveform: Waveform, gain_db: float) -> Waveform:
    """Scale, then hold the peak below full scale."""
    return hold_peak(waveform * 10 ** (gain_db / 20))


def hold_peak(waveform: Waveform) -> Waveform:
    """Scale down where something would clip."""
    return np.asarray(waveform * min(1.0, _PEAK / max(float(np.max(np.abs(waveform))), 1e-9)), dtype=np.float32)


def limit_band(waveform: Waveform, low_hz: float, high_hz: float) -> Waveform:
    """Butterworth band-pass of order 4, as a telephone or a cheap microphone would."""
    sections = signal.butter(4, [low_hz, high_hz], btype="bandpass", fs=SAMPLE_RATE_HZ, output="sos")
    return np.asarray(signal.sosfilt(sections, waveform), dtype=np.float32)


def room_response(t60_s: float, direct_to_reverberant_db: float, rng: np.random.Generator) -> Waveform:
    """A synthetic room response: a direct path, and a tail of noise that decays by 60 dB in `t60_s`, exp(-3 ln(10) t / T60)."""
    length = max(1, round(t60_s * SAMPLE_RATE_HZ))
    seconds = np.arange(length) / SAMPLE_RATE_HZ
    tail = rng.standard_normal(length) * np.exp(-3 * np.log(10) * seconds / t60_s)
    tail *= 10 ** (-direct_to_reverberant_db / 20) / np.sqrt(np.sum(tail**2))
    tail[0] += 1.0
    return np.asarray(tail, dtype=np.float32)


def reverberate(waveform: Waveform, response: Waveform) -> Waveform:
    """Convolve with a room response, measured or synthetic. Its direct path, the loudest sample, moves nothing in time; RMS is kept."""
    direct = int(np.argmax(np.abs(response)))
    wet = signal.fftconvolve(waveform, response)[direct : direct + len(waveform)]
    scale = np.sqrt(np.mean(waveform**2)) / max(float(np.sqrt(np.mean(wet**2))), 1e-9)
    return np.asarray(wet * scale, dtype=np.float32)


def coloured_noise(n_samples: int, exponent: float, rng: np.random.Generator) -> Waveform:
    """Noise of unit RMS whose power falls as 1/f^exponent: 0 white, 1 pink, 2 brown."""
    spectrum = rng.standard_normal(n_samples // 2 + 1) + 1j * rng.standard_normal(n_samples // 2 + 1)
    frequency = np.maximum(np.arange(n_samples // 2 + 1, dtype=np.float64), 1.0)
    return _unit_rms(np.fft.irfft(spectrum / frequency ** (exponent / 2), n=n_samples))


def babble(talkers: Sequence[Waveform], n_samples: int, rng: np.random.Generator) -> Waveform:
    """Several clips at equal level on top of each other, each from a random place on, of unit RMS: (n_samples,)."""
    return _unit_rms(np.sum([_unit_rms(excerpt(talker, n_samples, rng)) for talker in talkers], axis=0))


def excerpt(noise: Waveform, n_samples: int, rng: np.random.Generator) -> Waveform:
    """So many samples of a recording, from a random place on; a short one goes round."""
    start = int(rng.integers(len(noise)))
    if start + n_samples <= len(noise):
        return noise[start : start + n_samples]
    return np.take(noise, np.arange(start, start + n_samples), mode="wrap")


def add_noise(waveform: Waveform, noise: Waveform, snr_db: float) -> tuple[Waveform, float]:
    """Add noise at a signal-to-noise ratio over the samples in which there is speech.

    Args:
        waveform: (n_samples,) of speech.
        noise: (n_samples,) at any level.
        snr_db: see `audiograft.data.augment.activity`.

    Returns:
        The mixture, and the ratio as it was measured on what was added. Without speech or without noise there is no ratio: the waveform comes
        back as it was, with NaN.
    """
    present_db = signal_to_noise_db(waveform, noise)
    if not np.isfinite(present_db):
        return waveform, float("nan")
    added = np.asarray(noise * 10 ** ((present_db - snr_db) / 20), dtype=np.float32)
    return waveform + added, signal_to_noise_db(waveform, added)


def _unit_rms(samples: npt.NDArray[np.floating]) -> Waveform:
    return np.asarray(samples / max(float(np.sqrt(np.mean(np.square(samples)))), 1e-9), dtype=np.float32)
