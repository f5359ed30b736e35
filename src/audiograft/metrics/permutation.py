"""A paired permutation test: does the model do better with the true audio than with somebody else's?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from audiograft.types import AudiograftError

_BATCH = 500
"""Permutations held in memory at once."""


def permutation_p_value(
    true_losses: Sequence[float],
    shuffled_losses: Sequence[float],
    permutations: int = 10_000,
    seed: int = 0,
) -> float:
    """One-sided p-value that true audio gives a lower loss than shuffled audio, by random signs of the per-clip differences.

    Where the two are alike, each clip's pair may as well be swapped. Where there are no more than `permutations` ways to swap, SciPy tries
    them all and p is exact; else it draws them, and p is (b + 1) / (permutations + 1), where b counts draws at least as extreme. It is
    never 0, so that the test keeps its level (Phipson and Smyth 2010, "Permutation p-values should never be zero").

    Args:
        true_losses: one a clip (n,), n at least 2.
        shuffled_losses: of the same clips in the same order (n,).
        permutations: most swaps to try.
        seed: same seed, same value.

    Returns:
        The p-value; small means that the audio is used.

    Raises:
        AudiograftError: a loss is not finite; it would pass for a proof.
        ValueError: lengths differ, or fewer than 2 clips.
    """
    if len(true_losses) != len(shuffled_losses) or len(true_losses) < 2:
        raise ValueError(f"two losses a clip and 2 clips at least: got {len(true_losses)} true and {len(shuffled_losses)} shuffled")
    differences = np.asarray(true_losses, dtype=float) - np.asarray(shuffled_losses, dtype=float)
    if not np.isfinite(differences).all():
        clip = int(np.flatnonzero(~np.isfinite(differences))[0])
        raise AudiograftError(f"the loss of clip {clip} is not finite: the model has diverged; train again with a lower learning rate")
    result = stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=permutations,
        batch=_BATCH,
        alternative="less",
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)
