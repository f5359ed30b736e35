"""What sounds are made of: partials, bands, resonances, envelopes, and moments at random. (n_samples,) of float64 at 16 kHz."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import signal

from audiograft.types import SAMPLE_RATE_HZ

Array = npt.NDArray[np.floating[Any]]
Rng = np.random.Generator

NYQUIST_HZ = SAMPLE_RATE_HZ / 2
TOP_HZ = 0.95 * NYQUIST_HZ
"""Partials above are left out: they would fold back."""


def seconds_of(n: int) -> Array:
    return np.arange(n) / SAMPLE_RATE_HZ


def log_uniform(low: float, high: float, rng: Rng) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def white(n: int, rng: Rng) -> Array:
    return rng.standard_normal(n)


def slow(n: int, rate_hz: float, rng: Rng) -> Array:
    """A smooth random curve of unit deviation that turns about `rate_hz` times a second."""
    points = max(4, int(n / SAMPLE_RATE_HZ * rate_hz) + 3)
    return np.interp(np.arange(n), np.linspace(0, n, points), rng.standard_normal(points))


def phase_of(frequency_hz: Array) -> Array:
    return np.asarray(2 * np.pi * np.cumsum(frequency_hz) / SAMPLE_RATE_HZ)


def partials(frequency_hz: Array, gains: Array, rng: Rng, ratios: Array | None = None) -> Array:
    """Partials over a fundamental that may move: harmonics, or at other ratios."""
    multiples = np.arange(1.0, len(gains) + 1) if ratios is None else ratios
    phase = phase_of(frequency_hz)
    top_hz = float(np.max(frequency_hz))
    sound = np.zeros(len(frequency_hz))
    for ratio, gain in zip(multiples, gains, strict=True):
        if ratio * top_hz < TOP_HZ:
            sound += gain * np.sin(ratio * phase + rng.uniform(0, 2 * np.pi))
    return sound


def band(sound: Array, low_hz: float, high_hz: float, order: int = 2) -> Array:
    sections = signal.butter(order, [max(low_hz, 20.0), min(high_hz, TOP_HZ)], btype="bandpass", fs=SAMPLE_RATE_HZ, output="sos")
    return np.asarray(signal.sosfilt(sections, sound))


def resonance(sound: Array, frequency_hz: float, q: float) -> Array:
    frequency_hz = min(frequency_hz, TOP_HZ)
    # A band wider than all there is would make the filter unstable.
    b, a = signal.iirpeak(frequency_hz, max(q, 1.2 * frequency_hz / NYQUIST_HZ), fs=SAMPLE_RATE_HZ)
    return np.asarray(signal.lfilter(b, a, sound))


def coloured(sound: Array, rng: Rng) -> Array:
    """Through a random gentle filter: a tilt and a broad bump."""
    b, a = signal.butter(1, log_uniform(300, 5000, rng), btype="low" if rng.random() < 0.5 else "high", fs=SAMPLE_RATE_HZ)
    mix = rng.uniform(0.3, 1)
    tilted = mix * signal.lfilter(b, a, sound) + (1 - mix) * sound
    return np.asarray(tilted + rng.uniform(0, 1.5) * resonance(tilted, log_uniform(200, 6000, rng), rng.uniform(0.5, 3)))


def decay(n: int, start: int, time_s: float, attack_s: float = 0.001) -> Array:
    """An envelope that rises at `start` and falls by 1/e in `time_s`."""
    seconds = (np.arange(n) - start) / SAMPLE_RATE_HZ
    # Clipped, so that samples before the start don't overflow the exponential.
    behind = np.maximum(seconds, 0)
    return np.where(seconds >= 0, np.exp(-behind / time_s) * (1 - np.exp(-behind / attack_s)), 0.0)


def starts(n: int, rate_hz: float, rng: Rng) -> list[int]:
    """Random moments, at least one, of which some may lie before the clip."""
    before = int(0.1 * SAMPLE_RATE_HZ)
    number = max(1, int(rng.poisson((n + before) / SAMPLE_RATE_HZ * rate_hz)))
    return [int(start) for start in rng.integers(-before, max(1, int(0.8 * n)), size=number)]


def rhythm(n: int, period_s: float, share: float, rng: Rng, ramp_s: float = 0.005) -> Array:
    """On and off again, with ramps: a gate with a random place in its period."""
    place = (seconds_of(n) / period_s + rng.random()) % 1
    gate = (place < share).astype(np.float64)
    width = max(1, int(ramp_s * SAMPLE_RATE_HZ))
    return np.convolve(gate, np.hanning(width + 2)[1:-1] / np.hanning(width + 2)[1:-1].sum(), mode="same") + 1e-4
