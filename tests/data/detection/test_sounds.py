"""Synthetic sounds that are not speech."""

from __future__ import annotations

import numpy as np
import pytest

from audiograft.data.detection.sounds import DEV_KINDS, HELD_OUT_KINDS, KINDS, TRAINING_KINDS, kinds_of, make_sound
from audiograft.types import ConfigError


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_makes_a_sound_of_any_length(kind):
    for seed, n_samples in enumerate((320, 3200, 16_000)):
        sound = make_sound(kind, n_samples, np.random.default_rng(seed))
        assert sound.shape == (n_samples,)
        assert sound.dtype == np.float32
        assert np.sqrt(np.mean(np.square(sound, dtype=np.float64))) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_decides_the_sound_and_another_seed_makes_another(kind):
    first, again, other = (make_sound(kind, 8000, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.9


def test_no_kind_is_in_two_splits_and_all_are_in_one():
    splits = [set(kinds_of(split)) for split in ("train", "dev", "test")]
    assert sum(map(len, splits)) == len(set.union(*splits)) == len(KINDS)
    assert splits == [set(TRAINING_KINDS), set(DEV_KINDS), set(HELD_OUT_KINDS)]


def test_kinds_sound_different():
    """The spectra of a kind's sounds are closer to each other than to those of others, on the whole: kinds are no labels of one noise."""

    def spectrum(kind: str, seed: int) -> np.ndarray:
        power = np.abs(np.fft.rfft(make_sound(kind, 16_000, np.random.default_rng(seed)))[:8000]) ** 2
        bands = np.log10(power.reshape(40, 200).mean(axis=1) + 1e-9)
        return bands - bands.mean()

    kinds = ("brown-noise", "violet-noise", "hum", "crickets")
    spectra = {kind: [spectrum(kind, seed) for seed in range(8)] for kind in kinds}
    means = {kind: np.mean(rows, axis=0) for kind, rows in spectra.items()}
    right = [kind == min(kinds, key=lambda other: np.linalg.norm(row - means[other])) for kind, rows in spectra.items() for row in rows]
    assert np.mean(right) > 0.9


def test_an_unknown_kind_is_named():
    with pytest.raises(ConfigError, match="unknown kind of sound 'cat': use some of tone"):
        make_sound("cat", 100, np.random.default_rng(0))
