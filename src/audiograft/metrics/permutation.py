"""Paired permutation tests: does the model do better with the true audio than with somebody else's, and do two models differ?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Literal

import numpy as np
from scipy import stats

from audiograft.metrics.bootstrap import sum_by_unit
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
    return _sign_flips(differences, "less", permutations, seed)


def cluster_permutation(differences: Sequence[float], clusters: Sequence[str | None], permutations: int = 10_000, seed: int = 0) -> float:
    """Two-sided p-value that two systems differ, by random signs of the differences of whole clusters.

    Where the two are alike, all that a speaker said may as well be swapped between them, but not half of it, since one speaker's clips suit
    or do not suit a system together.

    Args:
        differences: of the two systems, one a clip (n,).
        clusters: of each clip; None is a cluster of its own.
        permutations: most swaps to try; fewer ways than that are all tried.
        seed: same seed, same value.

    Returns:
        The p-value. It can't be below `lowest_p`: four speakers prove nothing.
    """
    totals = sum_by_unit(clusters, np.asarray(differences, dtype=float)[:, None])[:, 0]
    # A cluster without a difference has no sign to flip; leaving it out changes no permutation and keeps the exact test in reach.
    differing = totals[totals != 0]
    return _sign_flips(differing, "two-sided", permutations, seed) if len(differing) > 1 else 1.0


def lowest_p(n_clusters: int) -> float:
    """The least that `cluster_permutation` can give, however many clips the clusters have: 2 of the 2**n swaps are as extreme as all one way."""
    return min(2.0 ** (1 - n_clusters), 1.0)


def fewest_clusters(alpha: float) -> int:
    """With fewer clusters no difference can be shown at that level, however large it is."""
    return next(n for n in count(1) if lowest_p(n) < alpha)


def _sign_flips(differences: np.ndarray, alternative: Literal["less", "two-sided"], permutations: int, seed: int) -> float:
    result = stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=permutations,
        batch=_BATCH,
        alternative=alternative,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)
