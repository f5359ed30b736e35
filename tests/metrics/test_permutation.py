"""The permutation test: exact values by hand, its level where nothing differs, its power where something does."""

from __future__ import annotations

import numpy as np
import pytest

from audiograft.metrics.permutation import permutation_p_value
from audiograft.types import AudiograftError


def test_few_clips_give_the_exact_value() -> None:
    assert permutation_p_value([1, 1, 1], [2, 2, 2]) == 1 / 8  # of the 8 ways to swap, only the one that was seen is this extreme
    assert permutation_p_value([1, 3], [2, 1]) == 3 / 4  # differences -1 and 2: sums 1, 3, -3, -1; three are 1 or less


def test_clear_separation_gives_the_smallest_value_and_never_zero() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(1, 0.1, 50)
    assert permutation_p_value(true, true + 1, permutations=999) == 1 / 1000


def test_it_is_one_sided() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(1, 0.1, 50)
    assert permutation_p_value(true + 1, true, permutations=999) == 1.0


def test_equal_losses_prove_nothing() -> None:
    assert permutation_p_value([1.0] * 30, [1.0] * 30) == 1.0


def test_pairing_finds_a_small_gain_that_the_spread_between_clips_hides() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(3, 2, 40)
    assert permutation_p_value(true, true + rng.normal(0.1, 0.1, 40), permutations=999) < 0.01


def test_without_a_difference_p_is_about_uniform() -> None:
    rng = np.random.default_rng(0)
    values = [permutation_p_value(rng.normal(size=30), rng.normal(size=30), permutations=199, seed=i) for i in range(200)]
    assert np.quantile(values, [0.1, 0.5, 0.9]) == pytest.approx([0.1, 0.5, 0.9], abs=0.1)
    assert np.mean(np.array(values) <= 0.05) <= 0.1


def test_the_same_seed_gives_the_same_value() -> None:
    rng = np.random.default_rng(0)
    true, shuffled = rng.normal(size=30), rng.normal(size=30)
    assert permutation_p_value(true, shuffled, seed=4) == permutation_p_value(true, shuffled, seed=4)
    assert permutation_p_value(true, shuffled, seed=4) != permutation_p_value(true, shuffled, seed=5)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_no_proof_but_an_error(loss: float) -> None:
    with pytest.raises(AudiograftError, match="^the loss of clip 1 is not finite: .*learning rate$"):
        permutation_p_value([1.0, 1.0, 1.0], [2.0, loss, 2.0])


@pytest.mark.parametrize(("true", "shuffled"), [([1.0], [2.0]), ([1.0, 1.0], [2.0, 2.0, 2.0])])
def test_one_clip_or_unequal_lengths_are_refused(true: list[float], shuffled: list[float]) -> None:
    with pytest.raises(ValueError, match="2 clips at least"):
        permutation_p_value(true, shuffled)
