"""Sound and noise at a stated ratio, and how loud the result is.

There is one signal-to-noise ratio here: mean power of the sound over mean power of the noise, both over the whole clip, which has no padding
around it. A container of zeros or of noise around a short clip would change the ratio by as much as 20 dB at 20 ms, and give its edges away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from audiograft.data.augment.effects import NOISE_COLOURS, coloured_noise
from audiograft.data.augment.effects import babble as mix_talkers
from audiograft.types import DataError

Waveform = npt.NDArray[np.float32]
Normalisation = Literal["rms-random", "peak", "none"]

NOISES = ("white", "pink", "brown", "babble")
"""What is mixed into clips of both classes. Babble is people talking, many at once: whether a clip of it holds speech is a matter of definition."""
TALKERS = (6, 12)
"""Voices in a babble, fewest and most: of fewer, single words can be understood."""
LEVEL_RANGE_DB = (-45.0, -25.0)
"""RMS of a clip in dBFS where it is drawn at random. The top leaves 25 dB for peaks."""
PEAK = 0.9 * 10 ** (-3 / 20)
"""Largest magnitude behind peak normalisation, as system C had it: 0.637."""
_LIMIT = 0.99
_FLOOR = 1e-7
"""RMS below which nothing is taken for a sound: less than a tenth of a bit of 16."""


@dataclass(frozen=True)
class Mixed:
    """A sound in noise.

    Attributes:
        waveform: (n_samples,) at 16 kHz.
        snr_db: as measured on what was added, over the whole clip.
    """

    waveform: Waveform
    snr_db: float


def rms(waveform: Waveform) -> float:
    """Root mean square of (n_samples,)."""
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))


def level_db(waveform: Waveform) -> float:
    """RMS in dBFS; minus infinity for zeros."""
    value = rms(waveform)
    return 20 * math.log10(value) if value > 0 else -math.inf


def mix(sound: Waveform, noise: Waveform, target_snr_db: float) -> Mixed:
    """Add noise to a sound.

    Args:
        sound: (n_samples,) of speech or of anything else.
        noise: (n_samples,) at any level.
        target_snr_db: wanted.

    Raises:
        DataError: the sound or the noise is silent, so that there is no ratio.
    """
    sound_rms, noise_rms = rms(sound), rms(noise)
    if min(sound_rms, noise_rms) < _FLOOR:
        raise DataError(f"the {'sound' if sound_rms < _FLOOR else 'noise'} is silent, so that no signal-to-noise ratio can be set: leave it out")
    added = np.asarray(noise * (sound_rms / noise_rms * 10 ** (-target_snr_db / 20)), dtype=np.float32)
    return Mixed(np.asarray(sound + added, dtype=np.float32), 20 * math.log10(sound_rms / rms(added)))


def make_noise(name: str, n_samples: int, talkers: Sequence[Waveform], rng: np.random.Generator) -> Waveform:
    """One of `NOISES`: (n_samples,) of unit RMS.

    Args:
        name: which.
        n_samples: its length.
        talkers: recordings of speech that babble is drawn from; other noises need none.
        rng: everything random comes from it.
    """
    if name != "babble":
        return coloured_noise(n_samples, NOISE_COLOURS[name], rng)
    number = int(rng.integers(TALKERS[0], TALKERS[1] + 1))
    return mix_talkers([talkers[int(rng.integers(len(talkers)))] for _ in range(number)], n_samples, rng)


def set_level(waveform: Waveform, normalisation: Normalisation, rng: np.random.Generator) -> tuple[Waveform, float, float]:
    """Make a clip as loud as it is to be.

    `rms-random` draws the RMS from `LEVEL_RANGE_DB`, for both classes alike, so that loudness tells nothing. Any gain leaves the signal-to-noise
    ratio as it is; what peak normalisation leaves behind is a level that follows the crest factor, and that is a cue.

    Returns:
        The clip, the gain in dB, and its level then: RMS in dBFS. Peaks above full scale are limited, and the RMS restored.
    """
    if normalisation == "none":
        gain = 1.0
    elif normalisation == "peak":
        gain = PEAK / max(float(np.max(np.abs(waveform))), _FLOOR)
    else:
        gain = 10 ** (float(rng.uniform(*LEVEL_RANGE_DB)) / 20) / max(rms(waveform), _FLOOR)
    wanted = rms(waveform) * gain
    scaled = np.asarray(waveform * gain, dtype=np.float32)
    while float(np.max(np.abs(scaled))) > _LIMIT:
        scaled = np.clip(scaled, -_LIMIT, _LIMIT)
        if normalisation != "rms-random" or rms(scaled) >= 0.999 * wanted:
            break
        scaled = np.asarray(scaled * (wanted / rms(scaled)), dtype=np.float32)
    return scaled, 20 * math.log10(gain), level_db(scaled)
