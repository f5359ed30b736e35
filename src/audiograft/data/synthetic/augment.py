"""Augmentation of spoken sentences: other throats from the same voices, rooms, bands, noise and level."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from audiograft.data.augment.effects import add_noise, change_gain, change_speed, coloured_noise, limit_band, reverberate, room_response

Waveform = npt.NDArray[np.float32]

_SHIFT_RANGE = (0.82, 1.25)
_SNR_RANGE_DB = (5.0, 30.0)
_GAIN_RANGE_DB = (-25.0, 3.0)
_T60_RANGE_S = (0.1, 0.7)
_DIRECT_TO_REVERBERANT_DB = (0.0, 15.0)


def augment(waveform: Waveform, rng: np.random.Generator) -> tuple[Waveform, dict[str, float]]:
    """A random chain of effects.

    Returns:
        The new waveform and the parameters of what was done to it, for the manifest.
    """
    done: dict[str, float] = {}
    if rng.random() < 0.7:
        # Formants rise with the pitch: another throat from the same voice.
        done["voice_shift"] = round(float(rng.uniform(*_SHIFT_RANGE)), 4)
        waveform = change_speed(waveform, done["voice_shift"])
    if rng.random() < 0.4:
        done["t60_s"] = round(float(rng.uniform(*_T60_RANGE_S)), 4)
        done["direct_to_reverberant_db"] = round(float(rng.uniform(*_DIRECT_TO_REVERBERANT_DB)), 2)
        waveform = reverberate(waveform, room_response(done["t60_s"], done["direct_to_reverberant_db"], rng))
    if rng.random() < 0.3:
        done["low_hz"] = round(float(rng.uniform(50, 350)), 1)
        done["high_hz"] = round(float(rng.uniform(3000, 7500)), 1)
        waveform = limit_band(waveform, done["low_hz"], done["high_hz"])
    if rng.random() < 0.5:
        snr_db = float(rng.uniform(*_SNR_RANGE_DB))
        done["noise_exponent"] = round(float(rng.uniform(0, 2)), 2)
        waveform, measured_db = add_noise(waveform, coloured_noise(len(waveform), done["noise_exponent"], rng), snr_db)
        done["snr_db"] = round(measured_db, 2)
    done["gain_db"] = round(float(rng.uniform(*_GAIN_RANGE_DB)), 2)
    return change_gain(waveform, done["gain_db"]), done
