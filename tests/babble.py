"""Sound that changes as speech does, without a voice: for tests of fingerprints."""

from __future__ import annotations

import numpy as np


def babble(seconds: float, seed: int) -> np.ndarray:
    """Syllables of 60 to 250 ms, each with its pitch, formants and level, (n_samples,) at 16 kHz."""
    rng = np.random.default_rng(seed)
    n_samples = int(seconds * 16_000)
    parts = []
    while sum(map(len, parts)) < n_samples:
        times = np.arange(int(rng.uniform(0.06, 0.25) * 16_000)) / 16_000
        pitch_hz = rng.uniform(90, 250) * (1 + rng.uniform(-0.3, 0.3) * times / times[-1])
        phase = 2 * np.pi * np.cumsum(pitch_hz) / 16_000
        formants_hz = rng.uniform((250, 800, 2000), (800, 2200, 3400))
        partials = np.arange(1, 20)[:, None]
        gains = sum(np.exp(-(((partials * pitch_hz.mean() - formant) / 150) ** 2)) for formant in formants_hz)
        voiced = (gains * np.sin(partials * phase)).sum(axis=0) + 0.05 * rng.standard_normal(len(times))
        parts.append(voiced * np.hanning(len(times)) * rng.uniform(0.03, 0.1))
    return np.concatenate(parts)[:n_samples].astype(np.float32)
