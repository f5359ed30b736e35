"""Training sounds made of other training sounds: played at a speed that changes, cut to pieces, in layers and one behind the other.

A detector that knows tones, bells and rain takes the next thing that it never heard, such as drops of water, for speech. Of all that could be told
from 27 kinds, pieces of them at other speeds and under other envelopes leave it little but what speech is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from audiograft.data.detection.waves import Array, Rng, log_uniform, slow

Maker = Callable[[int, Rng], Array]

_MAX_GLIDE_OCTAVES = 1.5
_MIN_PIECE_SAMPLES = 320
"""20 ms."""


def collages_of(makers: Mapping[str, Maker]) -> dict[str, Maker]:
    """Makers of collages whose parts are drawn from the makers given, by name."""
    parts = tuple(makers.values())

    def drawn(n: int, rng: Rng) -> Array:
        return _unit(parts[int(rng.integers(len(parts)))](n, rng))

    def glide(n: int, rng: Rng) -> Array:
        return _warped(drawn(2 * n, rng), n, rng)

    def piece(n: int, rng: Rng) -> Array:
        sound = glide(n, rng) if rng.random() < 0.5 else drawn(n, rng)
        return sound * _envelope(n, rng)

    def pieces(n: int, rng: Rng) -> Array:
        """Some of them, wherever they fall."""
        sound = 1e-3 * rng.standard_normal(n)
        for _ in range(int(rng.integers(1, 8))):
            length = int(np.clip(log_uniform(0.03, 0.6, rng) * n, _MIN_PIECE_SAMPLES, n))
            start = int(rng.integers(0, n - length + 1))
            sound[start : start + length] += log_uniform(0.2, 1, rng) * piece(length, rng)
        return sound

    def repeated(n: int, rng: Rng) -> Array:
        """One piece in a rhythm, each time a little different."""
        length = int(np.clip(log_uniform(0.04, 0.4, rng) * n, _MIN_PIECE_SAMPLES, n))
        one = piece(length, rng)
        sound = 1e-3 * rng.standard_normal(n)
        step = max(length // 2, int(length * rng.uniform(0.7, 2)))
        for start in range(int(rng.integers(0, step)), n, step):
            own = _warped(one, length, rng, octaves=0.3)[: n - start]
            sound[start : start + len(own)] += rng.uniform(0.3, 1) * own
        return sound

    def layers(n: int, rng: Rng) -> Array:
        return np.asarray(sum(log_uniform(0.1, 1, rng) * piece(n, rng) for _ in range(int(rng.integers(2, 5)))))

    return {"glides": glide, "pieces": pieces, "repeated": repeated, "layers": layers}


def _unit(sound: Array) -> Array:
    return np.asarray(sound / max(float(np.sqrt(np.mean(np.square(sound)))), 1e-9))


def _warped(sound: Array, n: int, rng: Rng, octaves: float = _MAX_GLIDE_OCTAVES) -> Array:
    """(n,) of a longer or equally long sound, played at a speed that changes: pitch, formants and rhythm go with it."""
    bend = rng.uniform(-octaves, octaves) * np.linspace(-0.5, 0.5, n) + 0.2 * octaves * slow(n, rng.uniform(1, 12), rng)
    place = np.cumsum(2**bend)
    # From its beginning to its end at most: what is played twice as fast would run out.
    place *= min(1.0, (len(sound) - 1) / place[-1]) if len(sound) > 1 else 0.0
    return np.asarray(np.interp(place, np.arange(len(sound)), sound))


def _envelope(n: int, rng: Rng) -> Array:
    """It comes and goes: at once or slowly, with or without a wobble."""
    place = np.linspace(0, 1, n)
    attack, fall = log_uniform(0.005, 0.5, rng), log_uniform(0.05, 3, rng)
    shape = np.minimum(place / attack, 1) * np.exp(-np.maximum(place - attack, 0) / fall) * np.minimum((1 - place) / 0.02, 1)
    wobble = 1 + rng.uniform(0, 0.6) * np.clip(slow(n, rng.uniform(2, 15), rng), -1.5, 1.5)
    return np.asarray(shape * wobble)
